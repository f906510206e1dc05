//! Whether the bytes of a request's body move, for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When a body's bytes moved last.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    /// Milliseconds from the start to when the store took a piece last; [`Self::NOTHING_TO_TAKE`] while there is none.
    took_ms: AtomicU64,
}

impl Progress {
    const NOTHING_TO_TAKE: u64 = u64::MAX;

    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), took_ms: AtomicU64::new(0) })
    }

    /// The connection had room for a piece, and got one that is not the last, or not.
    pub fn asked(&self, got_one: bool) {
        let took_ms = if got_one { self.start.elapsed().as_millis() as u64 } else { Self::NOTHING_TO_TAKE };
        self.took_ms.store(took_ms, Ordering::Relaxed);
    }

    /// Ready once the store has taken nothing for so long although there was something.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let since = match self.took_ms.load(Ordering::Relaxed) {
                Self::NOTHING_TO_TAKE => Duration::ZERO,
                took_ms => self.start.elapsed().saturating_sub(Duration::from_millis(took_ms)),
            };
            if since >= limit {
                return;
            }
            tokio::time::sleep(limit - since).await;
        }
    }
}
