//! Training that goes on from weights, as a process: the head, what is frozen, bits and kills.

mod common;

use common::{Set, run, run_with, tiny_set, tiny_set_of};
use std::path::{Path, PathBuf};
use striate::graph::Array;
use striate::io::read_safetensors;

/// Weights of `small` for three classes.
fn base() -> (Set, PathBuf) {
    let set = tiny_set();
    let args = ["train", set.data(), "--project", set.project(), "--name", "base", "--plain", "--model", "small"];
    run(&[&args[..], &["--epochs", "1", "--batch", "16", "--threads", "2"]].concat()).ok();
    let weights = set.folder("base").join("weights").join("best.safetensors");
    (set, weights)
}

fn train<'a>(set: &'a Set, name: &'a str, weights: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", set.data(), "--project", set.project(), "--name", name, "--plain"];
    args.extend(["--weights", weights.to_str().unwrap(), "--epochs", "3", "--batch", "16"]);
    args.extend(more);
    args
}

fn file(set: &Set, name: &str) -> PathBuf {
    set.folder(name).join("weights").join("last.safetensors")
}

fn same_file(set: &Set, a: &str, b: &str) {
    let read = |name| std::fs::read(file(set, name)).unwrap();
    assert!(read(a) == read(b), "{a} and {b} differ");
}

/// Names of the arrays that differ between two files.
fn changed(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (read_safetensors(a).unwrap().arrays, read_safetensors(b).unwrap().arrays);
    let differs = |(name, array): (&String, &Array)| (!array.bits_eq(&b[name])).then(|| name.clone());
    a.iter().filter_map(differs).collect()
}

#[test]
fn a_frozen_backbone_keeps_its_bits_and_the_head_is_replaced() {
    let (_base, weights) = base();
    let set = tiny_set_of(2);
    let done = run(&train(&set, "frozen", &weights, &["--freeze", "backbone"])).ok();
    for part in ["replaced and initialised: fc.weight", "the head is fc", "features of the frozen backbone"] {
        assert!(done.stdout.contains(part), "`{part}` is not in: {}", done.stdout);
    }
    assert_eq!(changed(&weights, &file(&set, "frozen")), ["fc.bias", "fc.weight"]);
    // What was saved is a complete net.
    let folder = set.folder("frozen");
    let judged = run(&["val", folder.to_str().unwrap(), set.data(), "--json"]).ok();
    let of_run = std::fs::read_to_string(folder.join("metrics.json")).unwrap();
    let top1 = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["top1"].clone();
    assert_eq!(top1(judged.stdout.trim()), top1(&of_run));
    // The run knows what it was trained on.
    let alone = run(&["val", folder.to_str().unwrap(), "--json"]).ok();
    assert_eq!(top1(alone.stdout.trim()), top1(&of_run));
    assert!(alone.stderr.contains(set.data()), "{}", alone.stderr);
}

#[test]
fn blocks_and_batch_norms_can_be_frozen_alone() {
    let (_base, weights) = base();
    let set = tiny_set_of(2);
    run(&train(&set, "blocks", &weights, &["--freeze", "2"])).ok();
    let names = changed(&weights, &file(&set, "blocks"));
    assert!(!names.iter().any(|n| n.starts_with("features.0.") || n.starts_with("features.1.")), "{names:?}");
    assert!(names.iter().any(|n| n.ends_with("running_mean")) && names.contains(&"fc.weight".to_owned()), "{names:?}");
    run(&train(&set, "norms", &weights, &["--freeze-bn", "--layer-decay", "0.9"])).ok();
    let names = changed(&weights, &file(&set, "norms"));
    assert!(!names.iter().any(|n| n.contains("running") || n.contains("num_batches")), "{names:?}");
    assert!(names.iter().any(|n| n.starts_with("features.0.")), "{names:?}");
}

#[test]
fn cached_features_give_the_same_bits_for_any_threads_and_after_kills() {
    let (_base, weights) = base();
    let set = tiny_set_of(2);
    let cached = ["--freeze", "backbone", "--feature-views", "3", "--checkpoint-steps", "3"];
    let with = |threads| [&cached[..], &["--threads", threads, "--workers", "2"]].concat();
    run(&train(&set, "one", &weights, &with("1"))).ok();
    for threads in ["2", "3"] {
        run(&train(&set, threads, &weights, &with(threads))).ok();
        same_file(&set, threads, "one");
    }
    let copy = set.root().join("weights.safetensors");
    std::fs::copy(&weights, &copy).unwrap();
    let killed = run_with(&train(&set, "killed", &copy, &with("2")), &[("STRIATE_FAIL_AT", "3:before-rename")]);
    assert_eq!(killed.code, None, "{}", killed.stderr);
    // All values are in the checkpoint: the file that they came from is not needed any more.
    std::fs::remove_file(&copy).unwrap();
    let folder = set.folder("killed");
    run(&["train", "--resume", folder.to_str().unwrap(), "--plain"]).ok();
    same_file(&set, "killed", "one");
}

#[test]
fn the_net_the_channels_and_the_preprocessing_are_those_of_the_weights() {
    let (base, weights) = base();
    let set = tiny_set_of(2);
    let done = run(&train(&set, "same", &weights, &[])).ok();
    assert!(done.stdout.contains("the weights file says"), "{}", done.stdout);
    let preprocess = |path: &Path| read_safetensors(path).unwrap().metadata["preprocess"].clone();
    assert_eq!(preprocess(&weights), preprocess(&file(&set, "same")));
    // Grey weights on colours, and the other way round.
    let args = ["--model", "small", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--imgsz", "12"];
    let colours = ["train", base.data(), "--project", base.project(), "--name", "colours", "--plain", "--epochs", "1"];
    run(&[&colours[..], &args, &["--batch", "16"]].concat()).ok();
    let colours = file(&base, "colours");
    let done = run(&train(&set, "rgb", &colours, &[])).ok();
    assert!(done.stdout.contains("grey becomes RGB"), "{}", done.stdout);
    assert_eq!(read_safetensors(&file(&set, "rgb")).unwrap().metadata["input"], "[3,12,12]");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let (_base, weights) = base();
    let set = tiny_set_of(2);
    let refuse = |more: &[&str], parts: &[&str]| run(&train(&set, "refused", &weights, more)).fails(2, parts);
    refuse(&["--freeze", "99"], &["--freeze", "blocks"]);
    refuse(&["--freeze", "backbones"], &["backbone"]);
    refuse(&["--model", "lenet"], &["right model"]);
    refuse(&["--head-lr-factor", "0"], &["--head-lr-factor"]);
    assert!(!set.folder("refused").exists());
}
