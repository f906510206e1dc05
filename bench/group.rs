//! A task's limits: a quarter of a processor and 512 MiB, as a control group of either version.

use std::fs;
use std::path::PathBuf;

const MICROSECONDS: u64 = 100_000;
const QUOTA: u64 = MICROSECONDS / 4;
const MEMORY: u64 = 512 << 20;

/// A control group with the limits of the smallest Fargate task. It goes when dropped.
pub struct Task {
    folders: Vec<PathBuf>,
}

impl Task {
    /// # Errors
    ///
    /// Says why this machine has no such group: not root, or no such controller.
    pub fn new() -> Result<Self, String> {
        let name = format!("sftp-s3-connector-bench-{}", std::process::id());
        let root = PathBuf::from("/sys/fs/cgroup");
        let limits: Vec<(PathBuf, Vec<(&str, String)>)> = if root.join("cgroup.controllers").exists() {
            let cpu = ("cpu.max", format!("{QUOTA} {MICROSECONDS}"));
            vec![(root.join(&name), vec![cpu, ("memory.max", MEMORY.to_string())])]
        } else {
            let period = ("cpu.cfs_period_us", MICROSECONDS.to_string());
            vec![
                (root.join("cpu").join(&name), vec![period, ("cpu.cfs_quota_us", QUOTA.to_string())]),
                (root.join("memory").join(&name), vec![("memory.limit_in_bytes", MEMORY.to_string())]),
            ]
        };
        let task = Self { folders: limits.iter().map(|(folder, _)| folder.clone()).collect() };
        for (folder, files) in limits {
            fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for (file, value) in files {
                let file = folder.join(file);
                fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        Ok(task)
    }

    /// Where a process writes its id to be limited.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        for folder in &self.folders {
            // Whoever was in it has ended; what stays costs nothing.
            let _ = fs::remove_dir(folder);
        }
    }
}
