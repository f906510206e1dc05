//! What clients did: counts, and the log of login attempts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Method;

/// Counts of one server since it was started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections served, past and present.
    pub connections: AtomicU64,
    /// Connections not served.
    pub refused: AtomicU64,
    /// Connections at this time.
    pub open_connections: AtomicI64,
    /// Most connections at one time.
    pub most_connections: AtomicI64,
    /// SFTP sessions started: logins that came to something.
    pub sessions: AtomicU64,
    /// Files opened, refused opens not counted.
    pub opens: AtomicU64,
    /// Opens refused for want of a handle.
    pub refused_opens: AtomicU64,
    /// Most handles open at one time on one connection.
    pub most_handles: AtomicU64,
    /// Requests to the SFTP server.
    pub requests: AtomicU64,
    /// Reads answered with data.
    pub reads: AtomicU64,
    /// Bytes of file data sent.
    pub bytes: AtomicU64,
    /// Shells, commands and other subsystems asked for: never, by this program.
    pub other_requests: AtomicU64,
    /// Faults that came to pass.
    pub faults: AtomicU64,
    attempts: Mutex<Vec<Attempt>>,
}

/// One attempt to log in. The credential is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub user: String,
    pub method: Method,
    /// Whether the credential was right (a first of two factors included).
    pub right: bool,
}

impl Stats {
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    /// The methods of all attempts, in order.
    pub fn methods(&self) -> Vec<Method> {
        self.attempts().into_iter().map(|attempt| attempt.method).collect()
    }

    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }

    pub(super) fn attempted(&self, attempt: Attempt) {
        self.attempts.lock().unwrap().push(attempt);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let open = self.open_connections.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_connections.fetch_max(open, Ordering::SeqCst);
    }

    pub(super) fn disconnected(&self) {
        self.open_connections.fetch_sub(1, Ordering::SeqCst);
    }
}
