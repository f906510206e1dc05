//! Stands in for the `openssl-sys` that `libssh2-sys` asks for, so that libssh2 is compiled against the AWS-LC that TLS
//! and russh use already: one crypto library to patch, and no OpenSSL to build, which takes perl and make.
//!
//! `openssl-sys` has an `aws-lc` feature of its own. It builds libssl too, which takes cmake and bindgen, and a second,
//! older AWS-LC; libssh2 needs libcrypto alone. The root `Cargo.toml` puts this crate in its place (`[patch]`).

// The crate is all C: naming it is what has it linked.
use aws_lc_sys as _;

/// AWS-LC initialises itself; `libssh2-sys` calls this before its first session.
pub fn init() {}
