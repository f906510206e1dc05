//! The built binary against servers in this process, well behaved and not: exact bytes or the right code, never a hang.
//!
//! Every run logs at `trace`, and in every run the secret's values are looked for in all output (`harness/inprocess/run.rs`).

#[path = "harness/inprocess/mod.rs"]
mod inprocess;
#[path = "harness/proxy.rs"]
#[allow(dead_code, reason = "other test targets use more of it")]
mod proxy;
#[path = "harness/inprocess/world.rs"]
mod world;

#[path = "inprocess/archives.rs"]
mod archives;
#[path = "inprocess/connections.rs"]
mod connections;
#[path = "inprocess/destination.rs"]
mod destination;
#[path = "inprocess/login.rs"]
mod login;
#[path = "inprocess/outside.rs"]
mod outside;
#[path = "inprocess/protocol.rs"]
mod protocol;
#[path = "inprocess/raw_zip.rs"]
mod raw_zip;
#[path = "inprocess/secret.rs"]
mod secret;
#[path = "inprocess/selection.rs"]
mod selection;
#[path = "inprocess/servers.rs"]
mod servers;
#[path = "inprocess/source.rs"]
mod source;
#[path = "inprocess/terminal.rs"]
mod terminal;
