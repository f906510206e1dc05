//! The built program against real servers, as a stranger runs it: OpenSSH, SeaweedFS, moto.

mod harness;
#[allow(dead_code, reason = "each test target uses a part of it")]
#[path = "harness/inprocess/run.rs"]
mod run;
#[path = "real/site.rs"]
mod site;

#[path = "real/exits.rs"]
mod exits;
#[path = "real/job.rs"]
mod job;
#[path = "real/limits.rs"]
mod limits;
