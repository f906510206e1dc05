//! Where the servers keep their files: in memory where there is enough of it. A disk that is slower than the program holds up
//! both servers from the gigabyte on at which the kernel begins to write it out, and costs the client by the way.

use std::fs;
use std::path::{Path, PathBuf};

const IN_MEMORY: &str = "/dev/shm";
/// The largest workload's file twice, at the server and in the store, and what the programs take.
const NEEDED: u64 = 20 << 30;

/// The folder for everything that the bench makes.
pub fn choose() -> PathBuf {
    if has_room(Path::new(IN_MEMORY)) && available_memory().is_some_and(|bytes| bytes >= NEEDED) {
        IN_MEMORY.into()
    } else {
        std::env::temp_dir()
    }
}

fn has_room(folder: &Path) -> bool {
    // A folder of the root's file system is no memory.
    let is_memory = fs::read_to_string("/proc/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| line.split(' ').nth(1) == folder.to_str() && line.split(' ').nth(2) == Some("tmpfs"))
    });
    is_memory
        && nix::sys::statvfs::statvfs(folder).is_ok_and(|room| room.blocks_available() * room.fragment_size() >= NEEDED)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_memory() -> Option<u64> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))?;
    kib.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
