//! The budget of bytes held between the two networks: the one memory knob.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain of the budget. A small file costs at least this, which pays for what its task weighs.
const BLOCK: u64 = 4096;

/// A number of bytes that may be held at once. Waiters are served in the order in which they came.
#[derive(Debug, Clone)]
pub struct Budget {
    blocks: Arc<Semaphore>,
    total: u32,
}

/// Bytes that are held; given back on drop.
#[derive(Debug)]
pub struct Held {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX).max(1);
        Self { blocks: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// The whole of it.
    pub fn bytes(&self) -> u64 {
        u64::from(self.total) * BLOCK
    }

    /// Waits until `bytes` more may be held. More than the whole budget is taken for the whole budget, so that it waits
    /// until nothing else is held.
    pub async fn hold(&self, bytes: u64) -> Held {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX).clamp(1, self.total);
        // The semaphore is never closed.
        Held { _permit: self.blocks.clone().acquire_many_owned(blocks).await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn what_is_held_is_missing_until_it_is_dropped() {
        let budget = Budget::new(3 * BLOCK);
        let two = budget.hold(2 * BLOCK).await;
        assert!(budget.hold(BLOCK + 1).now_or_never().is_none());
        drop(two);
        assert!(budget.hold(BLOCK + 1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn more_than_there_is_waits_for_all_there_is() {
        let budget = Budget::new(BLOCK);
        let all = budget.hold(u64::MAX).now_or_never();
        assert!(all.is_some());
        assert!(budget.hold(1).now_or_never().is_none());
    }
}
