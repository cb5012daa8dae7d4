//! What can be wrong with a file, or with writing one.

use std::io;
use std::path::{Path, PathBuf};

/// The result of reading or writing a file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a file could not be read or written. Every message begins with the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb: "open", "write".
        action: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// No space left, or the quota is used up. What stood there before is untouched.
    #[error("{}: no space left on the disk after {written} bytes; the previous file is untouched. Free space and try again ({source})", .path.display())]
    DiskFull {
        /// The file that could not be completed.
        path: PathBuf,
        /// Bytes that had been written to the temporary file.
        written: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// A folder, a pipe or a device where a file is needed.
    #[error("{}: not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file ends before what it declares.
    #[error("{}: {what} needs {needed} bytes, but only {left} are left; the file is cut off", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut off.
        what: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// A size beyond what is read.
    #[error("{}: {what} is {value}, at most {limit} are accepted", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// Its size.
        value: u64,
        /// The most accepted.
        limit: u64,
    },
    /// The file breaks the rules of its format.
    #[error("{}: {what}: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format or the part of it.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// One named array of a file is wrong.
    #[error("{}: array `{key}`: {why}", .path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// The array's name.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The file is well-formed, but uses something that is not supported.
    #[error("{}: {what} is not supported; {instead}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it uses.
        what: String,
        /// What to do.
        instead: String,
    },
    /// Nodes of a model that cannot be traced, all at once.
    #[error("{}: {}", .path.display(), nodes(.problems))]
    Nodes {
        /// The file.
        path: PathBuf,
        /// Each node with its operator and what is wrong with it.
        problems: Vec<String>,
    },
    /// A pickle names what runs programs or opens files, which no weights need.
    #[error("{}: {what}: `{name}` is named here, which no weights need; the file was made to do harm. Nothing was called; do not load it in Python", .path.display())]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// The pickle and the byte.
        what: String,
        /// What it names.
        name: String,
    },
    /// The bytes are not those that were written.
    #[error("{}: {what}: checksum {computed:08x}, written was {stored:08x}; the file is damaged", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The damaged part.
        what: String,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes that are there.
        computed: u32,
    },
    /// Written by a newer striate.
    #[error("{}: {what} version {found}, this striate reads up to {known}; update striate", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Which format.
        what: &'static str,
        /// Version in the file.
        found: u32,
        /// Newest known version.
        known: u32,
    },
    /// A folder has checkpoints, and none of them is good.
    #[error("{}: none of {} checkpoints can be read:{}", .folder.display(), .skipped.len(), list(.skipped))]
    NoGoodCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// Each checkpoint with what is wrong with it, newest first.
        skipped: Vec<Error>,
    },
}

fn list(errors: &[Error]) -> String {
    errors.iter().map(|e| format!("\n  {e}")).collect()
}

/// All of it on one line, as every message about a file, up to a number that a person reads.
fn nodes(problems: &[String]) -> String {
    const MOST: usize = 100;
    match problems {
        [] => "nothing is wrong".to_owned(),
        [problem] => problem.clone(),
        all => {
            let rest = all.len().saturating_sub(MOST);
            let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
            format!("{} nodes cannot be used: {}{more}", all.len(), all[..all.len() - rest].join("; "))
        }
    }
}

impl Error {
    /// True where the operating system or the disk is at fault, false where the contents of a file are.
    pub fn is_io(&self) -> bool {
        matches!(self, Error::Io { .. } | Error::DiskFull { .. })
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Malformed { path: path.into(), what: printable(&what.into()), why: printable(&why.into()) }
    }

    pub(crate) fn array(path: &Path, key: &str, why: impl Into<String>) -> Error {
        Error::Array { path: path.into(), key: printable(key), why: printable(&why.into()) }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>, instead: impl Into<String>) -> Error {
        Error::Unsupported { path: path.into(), what: printable(&what.into()), instead: printable(&instead.into()) }
    }

    pub(crate) fn forbidden(path: &Path, what: impl Into<String>, name: impl Into<String>) -> Error {
        Error::Forbidden { path: path.into(), what: printable(&what.into()), name: printable(&name.into()) }
    }

    pub(crate) fn too_large(path: &Path, what: impl Into<String>, value: u64, limit: u64) -> Error {
        Error::TooLarge { path: path.into(), what: printable(&what.into()), value, limit }
    }

    pub(crate) fn truncated(path: &Path, what: impl Into<String>, needed: u64, left: u64) -> Error {
        Error::Truncated { path: path.into(), what: printable(&what.into()), needed, left }
    }

    pub(crate) fn checksum(path: &Path, what: impl Into<String>, stored: u32, computed: u32) -> Error {
        Error::Checksum { path: path.into(), what: printable(&what.into()), stored, computed }
    }

    pub(crate) fn nodes(path: &Path, problems: &[String]) -> Error {
        Error::Nodes { path: path.into(), problems: problems.iter().map(|problem| printable(problem)).collect() }
    }
}

/// Text out of a file, fit for one line of a message: control characters escaped, cut where it is too long.
pub fn printable(text: &str) -> String {
    const MOST: usize = 400;
    let mut line = String::new();
    for c in text.chars() {
        match c {
            // that which turns the direction of text can hide what a message says
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                line.extend(c.escape_default());
            }
            c => line.push(c),
        }
        if line.len() > MOST {
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_the_file_says() {
        assert_eq!(printable("layer1.0.conv1.weight é"), "layer1.0.conv1.weight é");
        assert_eq!(printable("a\nerror: b\u{1b}[31m"), "a\\nerror: b\\u{1b}[31m");
        assert!(printable(&"x".repeat(1 << 20)).len() < 410);
        let (f, name) = (Path::new("f"), "a\r\n\u{7f}b");
        let errors = [
            Error::array(f, name, "c\0d"),
            Error::truncated(f, name, 2, 1),
            Error::checksum(f, name, 2, 1),
            Error::nodes(f, &vec![name.to_owned(); 200]),
        ];
        for error in errors {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
    }
}
