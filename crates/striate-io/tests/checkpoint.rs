//! Checkpoints: every damage is found, and whatever interrupts the writing, the last good one is there.

use serde_json::json;
use std::io;
use std::path::Path;
use std::process::Command;
use striate_graph::{Array, DType};
use striate_io::{
    Checkpoint, Error, WriteEvent, checkpoint_path, read_checkpoint, read_latest, write_checkpoint,
    write_checkpoint_with,
};

/// About 200 KiB of state that depends on `seed`.
fn sample(seed: u64) -> Checkpoint {
    let values: Vec<f32> = (0..50_000u64).map(|i| ((i * 2_654_435_761 + seed) % 1000) as f32 / 7.0).collect();
    let mut checkpoint = Checkpoint::default();
    checkpoint.arrays.insert("conv1.weight".into(), Array::from_vec([50, 1000], values).unwrap());
    checkpoint.arrays.insert("bn1.num_batches_tracked".into(), Array::scalar(seed as i64));
    checkpoint.arrays.insert("ema/fc.bias".into(), Array::full([3], half::f16::from_f32(1.5)));
    checkpoint.arrays.insert("none".into(), Array::zeros([0, 4], DType::F64));
    checkpoint.counters = json!({"epoch": seed, "position": u64::MAX, "best": 0.1 + 0.2, "loss_sum": 1.0 / 3.0e300});
    checkpoint
}

#[track_caller]
fn assert_same(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.counters, b.counters);
    assert_eq!(a.arrays.keys().collect::<Vec<_>>(), b.arrays.keys().collect::<Vec<_>>());
    for (key, array) in &a.arrays {
        assert!(array.bits_eq(&b.arrays[key]), "{key}");
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_comes_back_as_it_was_and_its_bytes_are_a_function_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("checkpoints");
    assert!(read_latest(&path).unwrap().is_none());
    write_checkpoint(&path, 7, &sample(1)).unwrap();
    let latest = read_latest(&path).unwrap().unwrap();
    assert_eq!((latest.step, latest.skipped.len()), (7, 0));
    assert_same(&latest.checkpoint, &sample(1));
    let bytes = std::fs::read(&latest.path).unwrap();
    write_checkpoint(&path, 7, &sample(1)).unwrap();
    assert_eq!(std::fs::read(&latest.path).unwrap(), bytes);
}

#[test]
fn awkward_counters_come_back_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    // shortest decimals of many magnitudes, where a careless parser is off by one unit in the last place
    let mut state = 1u64;
    let numbers: Vec<f64> = (0..2000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(state)
        })
        .filter(|x| x.is_finite())
        .collect();
    let checkpoint = Checkpoint { counters: json!(numbers), ..Checkpoint::default() };
    write_checkpoint(folder.path(), 0, &checkpoint).unwrap();
    let latest = read_latest(folder.path()).unwrap().unwrap();
    for (a, b) in numbers.iter().zip(latest.checkpoint.counters.as_array().unwrap()) {
        assert_eq!(a.to_bits(), b.as_f64().unwrap().to_bits(), "{a:e}");
    }
}

#[test]
fn the_last_two_are_kept_and_later_ones_are_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        write_checkpoint(folder.path(), step, &sample(step)).unwrap();
    }
    assert_eq!(files(folder.path()), ["step-000000000200.checkpoint", "step-000000000300.checkpoint"]);
    // resumed from 200, as 300 turned out to be damaged
    write_checkpoint(folder.path(), 250, &sample(250)).unwrap();
    assert_eq!(files(folder.path()), ["step-000000000200.checkpoint", "step-000000000250.checkpoint"]);
    assert_eq!(read_latest(folder.path()).unwrap().unwrap().step, 250);
}

#[test]
fn a_cut_at_every_4_kib_is_found_and_the_previous_one_taken() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), 1, &sample(1)).unwrap();
    write_checkpoint(folder.path(), 2, &sample(2)).unwrap();
    let path = checkpoint_path(folder.path(), 2);
    let bytes = std::fs::read(&path).unwrap();
    let cuts = (0..bytes.len()).step_by(4096).chain(0..200).chain(bytes.len() - 100..bytes.len());
    for length in cuts {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let latest = read_latest(folder.path()).unwrap().unwrap();
        assert_eq!((latest.step, latest.skipped.len()), (1, 1), "cut to {length}");
        assert_same(&latest.checkpoint, &sample(1));
        let why = latest.skipped[0].to_string();
        assert!(why.contains("step-000000000002.checkpoint"), "{why}");
    }
    std::fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
    assert_eq!(read_latest(folder.path()).unwrap().unwrap().step, 1, "a byte too many");
    // zeros where the tail was not written, as some file systems leave them
    for length in (4096..bytes.len()).step_by(4096) {
        let mut torn = bytes.clone();
        torn[length..].fill(0);
        std::fs::write(&path, torn).unwrap();
        assert_eq!(read_latest(folder.path()).unwrap().unwrap().step, 1, "zeros from {length}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), 2, &sample(2)).unwrap();
    let path = checkpoint_path(folder.path(), 2);
    let bytes = std::fs::read(&path).unwrap();
    let blocks = (0..bytes.len().div_ceil(4096)).map(|block| (block * 4096 + block * 37 % 4096).min(bytes.len() - 1));
    for at in blocks.chain(0..1024).chain(bytes.len() - 300..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        let error = read_checkpoint(&path).expect_err("a flipped bit");
        assert!(!error.is_io(), "byte {at}: {error}");
    }
    let mut flipped = bytes.clone();
    flipped[100_000] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let error = read_latest(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::NoGoodCheckpoint { skipped, .. } if skipped.len() == 1));
    let message = error.to_string();
    assert!(
        message.contains("none of 1 checkpoints") && message.contains("array `conv1.weight`: checksum"),
        "{message}"
    );
}

#[test]
fn hostile_headers_are_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.checkpoint");
    let file = |header: &str| {
        let prologue = [&crc32fast::hash(header.as_bytes()).to_le_bytes()[..], &(header.len() as u64).to_le_bytes()];
        [b"STRIATEC\x01\0\0\0", &prologue.concat()[..], header.as_bytes(), &[0; 100]].concat()
    };
    let array = |rest: &str| format!("{{\"step\":1,\"counters\":null,\"arrays\":[{{\"name\":\"w\",{rest}}}]}}");
    let huge = array(r#""dtype":"float32","shape":[1099511627776],"offset":0,"bytes":4398046511104,"crc32":0"#);
    let cases = [
        (file(&huge), "w needs 4398046511104 bytes, but only"),
        (file(&array(r#""dtype":"float32","shape":[2],"offset":0,"bytes":4,"crc32":0"#)), "do not fit its shape [2]"),
        (file(&array(r#""dtype":"float32","shape":[1],"offset":8,"bytes":4,"crc32":0"#)), "do not fit its shape [1]"),
        (file(&array(r#""dtype":"float7","shape":[1],"offset":0,"bytes":4,"crc32":0"#)), "unknown dtype `float7`"),
        (file(&array(r#""dtype":"float32","shape":[-1],"offset":0,"bytes":4,"crc32":0"#)), "a size is not a number"),
        (file(r#"{"arrays":[]}"#), "`step` is missing"),
        (file("[]"), "`step` is missing"),
        (file(&"[".repeat(100_000)), "header: "),
        (b"STRIATEC\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "checkpoint version 2, this striate reads up to 1"),
        (b"STRIATEC\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\0\0\0".to_vec(), "at most 67108864 are accepted"),
        (b"GARBAGE!\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "not those of a checkpoint"),
    ];
    for (bytes, part) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = read_checkpoint(&path).unwrap_err().to_string();
        assert!(message.contains(part), "wanted {part:?}: {message}");
    }
}

#[test]
fn an_error_of_the_disk_leaves_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), 1, &sample(1)).unwrap();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Other] {
        let fail = &mut |event| match event {
            WriteEvent::Wrote(bytes) if bytes > 100_000 => Err(kind.into()),
            _ => Ok(()),
        };
        let error = write_checkpoint_with(folder.path(), 2, &sample(2), fail).unwrap_err();
        assert_eq!(matches!(error, Error::DiskFull { .. }), kind != io::ErrorKind::Other, "{error}");
        assert!(error.is_io() && error.to_string().contains("step-000000000002.checkpoint"), "{error}");
        assert_eq!(files(folder.path()), ["step-000000000001.checkpoint"]);
        assert_same(&read_latest(folder.path()).unwrap().unwrap().checkpoint, &sample(1));
    }
}

/// Runs this test binary again with only `test`, and `folder` in the environment.
fn again(program: &str, before: &[&str], test: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(before).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env("STRIATE_IO_TEST_FOLDER", folder);
    command
}

/// In the child: the folder to write to. In an ordinary test run there is none, and the child's part does nothing.
fn child_folder() -> Option<std::path::PathBuf> {
    std::env::var_os("STRIATE_IO_TEST_FOLDER").map(Into::into)
}

#[test]
fn child_that_dies_while_writing() {
    let Some(folder) = child_folder() else { return };
    let Ok(at) = std::env::var("STRIATE_IO_TEST_DIE_AT") else { return };
    let at: usize = at.parse().unwrap();
    let mut count = 0;
    let die = &mut |_| {
        count += 1;
        if count > at {
            std::process::abort();
        }
        Ok(())
    };
    write_checkpoint_with(&folder, 2, &sample(2), die).unwrap();
}

#[test]
fn a_death_at_any_moment_leaves_a_good_one() {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), 1, &sample(1)).unwrap();
    let mut steps = Vec::new();
    for at in 0.. {
        let mut child = again(own, &[], "child_that_dies_while_writing", folder.path());
        let survived = child.env("STRIATE_IO_TEST_DIE_AT", at.to_string()).output().unwrap().status.success();
        let latest = read_latest(folder.path()).unwrap().unwrap();
        assert_eq!(latest.skipped.len(), 0, "death {at}: {:?}", latest.skipped);
        assert_same(&latest.checkpoint, &sample(latest.step));
        steps.push(latest.step);
        if survived {
            break;
        }
        // what the death left behind does not stand in the way of the next attempt
        let _ = std::fs::remove_file(checkpoint_path(folder.path(), 2));
    }
    // created, four blocks, before and after sync, before rename | after rename, folder, and the survivor
    assert_eq!(steps, [vec![1; 8], vec![2; 4]].concat());
    assert_eq!(files(folder.path()), ["step-000000000001.checkpoint", "step-000000000002.checkpoint"]);
}

#[test]
fn child_on_a_full_disk() {
    let Some(folder) = child_folder() else { return };
    if std::env::var_os("STRIATE_IO_TEST_DIE_AT").is_some() {
        return;
    }
    write_checkpoint(&folder, 1, &sample(1)).unwrap();
    let error = write_checkpoint(&folder, 2, &sample(2)).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(files(&folder), ["step-000000000001.checkpoint"]);
    let latest = read_latest(&folder).unwrap().unwrap();
    assert_same(&latest.checkpoint, &sample(1));
    println!("the full disk was met: {error}");
}

/// A real full disk: a tmpfs with room for one checkpoint and a half, in a mount namespace of the child's own.
#[test]
fn a_full_disk_leaves_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=320k none \"$STRIATE_IO_TEST_FOLDER\" && exec \"$@\"";
    let own = std::env::current_exe().unwrap();
    let namespaces = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let can_mount = |flags: &&[&str]| {
        let mut probe = Command::new("unshare");
        probe.args(*flags).args(["sh", "-c", script, "sh", "true"]).env("STRIATE_IO_TEST_FOLDER", folder.path());
        probe.output().is_ok_and(|done| done.status.success())
    };
    let Some(flags) = namespaces.into_iter().find(can_mount) else {
        println!("skipped: this machine lets nobody mount a tmpfs (unshare --mount)");
        return;
    };
    let before = [flags, &["sh", "-c", script, "sh", own.to_str().unwrap()]].concat();
    let done = again("unshare", &before, "child_on_a_full_disk", folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("the full disk was met"), "{text}");
}
