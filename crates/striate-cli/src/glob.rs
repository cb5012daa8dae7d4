//! Patterns of file names, for shells that do not expand them.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// Whether a name fits a pattern in which `*` stands for any letters and `?` for one.
fn fits(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|from| fits(rest, &name[from..])),
        (Some((p, rest)), Some((n, after))) if *p == '?' || p == n => fits(rest, after),
        _ => false,
    }
}

/// The files that a pattern in the last part of a path stands for, sorted; `None` for a path that is none or exists as it is.
pub fn matches(path: &Path) -> Option<Result<Vec<PathBuf>, Failure>> {
    let pattern: Vec<char> = path.file_name()?.to_str()?.chars().collect();
    if path.exists() || !pattern.iter().any(|c| matches!(c, '*' | '?')) {
        return None;
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    Some(entries.map_err(|error| Failure::io(folder, "read the folder", &error)).map(|entries| {
        let named = entries.into_iter().filter(|entry| {
            let name: Vec<char> = entry.file_name().to_string_lossy().chars().collect();
            fits(&pattern, &name)
        });
        let mut found: Vec<PathBuf> = named.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        found.sort();
        found
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_letters() {
        let fits =
            |pattern: &str, name: &str| fits(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>());
        assert!(fits("*.jpg", "a.jpg") && fits("a?c*", "abcde") && fits("*", "x") && fits("a*b*c", "aXbYc"));
        assert!(!fits("*.jpg", "a.png") && !fits("a?", "a") && !fits("a*b", "ac"));
    }

    #[test]
    fn a_pattern_gives_its_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.jpg", "a.jpg", "c.png"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = matches(&folder.path().join("*.jpg")).unwrap().unwrap();
        assert_eq!(found, [folder.path().join("a.jpg"), folder.path().join("b.jpg")]);
        assert!(matches(&folder.path().join("c.png")).is_none() && matches(Path::new("nothing.jpg")).is_none());
    }
}
