//! The memory that the container allows, from the control groups of Linux.

use std::fs;
use std::path::{Path, PathBuf};

use crate::units::ByteSize;

/// No machine has this much: version 1 writes "no limit" as the greatest page-aligned 63-bit number.
const NO_LIMIT: u64 = 1 << 50;

/// The tightest limit on this process's group and those above it; `None` where there is none or it cannot be read.
/// `root` is `/`, or a tree like it in tests.
pub fn memory_limit(root: &Path) -> Option<ByteSize> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    groups
        .lines()
        .filter_map(|line| {
            // `hierarchy:controllers:path`, cgroups(7); version 2 is hierarchy 0 without controllers.
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            match controllers {
                "" => Some((mounts.clone(), path, "memory.max")),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    Some((mounts.join("memory"), path, "memory.limit_in_bytes"))
                }
                _ => None,
            }
        })
        .flat_map(|(mount, path, file)| files_up_to(mount, path, file))
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .filter(|limit| *limit < NO_LIMIT)
        .min()
        .map(ByteSize)
}

/// `file` in the group at `path` and in each above it. A container often sees only the mount's own root, under which
/// the path that the kernel tells does not exist: the root is among what is looked at.
fn files_up_to(mount: PathBuf, path: &str, file: &'static str) -> Vec<PathBuf> {
    let path = path.trim_start_matches('/');
    // A path with `..` leads out of the namespace that the mount shows.
    let path = if path.split('/').any(|segment| segment == "..") { "" } else { path };
    Path::new(path).ancestors().map(|group| mount.join(group).join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(files: &[(&str, &str)]) -> Option<ByteSize> {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder");
            fs::write(path, text).expect("the file");
        }
        memory_limit(root.path())
    }

    #[test]
    fn version_2_in_its_own_namespace() {
        let limit = limit_of(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "536870912\n")]);
        assert_eq!(limit, Some(ByteSize::mebibytes(512)));
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let limit = limit_of(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/memory.max", "2147483648\n"),
        ]);
        assert_eq!(limit, Some(ByteSize::gibibytes(1)));
    }

    #[test]
    fn version_1_where_only_the_containers_own_group_is_mounted() {
        let limit = limit_of(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n0::/docker/1f\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ]);
        assert_eq!(limit, Some(ByteSize::mebibytes(256)));
    }

    #[test]
    fn no_limit_is_none_however_it_is_written() {
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")]), None);
        let huge = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of(&[("proc/self/cgroup", "4:memory:/\n"), huge]), None);
        let escaping = [("proc/self/cgroup", "0::/../../x\n"), ("x/memory.max", "1\n")];
        assert_eq!(limit_of(&escaping), None);
        assert_eq!(limit_of(&[("proc/self/cgroup", "nonsense"), ("sys/fs/cgroup/memory.max", "1\n")]), None);
    }
}
