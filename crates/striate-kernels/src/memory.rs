//! How much memory this process may use.

use std::path::{Path, PathBuf};

/// The machine's memory, or what the process's control groups allow of it, in bytes; none where the system does not tell.
pub fn memory_limit() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| parse_meminfo(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| parse_limit(&read(&path)?));
    machine.into_iter().chain(limits).min()
}

/// The total of `/proc/meminfo`, in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number of a limit's file; "max" is none.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The files with the memory limits of the groups in `/proc/self/cgroup` and of all groups around them. Inside a container the
/// group's own path may be hidden; then the root has the limit.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_both_versions_of_control_groups() {
        let text = "MemTotal:       24684416 kB\nMemFree:          100 kB\n";
        assert_eq!(parse_meminfo(text), Some(24_684_416 * 1024));
        assert_eq!((parse_limit("max\n"), parse_limit("1048576\n"), parse_limit("")), (None, Some(1 << 20), None));
        let files = |groups: &str| -> Vec<String> {
            limit_files(groups).iter().map(|path| path.display().to_string()).collect()
        };
        let v2 = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files("0::/a/b\n"), v2);
        let v1 = ["/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files("9:cpu,cpuacct:/job\n4:memory:/job\nbroken"), v1);
        assert!(memory_limit().is_none_or(|bytes| bytes > 1 << 20));
    }
}
