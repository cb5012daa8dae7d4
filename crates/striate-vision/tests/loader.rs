//! The loader: the same bits for any number of workers, from any place, with bad pictures among the good.

use std::path::Path;
use std::sync::Arc;

use striate_vision::data::*;
use striate_vision::transforms::*;
use tempfile::TempDir;

fn pipeline() -> Pipeline {
    let augment = Compose::new()
        .then(RandomCrop::new(28, 28).padding(3))
        .then(RandomHorizontalFlip::new(0.5))
        .then(ColorJitter { brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1 })
        .then(TrivialAugmentWide::default());
    let erasing = RandomErasing { value: EraseValue::Random, ..RandomErasing::default() };
    Pipeline::new(Normalize::new(&[0.3], &[0.35]).unwrap()).augment(augment).erasing(erasing)
}

fn options(workers: usize) -> LoaderOptions {
    LoaderOptions {
        batch: 48,
        shuffle: true,
        seed: 11,
        workers,
        mixing: Mixing::Either { mixup_alpha: 0.4, cutmix_alpha: 1.0 },
        across_epochs: true,
        ..LoaderOptions::default()
    }
}

fn small() -> Arc<dyn Dataset> {
    let train = open_embedded().unwrap().train.unwrap();
    Arc::new(Subset::new(train, (0..500).collect()).unwrap())
}

/// The batches of two epochs.
fn two_epochs(loader: &mut ImageLoader) -> Vec<Batch> {
    (0..2).flat_map(|e| loader.epoch(e).unwrap().map(Result::unwrap).collect::<Vec<_>>()).collect()
}

#[test]
fn batches_do_not_depend_on_the_workers() {
    let all: Vec<Vec<Batch>> = [0, 1, 3]
        .map(|workers| two_epochs(&mut ImageLoader::new(small(), pipeline(), options(workers)).unwrap()))
        .into();
    assert_eq!(all[0].len(), 22);
    assert_eq!((all[0][0].shape, all[0][10].shape), ([48, 1, 28, 28], [20, 1, 28, 28]));
    assert!(all[0] == all[1] && all[0] == all[2]);
    // The epochs differ in order, each has every sample once, and a sample is augmented anew.
    let order = |epoch: usize| all[0][epoch * 11..][..11].iter().flat_map(|b| b.indices.clone()).collect::<Vec<_>>();
    assert_ne!(order(0), order(1));
    let mut sorted = order(0);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    for batch in &all[0] {
        for row in batch.targets.as_ref().unwrap().chunks_exact(10) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|t| (0.0..=1.0).contains(t)));
        }
    }
}

#[test]
fn loading_starts_anywhere() {
    for workers in [0, 2] {
        let mut loader = ImageLoader::new(small(), pipeline(), options(workers)).unwrap();
        let whole = two_epochs(&mut loader);
        // Back and forth, with batches ready for elsewhere; across the border of an epoch; and with memory used again.
        for (epoch, batch) in [(1, 4), (0, 7), (0, 7), (0, 0), (1, 10)] {
            loader.start(epoch, batch).unwrap();
            for expected in whole.iter().skip(epoch as usize * 11 + batch).take(6) {
                let Some(got) = loader.next_batch().unwrap() else { break };
                assert_eq!(&got, expected);
                loader.recycle(got);
            }
        }
        loader.start(0, 11).unwrap();
        assert!(loader.next_batch().unwrap().is_none());
        loader.start(1, 0).unwrap();
        assert_eq!(loader.next_batch().unwrap().as_ref(), Some(&whole[11]));
        assert!(loader.start(0, 12).is_err());
    }
}

#[test]
fn evaluation_is_plain_and_layouts_hold_the_same_values() {
    let set: Arc<dyn Dataset> = {
        let pixels = (0..2 * 5 * 4 * 3).map(|i| (i * 7) as u8).collect();
        let names = vec!["a".into(), "b".into()];
        Arc::new(MemoryDataset::new([5, 4, 3], pixels, vec![0, 1], names, "test").unwrap())
    };
    let mut preprocess = Preprocess::exact(5, 4, 3);
    (preprocess.mean, preprocess.std) = (vec![0.4, 0.5, 0.6], vec![0.2, 0.3, 0.4]);
    let batch = |layout| {
        let pipeline = Pipeline::evaluation(&preprocess).unwrap().layout(layout);
        let mut loader = ImageLoader::new(set.clone(), pipeline, LoaderOptions::default()).unwrap();
        loader.next_batch().unwrap().unwrap()
    };
    let (nchw, nhwc) = (batch(Layout::Nchw), batch(Layout::Nhwc));
    assert_eq!((nchw.shape, nhwc.shape, nchw.labels.as_slice()), ([2, 3, 5, 4], [2, 5, 4, 3], [0, 1].as_slice()));
    for (i, &value) in nhwc.data.iter().enumerate() {
        let (c, x, y, n) = (i % 3, i / 3 % 4, i / 12 % 5, i / 60);
        assert_eq!(value, nchw.data[((n * 3 + c) * 5 + y) * 4 + x]);
        let byte = f32::from((i * 7) as u8);
        assert_eq!(value, (byte / 255.0 - preprocess.mean[c]) / preprocess.std[c]);
    }
    let (values, shape) = preprocess.apply(&set.get(1).unwrap().image, Layout::Nchw).unwrap();
    assert_eq!((values.as_slice(), shape), (&nchw.data[60..], [1, 3, 5, 4]));
    let text = serde_json::to_string(&Preprocess::imagenet()).unwrap();
    assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), Preprocess::imagenet());
    assert!(
        text.starts_with(r#"{"resize":{"shorter":256},"crop":[224,224],"interpolation":"bilinear","channels":3"#),
        "{text}"
    );
    assert!(Preprocess { std: vec![0.0; 3], ..Preprocess::imagenet() }.check().is_err());
    assert!(Preprocess { crop: Some([0, 4]), ..Preprocess::imagenet() }.check().is_err());
}

/// Two classes of 10 pictures; of "b", pictures 3 and 4 are broken in two ways.
fn broken_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (c, class) in ["a", "b"].iter().enumerate() {
        std::fs::create_dir(folder.path().join(class)).unwrap();
        for i in 0..10u8 {
            let path = folder.path().join(class).join(format!("{i}.jpg"));
            let picture =
                image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 5, y as u8 * 7, i * 9 + c as u8]));
            picture.save(&path).unwrap();
            if c == 1 && i == 3 {
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            } else if c == 1 && i == 4 {
                std::fs::write(&path, "this is no picture").unwrap();
            }
        }
    }
    folder
}

#[test]
fn bad_pictures_are_named_and_counted_or_end_the_run() {
    let folder = broken_folder();
    let set: Arc<dyn Dataset> = Arc::new(FolderDataset::open(folder.path()).unwrap());
    let load = |bad_pictures, workers| {
        let pipeline = Pipeline::evaluation(&Preprocess::exact(16, 16, 3)).unwrap();
        let options = LoaderOptions { batch: 8, shuffle: true, bad_pictures, workers, ..LoaderOptions::default() };
        let mut loader = ImageLoader::new(set.clone(), pipeline, options).unwrap();
        let batches: Result<Vec<Batch>> = loader.epoch(0).unwrap().collect();
        (batches, loader.skipped())
    };
    let (plain, skipped) = load(BadPictures::Replace, 0);
    let plain = plain.unwrap();
    assert_eq!(skipped.len(), 2);
    assert!(skipped[0].name.ends_with("b/3.jpg") && skipped[0].reason.contains("truncated"), "{skipped:?}");
    assert!(skipped[1].name.ends_with("b/4.jpg") && skipped[1].reason.contains("but text"), "{skipped:?}");
    assert_eq!(plain.iter().map(Batch::len).collect::<Vec<_>>(), [8, 8, 4]);
    // Both are replaced by the next good one, of their own class.
    let count = |index| plain.iter().flat_map(|b| &b.indices).filter(|&&i| i == index).count();
    assert_eq!([13, 14, 15].map(count), [0, 0, 3]);
    for workers in [1, 3] {
        let (batches, again) = load(BadPictures::Replace, workers);
        assert!(batches.unwrap() == plain && again == skipped);
    }
    let (fewer, skipped) = load(BadPictures::Drop, 2);
    assert_eq!((fewer.unwrap().iter().map(Batch::len).sum::<usize>(), skipped.len()), (18, 2));
    for workers in [0, 2] {
        let error = load(BadPictures::Fail, workers).0.unwrap_err();
        assert!(matches!(error, DataError::Picture { .. }), "{error}");
        assert!(error.to_string().contains(".jpg"), "{error}");
    }
    for i in 0..10 {
        std::fs::write(folder.path().join(format!("a/{i}.jpg")), "no").unwrap();
        std::fs::write(folder.path().join(format!("b/{i}.jpg")), "no").unwrap();
    }
    let error = load(BadPictures::Replace, 1).0.unwrap_err();
    assert!(matches!(error, DataError::NoReadablePicture { tried: 19, .. }), "{error}");
}

#[derive(Debug)]
struct Explodes;

impl Transform for Explodes {
    fn apply(&self, image: &mut Image, _: &mut Draws, _: &mut Scratch) -> Result<(), TransformError> {
        assert!(image.data[2] < 60, "boom at {}", image.data[2]);
        Ok(())
    }
}

#[test]
fn a_panic_names_the_file_and_can_be_asked_again() {
    let folder = broken_folder();
    let set: Arc<dyn Dataset> = Arc::new(FolderDataset::open(folder.path()).unwrap());
    for workers in [0, 2] {
        let pipeline = Pipeline::new(Normalize::unit(3)).augment(Compose::new().then(Explodes));
        let options = LoaderOptions { batch: 4, workers, ..LoaderOptions::default() };
        let mut loader = ImageLoader::new(set.clone(), pipeline, options).unwrap();
        assert_eq!(loader.next_batch().unwrap().unwrap().indices, [0, 1, 2, 3]);
        for _ in 0..2 {
            let error = loader.next_batch().unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, DataError::WorkerPanic { .. }), "{text}");
            assert!(
                text.contains(&Path::new("a").join("7.jpg").display().to_string()) && text.contains("boom"),
                "{text}"
            );
        }
    }
}

#[test]
fn settings_and_samples_that_do_not_fit() {
    let set = small();
    let loader = |options| ImageLoader::new(set.clone(), pipeline(), options);
    assert!(loader(LoaderOptions { batch: 0, ..options(0) }).is_err());
    assert!(loader(LoaderOptions { batch: 501, drop_last: true, ..options(0) }).is_err());
    assert!(loader(LoaderOptions { mixing: Mixing::MixUp { alpha: 0.0 }, ..options(0) }).is_err());
    let dropped = loader(LoaderOptions { drop_last: true, ..options(0) }).unwrap();
    assert_eq!((dropped.batches(), dropped.samples(), dropped.class_count()), (10, 480, 10));
    let empty: Arc<dyn Dataset> = Arc::new(Subset::new(set.clone(), Vec::new()).unwrap());
    assert!(ImageLoader::new(empty, pipeline(), options(0)).is_err());

    /// Sizes that differ, and a label too far.
    struct Odd(usize);
    impl Dataset for Odd {
        fn len(&self) -> usize {
            4
        }
        fn class_count(&self) -> usize {
            2
        }
        fn get(&self, index: usize) -> Result<Sample> {
            Ok(Sample { image: Image::filled(8 + index * self.0, 8, &[1]), label: index * (1 - self.0) })
        }
    }
    let first = |odd| {
        let pipeline = Pipeline::new(Normalize::unit(1));
        ImageLoader::new(Arc::new(odd), pipeline, LoaderOptions::default()).unwrap().next_batch().unwrap_err()
    };
    let error = first(Odd(1));
    assert!(error.to_string().contains("9x8") && matches!(error, DataError::SizeMismatch { .. }), "{error}");
    let error = first(Odd(0));
    assert!(error.to_string().contains("label 2") && matches!(error, DataError::SampleLabel { .. }), "{error}");
    let pipeline = Pipeline::new(Normalize::unit(1)).augment(Compose::new().then(RandomCrop::new(9, 9)));
    let error =
        ImageLoader::new(Arc::new(Odd(1)), pipeline, LoaderOptions::default()).unwrap().next_batch().unwrap_err();
    assert!(
        matches!(error, DataError::Transform { .. }) && error.to_string().starts_with("sample 0: a crop"),
        "{error}"
    );
}

#[test]
fn mixing_is_the_weighted_mean_or_the_rectangle() {
    let set = small();
    let batch = |mixing| {
        let options = LoaderOptions { batch: 6, mixing, ..LoaderOptions::default() };
        ImageLoader::new(set.clone(), Pipeline::new(Normalize::unit(1)), options)
            .unwrap()
            .next_batch()
            .unwrap()
            .unwrap()
    };
    let (plain, up, cut) =
        (batch(Mixing::None), batch(Mixing::MixUp { alpha: 1.0 }), batch(Mixing::CutMix { alpha: 1.0 }));
    assert_eq!(plain.images().shape().to_string(), "[6, 1, 28, 28]");
    assert_eq!(plain.images().f32s().unwrap(), plain.data);
    assert_eq!(plain.label_array().to_i64_vec(), plain.labels.iter().map(|&l| l as i64).collect::<Vec<_>>());
    assert!(plain.target_array().is_none());
    assert_eq!(up.target_array().unwrap().shape().to_string(), "[6, 10]");
    assert!(plain.targets.is_none() && up.labels == plain.labels);
    let sample = |b: &Batch, i: usize| b.data[i * 784..(i + 1) * 784].to_vec();
    for (mixed, is_cut) in [(&up, false), (&cut, true)] {
        let targets = mixed.targets.as_ref().unwrap();
        let unlike = (0..6).find(|&i| plain.labels[i] != plain.labels[(i + 5) % 6]).unwrap();
        let kept = targets[unlike * 10 + plain.labels[unlike]];
        for i in 0..6 {
            let (own, other, got) = (sample(&plain, i), sample(&plain, (i + 5) % 6), sample(mixed, i));
            if is_cut {
                let taken = got.iter().zip(own.iter().zip(&other)).filter(|(g, (a, b))| g != a && g == b).count();
                assert!(taken as f32 / 784.0 <= 1.0 - kept + 1e-6);
                assert!(got.iter().zip(own.iter().zip(&other)).all(|(g, (a, b))| g == a || g == b));
            } else {
                for (g, (a, b)) in got.iter().zip(own.iter().zip(&other)) {
                    assert!((g - (kept * a + (1.0 - kept) * b)).abs() < 1e-6);
                }
            }
        }
    }
}
