//! Every outside crate that a manifest lists has its line in `docs/dependencies.md`, and no line outlives its crate.

use crate::arrows::{is_internal, line_of, packages};
use crate::{Violation, relative};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = "docs/dependencies.md";

/// The crates of the page's table, with their lines: rows that begin with ``| `name` |``.
fn listed(page: &str) -> Vec<(&str, usize)> {
    page.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
            let reason = rest.trim_matches(['|', ' ']);
            (!reason.is_empty()).then_some((name, index + 1))
        })
        .collect()
}

/// Compares the manifests with the page.
pub(crate) fn check_dependencies(root: &Path, metadata: &Value) -> Result<Vec<Violation>, String> {
    let page = std::fs::read_to_string(root.join(PAGE)).map_err(|e| format!("{PAGE}: {e}"))?;
    let listed = listed(&page);
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for package in packages(metadata) {
        let manifest = relative(root, package.manifest);
        let text = std::fs::read_to_string(package.manifest).map_err(|e| format!("{manifest}: {e}"))?;
        for dependency in package.dependencies.iter().filter(|d| !is_internal(d)) {
            let name = dependency["name"].as_str().unwrap_or_default();
            used.insert(name);
            if !listed.iter().any(|(n, _)| *n == name) {
                let message = format!("`{name}` has no line of justification in {PAGE}");
                found.push(Violation::new(&manifest, line_of(&text, name), message));
            }
        }
    }
    for (name, line) in listed.into_iter().filter(|(name, _)| !used.contains(name)) {
        found.push(Violation::new(PAGE, line, format!("no crate depends on `{name}` any more; drop the line")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_need_a_reason() {
        let page = "# Dependencies\n\n| crate | why |\n|---|---|\n| `half` | f16 |\n| `clap` |  |\n";
        assert_eq!(listed(page), [("half", 5)]);
    }

    #[test]
    fn missing_and_stale_lines_are_found() {
        let root = crate::root();
        let manifest = root.join("xtask/Cargo.toml");
        let metadata = serde_json::json!({"packages": [{"name": "xtask", "manifest_path": manifest.to_str(),
            "dependencies": [{"name": "no-such-crate", "path": null}, {"name": "striate", "path": "/x"}]}]});
        let found = check_dependencies(&root, &metadata).unwrap();
        assert!(found.iter().any(|v| v.file == "xtask/Cargo.toml" && v.message.contains("`no-such-crate`")));
        assert!(found.iter().any(|v| v.file == PAGE && v.message.contains("`thiserror`")));
        assert!(!found.iter().any(|v| v.message.contains("`striate`")));
    }
}
