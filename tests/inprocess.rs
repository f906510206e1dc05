//! The built binary against servers in this process, well behaved and not: exact bytes or the right code, never a hang.

#[path = "harness/inprocess/mod.rs"]
mod inprocess;

#[path = "inprocess/servers.rs"]
mod servers;
