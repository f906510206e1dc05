//! Servers inside the test's own process: an SFTP server, an S3 store and a Secrets Manager endpoint, on free
//! loopback ports, with nothing installed. `examples/demo.rs` runs on the same ones.
//!
//! The SFTP server speaks the real protocol over real SSH and misbehaves only where a test asks it to.

#![allow(dead_code, unused_imports, reason = "each test target, and the demo, uses its own part of the harness")]

pub mod json_service;
pub mod run;
pub mod s3;
pub mod secrets;
pub mod sftp;
