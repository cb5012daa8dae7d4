//! npy and npz against bytes that NumPy 2.4 wrote.

use proptest::prelude::*;
use std::path::Path;
use striate_graph::{Array, DType};
use striate_io::{Error, npy_bytes, parse_npy, read_npy, read_npz, write_npy, write_npz};

fn name() -> &'static Path {
    Path::new("x.npy")
}

/// A version 1.0 file of a header as written and its data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[track_caller]
fn error(bytes: &[u8]) -> String {
    let message = parse_npy(bytes, name()).expect_err("must be refused").to_string();
    assert!(message.starts_with("x.npy: "), "{message}");
    message
}

#[test]
fn the_bytes_are_numpys() {
    let header = |text: &str| file(&format!("{text:<117}\n"), &[]);
    let cases = [
        (Array::arange([2, 3]), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"),
        (Array::scalar(3.0f32), "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"),
        (Array::zeros([0, 5], DType::F64), "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 5), }"),
        (Array::zeros([7], DType::I64), "{'descr': '<i8', 'fortran_order': False, 'shape': (7,), }"),
        (Array::zeros([123456, 0], DType::F16), "{'descr': '<f2', 'fortran_order': False, 'shape': (123456, 0), }"),
        (
            Array::zeros([1; 12], DType::Bool),
            "{'descr': '|b1', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), }",
        ),
    ];
    for (array, text) in cases {
        let bytes = npy_bytes(name(), &array).unwrap();
        let data = array.numel() * array.dtype().size();
        assert_eq!(bytes[..bytes.len() - data], header(text), "{text}");
        assert!(parse_npy(&bytes, name()).unwrap().bits_eq(&array));
    }
    // the growth room of NumPy's header moves it to the next multiple of 64
    let long = npy_bytes(name(), &Array::zeros([1; 20], DType::F32)).unwrap();
    assert_eq!(long.len(), 192 + 4);
}

#[test]
fn column_major_and_big_endian_are_read() {
    let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
    let array = parse_npy(&file(header, b"\x00\x00\x00\x03\x00\x01\x00\x04\x00\x02\x00\x05"), name()).unwrap();
    assert_eq!(array.shape().dims(), [2, 3]);
    assert_eq!(array.as_slice::<i16>(), Some(&[0, 1, 2, 3, 4, 5][..]));
    let header = "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }\n";
    let array = parse_npy(&file(header, &1.5f32.to_be_bytes()), name()).unwrap();
    assert_eq!(array.as_slice::<f32>(), Some(&[1.5][..]));
}

#[test]
fn headers_of_other_writers_are_read() {
    for header in [
        "{'shape':(2,),'descr':'|u1','fortran_order':False}",
        "{ \"descr\" : \"|u1\" , 'fortran_order': False, 'shape': (2L, ), }  \n",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (2,)}\n",
    ] {
        let array = parse_npy(&file(header, &[7, 9]), name()).unwrap();
        assert_eq!(array.as_slice::<u8>(), Some(&[7, 9][..]), "{header}");
    }
    let header = b"{'descr': '<u4', 'fortran_order': False, 'shape': (1,)}";
    let version2 = [b"\x93NUMPY\x02\x00", &(header.len() as u32).to_le_bytes()[..], header, &[255; 4]].concat();
    assert_eq!(parse_npy(&version2, name()).unwrap().as_slice::<i64>(), Some(&[0xffff_ffff][..]));
}

#[test]
fn what_is_wrong_is_said() {
    let f4 = |rest: &str| format!("{{'descr': '<f4', 'fortran_order': False, {rest}}}");
    let cases = [
        (f4("'shape': (2,)"), "the data needs 8 bytes, but only 4 are left"),
        (f4("'shape': ()}"), "something follows the dictionary"),
        (f4("'shape': (0,)"), "4 bytes follow the 0 of the array"),
        (f4("'shape': (-1,)"), "expected a size before \"-1,)}\""),
        (f4("'shape': (99999999999999999999,)"), "expected a size"),
        (f4("'shape': (9999999999, 9999999999)"), "more elements than any memory"),
        (f4("'shape': (1,), 'x': 1"), "unknown key 'x'"),
        (f4("'fortran_order': 0"), "expected True or False"),
        (f4(""), "the key 'shape' is missing"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}".into(), "the dtype \"<c8\" is not supported"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".into(), "the dtype \"|O\" is not supported"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}".into(), "structured arrays"),
        ("{'descr': '<f4".into(), "a string does not end"),
        ("".into(), "expected '{'"),
    ];
    for (header, part) in cases {
        let message = error(&file(&header, &[0; 4]));
        assert!(message.contains(part), "{header}: {message}");
    }
    assert!(error(b"PK\x03\x04 not npy").contains("not those of a .npy file"));
    assert!(error(b"\x93NUMPY\x09\x00").contains("version 9.0"));
    assert!(error(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("at most 65535"));
    let bf16 = npy_bytes(name(), &Array::zeros([1], DType::BF16)).unwrap_err();
    assert!(bf16.to_string().contains("cast to float32"), "{bf16}");
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    let bytes = npy_bytes(name(), &Array::arange([3])).unwrap();
    for length in 0..bytes.len() {
        error(&bytes[..length]);
    }
}

/// `numpy.savez(b, a=numpy.arange(3, dtype="f4"))`
const SAVEZ: &[u8] = b"PK\x03\x04-\x00\x00\x00\x00\x00\x00\x00!\x00\xb6\x8c\x86S\xff\xff\xff\xff\xff\xff\xff\xff\x05\x00\x14\
\x00a.npy\x01\x00\x10\x00\x8c\x00\x00\x00\x00\x00\x00\x00\x8c\x00\x00\x00\x00\x00\x00\x00\x93NUMPY\x01\x00v\x00{'descr': \
'<f4', 'fortran_order': False, 'shape': (3,), }                                                            \n\x00\x00\x00\
\x00\x00\x00\x80?\x00\x00\x00@PK\x01\x02-\x03-\x00\x00\x00\x00\x00\x00\x00!\x00\xb6\x8c\x86S\x8c\x00\x00\x00\x8c\x00\x00\
\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00a.npyPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00\
3\x00\x00\x00\xc3\x00\x00\x00\x00\x00";

/// `numpy.savez_compressed(b, a=numpy.arange(3, dtype="f4"))`
const SAVEZ_COMPRESSED: &[u8] = b"PK\x03\x04-\x00\x00\x00\x08\x00\x00\x00!\x00\xb6\x8c\x86S\xff\xff\xff\xff\xff\xff\xff\xff\
\x05\x00\x14\x00a.npy\x01\x00\x10\x00\x8c\x00\x00\x00\x00\x00\x00\x00K\x00\x00\x00\x00\x00\x00\x00\x9b\xec\x17\xea\x1b\x10\
\xc9\xc8P\xc6P\xad\x9e\x92Z\x9c\\\xa4n\xa5\xa0n\x93f\xa2\xae\xa3\xa0\x9e\x96_TR\x94\x98\x17\x9f_\x94\x92\n\x12wK\xcc)N\x05\
\x8a\x17g$\x16\xa4\x02\xf9\x1a\xc6:\x9a:\n\xb5\n\x14\x00.\x060h\xb0\x07\x12\x0e\x00PK\x01\x02-\x03-\x00\x00\x00\x08\x00\x00\
\x00!\x00\xb6\x8c\x86SK\x00\x00\x00\x8c\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\
\x00a.npyPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x003\x00\x00\x00\x82\x00\x00\x00\x00\x00";

#[test]
fn npz_of_numpy_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    for bytes in [SAVEZ, SAVEZ_COMPRESSED] {
        std::fs::write(&path, bytes).unwrap();
        let arrays = read_npz(&path).unwrap();
        assert_eq!(arrays.len(), 1);
        assert_eq!(arrays["a"].as_slice::<f32>(), Some(&[0.0, 1.0, 2.0][..]));
    }
}

#[test]
fn npz_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let arrays = [("w", Array::arange([4, 3])), ("b.é", Array::scalar(true)), ("none", Array::zeros([0], DType::I8))];
    write_npz(&path, arrays.clone()).unwrap();
    let first = std::fs::read(&path).unwrap();
    let read = read_npz(&path).unwrap();
    assert_eq!(read.len(), 3);
    for (key, array) in &arrays {
        assert!(read[*key].bits_eq(array), "{key}");
    }
    write_npz(&path, arrays.into_iter().rev()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the order of the arguments shows in the bytes");
}

#[test]
fn a_damaged_npz_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    for (original, data) in [(SAVEZ, 55..195), (SAVEZ_COMPRESSED, 55..130)] {
        for length in 0..original.len() {
            std::fs::write(&path, &original[..length]).unwrap();
            assert!(read_npz(&path).is_err(), "cut to {length}");
        }
        for at in data {
            let mut bytes = original.to_vec();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let error = read_npz(&path).expect_err("a flipped bit of data");
            assert!(matches!(error, Error::Checksum { .. } | Error::Malformed { .. }), "{at}: {error}");
        }
    }
    // a central directory that promises more than the few deflated bytes become, and more than any reader believes
    for (promised, said) in
        [(0x0010_0000u32, "declares 1048576 bytes, it has 140"), (0xffff_fffe, "is 4294967294, at most")]
    {
        let mut bytes = SAVEZ_COMPRESSED.to_vec();
        let central = 130;
        bytes[central + 24..central + 28].copy_from_slice(&promised.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let message = read_npz(&path).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn files_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = Array::from_vec([300, 100], (0..30_000).map(|i| i as f32 * 0.1).collect()).unwrap();
    write_npy(&path, &array).unwrap();
    assert!(read_npy(&path).unwrap().bits_eq(&array));
    assert!(matches!(read_npy(folder.path()), Err(Error::NotAFile { .. })));
}

proptest! {
    #[test]
    fn noise_never_panics(header in "\\PC{0,80}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse_npy(&file(&header, &data), name());
        let _ = parse_npy(&data, name());
    }

    #[test]
    fn damaged_archives_never_panic(at in 0usize..268, byte in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut bytes = SAVEZ.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        std::fs::write(&path, &bytes).unwrap();
        let _ = read_npz(&path);
    }
}
