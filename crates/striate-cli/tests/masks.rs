//! Mask R-CNN from COCO json with shapes to `train` and `predict`.

mod common;

use common::{Run, run, run_with};
use serde_json::{Value, json};
use std::path::Path;
use striate::vision::data::{Image, encode_png};
use striate::vision::detection::{Mask, Rle};

const SIDE: usize = 64;
/// Two steps, with a checkpoint between them; no averages beside the many weights.
const SHORT: [&str; 20] = [
    "--model",
    "maskrcnn_resnet50_fpn",
    "--imgsz",
    "64",
    "--epochs",
    "1",
    "--batch",
    "2",
    "--copy-paste",
    "1",
    "--mosaic",
    "0.5",
    "--checkpoint-steps",
    "1",
    "--optimizer",
    "sgd",
    "--lr",
    "0.001",
    "--ema",
    "0",
];

/// Which boxes have a shape.
#[derive(Clone, Copy, PartialEq)]
enum Shapes {
    All,
    Some,
    None,
}

/// Pictures with a disc and a triangle, the disc as RLE and the triangle as a polygon: four to train on, two for val.
struct Set(tempfile::TempDir);

impl Set {
    fn new(shapes: Shapes) -> Set {
        let set = Set(tempfile::tempdir().unwrap());
        for (part, count) in [("train", 4), ("val", 2)] {
            set.write_part(part, count, shapes);
        }
        set
    }

    fn write_part(&self, part: &str, count: usize, shapes: Shapes) {
        let folder = self.0.path().join("data").join(part);
        std::fs::create_dir_all(&folder).unwrap();
        let (mut images, mut annotations) = (Vec::new(), Vec::new());
        for index in 0..count {
            let mut image = Image::filled(SIDE, SIDE, &[90, 100, 110]);
            let (x, y) = (16 + 3 * index, 20 + 2 * index);
            let disc =
                Mask::of([SIDE; 2], [0, 0, SIDE, SIDE], |px, py| px.abs_diff(x).pow(2) + py.abs_diff(y).pow(2) < 144);
            disc.pixels().for_each(|[x, y]| image.data[3 * (y * SIDE + x)..][..3].copy_from_slice(&[220, 30, 30]));
            for row in 0..20 {
                let at = 3 * ((40 + row) * SIDE + 36);
                image.data[at..at + 3 * row].iter_mut().for_each(|byte| *byte = 240);
            }
            std::fs::write(folder.join(format!("{index}.png")), encode_png(&image).unwrap()).unwrap();
            images.push(json!({"id": index, "file_name": format!("{index}.png"), "width": SIDE, "height": SIDE}));
            let round = json!({"id": 2 * index + 1, "image_id": index, "category_id": 1, "bbox": [x - 11, y - 11, 23, 23],
                "segmentation": disc.to_rle()});
            let pointed = json!({"id": 2 * index + 2, "image_id": index, "category_id": 2, "bbox": [36, 40, 20, 20],
                "segmentation": [[36, 40, 56, 60, 36, 60]]});
            annotations.extend([round, pointed]);
        }
        for annotation in &mut annotations {
            // One of another size than its picture, or none at all.
            if shapes == Shapes::Some && annotation["id"] == 3 {
                annotation["segmentation"] = json!(Mask::of([9, 9], [0, 0, 9, 9], |_, _| true).to_rle());
            } else if shapes == Shapes::None {
                annotation["segmentation"] = json!([]);
            }
        }
        let categories = json!([{"id": 1, "name": "disc"}, {"id": 2, "name": "triangle"}]);
        let file = json!({"images": images, "annotations": annotations, "categories": categories});
        std::fs::write(folder.join("instances.json"), file.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn train_args(&self, name: &str, more: &[&str]) -> Vec<String> {
        let (data, project) = (self.path("data"), self.path("runs"));
        let args = ["train", &data, "--project", &project, "--name", name, "--plain"];
        args.iter().chain(&SHORT).chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn train(&self, name: &str, more: &[&str]) -> Run {
        let args = self.train_args(name, more);
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn read(&self, run: &str, file: &str) -> Vec<u8> {
        let path = Path::new(&self.path("runs")).join(run).join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

#[test]
fn masks_are_learnt_the_same_bits_and_predicted_as_rle() {
    let set = Set::new(Shapes::Some);
    let done = set.train("whole", &["--threads", "2", "--workers", "2"]).ok();
    assert!(
        done.stdout.contains("2 × shape that cannot be used")
            && done.stdout.contains("annotation 3: it is a mask of 9x9")
    );
    assert!(done.stdout.contains("1 of 8 boxes have no shape"), "{}", done.stdout);
    let table = String::from_utf8(set.read("whole", "results.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    let column = rows[0].iter().position(|name| *name == "train/mask_loss").expect("no column train/mask_loss");
    let loss: f64 = rows[1][column].parse().unwrap();
    assert!(loss.is_finite() && loss > 0.01, "{loss}");

    let args = set.train_args("killed", &["--threads", "1", "--workers", "0"]);
    let killed =
        run_with(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[("STRIATE_FAIL_AT", "2:before-rename")]);
    assert_eq!(killed.code, None, "{}", killed.stderr);
    run(&["train", "--resume", &set.path("runs/killed"), "--plain"]).ok();
    assert!(set.read("killed", "weights/last.safetensors") == set.read("whole", "weights/last.safetensors"));

    predict_tells_masks(&set);
}

/// Of a net that has learnt next to nothing, what is told is as well formed as of any other.
fn predict_tells_masks(set: &Set) {
    let mut wide = Image::filled(90, 40, &[200, 60, 60]);
    wide.data[..900].fill(10);
    std::fs::write(set.path("wide.png"), encode_png(&wide).unwrap()).unwrap();
    let (model, picture, out) = (set.path("runs/whole"), set.path("wide.png"), set.path("out"));
    let said = run(&["predict", &model, &picture, "--json", "--conf", "0", "--output", &out]).ok();
    let told: Value = serde_json::from_str(said.stdout.trim()).unwrap();
    let boxes = told["boxes"].as_array().unwrap();
    assert!(!boxes.is_empty(), "{told}");
    let mut pixels = 0;
    for found in boxes {
        assert!(found["segmentation"]["counts"].is_string(), "compressed: {found}");
        let mask = Mask::of_rle(&serde_json::from_value::<Rle>(found["segmentation"].clone()).unwrap()).unwrap();
        assert_eq!(mask.size(), [40, 90]);
        let corners: Vec<f64> = found["xyxy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        // A mask fades within a fourteenth of its box beyond it.
        let near = |v: usize, axis: usize| {
            let (low, high) = (corners[axis], corners[axis + 2]);
            let more = (high - low) / 28.0 + 1.5;
            v as f64 >= low - more && v as f64 <= high + more
        };
        assert!(mask.pixels().all(|[x, y]| near(x, 0) && near(y, 1)), "{found}");
        pixels += mask.area();
    }
    assert!(pixels > 0);
    let drawn = Image::open(set.path("out/wide.jpg")).unwrap();
    assert_eq!((drawn.width, drawn.height), (90, 40));
}

#[test]
fn without_any_shape_it_says_what_is_missing() {
    let set = Set::new(Shapes::None);
    set.train("no", &[])
        .fails(3, &["maskrcnn_resnet50_fpn", "none of the 8 boxes", "`segmentation`", "fasterrcnn_resnet50_fpn"]);
    assert!(!Path::new(&set.path("runs/no")).exists());
}

#[test]
fn with_all_shapes_nothing_is_told_of_them() {
    let set = Set::new(Shapes::All);
    let source = striate::vision::data::open_dataset(&set.path("data")).unwrap();
    assert!(source.notes.iter().all(|note| !note.contains("shape")), "{:?}", source.notes);
    let train = source.train.unwrap();
    let things = train.boxes(0).unwrap();
    let [disc, triangle] = [0, 1].map(|class| things.iter().find(|thing| thing.class == class).unwrap());
    assert_eq!(triangle.mask([SIDE; 2]).unwrap().area(), (0..20).sum::<usize>());
    assert!((disc.mask([SIDE; 2]).unwrap().area() as f64 - std::f64::consts::PI * 144.0).abs() < 20.0);
}
