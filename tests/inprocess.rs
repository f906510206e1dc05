//! The built binary against servers in this process, well behaved and not: exact bytes or the right code, never a hang.

#[path = "harness/inprocess/mod.rs"]
mod inprocess;
#[path = "harness/inprocess/world.rs"]
mod world;

#[path = "inprocess/servers.rs"]
mod servers;
