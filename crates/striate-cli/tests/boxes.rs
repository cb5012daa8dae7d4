//! Sets with boxes as a user meets them: what `data check` finds, what `data convert` keeps, what `val --gt --dt` says.

mod common;

use common::run;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use striate::vision::data::{Image, encode_png};
use striate::vision::detection::{AnnotatedSet, open_annotations};
use tempfile::TempDir;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The real blood cells, which need not be there on every machine.
fn bccd() -> Option<PathBuf> {
    let root = std::env::var_os("STRIATE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = root.join("bccd");
    if !path.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "{} is not there", path.display());
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// A copy of the first pictures of each of bccd's parts, without the two known faults.
struct Copy {
    root: TempDir,
    /// Names of train, val and test.
    names: [Vec<String>; 3],
}

impl Copy {
    fn new(source: &Path, counts: [usize; 3]) -> Copy {
        let root = TempDir::new().unwrap();
        for folder in ["Annotations", "JPEGImages", "ImageSets/Main"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let names = ["train", "val", "test"]
            .map(|part| std::fs::read_to_string(source.join(format!("ImageSets/Main/{part}.txt"))).unwrap());
        let faulty = ["BloodImage_00338", "BloodImage_00343", "BloodImage_00037"];
        let pick = |(text, count): (&String, &usize)| {
            let names = text.lines().filter(|name| !faulty.contains(name)).take(*count);
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let names: Vec<Vec<String>> = names.iter().zip(&counts).map(pick).collect();
        let copy = Copy { root, names: names.try_into().unwrap() };
        for name in copy.names.iter().flatten() {
            for path in [format!("Annotations/{name}.xml"), format!("JPEGImages/{name}.jpg")] {
                std::fs::copy(source.join(&path), copy.path(&path)).unwrap();
            }
        }
        for (part, names) in ["train", "val", "test"].iter().zip(&copy.names) {
            copy.write(&format!("ImageSets/Main/{part}.txt"), format!("{}\n", names.join("\n")).as_bytes());
        }
        copy
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
    fn text(&self) -> &str {
        self.root.path().to_str().unwrap()
    }
    fn write(&self, path: &str, bytes: &[u8]) {
        std::fs::write(self.path(path), bytes).unwrap();
    }
    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap()
    }
    /// Changes the first place where `from` stands in the labels of a picture.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let path = format!("Annotations/{name}.xml");
        let text = String::from_utf8(self.read(&path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        self.write(&path, text.replacen(from, to, 1).as_bytes());
    }
    /// Gives the first object of a picture other corners.
    fn set_box(&self, name: &str, corners: [i32; 4]) {
        let path = format!("Annotations/{name}.xml");
        let text = String::from_utf8(self.read(&path)).unwrap();
        let (before, rest) = text.split_once("<bndbox>").unwrap();
        let (_, after) = rest.split_once("</bndbox>").unwrap();
        let [a, b, c, d] = corners;
        let inside = format!("<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>");
        self.write(&path, format!("{before}<bndbox>{inside}</bndbox>{after}").as_bytes());
    }
    /// Another picture of a part, with the labels of one that is there.
    fn add(&self, part: &str, name: &str, file: &str, picture: &[u8], labels_of: &str) {
        self.write(&format!("JPEGImages/{file}"), picture);
        let labels = self.read(&format!("Annotations/{labels_of}.xml"));
        self.write(&format!("Annotations/{name}.xml"), &labels);
        let list = format!("ImageSets/Main/{part}.txt");
        let names = String::from_utf8(self.read(&list)).unwrap();
        self.write(&list, format!("{names}{name}\n").as_bytes());
    }

    /// All files with their bytes.
    fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.root.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    /// What `data check` says: kind, file name and object.
    fn check(&self) -> BTreeSet<(String, String, String)> {
        let done = run(&["data", "check", self.text(), "--json"]);
        let found = lines(&done.stdout);
        done.fails(if found.is_empty() { 0 } else { 3 }, &[]);
        let row = |line: &Value| {
            let file = Path::new(line["file"].as_str().unwrap()).file_name().unwrap().to_string_lossy().into_owned();
            assert!(line["message"].as_str().unwrap().contains(&file), "{line}");
            (line["kind"].as_str().unwrap().to_owned(), file, line["object"].as_str().unwrap_or_default().to_owned())
        };
        found.iter().map(row).collect()
    }
}

/// The bytes of a JPEG with an EXIF orientation.
fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
}

/// Half the size, as a PNG.
fn halved(path: &Path) -> Vec<u8> {
    let image = Image::open(path).unwrap();
    let (w, h) = (image.width / 2, image.height / 2);
    let pixels = (0..w * h).flat_map(|i| image.pixel(i % w * 2, i / w * 2).to_vec()).collect();
    encode_png(&Image::new(w, h, 3, pixels).unwrap()).unwrap()
}

#[test]
fn every_planted_fault_is_found_with_file_and_object_and_nothing_is_changed() {
    let Some(source) = bccd() else { return };
    let copy = Copy::new(&source, [24, 12, 12]);
    assert_eq!(copy.check(), BTreeSet::new(), "the copy is sound before anything is planted");
    let [train, val, test] = copy.names.clone();
    let jpeg = |name: &str| format!("JPEGImages/{name}.jpg");

    let whole = copy.read(&jpeg(&train[0]));
    copy.write(&jpeg(&train[0]), &whole[..whole.len() * 2 / 3]);
    let png = encode_png(&Image::open(copy.path(&jpeg(&train[1]))).unwrap()).unwrap();
    copy.write(&jpeg(&train[1]), &png);
    std::fs::remove_file(copy.path(&jpeg(&train[2]))).unwrap();
    std::fs::remove_file(copy.path(&format!("Annotations/{}.xml", train[3]))).unwrap();
    copy.set_box(&train[4], [100, 100, 100, 150]);
    copy.set_box(&train[5], [600, 400, 700, 470]);
    copy.set_box(&train[6], [200, 100, 150, 160]);
    copy.set_box(&train[7], [700, 100, 760, 160]);
    copy.edit(&train[8], "<name>RBC</name>", "<name>RCB</name>");
    copy.edit(&val[0], "<name>WBC</name>", "<name>unicorn</name>");
    copy.edit(&val[1], "<width>640</width>", "<width>800</width>");
    copy.write(&jpeg(&val[2]), &turned(&copy.read(&jpeg(&val[2])), 6));
    copy.add("train", "again", "again.jpg", &copy.read(&jpeg(&train[10])), &train[10]);
    let small = halved(&copy.path(&jpeg(&train[11])));
    copy.add("train", "small", "small.png", &small, &train[11]);
    copy.add("test", "leaked", "leaked.jpg", &copy.read(&jpeg(&train[12])), &train[12]);
    let list = "ImageSets/Main/test.txt";
    let names = String::from_utf8(copy.read(list)).unwrap();
    copy.write(list, format!("{names}{}\n", train[13]).as_bytes());
    copy.edit(&test[0], "</annotation>", "");
    copy.write("Annotations/orphan.xml", &copy.read(&format!("Annotations/{}.xml", test[1])));
    copy.write("JPEGImages/alone.jpg", &turned(&copy.read(&jpeg(&test[2])), 1));

    let before = copy.snapshot();
    let found = copy.check();
    assert!(copy.snapshot() == before, "files were changed");
    let (xml, jpg) = (|name: &str| format!("{name}.xml"), |name: &str| format!("{name}.jpg"));
    let rbc = |name: &str| {
        let text = String::from_utf8(copy.read(&format!("Annotations/{name}.xml"))).unwrap();
        text.split("<object>").skip(1).position(|object| object.contains("RCB") || object.contains("unicorn")).unwrap()
            + 1
    };
    let first = |name: &str| {
        let text = String::from_utf8(copy.read(&format!("Annotations/{name}.xml"))).unwrap();
        format!("object 1 ({})", text.split("<name>").nth(1).unwrap().split('<').next().unwrap())
    };
    let wanted = [
        ("truncated_picture", jpg(&train[0]), String::new()),
        ("wrong_format", jpg(&train[1]), String::new()),
        ("missing_picture", xml(&train[2]), String::new()),
        ("missing_label", jpg(&train[3]), String::new()),
        ("no_area", xml(&train[4]), first(&train[4])),
        ("outside", xml(&train[5]), first(&train[5])),
        ("swapped_corners", xml(&train[6]), first(&train[6])),
        ("outside", xml(&train[7]), first(&train[7])),
        ("unknown_class", xml(&train[8]), format!("object {} (RCB)", rbc(&train[8]))),
        ("unknown_class", xml(&val[0]), format!("object {} (unicorn)", rbc(&val[0]))),
        ("wrong_size", xml(&val[1]), String::new()),
        ("exif_turn", jpg(&val[2]), String::new()),
        ("duplicate", "again.jpg".into(), String::new()),
        ("near_duplicate", "small.png".into(), String::new()),
        ("wrong_size", "small.xml".into(), String::new()),
        ("leak", "leaked.jpg".into(), String::new()),
        ("leak", jpg(&train[13]), String::new()),
        ("unreadable_label", xml(&test[0]), String::new()),
        ("missing_picture", "orphan.xml".into(), String::new()),
        ("missing_label", "alone.jpg".into(), String::new()),
        ("duplicate", "alone.jpg".into(), String::new()),
    ];
    let wanted: BTreeSet<_> = wanted.map(|(kind, file, object)| (kind.to_owned(), file, object)).into();
    let missed: Vec<_> = wanted.difference(&found).collect();
    assert!(missed.is_empty(), "not found: {missed:#?}");
    // Half the size leaves boxes outside; nothing else is said that was not planted.
    let more: Vec<_> = found.difference(&wanted).filter(|(_, file, _)| file != "small.xml").collect();
    assert!(more.is_empty(), "said without a cause: {more:#?}");
}

/// A class with corners.
type NamedBox = (String, [i64; 4]);

/// Boxes by part and picture, with the names of their classes; corners in millionths of a pixel.
fn content(set: &AnnotatedSet) -> BTreeMap<(usize, String), BTreeSet<NamedBox>> {
    let mut out = BTreeMap::new();
    for (part, picture) in
        set.parts.iter().enumerate().flat_map(|(part, list)| list.iter().flatten().map(move |picture| (part, picture)))
    {
        let name = picture.file.file_name().unwrap().to_string_lossy().into_owned();
        let label = |label: &striate::vision::detection::BoxLabel| {
            (set.class_names[label.class].clone(), label.xyxy.map(|v| (v * 1e6).round() as i64))
        };
        out.insert((part, name), picture.labels.iter().map(label).collect());
    }
    out
}

#[test]
fn every_format_becomes_every_other_and_says_what_is_lost() {
    let folder = TempDir::new().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::create_dir_all(at("src/train")).unwrap();
    std::fs::create_dir_all(at("src/val")).unwrap();
    for (name, shade) in [("train/a.png", 10), ("train/b.png", 20), ("val/a.png", 30)] {
        let pixels = (0..100 * 50).map(|i| shade + (i % 100) as u8).collect();
        std::fs::write(at("src").join(name), encode_png(&Image::new(100, 50, 1, pixels).unwrap()).unwrap()).unwrap();
    }
    let categories =
        json!([{"id": 3, "name": "tr#icky: \"<cat>\", 1"}, {"id": 8, "name": "dog"}, {"id": 9, "name": "never"}]);
    let train = json!({
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}, {"id": 2, "file_name": "b.png", "width": 100, "height": 50}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10.25, 5, 20, 10.5], "area": 150, "iscrowd": 0, "segmentation": [[1, 1, 5, 5, 1, 5]]},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [0, 0, 100, 50], "iscrowd": 1},
            {"id": 3, "image_id": 1, "category_id": 8, "bbox": [5, 5, 0, 10]}],
        "categories": categories});
    let val = json!({
        "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 8, "bbox": [1, 2, 3, 4]}],
        "categories": categories});
    std::fs::create_dir_all(at("src/annotations")).unwrap();
    std::fs::write(at("src/annotations/instances_train.json"), train.to_string()).unwrap();
    std::fs::write(at("src/annotations/instances_val.json"), val.to_string()).unwrap();

    let convert = |from: &str, to: &str, format: &str| {
        let (from, to) = (at(from), at(to));
        let done =
            run(&["data", "convert", from.to_str().unwrap(), to.to_str().unwrap(), "--to", format, "--json"]).ok();
        lines(&done.stdout).pop().unwrap()
    };
    let said = convert("src", "coco", "coco");
    assert_eq!((&said["pictures"], &said["boxes"]), (&json!(3), &json!(3)));
    assert!(said["repairs"][0].as_str().unwrap().contains("annotation 3 (dog)"), "{said}");
    let set = open_annotations(&at("coco")).unwrap();
    let label = &set.parts[0].as_ref().unwrap()[0].labels[0];
    assert_eq!(
        (label.area, label.segmentation.is_some(), &set.category_ids),
        (Some(150.0), true, &Some(vec![3, 8, 9]))
    );
    let whole = content(&set);
    assert_eq!(whole.len(), 3);
    for format in ["voc", "yolo", "csv"] {
        let losses = convert("coco", format, format)["losses"].to_string();
        for part in ["crowds", "shapes", "areas", "numbers"] {
            assert!(losses.contains(part), "{format}: {part} is not in {losses}");
        }
    }
    for from in ["coco", "voc", "yolo", "csv"] {
        for to in ["coco", "voc", "yolo", "csv"] {
            let target = format!("{from}-{to}");
            convert(from, &target, to);
            let set = open_annotations(&at(&target)).unwrap();
            assert_eq!(set.faults, [], "{target}");
            assert_eq!(content(&set), whole, "{target}");
            assert_eq!(set.class_names, ["tr#icky: \"<cat>\", 1", "dog", "never"], "{target}");
        }
    }
    let (from, to) = (at("src"), at("coco"));
    run(&["data", "convert", from.to_str().unwrap(), to.to_str().unwrap(), "--to", "voc"])
        .fails(2, &["something in it"]);
}

#[test]
fn detections_of_anybody_are_judged() {
    let folder = TempDir::new().unwrap();
    let put = |name: &str, value: Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let thing = |id, x, class| json!({"id": id, "image_id": 1, "category_id": class, "bbox": [x, 0, 40, 40], "area": 1600, "iscrowd": 0});
    let truth = put(
        "instances_test.json",
        json!({
            "images": [{"id": 1}, {"id": 2}], "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "emu"}],
            "annotations": [thing(1, 0, 5), thing(2, 100, 5), thing(3, 200, 2)]}),
    );
    let seen = |x, class, score| json!({"image_id": 1, "category_id": class, "bbox": [x, 0, 40, 40], "score": score});
    // One cat right, one missed; the dog is taken for a cat.
    let found = put("found.json", json!([seen(0, 5, 0.9), seen(200, 5, 0.8), seen(300, 77, 0.7)]));
    let output = folder.path().join("out");
    let done = run(&["val", "--gt", &truth, "--dt", &found, "--json", "--output", output.to_str().unwrap()]).ok();
    let figures = lines(&done.stdout).pop().unwrap();
    // Precision 1 up to half of the cats: 51 of 101 recalls; nothing of the dogs.
    let ap = 51.0 / 101.0 / 2.0;
    for (key, wanted) in
        [("mAP50", ap), ("mAP50_95", ap), ("AP75", ap), ("APm", ap), ("APs", -1.0), ("AR1", 0.25), ("AR100", 0.25)]
    {
        assert!((figures[key].as_f64().unwrap() - wanted).abs() < 1e-12, "{key}: {figures}");
    }
    assert_eq!(figures["split"], "test");
    let names: Vec<&str> = figures["classes"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dog", "cat", "emu"], "by number");
    assert_eq!((&figures["classes"][0]["AP"], &figures["classes"][2]["AP"]), (&json!(0.0), &Value::Null));
    assert_eq!(figures["confusion"].as_array().unwrap().len(), 4);
    assert!(done.stderr.contains("1 detections are of classes"), "{}", done.stderr);
    for name in ["PR_curve.svg", "F1_curve.svg", "confusion_matrix.svg", "metrics.json"] {
        assert!(output.join(name).is_file(), "{name}");
    }
    let plain = run(&["val", "--gt", &truth, "--dt", &found, "--plain"]).ok().stdout;
    let names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "cat", "emu"];
    names.iter().for_each(|name| assert!(plain.lines().any(|l| l.starts_with(&format!("{name} "))), "{name}: {plain}"));

    let strange = put("strange.json", json!([{"image_id": 3, "category_id": 5, "bbox": [0, 0, 1, 1], "score": 1}]));
    run(&["val", "--gt", &truth, "--dt", &strange]).fails(3, &["strange.json", "detection 1", "picture 3"]);
    run(&["val", "--gt", &found, "--dt", &found]).fails(3, &["found.json", "list"]);
    run(&["val", "--gt", "nowhere.json", "--dt", &found]).fails(3, &["nowhere.json"]);
    run(&["val", "--gt", &truth]).fails(2, &["--dt"]);
    run(&["val"]).fails(2, &["MODEL"]);
}

/// One file that speaks of many pictures: messages name the picture too.
#[test]
fn faults_in_a_file_of_many_pictures_name_object_and_picture() {
    let folder = TempDir::new().unwrap();
    let png = |seed: usize| {
        let pixels = (0..64 * 48).map(|i| ((i % 64) * (seed + 1) + i / 64 * seed * 3) as u8).collect();
        encode_png(&Image::new(64, 48, 1, pixels).unwrap()).unwrap()
    };
    for name in ["a.png", "b.png"] {
        std::fs::write(folder.path().join(name), png(name.len() + usize::from(name == "b.png"))).unwrap();
    }
    let coco = json!({
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}, {"id": 2, "file_name": "b.png", "width": 48, "height": 64}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 11, "image_id": 1, "category_id": 1, "bbox": [10, 10, -5, 20]},
            {"id": 12, "image_id": 2, "category_id": 1, "bbox": [10, 10, 5, 60]},
            {"id": 13, "image_id": 2, "category_id": 6, "bbox": [10, 10, 5, 6]},
            {"id": 14, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 15, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]});
    let csv = "path,x1,y1,x2,y2,class\na.png,10,10,5,30,cat\nb.png,10,10,15,70,cat\n";
    let wanted = [
        (
            "set.json",
            coco.to_string(),
            &[
                ("swapped_corners", "annotation 11 (cat)", "a.png"),
                ("outside", "annotation 12 (cat)", "b.png"),
                ("unknown_class", "annotation 13", "image 2"),
                ("wrong_size", "image 2 (b.png)", "b.png"),
                ("repeated_box", "annotation 15 (cat)", "annotation 14 (cat)"),
            ][..],
        ),
        (
            "set.csv",
            csv.to_owned(),
            &[("swapped_corners", "line 2 (cat)", "a.png"), ("outside", "line 3 (cat)", "b.png")],
        ),
    ];
    for (name, text, faults) in wanted {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let found = lines(&run(&["data", "check", path.to_str().unwrap(), "--json"]).stdout);
        for (kind, object, part) in faults {
            let fault =
                found.iter().find(|line| line["kind"] == *kind).unwrap_or_else(|| panic!("no {kind} in {found:?}"));
            assert_eq!(fault["object"], *object);
            assert!(fault["message"].as_str().unwrap().contains(part), "{fault}");
        }
        assert_eq!(found.len(), faults.len(), "{found:?}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn boxes_are_counted_by_class_and_part() {
    let Some(source) = bccd() else { return };
    let path = source.to_str().unwrap();
    let stats = lines(&run(&["data", "stats", path, "--json"]).ok().stdout).pop().unwrap();
    assert_eq!((&stats["kind"], &stats["boxes"], &stats["background"]), (&json!("voc"), &json!(4886), &json!(0)));
    assert_eq!(stats["class_names"], json!(["Platelets", "RBC", "WBC"]));
    assert_eq!(stats["parts"]["test"]["pictures"], 72);
    let sum = |class: usize| -> u64 {
        ["train", "val", "test"].iter().map(|part| stats["parts"][part]["classes"][class].as_u64().unwrap()).sum()
    };
    assert_eq!([sum(0), sum(1), sum(2)], [361, 4153, 372]);
    assert!(stats["repairs"][0].as_str().unwrap().starts_with("2 × box without area, left out"), "{stats}");
    let plain = run(&["data", "stats", path, "--plain"]).ok().stdout;
    assert!(plain.contains("RBC") && plain.contains("boxes a picture"), "{plain}");
}
