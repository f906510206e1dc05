//! Starts and stops the servers that integration tests talk to: real ones, each on a free port of the loopback with a
//! folder of its own, gone when its value is dropped.
//!
//! A test target that needs an installed server has `required-features = ["real-servers"]`: it is built when
//! `make test` has installed the server, and then nothing skips it.

#![allow(dead_code, reason = "each test target uses a part of it")]

pub mod aws;
pub mod moto;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod seaweed;
pub mod sshd;

use std::time::{Duration, Instant};

/// Calls `ready` until it returns something; panics with `what` after `limit`.
pub fn poll<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same for an asynchronous `ready`.
pub async fn until<T>(what: &str, limit: Duration, mut ready: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready().await {
            return value;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `len` bytes that differ from place to place and do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64: fast, and good enough to tell any two ranges apart.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
