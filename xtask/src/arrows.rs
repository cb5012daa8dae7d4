//! Who may import whom. The truth is `cargo metadata`, so renamed and target-specific dependencies are seen too.

use crate::{Violation, relative};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Each crate of the workspace with the crates of the workspace it may depend on, lowest first.
const ARROWS: &[(&str, &[&str])] = &[
    ("striate-kernels", &[]),
    ("striate-graph", &["striate-kernels"]),
    ("striate-nn", &["striate-graph"]),
    ("striate-io", &["striate-graph", "striate-nn"]),
    ("striate-vision", &["striate-kernels", "striate-graph", "striate-nn", "striate-io"]),
    ("striate-train", &["striate-graph", "striate-nn", "striate-io", "striate-vision"]),
    ("striate", &["striate-graph", "striate-nn", "striate-io", "striate-vision", "striate-train"]),
    ("striate-cli", &["striate"]),
    ("benches", &["striate"]),
    ("xtask", &[]),
];

/// `cargo metadata` of the workspace, without the packages outside it.
pub(crate) fn read_metadata(root: &Path) -> Result<Value, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let done = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !done.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&done.stderr)));
    }
    serde_json::from_slice(&done.stdout).map_err(|e| format!("cargo metadata printed no JSON: {e}"))
}

/// A package of the workspace.
pub(crate) struct Package<'a> {
    pub name: &'a str,
    pub manifest: &'a Path,
    pub dependencies: Vec<&'a Value>,
}

/// The packages of `metadata`.
pub(crate) fn packages(metadata: &Value) -> Vec<Package<'_>> {
    let list = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|package| Package {
            name: package["name"].as_str().unwrap_or_default(),
            manifest: Path::new(package["manifest_path"].as_str().unwrap_or_default()),
            dependencies: package["dependencies"].as_array().map(|d| d.iter().collect()).unwrap_or_default(),
        })
        .collect()
}

/// A dependency on a crate of this workspace: those are given by path, the others by registry.
pub(crate) fn is_internal(dependency: &Value) -> bool {
    dependency["path"].is_string()
}

/// Every arrow of the workspace against [`ARROWS`].
pub(crate) fn check_arrows(root: &Path, metadata: &Value) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for package in packages(metadata) {
        let manifest = relative(root, package.manifest);
        let text = std::fs::read_to_string(package.manifest).map_err(|e| format!("{manifest}: {e}"))?;
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            let message =
                format!("crate {} has no place in the arrows of xtask/src/arrows.rs; give it one", package.name);
            found.push(Violation::new(manifest, 1, message));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| is_internal(d)) {
            let name = dependency["name"].as_str().unwrap_or_default();
            if name != package.name && !allowed.contains(&name) {
                let may = if allowed.is_empty() { "nothing of the workspace".to_string() } else { allowed.join(", ") };
                let message = format!("{} must not depend on {name}; it may import {may}", package.name);
                found.push(Violation::new(&manifest, line_of(&text, name), message));
            }
        }
    }
    Ok(found)
}

/// The line of `text` on which the dependency `name` is listed, or 1.
pub(crate) fn line_of(text: &str, name: &str) -> usize {
    let listed = |line: &str| {
        let key = line.trim_start().trim_start_matches('"');
        key.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=', '"', ']']))
            || line.trim() == format!("[dependencies.{name}]")
    };
    text.lines().position(listed).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(name: &str, dependency: &str) -> Vec<Violation> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let metadata = json!({"packages": [{"name": name, "manifest_path": manifest,
            "dependencies": [{"name": dependency, "path": "/somewhere"}, {"name": "half", "path": null}]}]});
        check_arrows(&crate::root(), &metadata).unwrap()
    }

    #[test]
    fn arrows_point_downwards_only() {
        assert_eq!(found("striate-graph", "striate-kernels"), []);
        assert_eq!(found("striate-cli", "striate"), []);
        for (from, to) in [
            ("striate-kernels", "striate-graph"),
            ("striate-nn", "striate-kernels"),
            ("striate-io", "striate-vision"),
            ("striate-cli", "striate-train"),
            ("striate-train", "striate"),
        ] {
            let found = found(from, to);
            assert_eq!(found.len(), 1, "{from} -> {to}");
            assert!(found[0].message.contains(&format!("{from} must not depend on {to}")), "{}", found[0]);
        }
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert!(found("striate-new", "striate")[0].message.contains("has no place"));
    }

    #[test]
    fn this_workspace_is_read() {
        let metadata = read_metadata(&crate::root()).unwrap();
        let names: Vec<&str> = packages(&metadata).iter().map(|p| p.name).collect();
        assert!(names.contains(&"striate-kernels") && names.contains(&"xtask"), "{names:?}");
    }

    #[test]
    fn the_line_of_a_dependency() {
        let text = "[dependencies]\nserde_json = \"1\"\nserde = \"1\"\n[dependencies.half]\n";
        assert_eq!((line_of(text, "serde"), line_of(text, "serde_json"), line_of(text, "half")), (3, 2, 4));
        assert_eq!(line_of(text, "clap"), 1);
    }
}
