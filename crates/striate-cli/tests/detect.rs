//! Detectors from files with boxes to `train`, `val` and `predict`.

mod common;

use common::{Run, run, run_with};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use striate::graph::Array;
use striate::io::onnx::{OnnxModel, OnnxSession};
use striate::io::{read_safetensors, write_safetensors};
use striate::vision::data::{Image, encode_png};
use striate::vision::models::find_model;

const SIDE: usize = 64;
/// Small pictures, several sizes of batches, mosaics, pictures mixed and pasted, an average of weights, threaded loading, a checkpoint
/// every second step.
const HARD: [&str; 24] = [
    "--model",
    "striate_det_n",
    "--imgsz",
    "64",
    "--epochs",
    "3",
    "--batch",
    "4",
    "--mosaic",
    "0.7",
    "--mixup",
    "0.3",
    "--copy-paste",
    "0.5",
    "--close-mosaic",
    "1",
    "--multi-scale",
    "3",
    "--checkpoint-steps",
    "2",
    "--workers",
    "2",
    "--threads",
    "2",
];

/// Pictures of red and blue rectangles on noise, and a table of them; one box has no area.
struct Set(tempfile::TempDir);

impl Set {
    fn new() -> Set {
        Set::named(["red", "blue"])
    }

    /// What the rectangles are called.
    fn named(names: [&str; 2]) -> Set {
        let set = Set(tempfile::tempdir().unwrap());
        std::fs::create_dir(set.path("data")).unwrap();
        let mut table = "path,x1,y1,x2,y2,class,split\n".to_owned();
        let mut state = 7u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below
        };
        for index in 0..24 {
            let split = ["train", "train", "train", "train", "val", "test"][index / 4];
            let mut image = Image::filled(SIDE, SIDE, &[0; 3]);
            image.data.iter_mut().for_each(|byte| *byte = 90 + next(40) as u8);
            for (class, name) in names.into_iter().enumerate() {
                let (w, h) = (14 + next(12), 14 + next(12));
                let (x, y) = (32 * class + next(32 - w.min(31)), next(SIDE - h));
                for (row, column) in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (row, column))) {
                    let color = if class == 0 { [220, 30, 30] } else { [30, 30, 220] };
                    image.data[3 * (row * SIDE + column)..][..3].copy_from_slice(&color);
                }
                table += &format!("{index}.png,{x},{y},{},{},{name},{split}\n", x + w, y + h);
            }
            std::fs::write(Path::new(&set.path("data")).join(format!("{index}.png")), encode_png(&image).unwrap())
                .unwrap();
        }
        table += &format!("3.png,5,5,5,20,{},train\n", names[0]);
        std::fs::write(Path::new(&set.path("data")).join("boxes.csv"), table).unwrap();
        set
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join("runs").join(name)
    }

    fn train_args(&self, name: &str, more: &[&str]) -> Vec<String> {
        let (data, project) = (self.path("data"), self.path("runs"));
        let args = ["train", &data, "--project", &project, "--name", name, "--plain"];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn train(&self, name: &str, more: &[&str]) -> Run {
        let args = self.train_args(name, more);
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn read(&self, run: &str, file: &str) -> Vec<u8> {
        let path = self.folder(run).join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// `results.csv` without the seconds.
    fn results(&self, run: &str) -> Vec<String> {
        let text = String::from_utf8(self.read(run, "results.csv")).unwrap();
        text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
    }

    #[track_caller]
    fn assert_same(&self, name: &str, whole: &str) {
        for file in ["weights/last.safetensors", "weights/best.safetensors"] {
            assert!(self.read(name, file) == self.read(whole, file), "{name}: {file} is another");
        }
        assert_eq!(self.results(name), self.results(whole), "{name}");
    }
}

#[test]
fn a_run_has_the_columns_pictures_and_figures_that_people_look_for() {
    let set = Set::new();
    let done = set.train("run", &["--model", "striate_det_n", "--imgsz", "64", "--epochs", "2", "--batch", "4"]).ok();
    assert!(done.stdout.contains("1 × box without area, left out"), "{}", done.stdout);
    assert!(done.stdout.contains("boxes.csv line"), "which box is not told: {}", done.stdout);
    let head = set.results("run").remove(0);
    let wanted = "epoch,step,train_loss,train/box_loss,train/cls_loss,train/dfl_loss,metrics/mAP50(B),metrics/mAP50-95(B),lr,best";
    assert_eq!(head, wanted);
    for file in ["train_batch.jpg", "PR_curve.svg", "F1_curve.svg", "confusion_matrix.svg", "report.html"] {
        assert!(!set.read("run", file).is_empty(), "{file}");
    }
    let sheet = Image::open(set.folder("run").join("train_batch.jpg")).unwrap();
    assert_eq!((sheet.width, sheet.height), (2 * SIDE, 2 * SIDE));
    let metrics: Value = serde_json::from_slice(&set.read("run", "metrics.json")).unwrap();
    assert_eq!((&metrics["split"], &metrics["images"]), (&"test".into(), &4.into()));
    assert!(metrics["mAP50"].is_number() && metrics["mAP50_95"].is_number() && metrics.get("loss").is_none());
    let names: Vec<&Value> = metrics["classes"].as_array().unwrap().iter().map(|class| &class["name"]).collect();
    assert_eq!(names, ["blue", "red"]);

    let folder = set.folder("run");
    let folder = folder.to_str().unwrap();
    let judged = run(&["val", folder, "--json"]).ok();
    let judged: Value = serde_json::from_str(&judged.stdout).unwrap();
    assert_eq!((&judged["mAP50"], &judged["split"]), (&metrics["mAP50"], &metrics["split"]));
    let other = run(&["val", folder, &set.path("data"), "--split", "val", "--json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&other.stdout).unwrap()["images"], 4);
}

#[test]
fn it_learns_and_predict_tells_draws_and_saves_boxes() {
    let set = Set::new();
    let more = ["--model", "striate_det_n", "--imgsz", "64", "--epochs", "50", "--batch", "4", "--augment", "flip"];
    set.train("run", &more).ok();
    let metrics: Value = serde_json::from_slice(&set.read("run", "metrics.json")).unwrap();
    assert!(metrics["mAP50"].as_f64().unwrap() > 0.5, "{metrics}");
    let (folder, out) = (set.folder("run"), set.path("out"));
    let pattern = set.path("data/2?.png");
    let args = ["predict", folder.to_str().unwrap(), &pattern, "--json", "--output", &out, "--save-txt", "--save-crop"];
    let done = run(&args).ok();
    let lines: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let mut boxes = 0;
    for line in &lines {
        assert_eq!(line.as_object().unwrap().len(), 2, "{line}");
        let stem = Path::new(line["path"].as_str().unwrap()).file_stem().unwrap().to_str().unwrap();
        assert!(Path::new(&out).join(format!("{stem}.jpg")).is_file());
        let found = line["boxes"].as_array().unwrap();
        let text = std::fs::read_to_string(Path::new(&out).join(format!("{stem}.txt"))).unwrap();
        assert_eq!(text.lines().count(), found.len());
        for one in found {
            let index = one["index"].as_u64().unwrap() as usize;
            assert_eq!(one["name"], ["blue", "red"][index]);
            let corners: Vec<f64> = one["xyxy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert!(corners.iter().all(|v| (0.0..=SIDE as f64).contains(v)) && corners[0] < corners[2], "{one}");
            assert!(one["score"].as_f64().unwrap() >= 0.25);
            boxes += 1;
        }
    }
    assert!(boxes >= 4, "{boxes}");
    assert!(Path::new(&out).join("crops/red").is_dir() || Path::new(&out).join("crops/blue").is_dir());
    exported_finds_the_same(&set, folder.to_str().unwrap(), &lines);
    exported_is_a_model(&set, folder.to_str().unwrap());
}

/// What `predict` tells of pictures.
fn predicted(model: &str, pictures: &[&str]) -> Vec<Value> {
    let done = run(&[&["predict", model, "--json", "--conf", "0.1"], pictures].concat()).ok();
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same boxes, each to a hundredth of a pixel.
#[track_caller]
fn assert_same_boxes(found: &[Value], wanted: &[Value]) {
    assert_eq!(found.len(), wanted.len());
    let boxes = |line: &Value| line["boxes"].as_array().unwrap().clone();
    assert!(wanted.iter().map(|line| boxes(line).len()).sum::<usize>() >= 4, "{wanted:?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(boxes(found).len(), boxes(wanted).len(), "{found} {wanted}");
        for (found, wanted) in boxes(found).iter().zip(boxes(wanted)) {
            let apart = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
            assert_eq!((&found["index"], &found["name"]), (&wanted["index"], &wanted["name"]));
            assert!(apart(&found["score"], &wanted["score"]) < 1e-5, "{found} {wanted}");
            assert!((0..4).all(|axis| apart(&found["xyxy"][axis], &wanted["xyxy"][axis]) < 1e-2), "{found} {wanted}");
        }
    }
}

/// What `val` says of a model on the set.
fn judged(set: &Set, model: &str) -> Value {
    serde_json::from_str(&run(&["val", model, &set.path("data"), "--json"]).ok().stdout).unwrap()
}

#[track_caller]
fn assert_same_figures(found: &Value, wanted: &Value) {
    assert_eq!((&found["split"], &found["images"]), (&wanted["split"], &wanted["images"]));
    for figure in ["mAP50", "mAP50_95"] {
        let [a, b] = [found, wanted].map(|metrics| metrics[figure].as_f64().unwrap());
        assert!((a - b).abs() < 1e-6, "{figure}: {a} {b}");
    }
}

/// The exported run, with its boxes chosen inside and not, and on bytes, as MODEL of `predict` and `val`.
fn exported_is_a_model(set: &Set, folder: &str) {
    // One picture is wider than the net's square, and of another size.
    let small = Image::open(set.path("data/20.png")).unwrap();
    let mut wide = Image::filled(150, 2 * SIDE, &[110; 3]);
    for (y, x) in (0..2 * SIDE).flat_map(|y| (0..2 * SIDE).map(move |x| (y, x))) {
        let from = 3 * (y / 2 * SIDE + x / 2);
        wide.data[3 * (y * 150 + x)..][..3].copy_from_slice(&small.data[from..from + 3]);
    }
    let picture = set.path("wide.png");
    std::fs::write(&picture, encode_png(&wide).unwrap()).unwrap();
    let pictures = [set.path("data/20.png"), set.path("data/21.png"), picture];
    let pictures = pictures.each_ref().map(String::as_str);
    let wanted = predicted(folder, &pictures);
    let of_run = judged(set, folder);
    for flags in [&[][..], &["--nms"], &["--with-preprocessing"], &["--nms", "--with-preprocessing"]] {
        let path = set.path("model.onnx");
        run(&[&["export", folder, &path], flags].concat()).ok();
        assert_same_boxes(&predicted(&path, &pictures), &wanted);
        assert_same_figures(&judged(set, &path), &of_run);
    }
    run(&["predict", &set.path("model.onnx"), pictures[0], "--resize", "32"]).fails(2, &["resized whole"]);
}

/// The run as an ONNX model, on the bytes of the pictures, tells the boxes that `predict` told.
fn exported_finds_the_same(set: &Set, folder: &str, lines: &[Value]) {
    let path = set.path("net.onnx");
    run(&["export", folder, &path, "--nms", "--with-preprocessing"]).ok();
    let model = OnnxModel::open(path.as_ref()).unwrap();
    let names: Vec<String> = serde_json::from_str(&model.metadata()["class_names"]).unwrap();
    assert_eq!(names, ["blue", "red"]);
    let mut session = OnnxSession::new(Arc::new(model));
    for line in lines {
        let image = Image::open(line["path"].as_str().unwrap()).unwrap();
        let found = session.run(&[&Array::from_vec([1, SIDE, SIDE, 3], image.data).unwrap()]).unwrap();
        let [boxes, scores, labels] = [0, 1, 2].map(|output: usize| found[output].to_f64_vec());
        let told = line["boxes"].as_array().unwrap();
        assert_eq!(scores.iter().filter(|score| **score >= 0.25).count(), told.len());
        for (place, one) in told.iter().enumerate() {
            assert_eq!(labels[place], one["index"].as_f64().unwrap());
            assert!((scores[place] - one["score"].as_f64().unwrap()).abs() < 1e-5, "{one}");
            let apart = |axis: usize| (boxes[4 * place + axis] - one["xyxy"][axis].as_f64().unwrap()).abs();
            assert!((0..4).all(|axis| apart(axis) < 1e-2), "{one}");
        }
    }
}

#[test]
fn threads_and_workers_change_no_bit_and_killed_it_resumes_to_the_same() {
    let set = Set::new();
    set.train("whole", &HARD).ok();
    let other = [&HARD[..20], &["--workers", "0", "--threads", "1"]].concat();
    set.train("one", &other).ok();
    set.assert_same("one", "whole");
    for point in ["1:before-rename", "3:wrote", "5:after-rename"] {
        let name = format!("fail-{}", &point[..1]);
        let args = set.train_args(&name, &HARD);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let killed = run_with(&args, &[("STRIATE_FAIL_AT", point)]);
        assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
        run(&["train", "--resume", set.folder(&name).to_str().unwrap(), "--plain"]).ok();
        set.assert_same(&name, "whole");
    }
}

#[test]
fn detectors_of_torchvision_are_trained_too_and_what_cannot_be_is_refused() {
    let set = Set::new();
    let short = ["--epochs", "1", "--batch", "2", "--imgsz", "64"];
    set.train("ssd", &[&["--model", "ssdlite320_mobilenet_v3_large"], &short[..]].concat()).ok();
    assert!(
        set.results("ssd")[0].contains("train/box_loss,train/cls_loss,metrics/mAP50(B)"),
        "{:?}",
        set.results("ssd")
    );
    set.train("rcnn", &[&["--model", "fasterrcnn_mobilenet_v3_large_320_fpn"], &short[..]].concat()).ok();
    let columns = "train/cls_loss,train/box_loss,train/objectness_loss,train/rpn_box_reg_loss,metrics/mAP50(B)";
    assert!(set.results("rcnn")[0].contains(columns), "{:?}", set.results("rcnn"));
    let folder = set.folder("rcnn");
    let (folder, path) = (folder.to_str().unwrap(), set.path("rcnn.onnx"));
    for flags in [&[][..], &["--nms"]] {
        run(&[&["export", folder, &path], flags].concat()).ok();
        assert_same_figures(&judged(&set, &path), &judged(&set, folder));
    }
    let refused = |more: &[&str], parts: &[&str]| set.train("no", more).fails(2, parts);
    refused(&["--model", "resnet18"], &["boxes", "striate_det_n"]);
    refused(&["--model", "striate_det_x"], &["did you mean `striate_det_"]);
    refused(&["--mosaic", "1.5"], &["mosaic", "1.5"]);
    refused(&["--multi-scale", "0"], &["--multi-scale"]);
    refused(&["--freeze", "backbone"], &["--freeze", "--weights"]);
}

/// Arrays of a run's best weights, those that others go on from.
fn arrays(set: &Set, run: &str) -> BTreeMap<String, Array> {
    let path = set.folder(run).join("weights/best.safetensors");
    read_safetensors(&path).unwrap().arrays.into_iter().collect()
}

const SHORT: [&str; 6] = ["--epochs", "2", "--batch", "4", "--imgsz", "64"];

#[test]
fn it_goes_on_from_a_run_with_other_classes() {
    let base = Set::new();
    base.train("base", &[&["--model", "striate_det_n"], &SHORT[..]].concat()).ok();
    let set = Set::named(["thing", "thing"]);
    let folder = base.folder("base").to_str().unwrap().to_owned();
    let done = set.train("tuned", &[&["--weights", &folder, "--freeze", "backbone"], &SHORT[..]].concat()).ok();
    for part in [
        "striate_det_n (",
        "replaced and initialised: head.classes.values.weight",
        "frozen: the backbone, ",
        "begins with neck",
    ] {
        assert!(done.stdout.contains(part), "`{part}` is not in: {}", done.stdout);
    }
    let (from, to) = (arrays(&base, "base"), arrays(&set, "tuned"));
    assert_eq!(from.len(), to.len());
    let of = |start: &'static str| to.iter().filter(move |(name, _)| name.starts_with(start));
    // Statistics of its norms too.
    assert!(of("backbone.").any(|(name, _)| name.ends_with("running_var")));
    of("backbone.").for_each(|(name, array)| assert!(array.bits_eq(&from[name]), "{name}"));
    assert!(of("neck.").all(|(name, array)| name.ends_with("tracked") || !array.bits_eq(&from[name])));
    assert_eq!(to["head.classes.values.weight"].shape()[0], 1);
    // The weights' colours, not those of the new pictures.
    let colours = |set: &Set, run: &str| {
        let path = set.folder(run).join("weights/last.safetensors");
        let metadata = read_safetensors(&path).unwrap().metadata;
        let preprocess: Value = serde_json::from_str(&metadata["preprocess"]).unwrap();
        (preprocess["mean"].clone(), preprocess["std"].clone())
    };
    assert_eq!(colours(&set, "tuned"), colours(&base, "base"));
    // All of it learns unless it is frozen, and starts where the weights are.
    set.train("all", &[&["--weights", &folder, "--lr", "1e-6", "--ema", "0", "--freeze-bn"], &SHORT[..]].concat()).ok();
    for (name, array) in arrays(&set, "all").iter().filter(|(name, _)| name.starts_with("backbone.")) {
        let most =
            array.to_f64_vec().iter().zip(from[name].to_f64_vec()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(most < 1e-3, "{name}: {most}");
        assert!(!name.contains("conv") || array.shape().rank() != 4 || most > 0.0, "{name}");
    }
}

#[test]
fn killed_a_run_that_goes_on_from_weights_resumes_to_the_same() {
    let base = Set::new();
    base.train("base", &[&["--model", "striate_det_n"], &SHORT[..]].concat()).ok();
    let set = Set::named(["thing", "thing"]);
    let weights = base.folder("base").join("weights/best.safetensors");
    let copy = set.path("weights.safetensors");
    std::fs::copy(&weights, &copy).unwrap();
    let more = [&HARD[2..], &["--weights", &copy, "--freeze", "3"]].concat();
    set.train("whole", &more).ok();
    let args = set.train_args("killed", &more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let killed = run_with(&args, &[("STRIATE_FAIL_AT", "3:before-rename")]);
    assert_eq!(killed.code, None, "{}", killed.stderr);
    // All values are in the checkpoint: the file that they came from is not needed any more.
    std::fs::remove_file(&copy).unwrap();
    run(&["train", "--resume", set.folder("killed").to_str().unwrap(), "--threads", "1", "--plain"]).ok();
    set.assert_same("killed", "whole");
}

#[test]
fn a_classifier_is_the_backbone_that_a_detector_starts_from() {
    let set = Set::new();
    let classifier = find_model("mobilenet_v3_large").unwrap().build([3, 64, 64], 10, 7).unwrap().state_dict();
    let path = set.path("classifier.safetensors");
    write_safetensors(path.as_ref(), classifier.clone(), &BTreeMap::new()).unwrap();
    let from = ["--weights", &path, "--freeze", "backbone", "--epochs", "1", "--batch", "2", "--imgsz", "64"];
    let done = set.train("ssd", &[&["--model", "ssdlite320_mobilenet_v3_large"], &from[..]].concat()).ok();
    // SSDLite has half of the channels in the last blocks: they are its own, and learn.
    for part in ["arrays for the backbone, left out ", "(classifier.0.bias, ", "frozen: the first 14 blocks"] {
        assert!(done.stdout.contains(part), "`{part}` is not in: {}", done.stdout);
    }
    let found = arrays(&set, "ssd");
    for (name, array) in
        found.iter().filter_map(|(name, array)| Some((name.strip_prefix("backbone.features.0.")?, array)))
    {
        let key = match name.strip_prefix("13.") {
            Some(rest) => format!("features.13.block.0.{rest}"),
            None => format!("features.{name}"),
        };
        // The expansion of the block that is cut is at the end of the frozen ones.
        assert!(array.bits_eq(&classifier[&key]), "{name}");
    }
    let kept = std::fs::read_to_string(set.folder("ssd").join("args.toml")).unwrap();
    assert!(kept.contains("freeze = \"14\""), "{kept}");
    let refused = |more: &[&str], parts: &[&str]| set.train("no", more).fails(2, parts);
    refused(&from, &["--model", "name the detector"]);
    refused(&[&["--model", "striate_det_n"], &from[..]].concat(), &["classifier.safetensors", "is it the right model"]);
    refused(&["--weights", &set.path("data")], &["--weights", "best.safetensors"]);
    assert!(!set.folder("no").exists());
}
