//! `striate train` as a process: bits, kills, and bad input.

mod common;

use common::{Run, Set, run, run_with, tiny_set};
use std::path::Path;
use std::time::Duration;

/// A net with batch norm, an average of weights, mixup and a threaded loader; a checkpoint every third step.
const HARD: [&str; 16] = [
    "--model",
    "small",
    "--epochs",
    "3",
    "--batch",
    "16",
    "--ema",
    "0.9",
    "--mixing",
    "mixup",
    "--workers",
    "2",
    "--checkpoint-steps",
    "3",
    "--threads",
    "2",
];

fn train<'a>(set: &'a Set, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", set.data(), "--project", set.project(), "--name", name, "--plain"];
    args.extend(more);
    args
}

fn weights(set: &Set, name: &str) -> [Vec<u8>; 2] {
    ["best", "last"].map(|which| {
        let path = set.folder(name).join("weights").join(format!("{which}.safetensors"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// `results.csv` without the seconds, and the steps of `events.jsonl`: what must not depend on how often a run was killed.
fn results(set: &Set, name: &str) -> (Vec<String>, Vec<u64>) {
    let csv = std::fs::read_to_string(set.folder(name).join("results.csv")).unwrap();
    let events = std::fs::read_to_string(set.folder(name).join("events.jsonl")).unwrap();
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
    let cut = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
    (csv.lines().map(cut).collect(), events.lines().map(step).collect())
}

fn metrics(set: &Set, name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(set.folder(name).join("metrics.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn assert_same_run(set: &Set, name: &str, whole: &str) {
    assert!(weights(set, name) == weights(set, whole), "{name}: the weights differ from the uninterrupted run's");
    assert_eq!(results(set, name), results(set, whole), "{name}");
}

fn resume(set: &Set, name: &str) -> Run {
    let folder = set.folder(name);
    run(&["train", "--resume", folder.to_str().unwrap(), "--plain"])
}

#[test]
fn a_run_folder_has_its_files_and_a_name_of_its_own() {
    let set = tiny_set();
    for (name, wanted) in [("train", "train"), ("train", "train2")] {
        run(&train(&set, name, &["--epochs", "1", "--model", "small"])).ok();
        for file in ["args.toml", "results.csv", "events.jsonl", "metrics.json", "report.html"] {
            assert!(set.folder(wanted).join(file).is_file(), "{wanted}/{file}");
        }
    }
    assert_same_run(&set, "train", "train2");
    let m = metrics(&set, "train");
    assert_eq!(m["split"], "test");
    assert_eq!(m["images"], 24);
    for key in ["top1", "top5", "loss", "seconds"] {
        assert!(m[key].as_f64().is_some_and(|v| v >= 0.0), "{key}");
    }
    assert_eq!(m["confusion"].as_array().unwrap().len(), 3);
    // The settings of a run are a --config.
    let args = set.folder("train").join("args.toml");
    run(&["train", "--config", args.to_str().unwrap(), "--name", "again", "--plain"]).ok();
    assert_same_run(&set, "again", "train");
}

#[test]
fn json_is_lines_of_objects_with_the_result_last() {
    let set = tiny_set();
    let mut args = train(&set, "json", &["--epochs", "1", "--json"]);
    args.retain(|arg| *arg != "--plain");
    let done = run(&args).ok();
    let lines: Vec<serde_json::Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["split"]), (&"done".into(), &"test".into()));
    assert!(last["top1"].is_number());
}

#[test]
fn threads_workers_and_the_name_of_the_data_change_no_bit() {
    let set = tiny_set();
    let short = ["--epochs", "2", "--model", "small", "--batch", "16", "--mixing", "either", "--ema", "0.9"];
    let mut names = Vec::new();
    for threads in ["1", "2", "3"] {
        for workers in ["0", "2"] {
            let name = format!("t{threads}w{workers}");
            let more = [&short[..], &["--threads", threads, "--workers", workers]].concat();
            run(&train(&set, &name, &more)).ok();
            names.push(name);
        }
    }
    names[1..].iter().for_each(|name| assert_same_run(&set, name, &names[0]));
    let copy = set.copy_data("under-another-name");
    let args = ["train", &copy, "--project", set.project(), "--name", "copy", "--plain"];
    run(&[&args[..], &short].concat()).ok();
    assert_same_run(&set, "copy", &names[0]);
}

#[test]
fn killed_within_any_write_of_a_checkpoint_it_resumes_to_the_same_bits() {
    let set = tiny_set();
    run(&train(&set, "whole", &HARD)).ok();
    let events = [
        "created",
        "wrote",
        "before-sync",
        "after-sync",
        "before-rename",
        "after-rename",
        "before-folder-sync",
        "after-folder-sync",
    ];
    for (index, event) in events.into_iter().enumerate() {
        // The first write of all, one within an epoch, and that of an epoch's end.
        let write = [1, 2, 4][index % 3];
        let name = format!("fail-{event}");
        let point = format!("{write}:{event}");
        let killed = run_with(&train(&set, &name, &HARD), &[("STRIATE_FAIL_AT", &point)]);
        assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
        resume(&set, &name).ok();
        assert_same_run(&set, &name, "whole");
    }
}

#[test]
fn killed_at_any_moment_it_resumes_to_the_same_bits() {
    let set = tiny_set();
    let clock = std::time::Instant::now();
    run(&train(&set, "whole", &HARD)).ok();
    let whole = clock.elapsed();
    for kill in 0..12u32 {
        let name = format!("kill-{kill}");
        let after = whole * (2 * kill + 3) / 28;
        common::kill_after(&train(&set, &name, &HARD), after);
        if !set.folder(&name).join("args.toml").is_file() {
            // Killed before there was a run to resume.
            run(&train(&set, &name, &HARD)).ok();
        } else {
            // And once more, in the middle of what is left.
            let folder = set.folder(&name);
            common::kill_after(&["train", "--resume", folder.to_str().unwrap(), "--plain"], whole / 3);
            resume(&set, &name).ok();
        }
        assert_same_run(&set, &name, "whole");
    }
    let again = resume(&set, "whole").ok();
    assert!(again.stdout.contains("had finished"), "{}", again.stdout);
}

#[test]
fn interrupted_it_saves_leaves_with_130_and_resumes_to_the_same_bits() {
    let set = tiny_set();
    let args =
        ["--model", "small", "--epochs", "40", "--batch", "16", "--ema", "0.9", "--mixing", "mixup", "--workers", "2"];
    run(&train(&set, "whole", &args)).ok();
    let stopped = common::interrupt_when(&train(&set, "stopped", &args), || {
        std::fs::read_to_string(set.folder("stopped").join("results.csv")).is_ok_and(|text| text.lines().count() > 3)
    });
    assert_eq!(stopped.code, Some(130), "{}", stopped.stderr);
    assert!(stopped.seconds < 5.0 && stopped.stderr.contains("--resume"), "{}: {}", stopped.seconds, stopped.stderr);
    resume(&set, "stopped").ok();
    assert_same_run(&set, "stopped", "whole");
    assert!(metrics(&set, "stopped")["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_with_none_left_it_says_so() {
    let set = tiny_set();
    run(&train(&set, "whole", &HARD)).ok();
    let killed = run_with(&train(&set, "damaged", &HARD), &[("STRIATE_FAIL_AT", "4:created")]);
    assert_eq!(killed.code, None);
    let folder = set.folder("damaged").join("checkpoints");
    let checkpoints = common::files(&folder, ".checkpoint");
    assert_eq!(checkpoints.len(), 2);
    common::flip_a_bit(&checkpoints[1]);
    let resumed = resume(&set, "damaged").ok();
    assert!(resumed.stdout.contains("passed over"), "{}", resumed.stdout);
    assert_same_run(&set, "damaged", "whole");

    std::fs::remove_file(set.folder("damaged").join("metrics.json")).unwrap();
    common::files(&folder, ".checkpoint").iter().for_each(|path| common::flip_a_bit(path));
    let refused = resume(&set, "damaged");
    refused.fails(5, &["checkpoint", "damaged"]);
}

#[test]
fn a_loss_that_is_not_finite_ends_it_within_a_step_and_names_the_layer() {
    let set = tiny_set();
    let refused = run(&train(&set, "nan", &["--model", "lenet", "--lr", "1e18", "--schedule", "constant"]));
    refused.fails(6, &["not finite", "come from", "--lr"]);
    assert!(common::files(&set.folder("nan").join("weights"), "").is_empty());
}

#[test]
fn a_full_disk_ends_it_with_5_and_leaves_the_last_checkpoint() {
    let set = tiny_set();
    run(&train(&set, "whole", &HARD)).ok();
    let Some(full) = common::run_with_full_disk(&set, &train(&set, "full", &HARD), "full") else {
        println!("skipped: neither a tmpfs nor a limit on files can be had here");
        return;
    };
    full.fails(5, &["full", "checkpoint"]);
    resume(&set, "full").ok();
    assert_same_run(&set, "full", "whole");
}

#[test]
fn wrong_usage_is_refused_before_anything_is_written() {
    let set = tiny_set();
    let refuse = |more: &[&str], code: i32, parts: &[&str]| run(&train(&set, "refused", more)).fails(code, parts);
    refuse(&["--model", "resnet81"], 2, &["resnet81", "did you mean"]);
    refuse(&["--batch", "0"], 2, &["--batch", "at least 1"]);
    refuse(&["--epochs", "0"], 2, &["--epochs"]);
    refuse(&["--optimizer", "adamv"], 2, &["did you mean `adam"]);
    refuse(&["--lr=-1"], 2, &["--lr"]);
    refuse(&["--val-fraction", "1.5"], 2, &["--val-fraction"]);
    refuse(&["--batch", "100000"], 3, &["100000"]);
    refuse(&["--weights", "/no/such/file.safetensors"], 5, &["/no/such/file.safetensors"]);
    let config = set.root().join("bad.toml");
    std::fs::write(&config, "epochs = 3\nlearning_rate = 1.0\n").unwrap();
    refuse(&["--config", config.to_str().unwrap()], 2, &["bad.toml", "learning_rate"]);
    // A net that cannot take so small a picture, named with its layer.
    refuse(&["--model", "vgg11"], 2, &["vgg11", "12x12"]);
    assert!(!set.folder("refused").exists());
    run(&["train", "--resume", "/no/such/run"]).fails(2, &["--resume", "/no/such/run"]);
}

#[test]
fn data_that_cannot_be_trained_on_ends_with_3() {
    let set = tiny_set();
    let one = set.root().join("one");
    std::fs::create_dir_all(one.join("train").join("cat")).unwrap();
    std::fs::write(one.join("train").join("cat").join("a.jpg"), b"\xff\xd8\xff").unwrap();
    let at = |path: &Path| run(&["train", path.to_str().unwrap(), "--project", set.project(), "--plain"]);
    at(&one).fails(3, &["only one class", "cat"]);
    at(Path::new("/no/such/data")).fails(3, &["/no/such/data"]);
    let empty = set.root().join("nothing");
    std::fs::create_dir(&empty).unwrap();
    let cache = empty.to_str().unwrap();
    let missing = run_with(&["train", "cifar100", "--plain"], &[("STRIATE_CACHE", cache)]);
    missing.fails(3, &["cifar100", "striate data fetch"]);
}

#[test]
fn patience_ends_a_run_early() {
    let set = tiny_set();
    let args = ["--epochs", "30", "--patience", "1", "--model", "lenet", "--lr", "1e-9"];
    let done = common::run_for(&train(&set, "patient", &args), Duration::from_secs(120)).ok();
    assert!(done.stdout.contains("ending early"), "{}", done.stdout);
    assert!(metrics(&set, "patient")["epochs"].as_u64().unwrap() < 30);
}
