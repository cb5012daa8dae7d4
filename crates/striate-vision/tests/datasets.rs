//! Data sets from files: what is found, and what is refused and how.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use striate_vision::data::*;
use striate_vision::models::Task;
use striate_vision::transforms::Compose;
use tempfile::TempDir;

fn idx(magic: u32, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    shape.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gz(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn images(n: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..n * 12).map(|i| i as u8).collect();
    idx(0x803, &[n, 3, 4], &pixels)
}

fn labels(values: &[u8]) -> Vec<u8> {
    idx(0x801, &[values.len() as u32], values)
}

/// A folder with a sound IDX set of 3 classes, to be damaged by the tests.
fn idx_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("train-images-idx3-ubyte", &images(6));
    put("train-labels-idx1-ubyte.gz", &gz(&labels(&[0, 1, 2, 2, 1, 0])));
    put("t10k-images.idx3-ubyte.gz", &gz(&images(2)));
    put("t10k-labels.idx1-ubyte", &labels(&[2, 0]));
    folder
}

fn open(folder: &TempDir) -> Result<DatasetSource> {
    open_path(folder.path())
}

/// Writes one file over and gives the error's text after checking its kind.
fn damaged(name: &str, bytes: &[u8], is_it: impl Fn(&DataError) -> bool) -> String {
    let folder = idx_folder();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    let error = open(&folder).unwrap_err();
    assert!(is_it(&error), "{error:?}");
    assert!(!error.is_io(), "{error}");
    let text = error.to_string();
    assert!(text.contains(name), "names its file: {text}");
    text
}

#[test]
fn idx_in_all_its_names() {
    let folder = idx_folder();
    let source = open(&folder).unwrap();
    assert_eq!((source.kind, source.channels, source.fixed_size), (DatasetKind::Idx, 1, Some([3, 4])));
    assert_eq!(source.class_names, ["0", "1", "2"]);
    let train = source.train.as_ref().unwrap();
    assert_eq!((train.len(), train.class_count()), (6, 3));
    let sample = train.get(3).unwrap();
    assert_eq!((sample.label, sample.image.width, sample.image.height), (2, 4, 3));
    assert_eq!(sample.image.data, (36..48).collect::<Vec<u8>>());
    assert_eq!(labels_of(source.test.as_ref().unwrap().as_ref()).unwrap(), [2, 0]);
    assert!(source.val.is_none());
    // One of its files stands for the folder.
    let file = folder.path().join("train-images-idx3-ubyte");
    assert_eq!(open_path(&file).unwrap().class_names.len(), 3);

    std::fs::write(folder.path().join("classes.txt"), "cat\ndog\nemu\nfox\n").unwrap();
    assert_eq!(open(&folder).unwrap().class_names, ["cat", "dog", "emu", "fox"]);
    std::fs::write(folder.path().join("classes.txt"), "cat\ncat\n").unwrap();
    assert!(matches!(open(&folder).unwrap_err(), DataError::ClassNames { .. }));
}

#[test]
fn idx_with_channels() {
    let folder = TempDir::new().unwrap();
    let pixels: Vec<u8> = (0..2 * 2 * 2 * 3).collect();
    std::fs::write(folder.path().join("train-images-idx4-ubyte"), idx(0x804, &[2, 2, 2, 3], &pixels)).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), labels(&[0, 1])).unwrap();
    let source = open(&folder).unwrap();
    assert_eq!((source.channels, source.fixed_size), (3, Some([2, 2])));
    assert_eq!(source.train.unwrap().get(1).unwrap().image.pixel(0, 0), [12, 13, 14]);
}

#[test]
fn idx_with_a_wrong_magic_number() {
    let is_magic = |e: &DataError| matches!(e, DataError::IdxMagic { .. });
    let text = damaged("train-images-idx3-ubyte", &labels(&[1, 2, 3]), is_magic);
    assert!(text.contains("0x00000801") && text.contains("0x00000803"), "{text}");
    damaged("train-images-idx3-ubyte", &idx(0x0D03, &[1, 1, 1], &[0; 4]), is_magic);
    damaged("t10k-labels.idx1-ubyte", b"\x89PNG....", is_magic);
    damaged("train-labels-idx1-ubyte.gz", b"PK\x03\x04 no gzip", is_magic);
}

#[test]
fn idx_with_a_wrong_length() {
    let is_length = |e: &DataError| matches!(e, DataError::Length { .. });
    let whole = images(6);
    let text = damaged("train-images-idx3-ubyte", &whole[..whole.len() - 5], is_length);
    assert!(text.contains("6 x 3 x 4") && text.contains("72 bytes") && text.contains("there are 67"), "{text}");
    damaged("train-images-idx3-ubyte", &[whole.clone(), vec![0]].concat(), is_length);
    for cut in [0, 1, 3, 4, 7, 15] {
        damaged("train-images-idx3-ubyte", &whole[..cut], is_length);
    }
    damaged("train-labels-idx1-ubyte.gz", &gz(&labels(&[0, 1, 2, 2, 1, 0])[..10]), is_length);
    // What the header declares is not allocated.
    damaged("train-images-idx3-ubyte", &idx(0x803, &[1_000_000, 28, 28], &[0; 100]), is_length);
    let is_header = |e: &DataError| matches!(e, DataError::Header { .. });
    damaged("train-images-idx3-ubyte", &idx(0x803, &[u32::MAX; 3], &[]), is_header);
    damaged("train-images-idx3-ubyte", &idx(0x803, &[0, 28, 28], &[]), is_header);
    damaged("train-images-idx3-ubyte", &idx(0x803, &[6, 0, 28], &[]), is_header);
    let packed = gz(&labels(&[0, 1, 2, 2, 1, 0]));
    let text = damaged("train-labels-idx1-ubyte.gz", &packed[..packed.len() - 9], is_header);
    assert!(text.contains("gzip"), "{text}");
}

#[test]
fn idx_labels_that_do_not_fit() {
    let is_range = |e: &DataError| matches!(e, DataError::LabelRange { .. });
    let text = damaged("t10k-labels.idx1-ubyte", &labels(&[2, 3]), is_range);
    assert!(text.contains("label 3 of sample 1") && text.contains("0 to 2"), "{text}");
    let text = damaged("train-labels-idx1-ubyte.gz", &gz(&labels(&[0, 1, 2, 200, 1, 0])), is_range);
    assert!(text.contains("label 200 of sample 3") && text.contains("classes.txt"), "{text}");
    damaged("train-labels-idx1-ubyte.gz", &gz(&labels(&[0, 1])), |e| {
        matches!(e, DataError::CountMismatch { images: 6, labels: 2, .. })
    });

    let folder = idx_folder();
    std::fs::write(folder.path().join("classes.txt"), "cat\ndog\n").unwrap();
    assert!(matches!(open(&folder).unwrap_err(), DataError::LabelRange { label: 2, .. }));

    let folder = idx_folder();
    std::fs::remove_file(folder.path().join("t10k-labels.idx1-ubyte")).unwrap();
    let text = open(&folder).unwrap_err().to_string();
    assert!(text.contains("t10k-labels.idx1-ubyte"), "{text}");

    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("train-images-idx3-ubyte"), images(2)).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), labels(&[0, 0])).unwrap();
    assert!(matches!(open(&folder).unwrap_err(), DataError::OneClass { .. }));
}

#[test]
fn cifar_binaries() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("cifar-10-batches-bin");
    std::fs::create_dir(&inner).unwrap();
    let record = |label: u8| {
        let mut bytes = vec![label];
        (0..3u8).for_each(|c| bytes.extend((0..1024u32).map(|i| (i as u8 / 2).wrapping_add(c))));
        bytes
    };
    for i in 1..=2 {
        std::fs::write(inner.join(format!("data_batch_{i}.bin")), [record(i), record(9)].concat()).unwrap();
    }
    std::fs::write(inner.join("test_batch.bin"), record(3)).unwrap();
    let source = open(&folder).unwrap();
    assert_eq!((source.kind, source.channels, source.fixed_size), (DatasetKind::Cifar10, 3, Some([32, 32])));
    assert_eq!(source.class_names, CIFAR10);
    let train = source.train.unwrap();
    assert_eq!(labels_of(train.as_ref()).unwrap(), [1, 9, 2, 9]);
    assert_eq!(train.get(0).unwrap().image.pixel(5, 1), [18, 19, 20]);

    std::fs::write(inner.join("test_batch.bin"), record(10)).unwrap();
    assert!(matches!(open(&folder).unwrap_err(), DataError::LabelRange { label: 10, index: 0, .. }));
    std::fs::write(inner.join("test_batch.bin"), &record(1)[1..]).unwrap();
    assert!(matches!(open(&folder).unwrap_err(), DataError::Length { .. }));

    let folder = TempDir::new().unwrap();
    let bytes = [vec![7], record(42)].concat();
    std::fs::write(folder.path().join("train.bin"), [bytes.clone(), bytes].concat()).unwrap();
    let source = open(&folder).unwrap();
    assert_eq!((source.kind, source.class_names.len()), (DatasetKind::Cifar100, 100));
    assert_eq!(labels_of(source.train.unwrap().as_ref()).unwrap(), [42, 42]);

    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("data_batch_1"), "pickle").unwrap();
    assert!(open(&folder).unwrap_err().to_string().contains("version for Python"));
}

fn save(path: PathBuf, size: (u32, u32), value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(size.0, size.1, image::Rgb([value, 0, 255 - value])).save(path).unwrap();
}

fn class_folder(root: &Path, classes: &[&str], each: usize) {
    for (c, class) in classes.iter().enumerate() {
        (0..each).for_each(|i| save(root.join(class).join(format!("{i}.png")), (8 + i as u32, 6), (c * 20 + i) as u8));
    }
}

#[test]
fn a_folder_for_each_class() {
    let folder = TempDir::new().unwrap();
    class_folder(folder.path(), &["dog", "cat", "train"], 3);
    std::fs::create_dir(folder.path().join("cat/more")).unwrap();
    save(folder.path().join("cat/more/a.JPEG"), (9, 9), 1);
    std::fs::write(folder.path().join("cat/notes.txt"), "about cats").unwrap();
    std::fs::write(folder.path().join("cat/old.gif"), "GIF89a").unwrap();
    std::fs::create_dir(folder.path().join(".hidden")).unwrap();
    let source = open(&folder).unwrap();
    assert_eq!((source.kind, source.channels), (DatasetKind::Folder, 3));
    assert_eq!(source.class_names, ["cat", "dog", "train"]);
    assert_eq!(source.probed.len(), 10);
    assert!(source.notes.len() == 1 && source.notes[0].contains("old.gif"), "{:?}", source.notes);
    let all = source.train.unwrap();
    assert_eq!(class_counts(all.as_ref()).unwrap(), [4, 3, 3]);
    assert!(all.name(3).ends_with("cat/more/a.JPEG"));
    assert_eq!(all.get(4).unwrap().label, 1);
}

#[test]
fn a_folder_with_parts() {
    let folder = TempDir::new().unwrap();
    class_folder(&folder.path().join("Train"), &["a", "b", "c"], 3);
    class_folder(&folder.path().join("validation"), &["a", "b", "c"], 2);
    class_folder(&folder.path().join("test"), &["b", "c"], 1);
    let source = open(&folder).unwrap();
    let len = |part: &Option<Arc<dyn Dataset>>| part.as_ref().map(|p| p.len());
    assert_eq!((len(&source.train), len(&source.val), len(&source.test)), (Some(9), Some(6), Some(2)));
    assert_eq!(labels_of(source.test.as_ref().unwrap().as_ref()).unwrap(), [1, 2]);
    assert!(source.notes.iter().any(|n| n.contains("no pictures of a")), "{:?}", source.notes);
    let (train, val) = source.train_and_val(0.1, 0).unwrap();
    assert_eq!((train.len(), val.len()), (9, 6));

    class_folder(&folder.path().join("test"), &["cc"], 1);
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, DataError::UnknownClass { class, .. } if class == "cc"), "{error}");
    assert!(error.to_string().contains("did you mean \"c\""), "{error}");
    class_folder(&folder.path().join("valid"), &["a", "b"], 1);
    assert!(open(&folder).unwrap_err().to_string().contains("same part"));
}

#[test]
fn folders_that_are_no_data_set() {
    let folder = TempDir::new().unwrap();
    let text = open(&folder).unwrap_err().to_string();
    for tried in ["IDX", "CIFAR", "a folder per class"] {
        assert!(text.contains(tried), "{text}");
    }
    save(folder.path().join("loose.png"), (4, 4), 0);
    assert!(open(&folder).unwrap_err().to_string().contains("no class folders"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let error = open(&folder).unwrap_err();
    assert!(matches!(error, DataError::UnknownFormat { .. }), "{error}");
    assert!(error.to_string().contains("no JPEG, PNG"), "{error}");

    class_folder(folder.path(), &["cat"], 2);
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, DataError::EmptyClass { folder, .. } if folder.ends_with("empty")), "{error}");
    std::fs::remove_dir(folder.path().join("empty")).unwrap();
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, DataError::OneClass { class, .. } if class == "cat"), "{error}");

    let error = open_dataset("/no/such/folder").unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }), "{error}");
    assert!(open_dataset("fashon-mnist").unwrap_err().to_string().contains("did you mean \"fashion-mnist\""));
    assert!(matches!(open_path(&folder.path().join("loose.png")), Err(DataError::UnknownFormat { .. })));
}

#[test]
fn the_embedded_set_is_the_first_of_each_class() {
    let source = open_embedded().unwrap();
    assert_eq!((source.kind, source.channels, source.fixed_size), (DatasetKind::Embedded, 1, Some([28, 28])));
    assert_eq!(source.class_names, FASHION_MNIST);
    let (train, test) = (source.train.unwrap(), source.test.unwrap());
    assert_eq!(class_counts(train.as_ref()).unwrap(), [600; 10]);
    assert_eq!(class_counts(test.as_ref()).unwrap(), [100; 10]);
    assert!(EMBEDDED_LICENSE.contains("MIT License"));

    let Some(folder) = required(Path::new("/usr/share/datasets/fashion-mnist")) else { return };
    let whole = open_path(&folder).unwrap();
    assert_eq!(open_dataset("fashion-mnist").unwrap().class_names, FASHION_MNIST);
    assert_eq!(whole.class_names, FASHION_MNIST);
    for (whole, part, each) in [(whole.train.unwrap(), train, 600), (whole.test.unwrap(), test, 100)] {
        let mut counts = [0; 10];
        let mut next = 0;
        for i in 0..whole.len() {
            let label = whole.label(i).unwrap();
            if counts[label] < each {
                counts[label] += 1;
                assert_eq!(whole.get(i).unwrap(), part.get(next).unwrap());
                next += 1;
            }
        }
        assert_eq!(next, part.len());
    }
}

/// A folder that need not be there on every machine, but must be in CI.
fn required(path: &Path) -> Option<PathBuf> {
    if path.exists() {
        return Some(path.to_path_buf());
    }
    assert!(std::env::var_os("CI").is_none(), "{} is required in CI", path.display());
    println!("skipped: {} is not there", path.display());
    None
}

/// Test data that is not part of the repository.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("STRIATE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    required(&root.join(name))
}

#[test]
fn a_renamed_copy_has_the_same_class_names() {
    let Some(folder) = required(Path::new("/usr/share/datasets/fashion-mnist")) else { return };
    let copy = TempDir::new().unwrap();
    for name in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        std::fs::copy(folder.join(format!("{name}.gz")), copy.path().join(format!("{name}.gz"))).unwrap();
    }
    assert_eq!(open(&copy).unwrap().class_names, FASHION_MNIST);
}

#[test]
fn real_photographs() {
    let Some(folder) = shared("clothing-mini") else { return };
    let source = open_path(&folder).unwrap();
    assert_eq!((source.channels, source.class_names.len()), (3, 10));
    let (train, test) = (source.train.clone().unwrap(), source.test.clone().unwrap());
    assert_eq!((train.len(), test.len()), (400, 120));
    let (kept, held) = source.train_and_val(0.1, 0).unwrap();
    assert_eq!(class_counts(held.as_ref()).unwrap(), [4; 10]);
    assert_eq!(kept.len(), 360);
    for i in (0..400).step_by(37) {
        let sample = train.get(i).unwrap();
        assert!(sample.image.width > 200 && sample.image.channels == 3);
        let info = probe(train.file(i).unwrap()).unwrap();
        assert_eq!((info.width, info.height), (sample.image.width, sample.image.height));
    }
    // A data set for detection is no folder per class, and is told so where it is taken for one.
    let bccd = folder.parent().unwrap().join("bccd");
    let error = open_path(&bccd).unwrap_err();
    assert!(error.to_string().contains("Pascal VOC"), "{error}");
    let source = open_dataset(bccd.to_str().unwrap()).unwrap();
    let parts = [source.train, source.val, source.test].map(|part| part.unwrap().len());
    assert_eq!((source.task, parts), (Task::Detect, [205, 87, 72]));
    assert!(source.notes[0].starts_with("2 × box without area, left out"), "{:?}", source.notes);
}

#[test]
fn splitting_is_stratified_and_keyed_by_the_seed() {
    let labels: Vec<usize> = (0..1000).map(|i| if i % 10 == 0 { 1 } else { 0 }).chain([2, 3, 3]).collect();
    let (train, val) = stratified_split(&labels, 0.1, 5).unwrap();
    let count = |part: &[usize], class| part.iter().filter(|&&i| labels[i] == class).count();
    assert_eq!([0, 1, 2, 3].map(|c| count(&val, c)), [90, 10, 0, 1]);
    assert_eq!(train.len() + val.len(), labels.len());
    assert!(train.is_sorted() && val.is_sorted());
    assert_eq!(stratified_split(&labels, 0.1, 5).unwrap().1, val);
    assert_ne!(stratified_split(&labels, 0.1, 6).unwrap().1, val);
    for bad in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(stratified_split(&labels, bad, 0).is_err());
    }
    assert!(stratified_split(&[0, 1, 2], 0.5, 0).is_err());
}

#[test]
fn statistics_are_those_of_the_definition() {
    let pixels = vec![0, 51, 102, 255, 255, 255, 0, 0];
    let names = vec!["a".to_string(), "b".to_string()];
    let set = MemoryDataset::new([2, 2, 1], pixels, vec![0, 1], names, "test").unwrap();
    let stats = channel_stats(&set, 1, &Compose::new(), 100).unwrap();
    assert_eq!((stats.pictures, stats.unreadable), (2, 0));
    let values = [0.0, 0.2, 0.4, 1.0, 1.0, 1.0, 0.0, 0.0f64];
    let mean = values.iter().sum::<f64>() / 8.0;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 8.0).sqrt();
    assert!((f64::from(stats.mean[0]) - mean).abs() < 1e-6 && (f64::from(stats.std[0]) - std).abs() < 1e-6);
    // The usual figures of Fashion-MNIST, from its part inside the binary.
    let train = open_embedded().unwrap().train.unwrap();
    let stats = channel_stats(train.as_ref(), 1, &Compose::new(), usize::MAX).unwrap();
    assert!((stats.mean[0] - 0.286).abs() < 0.005 && (stats.std[0] - 0.353).abs() < 0.005, "{stats:?}");
}
