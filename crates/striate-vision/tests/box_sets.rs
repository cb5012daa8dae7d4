//! Pictures with boxes as a data set, in every format, and their batches.

use std::path::Path;
use striate_vision::data::{
    Batch, BoxTraining, DataLoader, DatasetKind, Image, ImageLoader, LoaderOptions, Pipeline, Wanted, encode_png,
    open_dataset, open_dataset_as,
};
use striate_vision::detection::{BoxFormat, Mask, Segmentation, open_annotations, write_annotations};
use striate_vision::models::Task;
use striate_vision::transforms::{BoxAugment, Compose, Interpolation, Letterbox, Normalize, Shape};

/// Twelve pictures in a table: train, val and test.
fn table(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let mut text = "path,x1,y1,x2,y2,class,split\n".to_owned();
    for index in 0..12 {
        let image = Image::filled(40 + index, 20, &[10 * index as u8, 7, 200]);
        std::fs::write(folder.join(format!("{index}.png")), encode_png(&image).unwrap()).unwrap();
        let split = if index < 8 { "train" } else { ["val", "test"][index % 2] };
        text += &format!("{index}.png,4,2,{},12,cat,{split}\n{index}.png,20,5,30,15,dog,{split}\n", 10 + index);
    }
    std::fs::write(folder.join("boxes.csv"), text).unwrap();
}

#[test]
fn every_format_is_seen_from_its_files() {
    let root = tempfile::tempdir().unwrap();
    let csv = root.path().join("csv");
    table(&csv);
    let set = open_annotations(&csv).unwrap();
    for format in [BoxFormat::Csv, BoxFormat::Coco, BoxFormat::Voc, BoxFormat::Yolo] {
        let folder = root.path().join(format!("as-{}", format.name()));
        write_annotations(&set, &folder, format).unwrap();
        let source = open_dataset(folder.to_str().unwrap()).unwrap();
        assert_eq!((source.kind, source.task), (DatasetKind::Boxes(format), Task::Detect));
        let (train, val, test) = (source.train.unwrap(), source.val.unwrap(), source.test.unwrap());
        assert_eq!((train.len(), val.len(), test.len()), (8, 2, 2), "{format}");
        let mut names = source.class_names.clone();
        names.sort();
        assert_eq!(names, ["cat", "dog"], "{format}");
        for index in 0..train.len() {
            let boxes = train.boxes(index).unwrap();
            let dog = boxes.iter().find(|thing| source.class_names[thing.class] == "dog").unwrap();
            assert!(
                dog.xyxy.iter().zip([20.0, 5.0, 30.0, 15.0]).all(|(a, b)| (a - b).abs() < 0.01),
                "{format}: {dog:?}"
            );
            assert_eq!(train.get(index).unwrap().image.height, 20);
        }
    }
    let json = root.path().join("as-coco/annotations/instances_train.json");
    let source = open_dataset(json.to_str().unwrap()).unwrap();
    assert_eq!((source.task, source.train.unwrap().len()), (Task::Detect, 8));
}

#[test]
fn classes_get_the_nets_numbers_and_other_tasks_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let csv = root.path().join("csv");
    table(&csv);
    let path = csv.to_str().unwrap();
    let known = ["bird", "dog", "cat"].map(String::from);
    let wanted = Wanted { task: Some(Task::Detect), class_names: Some(&known) };
    let source = open_dataset_as(path, &wanted).unwrap();
    let boxes = source.train.unwrap().boxes(0).unwrap().to_vec();
    assert_eq!((boxes[0].class, boxes[1].class), (2, 1));
    let strange = ["bird", "dog"].map(String::from);
    let error = open_dataset_as(path, &Wanted { class_names: Some(&strange), ..wanted }).unwrap_err().to_string();
    assert!(error.contains("`cat`") && error.contains("bird, dog"), "{error}");
    assert!(open_dataset_as(path, &Wanted { task: Some(Task::Classify), class_names: None }).is_err());
}

fn batches(path: &Path, training: &BoxTraining, workers: usize, epochs: std::ops::Range<u64>) -> Vec<Batch> {
    let source = open_dataset(path.to_str().unwrap()).unwrap();
    let pipeline = Pipeline::new(Normalize::unit(3)).boxes(training.clone());
    let options = LoaderOptions { batch: 3, shuffle: true, drop_last: true, workers, ..LoaderOptions::default() };
    let mut loader = ImageLoader::new(source.train.unwrap(), pipeline, options).unwrap();
    let mut found = Vec::new();
    for epoch in epochs {
        loader.start(epoch, 0).unwrap();
        while let Some(batch) = loader.next_batch().unwrap() {
            found.push(batch.clone());
            loader.recycle(batch);
        }
    }
    found
}

#[test]
fn batches_of_training_are_those_of_their_step_whoever_loads_them() {
    let root = tempfile::tempdir().unwrap();
    let csv = root.path().join("csv");
    table(&csv);
    let augment =
        BoxAugment { mosaic: 0.6, mixup: 0.4, copy_paste: 0.5, flip: 0.5, scale: [0.7, 1.3], ..BoxAugment::plain() };
    let sizes = vec![[32, 32], [32, 64], [64, 64]];
    let training = BoxTraining { augment, sizes: sizes.clone(), alone_from: 4, seed: 1, memory: 9000 };
    let plain = batches(&csv, &training, 0, 0..5);
    assert_eq!(plain.len(), 10);
    assert!(plain == batches(&csv, &training, 3, 0..5), "workers change a batch");
    assert!(plain[6..] == batches(&csv, &training, 2, 3..5), "where loading starts changes a batch");
    assert!(plain == batches(&csv, &BoxTraining { memory: 0, ..training.clone() }, 1, 0..5), "memory changes a batch");
    let mut seen: Vec<[usize; 2]> = plain.iter().map(|batch| [batch.shape[2], batch.shape[3]]).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 1 && seen.iter().all(|size| sizes.contains(size)), "{seen:?}");
    let most = |batches: &[Batch]| batches.iter().flat_map(|b| b.boxes.samples()).map(Vec::len).max().unwrap();
    assert!(most(&plain[..8]) > 2 && most(&plain[8..]) <= 2, "the last epoch has single pictures");
    for (batch, things) in plain.iter().flat_map(|b| b.boxes.samples().iter().map(move |things| (b, things))) {
        for thing in things {
            let [x1, y1, x2, y2] = thing.xyxy;
            assert!(x1 >= 0.0 && y1 >= 0.0 && x1 < x2 && y1 < y2);
            assert!(x2 <= batch.shape[3] as f64 && y2 <= batch.shape[2] as f64, "{thing:?} {:?}", batch.shape);
        }
    }
    let [boxes, labels] = plain[0].truth_arrays(1, 5);
    assert_eq!((boxes.shape().dims(), labels.shape().dims()), (&[3, 1, 4][..], &[3, 1][..]));
    assert!(labels.to_i64_vec().iter().all(|label| [-1, 5, 6].contains(label)));
}

#[test]
fn batches_of_evaluation_keep_the_boxes_of_the_data() {
    let root = tempfile::tempdir().unwrap();
    let csv = root.path().join("csv");
    table(&csv);
    let source = open_dataset(csv.to_str().unwrap()).unwrap();
    let letterbox = Letterbox { size: [32, 64], interpolation: Interpolation::Bilinear };
    let pipeline = Pipeline::new(Normalize::unit(3)).augment(Compose::new().then(letterbox));
    let train = source.train.unwrap();
    let options = LoaderOptions { batch: 8, ..LoaderOptions::default() };
    let mut loader = ImageLoader::new(train.clone(), pipeline, options).unwrap();
    let batch = loader.next_batch().unwrap().unwrap();
    assert_eq!((batch.shape, &batch.boxes.sources[3]), ([8, 3, 32, 64], &[20, 43]));
    assert_eq!(batch.boxes.samples()[3], train.boxes(3).unwrap());
}

/// Black pictures of several sizes, each with two white things that their boxes do not fill, in COCO json: one as polygons, one as RLE.
fn shapes(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for index in 0..6 {
        let size = [120, 150 + 10 * index];
        let mut image = Image::filled(size[1], size[0], &[0; 3]);
        let wedge = vec![20.0, 20.0, 70.0, 30.0, 44.5, 52.0, 66.0, 90.0, 24.0, 80.0];
        let polygons = Segmentation::Polygons(vec![wedge.clone()]);
        let first = Shape::new(&polygons, Some(size)).unwrap().mask(size);
        let second = Mask::of(size, [85, 40, 135, 90], |x, y| x.abs_diff(110).pow(2) + y.abs_diff(65).pow(2) < 600);
        for [x, y] in first.pixels().chain(second.pixels()) {
            image.data[3 * (y * size[1] + x)..][..3].fill(255);
        }
        std::fs::write(folder.join(format!("{index}.png")), encode_png(&image).unwrap()).unwrap();
        let file = format!("{index}.png");
        images.push(serde_json::json!({"id": index, "file_name": file, "width": size[1], "height": size[0]}));
        annotations.push(
            serde_json::json!({"image_id": index, "category_id": 1, "bbox": [20, 20, 50, 70], "segmentation": [wedge]}),
        );
        let rle = second.to_rle();
        annotations.push(
            serde_json::json!({"image_id": index, "category_id": 1, "bbox": [86, 41, 49, 49], "segmentation": rle}),
        );
    }
    let categories = serde_json::json!([{"id": 1, "name": "white"}]);
    let file = serde_json::json!({"images": images, "annotations": annotations, "categories": categories});
    std::fs::write(folder.join("instances_train.json"), file.to_string()).unwrap();
}

/// Whether a pixel of a mask of [`Batch::shape_array`] is set.
fn bit(bits: &[u8], pitch: usize, x: usize, y: usize) -> bool {
    bits[y * pitch + x / 8] >> (x % 8) & 1 == 1
}

#[test]
fn shapes_lie_on_their_things_in_every_batch() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("shapes");
    shapes(&folder);
    let augment =
        BoxAugment { mosaic: 0.4, mixup: 0.0, copy_paste: 0.8, flip: 0.5, scale: [0.9, 1.3], ..BoxAugment::plain() };
    let training = BoxTraining { augment, sizes: vec![[96, 132], [128, 160]], alone_from: 9, seed: 3, memory: 1 << 20 };
    let found = batches(&folder, &training, 0, 0..8);
    assert!(found == batches(&folder, &training, 3, 0..8), "workers change a shape");
    assert!(found == batches(&folder, &BoxTraining { memory: 0, ..training.clone() }, 1, 0..8), "memory changes one");
    let (mut things, most) = (0, 10);
    for batch in &found {
        let [n, channels, height, width] = batch.shape;
        let (array, pitch) = (batch.shape_array(most), width.div_ceil(8));
        assert_eq!(array.shape().dims(), &[n, most, height, pitch]);
        let bits = array.as_slice::<u8>().unwrap();
        for (index, sample) in batch.boxes.samples().iter().enumerate() {
            let planes: Vec<&[u8]> = bits.chunks_exact(height * pitch).skip(index * most).take(most).collect();
            let (mut common, mut union) = (0, 0);
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let white = batch.data[index * channels * height * width + y * width + x] > 0.5;
                let inside = planes.iter().any(|plane| bit(plane, pitch, x, y));
                (common, union) = (common + usize::from(white && inside), union + usize::from(white || inside));
            }
            assert!(common as f64 > 0.85 * union as f64, "{common} of {union} in {sample:?}");
            for (thing, plane) in sample.iter().zip(&planes) {
                let mask = thing.mask([height, width]).unwrap();
                assert!(
                    (0..height * width)
                        .all(|i| bit(plane, pitch, i % width, i / width) == mask.contains(i % width, i / width))
                );
            }
            assert!(
                planes[sample.len()..].iter().all(|plane| plane.iter().all(|byte| *byte == 0)),
                "padding has a mask"
            );
            things += sample.len();
        }
    }
    assert!(things > 60, "{things}");
}

#[test]
fn shapes_that_lie_are_told_and_their_boxes_kept() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("shapes");
    shapes(&folder);
    let path = folder.join("instances_train.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let annotations = file["annotations"].as_array_mut().unwrap();
    annotations[0]["segmentation"] = serde_json::json!([[1.0, 2.0, 3.0]]);
    annotations[1]["segmentation"] =
        serde_json::json!({"size": [4_000_000_000u32, 4_000_000_000u32], "counts": "oooo3"});
    (0..2).for_each(|index| annotations[index]["id"] = (70 + index).into());
    std::fs::write(&path, file.to_string()).unwrap();
    let source = open_dataset(folder.to_str().unwrap()).unwrap();
    let note = source.notes.iter().find(|note| note.contains("shape")).unwrap();
    for part in ["2 × shape that cannot be used", "annotation 70: its polygon 1 has an odd number", "annotation 71: "]
    {
        assert!(note.contains(part), "`{part}` is not in: {note}");
    }
    let train = source.train.unwrap();
    assert_eq!(train.boxes(0).unwrap().iter().map(|thing| thing.shape.is_some()).collect::<Vec<_>>(), [false, false]);
    assert!((1..6).flat_map(|index| train.boxes(index).unwrap()).all(|thing| thing.shape.is_some()));
}
