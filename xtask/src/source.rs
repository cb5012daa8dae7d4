//! What one source file may not do: outgrow its budgets, be unsafe where it must not, leave work undone.
//!
//! Works on tokens, not on a syntax tree: what stands in comments and strings never counts, and the bodies of
//! macros, which a syntax tree leaves opaque, do.

use crate::Violation;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Lines of a file, without its tests.
const FILE_LINES: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 80;
/// Parameters of a function, `self` included.
const PARAMETERS: usize = 7;
/// Where `unsafe` may stand: a crate, and one file of another.
const UNSAFE_CRATE: &str = "crates/striate-kernels/";
const UNSAFE_FILE: &str = "crates/striate-graph/src/run/arena.rs";

/// Every `.rs` file of the workspace, sorted; build outputs and hidden folders left out.
pub(crate) fn find_sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let at = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "runs" {
                folders.push(path);
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Checks one file; `file` is its path below the root.
pub(crate) fn check_source(file: &str, text: &str) -> Vec<Violation> {
    let generated = text.lines().next().is_some_and(|line| line.contains("@generated"));
    let mut walk = Walk {
        file,
        lines: text.lines().collect(),
        budgets: !generated && !is_test_file(file),
        test_lines: 0,
        found: Vec::new(),
    };
    match TokenStream::from_str(text) {
        Ok(tokens) => walk.tokens(tokens, false),
        Err(error) => walk.report(error.span().start().line, format!("does not parse: {error}")),
    }
    let lines = walk.lines.len() - walk.test_lines;
    if walk.budgets && lines > FILE_LINES {
        walk.report(1, format!("{lines} lines without tests, the budget is {FILE_LINES}; split the file"));
    }
    walk.root_attribute();
    walk.ignored_examples();
    walk.found
}

/// Integration tests, and modules that hold nothing but tests.
fn is_test_file(file: &str) -> bool {
    let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".rs");
    file.split('/').any(|part| part == "tests") || stem == "tests" || stem.ends_with("_tests")
}

struct Walk<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    /// Whether the sizes of this file are checked.
    budgets: bool,
    test_lines: usize,
    found: Vec<Violation>,
}

impl Walk<'_> {
    fn report(&mut self, line: usize, message: String) {
        self.found.push(Violation::new(self.file, line, message));
    }

    /// Walks one level of the token tree; `test` is true below a `#[cfg(test)]`.
    fn tokens(&mut self, stream: TokenStream, test: bool) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut test_until = 0;
        for (index, tree) in trees.iter().enumerate() {
            let test = test || index < test_until;
            match tree {
                TokenTree::Group(group) => {
                    let attribute = index > 0 && is_punct(&trees[index - 1], '#')
                        || index > 1 && is_punct(&trees[index - 1], '!') && is_punct(&trees[index - 2], '#');
                    if attribute && group.delimiter() == Delimiter::Bracket {
                        self.attribute(group);
                        if !test && is_cfg_test(group) {
                            test_until = item_end(&trees, index + 1);
                            let last = trees[test_until - 1].span().end().line;
                            self.test_lines += last + 1 - group.span().start().line;
                        }
                    }
                    self.tokens(group.stream(), test);
                }
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    "unsafe" => self.unsafe_word(&trees, index),
                    "fn" if self.budgets && !test => self.function(&trees, index),
                    "todo" | "unimplemented" if trees.get(index + 1).is_some_and(|t| is_punct(t, '!')) => {
                        self.report(word.span().start().line, format!("`{word}!`: finish it or leave it out"));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// `#[ignore]`, also behind a `cfg_attr`.
    fn attribute(&mut self, group: &Group) {
        let words: Vec<TokenTree> = group.stream().into_iter().collect();
        let conditional = words.first().is_some_and(|w| w.to_string() == "cfg_attr");
        let is_ignore = |w: &TokenTree| matches!(w, TokenTree::Ident(i) if *i == "ignore");
        let ignores = words.first().is_some_and(is_ignore)
            || conditional
                && words.iter().any(|w| match w {
                    TokenTree::Group(inner) => inner.stream().into_iter().any(|w| is_ignore(&w)),
                    _ => false,
                });
        if ignores {
            self.report(group.span().start().line, "an ignored test; mend it or take it out".into());
        }
    }

    /// One `unsafe`: allowed here at all, and explained?
    fn unsafe_word(&mut self, trees: &[TokenTree], index: usize) {
        let line = trees[index].span().start().line;
        if !self.file.starts_with(UNSAFE_CRATE) && self.file != UNSAFE_FILE {
            self.report(line, format!("`unsafe` outside {UNSAFE_CRATE} and {UNSAFE_FILE}"));
        }
        let kind = match trees.get(index + 1) {
            Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Brace => "block",
            Some(TokenTree::Ident(word)) if *word == "impl" => "impl",
            _ => return,
        };
        if !self.is_explained(line) {
            self.report(line, format!("unsafe {kind} without a `// SAFETY:` comment above it"));
        }
    }

    /// Whether a SAFETY comment stands in the statement of `line` or right above that statement.
    fn is_explained(&self, line: usize) -> bool {
        let mut above = self.lines[..line].iter().rev().map(|l| l.trim()).peekable();
        if above.next().is_some_and(|own| own.contains("SAFETY:")) {
            return true;
        }
        let is_comment = |l: &str| l.starts_with("//") || l.starts_with("#[");
        // up to the beginning of the statement …
        while above.next_if(|l| !is_comment(l) && !l.is_empty() && !l.ends_with([';', '{', '}'])).is_some() {}
        // … and through the comment above it
        above.take_while(|l| is_comment(l)).any(|l| l.contains("SAFETY:"))
    }

    /// The budgets of the function whose `fn` is `trees[index]`. A `fn` without a name is a type.
    fn function(&mut self, trees: &[TokenTree], index: usize) {
        let mut next = index + 1;
        if trees.get(next).is_some_and(|t| is_punct(t, '$')) {
            next += 1;
        }
        let Some(TokenTree::Ident(name)) = trees.get(next) else { return };
        let line = trees[index].span().start().line;
        let after = trees.get(next + 1..).unwrap_or_default();
        let mut angle = Angle::default();
        for tree in after {
            angle.see(tree);
            match tree {
                TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis && angle.depth == 0 => {
                    let count = count_parameters(g.stream());
                    if count > PARAMETERS {
                        let message =
                            format!("fn {name} has {count} parameters, the budget is {PARAMETERS}; use a struct");
                        self.report(line, message);
                    }
                    break;
                }
                _ => {}
            }
        }
        let body = after.iter().find(|t| is_punct(t, ';') || is_brace(t));
        if let Some(TokenTree::Group(body)) = body {
            let lines = body.span().end().line + 1 - line;
            if lines > FUNCTION_LINES {
                self.report(line, format!("fn {name} has {lines} lines, the budget is {FUNCTION_LINES}; split it"));
            }
        }
    }

    /// The crate root's promise: `forbid(unsafe_code)`, except in the two crates that hold unsafe code.
    fn root_attribute(&mut self) {
        let is_root = self.file.ends_with("/src/lib.rs") || self.file.ends_with("/src/main.rs");
        // A fuzz target exports a symbol of C, which counts as unsafe; it is no part of the workspace.
        if !is_root || self.file.starts_with(UNSAFE_CRATE) || self.file.starts_with("fuzz/") {
            return;
        }
        let wanted = if UNSAFE_FILE.starts_with(self.file.trim_end_matches("lib.rs")) {
            "#![deny(unsafe_code)]"
        } else {
            "#![forbid(unsafe_code)]"
        };
        if !self.lines.iter().any(|l| l.trim() == wanted) {
            self.report(1, format!("the crate root lacks `{wanted}`"));
        }
    }

    /// Examples in documentation that are written but never run.
    fn ignored_examples(&mut self) {
        for (index, line) in self.lines.clone().iter().enumerate() {
            let comment = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
            let fence = comment.and_then(|c| c.trim().strip_prefix("```"));
            if fence.is_some_and(|f| f.split(',').any(|word| word.trim() == "ignore")) {
                self.report(index + 1, "an example marked `ignore`; let it run, or `no_run`, or `text`".into());
            }
        }
    }
}

/// Depth of `<…>`, not fooled by the `>` of `->`.
#[derive(Default)]
struct Angle {
    depth: usize,
    after_dash: bool,
}

impl Angle {
    fn see(&mut self, tree: &TokenTree) {
        if is_punct(tree, '<') {
            self.depth += 1;
        } else if is_punct(tree, '>') && !self.after_dash {
            self.depth = self.depth.saturating_sub(1);
        }
        self.after_dash = is_punct(tree, '-') || is_punct(tree, '=');
    }
}

fn count_parameters(stream: TokenStream) -> usize {
    let mut angle = Angle::default();
    let (mut count, mut pending) = (0, false);
    for tree in stream {
        angle.see(&tree);
        if is_punct(&tree, ',') && angle.depth == 0 {
            pending = false;
        } else if !pending {
            (count, pending) = (count + 1, true);
        }
    }
    count
}

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(p) if p.as_char() == wanted)
}

fn is_brace(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace)
}

/// `cfg(test)`, `cfg(all(test, …))`; not `cfg(not(test))`.
fn is_cfg_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Index after the item that begins at `from`: past its body or its semicolon.
fn item_end(trees: &[TokenTree], from: usize) -> usize {
    let end = trees[from..].iter().position(|t| is_brace(t) || is_punct(t, ';'));
    end.map_or(trees.len(), |offset| from + offset + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<(usize, String)> {
        check_source(file, text).into_iter().map(|v| (v.line, v.message)).collect()
    }

    #[track_caller]
    fn one(file: &str, text: &str, line: usize, part: &str) {
        let found = found(file, text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == line && found[0].1.contains(part), "{found:?}");
    }

    const NN: &str = "crates/striate-nn/src/a.rs";
    const KERNEL: &str = "crates/striate-kernels/src/a.rs";

    #[test]
    fn unsafe_has_its_places() {
        let explained = "fn f() {\n    // SAFETY: in bounds,\n    // as checked above.\n    unsafe { g() }\n}\n";
        assert_eq!(found(KERNEL, explained), []);
        assert_eq!(found(UNSAFE_FILE, explained), []);
        one(NN, explained, 4, "`unsafe` outside");
        one("crates/striate-graph/src/b.rs", explained, 4, "`unsafe` outside");
        assert_eq!(found(NN, "// unsafe { }\nconst A: &str = \"unsafe {}\";\n"), []);
    }

    #[test]
    fn unsafe_blocks_are_explained_also_in_macros() {
        one(KERNEL, "fn f() {\n    unsafe { g() }\n}\n", 2, "unsafe block without");
        one(KERNEL, "macro_rules! m {\n    () => {\n        unsafe { g() }\n    };\n}\n", 3, "unsafe block without");
        one(KERNEL, "struct A;\nunsafe impl Send for A {}\n", 2, "unsafe impl without");
        let statement = "fn f() {\n    // SAFETY: why.\n    let a =\n        unsafe { g() };\n}\n";
        assert_eq!(found(KERNEL, statement), []);
        let far = "fn f() {\n    // SAFETY: of another.\n    g();\n    unsafe { g() }\n}\n";
        one(KERNEL, far, 4, "unsafe block without");
        assert_eq!(found(KERNEL, "/// # Safety\n/// AVX2.\nunsafe fn f() {}\n"), []);
    }

    #[test]
    fn roots_forbid_unsafe_code() {
        one("crates/striate-nn/src/lib.rs", "//! A.\n", 1, "#![forbid(unsafe_code)]");
        one("crates/striate-graph/src/lib.rs", "//! A.\n", 1, "#![deny(unsafe_code)]");
        assert_eq!(found("crates/striate-cli/src/main.rs", "//! A.\n#![forbid(unsafe_code)]\n"), []);
        assert_eq!(found("crates/striate-kernels/src/lib.rs", "//! A.\n"), []);
    }

    #[test]
    fn unfinished_work_is_found() {
        one(NN, "fn f() {\n    todo!()\n}\n", 2, "`todo!`");
        one(
            NN,
            "#[cfg(test)]\nmod tests {\n    fn f() {\n        unimplemented!(\"x\")\n    }\n}\n",
            4,
            "`unimplemented!`",
        );
        one(NN, "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", 2, "ignored test");
        one(NN, "#[test]\n#[cfg_attr(miri, ignore)]\nfn f() {}\n", 2, "ignored test");
        one(NN, "/// ```rust,ignore\n/// x\n/// ```\nfn f() {}\n", 1, "marked `ignore`");
        assert_eq!(found(NN, "// todo!()\nfn ignore() {}\n"), []);
    }

    #[test]
    fn functions_have_budgets() {
        let long = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(found(NN, &long(80)), []);
        one(NN, &long(81), 1, "fn f has 81 lines");
        assert_eq!(found(NN, &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", long(100))), []);
        assert_eq!(found("crates/striate-nn/tests/a.rs", &long(100)), []);
        let generic =
            "fn f<F: Fn(u8, u8) -> u8>(&self, a: Map<u8, u8>, b: fn(u8, u8), c: [u8; 2], d: u8, e: u8, g: u8,) {}\n";
        assert_eq!(found(NN, generic), []);
        one(NN, &generic.replace("g: u8,", "g: u8, (h, i): (u8, u8)"), 1, "fn f has 8 parameters");
        assert_eq!(found(NN, "type A = fn(u8, u8, u8, u8, u8, u8, u8, u8);\n"), []);
    }

    #[test]
    fn files_have_a_budget_without_their_tests() {
        let lines = |n: usize| "const A: u8 = 0;\n".repeat(n);
        assert_eq!(found(NN, &lines(800)), []);
        one(NN, &lines(801), 1, "801 lines without tests");
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(500));
        assert_eq!(found(NN, &format!("{}{tests}", lines(800))), []);
        one(NN, &format!("{}{tests}", lines(801)), 1, "801 lines without tests");
        assert_eq!(found("crates/striate-nn/src/a_tests.rs", &lines(900)), []);
        assert_eq!(found(NN, &format!("// @generated by prost\n{}", lines(900))), []);
    }
}
