//! Tensors that do not lie where they say.

use super::Case;
use super::pickles::{call, dict, global, int, text, tuple, whole};
use super::zips::{Entry, archive, pth};

fn storage(tag: &str, class: Vec<u8>, key: Vec<u8>, numel: Vec<u8>) -> Vec<u8> {
    [tuple(&[text(tag), class, key, text("cpu"), numel]), b"Q".to_vec()].concat()
}

fn floats() -> Vec<u8> {
    storage("storage", global("torch", "FloatStorage"), text("0"), int(4))
}

fn sizes(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>())
}

fn rebuild(storage: Vec<u8>, offset: Vec<u8>, size: Vec<u8>, stride: Vec<u8>) -> Vec<u8> {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    call(global("torch._utils", "_rebuild_tensor_v2"), &[storage, offset, size, stride, vec![0x89], hooks])
}

/// A tensor of the storage of four floats.
pub fn tensor(size: &[i64], stride: &[i64], offset: i64) -> Vec<u8> {
    rebuild(floats(), int(offset), sizes(size), sizes(stride))
}

pub fn cases() -> Vec<Case> {
    let v3 = |rest: &[Vec<u8>]| {
        let fixed = [floats(), int(0), sizes(&[4]), sizes(&[1]), vec![0x89], b"N".to_vec()];
        call(global("torch._utils", "_rebuild_tensor_v3"), &[&fixed[..], rest].concat())
    };
    let of_storage = |storage| rebuild(storage, int(0), sizes(&[4]), sizes(&[1]));
    let class = || global("torch", "FloatStorage");
    let subclass = |class: Vec<u8>| {
        let function = global("torch._utils", "_rebuild_tensor_v2");
        let arguments = tuple(&[floats(), int(0), sizes(&[4]), sizes(&[1])]);
        call(global("torch._tensor", "_rebuild_from_type_v2"), &[function, class, arguments, b"N".to_vec()])
    };
    let wrong: Vec<(&str, Vec<u8>, &str)> = vec![
        ("beyond-storage", tensor(&[5], &[1], 0), "[5]"),
        ("beyond-by-offset", tensor(&[4], &[1], 1), "element 1"),
        ("beyond-by-stride", tensor(&[2], &[100], 0), "[100]"),
        ("size-negative", tensor(&[-4], &[1], 0), "-4"),
        ("stride-negative", tensor(&[4], &[-1], 0), "-1"),
        ("offset-negative", tensor(&[4], &[1], -1), "-1"),
        ("size-overflow", tensor(&[1 << 62, 8], &[8, 1], 0), "memory"),
        ("size-max", tensor(&[i64::MAX], &[1], 0), "memory"),
        ("size-of-nothing-overflows", tensor(&[0, 1 << 40, 1 << 40], &[0, 0, 0], 0), "memory"),
        ("stride-overflow", tensor(&[2, 2], &[i64::MAX, i64::MAX], 0), "does not fit"),
        ("offset-overflow", tensor(&[2], &[i64::MAX], i64::MAX), "does not fit"),
        ("expanded-to-a-terabyte", tensor(&[1 << 38], &[0], 0), "the bytes of all arrays"),
        ("expanded-to-64-mib", tensor(&[1 << 24], &[0], 0), "the bytes of all arrays"),
        ("fewer-strides", tensor(&[2, 2], &[1], 0), "2 sizes, but 1 strides"),
        ("65-axes", tensor(&[1; 65], &[1; 65], 0), "65 axes"),
        ("100000-axes", tensor(&[1; 100_000], &[1; 100_000], 0), "axes"),
        ("size-of-text", rebuild(floats(), int(0), tuple(&[text("4")]), sizes(&[1])), "size"),
        ("size-none", rebuild(floats(), int(0), b"N".to_vec(), sizes(&[1])), "size is None"),
        (
            "size-of-long",
            rebuild(floats(), int(0), tuple(&[[&[0x8a, 40][..], &[1; 40]].concat()]), sizes(&[1])),
            "40 bytes",
        ),
        ("offset-of-text", rebuild(floats(), text("0"), sizes(&[4]), sizes(&[1])), "offset is text"),
        ("no-storage", of_storage(b"N".to_vec()), "its storage is None"),
        ("storage-number", of_storage(b"K\x01Q".to_vec()), "storage"),
        ("storage-tag", of_storage(storage("file", class(), text("0"), int(4))), "storage"),
        (
            "storage-class",
            of_storage(storage("storage", global("collections", "OrderedDict"), text("0"), int(4))),
            "class of storages",
        ),
        (
            "storage-unknown-class",
            of_storage(storage("storage", global("evil", "Storage"), text("0"), int(4))),
            "evil.Storage",
        ),
        ("storage-key-number", of_storage(storage("storage", class(), int(0), int(4))), "key"),
        ("storage-key-long", of_storage(storage("storage", class(), text(&"0".repeat(1000)), int(4))), "key"),
        (
            "storage-elsewhere",
            of_storage(storage("storage", class(), text("../../../etc/passwd"), int(4))),
            "etc/passwd",
        ),
        ("storage-absolute", of_storage(storage("storage", class(), text("/dev/zero"), int(4))), "/dev/zero"),
        ("storage-missing", of_storage(storage("storage", class(), text("1"), int(4))), "a/data/1"),
        ("storage-pickle", of_storage(storage("storage", class(), text("../data.pkl"), int(4))), "data.pkl"),
        ("numel-negative", of_storage(storage("storage", class(), text("0"), int(-4))), "-4"),
        (
            "numel-overflow",
            of_storage(storage("storage", global("torch", "DoubleStorage"), text("0"), int(1 << 62))),
            "memory",
        ),
        ("numel-more", of_storage(storage("storage", class(), text("0"), int(400))), "1600 bytes"),
        ("numel-fewer", of_storage(storage("storage", class(), text("0"), int(3))), "does not fit into the 3"),
        (
            "complex",
            of_storage(storage("storage", global("torch", "ComplexFloatStorage"), text("0"), int(2))),
            "complex64",
        ),
        ("quantised", of_storage(storage("storage", global("torch", "QInt8Storage"), text("0"), int(16))), "qint8"),
        (
            "untyped",
            of_storage(storage("storage", global("torch.storage", "UntypedStorage"), text("0"), int(16))),
            "no dtype",
        ),
        ("v3-without-dtype", v3(&[b"N".to_vec()]), "without a dtype"),
        ("v3-class", v3(&[global("evil", "dtype"), b"N".to_vec()]), "without a dtype"),
        ("no-arguments", call(global("torch._utils", "_rebuild_tensor_v2"), &[]), "0 arguments"),
        (
            "arguments-of-text",
            [global("torch._utils", "_rebuild_tensor_v2"), text("x"), b"R".to_vec()].concat(),
            "no tuple",
        ),
        ("parameter-of-nothing", call(global("torch._utils", "_rebuild_parameter"), &[]), "0 arguments"),
        ("parameter-of-text", call(global("torch._utils", "_rebuild_parameter"), &[text("x")]), "no tensor"),
        ("subclass", subclass(global("evil", "Tensor")), "evil.Tensor"),
        ("quantised-call", call(global("torch._utils", "_rebuild_qtensor"), &[floats()]), "_rebuild_qtensor"),
    ];
    let mut cases: Vec<Case> = wrong
        .into_iter()
        .map(|(name, value, part)| {
            let beside = dict(&[("other", tensor(&[4], &[1], 0)), ("layer.w", value)]);
            Case::new(&format!("tensor-{name}.pth"), pth(&whole(beside)), &["layer.w", part])
        })
        .collect();
    let twice = of_storage(storage("storage", global("torch", "DoubleStorage"), text("0"), int(4)));
    let shared = whole(dict(&[("a", tensor(&[4], &[1], 0)), ("b", twice)]));
    cases.push(Case::new("tensor-two-sizes-of-a-storage.pth", pth(&shared), &["`b`", "32 bytes", "16"]));
    let short = [Entry::new("a/data.pkl", &super::pickles::good()), Entry::new("a/data/0", &[0; 4])];
    cases.push(Case::new("tensor-storage-short.pth", archive(&short), &["`w`", "4 bytes, not 16"]));
    cases
}
