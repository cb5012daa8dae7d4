//! Tasks other than one class a picture: pixels, labels, numbers; from files to `train`, `val` and `predict`.

mod common;

use common::{run, run_with};
use serde_json::Value;
use std::path::{Path, PathBuf};
use striate::vision::data::{Image, decode_mask, encode_mask, encode_png};

const WIDTH: usize = 48;
const HEIGHT: usize = 40;

/// A noisy grey picture with a bright box, and the box as a mask; its border counts for nothing.
fn boxed(index: usize) -> (Image, Image) {
    let mut state = (index as u32).wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let (left, top, side) = (usize::from(next()) % 24, usize::from(next()) % 18, 12 + usize::from(next()) % 10);
    let mut image = Image::filled(WIDTH, HEIGHT, &[0, 0, 0]);
    let mut mask = Image::filled(WIDTH, HEIGHT, &[0]);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (dx, dy) = (x.wrapping_sub(left), y.wrapping_sub(top));
            let inside = dx < side && dy < side;
            let edge = inside && (dx == 0 || dy == 0 || dx == side - 1 || dy == side - 1);
            let base = if inside { [200, 180, 40] } else { [40, 60, 90] };
            for (c, base) in base.into_iter().enumerate() {
                image.data[3 * (y * WIDTH + x) + c] = base + next() / 8;
            }
            mask.data[y * WIDTH + x] = if edge { 255 } else { u8::from(inside) };
        }
    }
    (image, mask)
}

/// Files of one test, with the run folders beside them.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// `train DATA` with these flags into a run of this name; gives its metrics.
    fn train(&self, data: &str, name: &str, more: &[&str]) -> Value {
        let (data, project) = (self.path(data), self.path("runs"));
        let args = ["train", &data, "--project", &project, "--name", name, "--plain"];
        run(&[&args[..], more].concat()).ok();
        self.json(&format!("runs/{name}/metrics.json"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.0.path().join(name)).unwrap()).unwrap()
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(format!("runs/{name}/weights/best.safetensors"))).unwrap()
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// `images/` beside `masks/`, some with val/ parts.
fn masked(place: &Place, folder: &str) {
    for index in 0..20 {
        let (image, mask) = boxed(index);
        place.write(&format!("{folder}/images/{index:02}.png"), &encode_png(&image).unwrap());
        place.write(&format!("{folder}/masks/{index:02}.png"), &encode_mask(&mask).unwrap());
    }
    place.write(&format!("{folder}/classes.txt"), b"ground\nbox\n");
}

const SHORT: [&str; 8] = ["--epochs", "2", "--batch", "6", "--imgsz", "64", "--ema", "0.9"];

#[test]
fn pixels_are_learned_judged_and_drawn() {
    let place = Place::new();
    masked(&place, "boxes");
    let metrics = place.train("boxes", "run", &[&SHORT[..], &["--threads", "2", "--workers", "2"]].concat());
    assert_eq!((&metrics["split"], metrics["classes"][1]["name"].as_str()), (&"val".into(), Some("box")));
    for key in ["mIoU", "pixel_accuracy", "loss", "seconds"] {
        assert!(metrics[key].as_f64().is_some_and(|v| v >= 0.0), "{key}: {metrics}");
    }
    let csv = std::fs::read_to_string(place.path("runs/run/results.csv")).unwrap();
    assert!(
        csv.starts_with("epoch,step,train_loss,train_pixel_accuracy,val_loss,val_mIoU,val_pixel_accuracy,"),
        "{csv}"
    );

    // What val says is what comes out when the masks of predict are counted.
    let (model, data, out) = (place.path("runs/run"), place.path("boxes"), place.path("out"));
    let val = lines(&run(&["val", &model, &data, "--json"]).ok().stdout).pop().unwrap();
    let images = place.path("boxes/images");
    let said = lines(&run(&["predict", &model, &images, "--output", &out, "--json"]).ok().stdout);
    assert_eq!(said.len(), 20);
    let (mut right, mut all) = (0, 0);
    for (index, line) in said.iter().enumerate() {
        let path = PathBuf::from(line["mask"].as_str().unwrap());
        let mask = decode_mask(&std::fs::read(&path).unwrap(), &path).unwrap();
        let truth = boxed(index).1;
        assert_eq!((mask.width, mask.height), (WIDTH, HEIGHT));
        let pixels: u64 = line["classes"].as_array().unwrap().iter().map(|c| c["pixels"].as_u64().unwrap()).sum();
        assert_eq!(pixels as usize, WIDTH * HEIGHT);
        assert!(Path::new(line["overlay"].as_str().unwrap()).is_file());
        let counted = || truth.data.iter().zip(&mask.data).filter(|(truth, _)| **truth != 255);
        right += counted().filter(|(truth, mask)| truth == mask).count();
        all += counted().count();
    }
    assert_eq!(val["split"], "train");
    assert!((val["pixel_accuracy"].as_f64().unwrap() - right as f64 / all as f64).abs() < 1e-12, "{val}");
    run(&["predict", &model, &format!("{images}/00.png"), "--tta", "--output", &out, "--plain"]).ok();
    run(&["predict", &model, &images, "--tta=crops", "--output", &out]).fails(2, &["--tta flip"]);
}

#[test]
fn pixels_have_the_same_bits_for_any_threads_and_after_a_kill() {
    let place = Place::new();
    masked(&place, "boxes");
    place.train("boxes", "whole", &[&SHORT[..], &["--threads", "1", "--checkpoint-steps", "1"]].concat());
    place.train("boxes", "other", &[&SHORT[..], &["--threads", "3", "--workers", "1"]].concat());
    assert!(place.weights("whole") == place.weights("other"), "the bits depend on threads or workers");
    let (data, project) = (place.path("boxes"), place.path("runs"));
    let args = ["train", &data, "--project", &project, "--name", "killed", "--plain", "--checkpoint-steps", "1"];
    let killed = run_with(&[&args[..], &SHORT[..]].concat(), &[("STRIATE_FAIL_AT", "2:before-rename")]);
    assert_eq!(killed.code, None, "{}", killed.stderr);
    run(&["train", "--resume", &place.path("runs/killed"), "--plain"]).ok();
    assert!(place.weights("whole") == place.weights("killed"), "the bits after a kill are others");
}

#[test]
fn layouts_of_masks_are_recognised_and_mistakes_named() {
    let place = Place::new();
    let parts = |folder: &str| -> Value {
        let done = run(&["data", "stats", &place.path(folder), "--json"]).ok();
        lines(&done.stdout).pop().unwrap()
    };
    for index in 0..4 {
        let (image, mask) = boxed(index);
        let binary = Image { data: mask.data.iter().map(|c| 255 * u8::from(*c == 1)).collect(), ..mask.clone() };
        let part = if index < 3 { "train" } else { "val" };
        place.write(&format!("a/{part}/images/{index}.png"), &encode_png(&image).unwrap());
        place.write(&format!("a/{part}/masks/{index}_mask.png"), &encode_png(&binary).unwrap());
        place.write(&format!("voc/JPEGImages/{index}.png"), &encode_png(&image).unwrap());
        place.write(&format!("voc/SegmentationClass/{index}.png"), &encode_mask(&mask).unwrap());
    }
    place.write("voc/ImageSets/Segmentation/train.txt", b"0\n1\n");
    place.write("voc/ImageSets/Segmentation/val.txt", b"2\n3\n");
    let a = parts("a");
    assert_eq!((&a["parts"]["train"]["pictures"], &a["parts"]["val"]["pictures"]), (&3.into(), &1.into()), "{a}");
    assert_eq!(a["class_names"], serde_json::json!(["background", "foreground"]));
    let voc = parts("voc");
    assert_eq!((&voc["parts"]["train"]["pictures"], &voc["parts"]["val"]["pictures"]), (&2.into(), &2.into()), "{voc}");
    let data = place.path("voc");
    run(&["train", &data, "--model", "resnet18"]).fails(2, &["resnet18", "segment"]);
    run(&["train", &data, "--mixing", "mixup"]).fails(2, &["--mixing", "classify"]);
    run(&["train", &data, "--task", "classify"]).fails(3, &["Pascal VOC"]);
    place.write("voc/SegmentationClass/0.png", &encode_mask(&Image::filled(3, 3, &[1])).unwrap());
    run(&["data", "check", &data]).fails(3, &["problem"]);
    place.write("voc/ImageSets/Segmentation/val.txt", b"2\n9\n");
    run(&["train", &data]).fails(3, &["`9`", "val.txt"]);
}

#[test]
fn several_labels_are_learned_from_a_table() {
    let place = Place::new();
    let mut table = "file,split,bright,box\n".to_owned();
    for index in 0..24 {
        let (mut image, _) = boxed(index);
        let (bright, boxed) = (index % 2, usize::from(index % 3 != 0));
        if boxed == 0 {
            image = Image::filled(WIDTH, HEIGHT, &[40, 60, 90]);
        }
        image.data.iter_mut().for_each(|v| *v = v.saturating_add(60 * bright as u8));
        place.write(&format!("images/{index}.png"), &encode_png(&image).unwrap());
        let split = ["train", "train", "val", "test"][index / 6];
        table += &format!("{index}.png,{split},{bright},{boxed}\n");
    }
    place.write("labels.csv", table.as_bytes());
    let flags =
        ["--model", "small", "--epochs", "30", "--batch", "6", "--imgsz", "32", "--augment", "none", "--lr", "0.05"];
    let metrics = place.train("labels.csv", "run", &flags);
    assert_eq!((&metrics["split"], &metrics["images"]), (&"test".into(), &6.into()));
    assert!(metrics["mAP"].as_f64().unwrap() > 0.9 && metrics["micro_f1"].is_number(), "{metrics}");
    let model = place.path("runs/run");
    let val = lines(&run(&["val", &model, &place.path("labels.csv"), "--json"]).ok().stdout).pop().unwrap();
    assert_eq!(val["mAP"], metrics["mAP"]);
    let one = lines(&run(&["predict", &model, &place.path("images/1.png"), "--threshold", "0", "--json"]).ok().stdout);
    assert_eq!(one[0]["labels"].as_array().unwrap().len(), 2);
    assert!(one[0]["classes"][0]["score"].as_f64().unwrap() <= 1.0);
    // In the folder of the table, and in another form.
    place.write("one/labels.csv", b"image,tags\n0,bright box\n1,box\n2,bright\n3,\n");
    (0..4).for_each(|i| place.write(&format!("one/{i}.png"), &encode_png(&boxed(i).0).unwrap()));
    let stats = lines(&run(&["data", "stats", &place.path("one"), "--json"]).ok().stdout).pop().unwrap();
    assert_eq!(
        (&stats["class_names"], &stats["parts"]["train"]["classes"]),
        (&serde_json::json!(["box", "bright"]), &serde_json::json!([2, 2]))
    );
}

#[test]
fn numbers_are_learned_from_a_table() {
    let place = Place::new();
    for (part, from) in [("train", 0), ("test", 40)] {
        let mut table = "file,level,double\n".to_owned();
        for index in from..from + if part == "train" { 40 } else { 10 } {
            let level = (index * 37 % 200) as u8;
            place.write(&format!("images/{index}.png"), &encode_png(&Image::filled(32, 32, &[level; 3])).unwrap());
            table += &format!("{index}.png,{},{}\n", 1000.0 + f32::from(level), 2 * i32::from(level));
        }
        place.write(&format!("{part}.csv"), table.as_bytes());
    }
    let flags = ["--model", "small", "--epochs", "25", "--batch", "8", "--imgsz", "32", "--augment", "none"];
    let metrics = place.train("", "run", &flags);
    assert!(metrics["r2"].as_f64().unwrap() > 0.8, "{metrics}");
    assert!(metrics["mae"].as_f64().unwrap() < 40.0 && metrics["rmse"].is_number(), "{metrics}");
    let model = place.path("runs/run");
    let said = lines(&run(&["predict", &model, &place.path("images/41.png"), "--tta", "--json"]).ok().stdout);
    let value = |i: usize| said[0]["values"][i]["value"].as_f64().unwrap();
    assert_eq!(said[0]["values"][0]["name"], "level");
    assert!((900.0..1300.0).contains(&value(0)) && value(1) < 600.0, "{}", said[0]);
    // A net for numbers judges no classes.
    run(&["val", &model, "fashion-mnist"]).fails(3, &[]);
}
