//! How much memory there is to fill.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Bytes of memory that can be filled without swapping, within the limits of this process's control groups. `None` where the
/// system does not tell.
#[must_use]
pub fn available_memory() -> Option<u64> {
    MemoryProbe::system().available()
}

/// Where the system says how much memory is available.
#[derive(Debug)]
pub(crate) struct MemoryProbe {
    /// The root of the file system, but in tests.
    root: PathBuf,
}

impl MemoryProbe {
    pub(crate) fn system() -> Self {
        Self { root: "/".into() }
    }

    /// Bytes that can be filled without swapping and without running into the limit of a control group. `None` where
    /// the system does not tell.
    pub(crate) fn available(&self) -> Option<u64> {
        let system = self.read("proc/meminfo").and_then(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        });
        let groups = self.read("proc/self/cgroup").unwrap_or_default();
        let groups = groups.lines().flat_map(|line| self.left_in_groups(line));
        system.into_iter().chain(groups).min()
    }

    /// What the group of this line of `/proc/self/cgroup`, and each group that it lies in, still may take.
    fn left_in_groups(&self, line: &str) -> Vec<u64> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            return Vec::new();
        };
        let version = if controllers.is_empty() {
            &V2
        } else if controllers.split(',').any(|name| name == "memory") {
            &V1
        } else {
            return Vec::new();
        };
        // A group outside of this process's namespace starts with `..`; what can be seen of it is the root.
        let path: PathBuf = Path::new(path)
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        path.ancestors()
            .filter_map(|group| self.left_in_group(version, group))
            .collect()
    }

    fn left_in_group(&self, version: &Version, group: &Path) -> Option<u64> {
        let dir = Path::new(version.mount).join(group);
        let read = |name: &str| self.read(dir.join(name));
        // "max" is no number, and no limit.
        let limit: u64 = read(version.limit)?.trim().parse().ok()?;
        let used: u64 = read(version.used)?.trim().parse().ok()?;
        // The page cache counts as used, such as that of the sealed files, but gives way.
        let stat = read("memory.stat").unwrap_or_default();
        let cache: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| version.cache.contains(name))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }
}

/// What a version of control groups calls things.
struct Version {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    cache: [&'static str; 2],
}

static V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};

static V2: Version = Version {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    cache: ["inactive_file", "active_file"],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(files: &[(&str, &str)]) -> (tempfile::TempDir, MemoryProbe) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = dir.path().to_path_buf();
        (dir, MemoryProbe { root })
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       24683520 kB\nMemAvailable:     1000 kB\n",
    );

    fn available(files: &[(&str, &str)]) -> Option<u64> {
        let (_dir, probe) = probe(&[&[MEMINFO], files].concat());
        probe.available()
    }

    #[test]
    fn the_system_is_asked() {
        assert_eq!(available(&[]), Some(1000 << 10));
        assert_eq!(probe(&[]).1.available(), None);
        assert!(MemoryProbe::system().available().unwrap() > 1 << 20);
    }

    #[test]
    fn the_least_of_all_groups_counts() {
        let v2 = |limit, outer| {
            available(&[
                ("proc/self/cgroup", "1:name=systemd:/x\n0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", limit),
                ("sys/fs/cgroup/a/b/memory.current", "600\n"),
                (
                    "sys/fs/cgroup/a/b/memory.stat",
                    "anon 100\nfile 500\ninactive_file 300\nactive_file 50\n",
                ),
                ("sys/fs/cgroup/a/memory.max", outer),
                ("sys/fs/cgroup/a/memory.current", "700\n"),
            ])
        };
        assert_eq!(v2("max\n", "max\n"), Some(1000 << 10));
        assert_eq!(v2("1000\n", "max\n"), Some(750));
        assert_eq!(v2("1000\n", "1400\n"), Some(700));
        assert_eq!(v2("100\n", "max\n"), Some(0));
        assert_eq!(v2("9000000\n", "max\n"), Some(1000 << 10));
    }

    #[test]
    fn the_first_version_of_groups_and_other_namespaces_are_known() {
        let v1 = |group| {
            available(&[
                ("proc/self/cgroup", group),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n"),
                (
                    "sys/fs/cgroup/memory/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 100\n",
                ),
            ])
        };
        assert_eq!(v1("4:cpu,memory:/gone/deeper\n0::/\n"), Some(1100));
        assert_eq!(v1("4:memory:/../../other\n"), Some(1100));
        assert_eq!(v1("4:cpu:/\n"), Some(1000 << 10));
    }
}
