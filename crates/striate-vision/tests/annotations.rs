//! Annotated pictures from files of every format: what is read, what is repaired, and what is refused and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_vision::data::{Image, encode_png};
use striate_vision::detection::{
    AnnotatedSet, BoxFormat, FaultKind, Repair, RleCounts, Segmentation, open_annotations, recognise_annotations,
};
use tempfile::TempDir;

/// Files by their paths below a folder; those that end in .png are pictures of 100x50.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.extension().is_some_and(|e| e == "png") {
            true => std::fs::write(path, encode_png(&Image::filled(100, 50, &[1, 2, 3])).unwrap()).unwrap(),
            false => std::fs::write(path, text).unwrap(),
        }
    }
    folder
}

fn open(files: &[(&str, &str)]) -> (TempDir, AnnotatedSet) {
    let folder = folder(files);
    let set = open_annotations(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    (folder, set)
}

/// Class and corners of all boxes of a part.
fn boxes(set: &AnnotatedSet, part: usize) -> Vec<(&str, [f64; 4])> {
    let labels = set.parts[part].iter().flatten().flat_map(|picture| &picture.labels);
    labels.map(|label| (set.class_names[label.class].as_str(), label.xyxy)).collect()
}

fn kinds(set: &AnnotatedSet) -> Vec<(FaultKind, Option<&str>, Repair)> {
    set.faults.iter().map(|fault| (fault.kind, fault.object.as_deref(), fault.repair)).collect()
}

fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("STRIATE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = root.join(name);
    if !path.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "{} is not there", path.display());
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_blood_cells_are_read_and_two_boxes_left_out() {
    let Some(path) = shared("bccd") else { return };
    assert_eq!(recognise_annotations(&path), Some(BoxFormat::Voc));
    let set = open_annotations(&path).unwrap();
    assert_eq!(set.class_names, ["Platelets", "RBC", "WBC"]);
    assert_eq!(set.parts.each_ref().map(|part| part.as_ref().unwrap().len()), [205, 87, 72]);
    let counts = (0..3).map(|part| set.class_counts(part)).reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect());
    // Of 4155 red cells two have no area.
    assert_eq!(counts.unwrap(), [361, 4153, 372]);
    assert!(set.pictures().all(|picture| picture.size == Some([640, 480])));
    let named = |fault: &striate_vision::detection::Fault| {
        let file = fault.file.file_name().unwrap().to_string_lossy().into_owned();
        (fault.kind, file, fault.object.clone().unwrap())
    };
    assert_eq!(
        set.faults.iter().map(named).collect::<Vec<_>>(),
        [
            (FaultKind::NoArea, "BloodImage_00343.xml".into(), "object 4 (RBC)".into()),
            (FaultKind::NoArea, "BloodImage_00338.xml".into(), "object 13 (RBC)".into()),
        ]
    );
    assert_eq!(
        set.repairs(),
        ["2 × box without area, left out: BloodImage_00343.xml object 4 (RBC), BloodImage_00338.xml object 13 (RBC)"]
    );
}

const COCO: &str = r#"{"info": {}, "images": [
    {"id": 5, "file_name": "a.png", "width": 100, "height": 50}, {"id": 6, "file_name": "gone.png"}, {"id": 7, "file_name": "b.png"}],
  "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}],
  "annotations": [
    {"id": 1, "image_id": 5, "category_id": 18, "bbox": [10, 5, 20.5, 10], "area": 99.5, "iscrowd": 0, "segmentation": [[10, 5, 30, 5, 30, 15]]},
    {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 100, 50], "iscrowd": 1, "segmentation": {"size": [50, 100], "counts": "0abc"}},
    {"id": 3, "image_id": 5, "category_id": 4, "bbox": [1, 1, 2, 2]},
    {"id": 4, "image_id": 99, "category_id": 3, "bbox": [1, 1, 2, 2]},
    {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 1, 0, 2], "segmentation": [1, "odd"]},
    {"id": 6, "image_id": 7, "category_id": 3, "bbox": [90, 1, 20, 2]},
    {"id": 7, "image_id": 7, "category_id": 3}]}"#;

#[test]
fn coco_keeps_crowds_masks_and_numbers() {
    let val = COCO.replace("a.png", "c.png");
    let files = [
        ("annotations/instances_train2017.json", COCO),
        ("annotations/captions_train2017.json", COCO),
        ("annotations/instances_val2017.json", &val),
        ("train2017/a.png", ""),
        ("train2017/b.png", ""),
        ("train2017/extra.png", ""),
        ("val2017/c.png", ""),
    ];
    let (_folder, set) = open(&files);
    assert_eq!((set.format, set.class_names.as_slice()), (BoxFormat::Coco, &["cat".to_owned(), "dog".into()][..]));
    assert_eq!(set.category_ids, Some(vec![3, 18]));
    let first = &set.parts[0].as_ref().unwrap()[0];
    let [dog, crowd] = &first.labels[..] else { panic!("{first:?}") };
    assert_eq!((dog.xyxy, dog.area, dog.id, dog.iscrowd), ([10.0, 5.0, 30.5, 15.0], Some(99.5), Some(1), false));
    assert_eq!(dog.segmentation, Some(Segmentation::Polygons(vec![vec![10.0, 5.0, 30.0, 5.0, 30.0, 15.0]])));
    assert!(crowd.iscrowd);
    assert!(
        matches!(&crowd.segmentation, Some(Segmentation::Rle(rle)) if rle.counts == RleCounts::Text("0abc".into()))
    );
    assert_eq!(boxes(&set, 0)[2], ("cat", [90.0, 1.0, 100.0, 3.0]));
    let of_train: Vec<_> = kinds(&set).into_iter().take(6).collect();
    assert_eq!(
        of_train,
        [
            (FaultKind::MissingPicture, Some("image 6 (gone.png)"), Repair::LeftOut),
            (FaultKind::UnknownClass, Some("annotation 3"), Repair::LeftOut),
            (FaultKind::MissingPicture, Some("annotation 4 (cat)"), Repair::LeftOut),
            (FaultKind::NoArea, Some("annotation 5 (cat)"), Repair::LeftOut),
            (FaultKind::Outside, Some("annotation 6 (cat)"), Repair::Cut),
            (FaultKind::BadLabel, Some("annotation 7 (cat)"), Repair::LeftOut),
        ]
    );
    let unlisted = set.faults.last().unwrap();
    assert_eq!(unlisted.kind, FaultKind::MissingLabel);
    assert!(unlisted.file.ends_with("train2017/extra.png"));
}

fn xml(size: [u32; 2], objects: &[(&str, [i32; 4])]) -> String {
    let object = |(name, [a, b, c, d]): &(&str, [i32; 4])| {
        format!(
            "<object><name>{name}</name><difficult>1</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        )
    };
    let objects: String = objects.iter().map(object).collect();
    format!(
        "<annotation><filename>x</filename><size><width>{}</width><height>{}</height></size>{objects}</annotation>",
        size[0], size[1]
    )
}

#[test]
fn voc_says_what_is_wrong_and_goes_on() {
    let sound = xml([100, 50], &[("cat", [1, 2, 30, 40]), ("dog", [1, 2, 3, 4])]);
    let wrong_size = xml([10, 10], &[("cat", [20, 20, 90, 40])]);
    let odd = xml([100, 50], &[("bird", [1, 2, 30, 40]), ("cat", [30, 40, 1, 2]), ("cat", [200, 1, 210, 9])]);
    let files = [
        ("Annotations/a.xml", sound.as_str()),
        ("Annotations/b.xml", &wrong_size),
        ("Annotations/c.xml", &odd),
        ("Annotations/d.xml", "<annotation><object>"),
        ("Annotations/lost.xml", &sound),
        ("Annotations/extra.xml", &sound),
        ("JPEGImages/a.png", ""),
        ("JPEGImages/b.png", ""),
        ("JPEGImages/c.png", ""),
        ("JPEGImages/d.png", ""),
        ("JPEGImages/e.png", ""),
        ("JPEGImages/extra.png", ""),
        ("ImageSets/Main/trainval.txt", "a 1\nb -1\n"),
        ("ImageSets/Main/test.txt", "c\nd\nlost\nnowhere\ne\n"),
    ];
    let (_folder, set) = open(&files);
    assert_eq!(set.class_names, ["cat", "dog"]);
    assert_eq!(
        boxes(&set, 0),
        [("cat", [1.0, 2.0, 30.0, 40.0]), ("dog", [1.0, 2.0, 3.0, 4.0]), ("cat", [20.0, 20.0, 90.0, 40.0])]
    );
    assert_eq!(boxes(&set, 2), [("cat", [1.0, 2.0, 30.0, 40.0])]);
    assert!(set.parts[0].as_ref().unwrap()[0].labels[0].difficult);
    assert_eq!((set.unassigned.len(), set.notes.len()), (1, 1));
    use FaultKind::*;
    let mut found: BTreeMap<FaultKind, Vec<String>> = BTreeMap::new();
    for fault in &set.faults {
        let file = fault.file.file_name().unwrap().to_string_lossy().into_owned();
        found.entry(fault.kind).or_default().push(format!("{file}|{}", fault.object.as_deref().unwrap_or_default()));
    }
    let wanted = [
        (MissingPicture, vec!["lost.xml|", "test.txt|nowhere"]),
        (MissingLabel, vec!["e.png|"]),
        (UnreadableLabel, vec!["d.xml|"]),
        (WrongSize, vec!["b.xml|"]),
        (Outside, vec!["c.xml|object 3 (cat)"]),
        (SwappedCorners, vec!["c.xml|object 2 (cat)"]),
        (UnknownClass, vec!["c.xml|object 1 (bird)"]),
    ];
    let wanted: BTreeMap<_, Vec<String>> =
        wanted.into_iter().map(|(kind, files)| (kind, files.into_iter().map(str::to_owned).collect())).collect();
    assert_eq!(found, wanted);
}

#[test]
fn yolo_is_read_with_and_without_a_description() {
    let labels = "1 0.5 0.5 0.2 0.4\n\n0 0.0 0.0 0.5 0.0 0.5 0.5\n2 0.5 0.5 0.1 0.1\n0 0.5 0.5\n";
    let described = [
        ("set.yaml", "path: ../elsewhere\ntrain: ../train/images\nval: images/val  # one\nnames: {0: cat, 1: dog}\n"),
        ("train/images/a.png", ""),
        ("train/labels/a.txt", labels),
        ("train/images/b.c.png", ""),
        ("train/labels/lost.txt", labels),
        ("images/val/v.png", ""),
        ("labels/val/v.txt", "0 0.5 0.5 1 1\n"),
    ];
    let (_folder, set) = open(&described);
    let dog = ("dog", [40.0, 15.0, 60.0, 35.0]);
    assert_eq!((set.format, boxes(&set, 0)), (BoxFormat::Yolo, vec![dog, ("cat", [0.0, 0.0, 50.0, 25.0])]));
    assert_eq!(boxes(&set, 1), [("cat", [0.0, 0.0, 100.0, 50.0])]);
    assert_eq!(
        kinds(&set),
        [
            (FaultKind::MissingPicture, None, Repair::LeftOut),
            (FaultKind::UnknownClass, Some("line 4"), Repair::LeftOut),
            (FaultKind::BadLabel, Some("line 5"), Repair::LeftOut),
            (FaultKind::MissingLabel, None, Repair::None),
        ]
    );
    assert!(set.faults[3].file.ends_with("b.c.png"), "a dot in a name is no ending");
    let plain = [("images/a.png", ""), ("labels/a.txt", "10 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.2 0.4")];
    let (_folder, set) = open(&plain);
    assert_eq!(set.class_names, ["2", "10"], "in the order of their numbers");
    let error = open_annotations(folder(&[("d.yaml", "train: nowhere\nnames: [a]")]).path()).unwrap_err().to_string();
    assert!(error.contains("d.yaml") && error.contains("`train: nowhere`"), "{error}");
    let huge = folder(&[("d.yaml", "train: .\nnames:\n  99999999999: a\n")]);
    assert!(open_annotations(huge.path()).unwrap_err().to_string().contains("numbers up to 99999999999"));
}

#[test]
fn a_table_is_read_by_its_columns() {
    let text = "split,path,x1,y1,x2,y2,class\ntrain,a.png,1,2,30,40,cat\nval,\"images/b.png\",5,6,7,8,cat\n\
                train,a.png,9,9,9,12,cat\ntrain,c.png,,,,,\ntrain,a.png,1,x,2,3,cat\ntrain,z.png,1,1,2,3,cat\nval,images/b.png,1,1,2,3,cow\n";
    let (_folder, set) = open(&[("boxes.csv", text), ("a.png", ""), ("images/b.png", ""), ("c.png", "")]);
    assert_eq!((set.format, boxes(&set, 0)), (BoxFormat::Csv, vec![("cat", [1.0, 2.0, 30.0, 40.0])]));
    assert_eq!(set.parts[0].as_ref().unwrap().len(), 2, "background is a picture too");
    assert_eq!(boxes(&set, 1), [("cat", [5.0, 6.0, 7.0, 8.0])]);
    assert_eq!(
        kinds(&set),
        [
            (FaultKind::NoArea, Some("line 4 (cat)"), Repair::LeftOut),
            (FaultKind::BadLabel, Some("line 6"), Repair::LeftOut),
            (FaultKind::MissingPicture, Some("line 7"), Repair::LeftOut),
            (FaultKind::UnknownClass, Some("line 8 (cow)"), Repair::LeftOut),
        ]
    );
    // Results that lie beside the tables of the parts are no part.
    let head = "path,x1,y1,x2,y2,class\n";
    let (train, other) = (format!("{head}a.png,1,2,3,4,cat\n"), format!("{head}a.png,5,5,9,9,cat\n"));
    let (_folder, set) = open(&[("train.csv", &train), ("val.csv", &other), ("results.csv", &other), ("a.png", "")]);
    assert_eq!((boxes(&set, 0).len(), boxes(&set, 1).len()), (1, 1));
    // A table of labels is another thing.
    assert_eq!(recognise_annotations(folder(&[("labels.csv", "file,label\na.png,cat\n")]).path()), None);
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_place() {
    for (name, text, parts) in [
        (
            "instances.json",
            "{\"images\": [{\"id\": 1}], \"annotations\": [{\"id\": ]}",
            &["instances.json, line 1, column"][..],
        ),
        ("instances.json", "{\"images\": 3}", &["line 1", "invalid type"]),
        ("data.yaml", "names: []\ntrain: x\n", &["data.yaml", "no `names`"]),
        ("boxes.csv", "path,x1,y1,x2,y2,class\n\"a,1,1,2,2,c\n", &["boxes.csv, line 2", "quote"]),
    ] {
        let folder = folder(&[(name, text)]);
        let error = open_annotations(&folder.path().join(name)).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{text}: {error}"));
    }
    let error = open_annotations(folder(&[("a.txt", "")]).path()).unwrap_err().to_string();
    ["COCO", "Pascal VOC", "YOLO", "CSV"].iter().for_each(|name| assert!(error.contains(name), "{error}"));
    assert!(open_annotations(Path::new("/no/such/set")).is_err());
}

/// Text of every format, cut and garbled: an error or a set, and never a panic.
#[test]
fn garbled_files_are_errors_or_sets() {
    let voc = xml([100, 50], &[("cat", [1, 2, 30, 40])]);
    let deep = "<a>".repeat(200_000);
    let attributes = (0..200_000).map(|i| format!(" a{i}=\"\"")).collect::<String>();
    // As many classes as objects: nothing may search them one by one.
    let classes = (0..100_000).map(|i| format!("a.png,1,2,3,4,c{i}\n")).collect::<String>();
    let entities = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbb\"><!ENTITY c \"&b;&b;&b;&b;\">]><a>&c;</a>";
    let nested = format!("{{\"images\": {}", "[".repeat(100_000));
    let mut texts = vec![
        ("a.json", nested),
        ("Annotations/a.xml", deep),
        ("Annotations/a.xml", entities.to_owned()),
        ("Annotations/a.xml", format!("<annotation{attributes}></annotation>")),
        ("boxes.csv", format!("path,x1,y1,x2,y2,class\n{classes}")),
        ("labels/a.txt", "1e308 1e308 1e308 1e308 1e308\n0 nan inf -inf 1\n0 1e308 1e308 1e308 1e308".to_owned()),
    ];
    let mut state = 7u32;
    let mut random = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % n
    };
    let sources = [
        ("a.json", COCO),
        ("Annotations/a.xml", voc.as_str()),
        ("data.yaml", "train: images\nnames: {0: cat}\n"),
        ("boxes.csv", "path,x1,y1,x2,y2,class\na.png,1,2,3,4,cat\n"),
    ];
    for (name, text) in sources {
        for round in 0..60 {
            let mut bytes = text.as_bytes().to_vec();
            match round % 3 {
                0 => bytes.truncate(random(text.len())),
                1 => bytes[random(text.len())] = b"<>{}[]:,\"-9\n"[random(12)],
                _ => drop(bytes.remove(random(text.len()))),
            }
            texts.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    for (name, text) in &texts {
        let folder = folder(&[(name, text), ("JPEGImages/a.png", ""), ("images/a.png", ""), ("a.png", "")]);
        if let Ok(set) = open_annotations(folder.path()) {
            for label in set.pictures().flat_map(|picture| &picture.labels) {
                assert!(label.xyxy[0] < label.xyxy[2] && label.xyxy[1] < label.xyxy[3], "{text}");
            }
        }
    }
}
