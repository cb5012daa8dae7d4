//! Files that were made to do harm, and broken ones: each is refused with exit code 2 and one line on stderr that names the file and
//! what is wrong in it.
//!
//! The files are made here, and stay in `target/tmp/hostile` with a list of them, for `tools/hostile/check.py`: that measures time and
//! memory of each, and looks with `strace` at what the process does.

#[path = "../common/mod.rs"]
mod common;

mod arrays;
mod graphs;
mod pickles;
mod tensors;
mod wire;
mod zips;

use std::path::{Path, PathBuf};

/// A file, and what must be said of it.
pub struct Case {
    /// Its name; the ending is that of its kind.
    name: String,
    bytes: Vec<u8>,
    /// What must stand in the message, besides the file's name.
    parts: Vec<String>,
    /// A graph is refused by what reads graphs, all else by `convert`, which reads the arrays.
    graph: bool,
}

impl Case {
    fn new(name: &str, bytes: Vec<u8>, parts: &[&str]) -> Case {
        let parts = parts.iter().map(ToString::to_string).collect();
        Case { name: name.to_owned(), bytes, parts, graph: false }
    }

    fn graph(name: &str, bytes: Vec<u8>) -> Case {
        Case { graph: true, ..Case::new(name, bytes, &[]) }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile")
}

/// The verbs that read such a file, with their arguments.
fn commands(case: &Case, path: &str, place: &Path) -> Vec<Vec<String>> {
    let at = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let inspect = vec!["inspect".to_owned(), path.to_owned()];
    let convert = vec!["convert".to_owned(), path.to_owned(), at("out.safetensors")];
    let run = ["run", path, "--input", &at("x.npy"), "--output", &at("out")].map(str::to_owned).to_vec();
    let weights = ["run", "lenet", "--weights", path, "--input", &at("x.npy"), "--output", &at("out")]
        .map(str::to_owned)
        .to_vec();
    match (case.graph, path.ends_with(".onnx")) {
        (true, _) => vec![inspect, run],
        (false, true) => vec![convert, weights],
        (false, false) => vec![inspect, convert, weights],
    }
}

#[test]
fn each_is_refused_with_one_line_that_names_what_is_wrong() {
    let folder = folder();
    // files of an earlier run, of which some are links
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let place = tempfile::tempdir().unwrap();
    let input = striate::graph::Array::zeros([1, 1, 28, 28], striate::graph::DType::F32);
    striate::io::write_npy(&place.path().join("x.npy"), &input).unwrap();
    striate::io::write_npy(&folder.join("x.npy"), &input).unwrap();
    let groups = [("pickles", pickles::cases()), ("tensors", tensors::cases()), ("zips", zips::cases())];
    let others = [("arrays", arrays::cases()), ("wire", wire::cases(&folder)), ("graphs", graphs::cases())];
    let mut listed = Vec::new();
    let mut wrong = Vec::new();
    let mut names = std::collections::HashSet::new();
    let mut counts = [0; 2];
    for (group, cases) in groups.into_iter().chain(others) {
        counts[usize::from(!["pickles", "tensors", "zips"].contains(&group))] += cases.len();
        for case in cases {
            assert!(names.insert(case.name.clone()), "two cases are named {}", case.name);
            let path = folder.join(&case.name);
            std::fs::write(&path, &case.bytes).unwrap();
            for command in commands(&case, path.to_str().unwrap(), place.path()) {
                let words: Vec<&str> = command.iter().map(String::as_str).collect();
                let done = common::run(&words);
                let parts = case.parts.iter().map(String::as_str).chain([case.name.as_str(), "error: "]);
                let missing: Vec<&str> = parts.filter(|part| !done.stderr.contains(part)).collect();
                let one_line = done.stderr.lines().count() == 1 && done.stderr.ends_with('\n');
                if done.code != Some(2) || !missing.is_empty() || !one_line || !done.stdout.is_empty() {
                    let said = done.stderr.chars().take(600).collect::<String>();
                    wrong.push(format!("{} {}: {:?}, lacks {missing:?}: {said}", words[0], case.name, done.code));
                }
            }
            listed.push(serde_json::json!({"file": case.name, "graph": case.graph}));
        }
    }
    std::fs::write(folder.join("list.json"), serde_json::to_string(&listed).unwrap()).unwrap();

    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), listed.len(), wrong.join("\n"));
    assert!(!place.path().join("out.safetensors").exists() && !place.path().join("out").exists());
    assert!(counts.iter().all(|count| *count >= 60), "{counts:?}");
}
