//! Whether anything moves between the two networks: counted where data and names arrive and where data leaves, and looked
//! at by whoever has to tell a slow run from one that is stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Something moved.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Differs from an earlier count where something moved meanwhile.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
