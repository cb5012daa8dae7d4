//! Running the binary, and a small data set for it.
#![allow(dead_code)] // each test file uses some of it

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a run of the binary gave.
pub struct Run {
    /// Nothing where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// From the moment that mattered to the end.
    pub seconds: f64,
}

impl Run {
    /// It must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// It must have failed with this code and with these parts in its message.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_striate"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    command.env_remove("STRIATE_FAIL_AT").env_remove("STRIATE_THREADS");
    command
}

fn finish(child: Child, since: Instant) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        seconds: since.elapsed().as_secs_f64(),
    }
}

pub fn run(args: &[&str]) -> Run {
    run_with(args, &[])
}

pub fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Run {
    finish(command(args).envs(environment.iter().copied()).spawn().unwrap(), Instant::now())
}

/// Must end in time.
pub fn run_for(args: &[&str], most: Duration) -> Run {
    let done = run(args);
    assert!(done.seconds < most.as_secs_f64(), "it took {} s", done.seconds);
    done
}

/// SIGKILL after a while.
pub fn kill_after(args: &[&str], after: Duration) {
    let mut child = command(args).spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// SIGINT as soon as `ready`; the seconds are those from there to the end.
pub fn interrupt_when(args: &[&str], ready: impl Fn() -> bool) -> Run {
    let child = command(args).spawn().unwrap();
    while !ready() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let since = Instant::now();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    finish(child, since)
}

/// The files of a folder whose names end so, sorted.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

/// In the middle of the file.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// Runs where the disk is soon full: with the project on a small tmpfs, or else under a limit on the size of files. `None` where
/// neither can be had. What was written comes to the usual project.
pub fn run_with_full_disk(set: &Set, args: &[&str], name: &str) -> Option<Run> {
    let mount = set.root().join("small-disk");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "striate-test"])
        .arg(&mount)
        .stderr(Stdio::null())
        .status();
    if mounted.is_ok_and(|status| status.success()) {
        let mut args = args.to_vec();
        let place = args.iter().position(|arg| *arg == "--project").unwrap() + 1;
        args[place] = mount.to_str().unwrap();
        let done = run(&args);
        let copied = Command::new("cp").arg("-r").arg(mount.join(name)).arg(set.root().join("copied")).status();
        assert!(copied.unwrap().success() && Command::new("umount").arg(&mount).status().unwrap().success());
        std::fs::rename(set.root().join("copied"), set.folder(name)).unwrap();
        let checkpoints = set.folder(name).join("checkpoints");
        assert_eq!(files(&checkpoints, "").len(), files(&checkpoints, ".checkpoint").len(), "a temporary file is left");
        assert!(!files(&checkpoints, ".checkpoint").is_empty());
        return Some(done);
    }
    // In blocks of 1024 bytes; the signal is ignored so that the write fails instead.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$@\"";
    let bash = Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_striate")])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Some(finish(bash.ok()?, Instant::now()))
}

/// A small data set as IDX files, and a folder for runs.
pub struct Set {
    root: tempfile::TempDir,
    data: String,
    project: String,
}

impl Set {
    pub fn root(&self) -> &Path {
        self.root.path()
    }
    pub fn data(&self) -> &str {
        &self.data
    }
    pub fn project(&self) -> &str {
        &self.project
    }
    pub fn folder(&self, name: &str) -> PathBuf {
        Path::new(&self.project).join(name)
    }
    /// The same files in another folder.
    pub fn copy_data(&self, name: &str) -> String {
        let to = self.root().join(name);
        std::fs::create_dir(&to).unwrap();
        for file in files(Path::new(&self.data), "") {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
        to.to_str().unwrap().to_owned()
    }
}

/// 180 training and 24 test pictures of 12x12 in three classes: stripes down, stripes across, checks, with noise.
pub fn tiny_set() -> Set {
    tiny_set_of(3)
}

/// The same with fewer classes.
pub fn tiny_set_of(classes: usize) -> Set {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (part, count, seed) in [("train", 180usize, 1u32), ("t10k", 24, 2)] {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 26) as u8
        };
        let header = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(&magic).chain(sizes).flat_map(|v| v.to_be_bytes()).collect()
        };
        let mut images = header(0x803, &[count as u32, 12, 12]);
        let mut labels = header(0x801, &[count as u32]);
        for i in 0..count {
            let class = i % classes;
            labels.push(class as u8);
            for (y, x) in (0..12).flat_map(|y| (0..12).map(move |x| (y, x))) {
                let bright = [x / 2 % 2, y / 2 % 2, (x / 2 + y / 2) % 2][class];
                images.push(bright as u8 * 150 + noise());
            }
        }
        std::fs::write(data.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(data.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
    let (data, project) = (data.to_str().unwrap().to_owned(), root.path().join("runs").to_str().unwrap().to_owned());
    Set { root, data, project }
}
