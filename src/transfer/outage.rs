//! When the store is given up: the partner's files are not read for a store that takes nothing.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// Failures in a row after which a store that has taken nothing yet is given up: as many as may be under way at once by
/// default, none of which came right.
const FAILURES: u32 = 16;
/// A store that has taken something is given up after as many, and no sooner than so long after the first: it may come back.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the store did of late.
#[derive(Debug, Default)]
pub struct Outage {
    lately: Mutex<Lately>,
    given_up: OnceLock<Failure>,
}

#[derive(Debug, Default)]
struct Lately {
    has_taken: bool,
    /// In a row.
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
}

impl Outage {
    /// Why nothing can be stored, once that is clear.
    pub fn given_up(&self) -> Option<&Failure> {
        self.given_up.get()
    }

    /// The store took what it was sent.
    pub fn took(&self) {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        *lately = Lately { has_taken: true, failures: 0, since: None };
    }

    /// A request failed, for want of a permission or an answer.
    pub fn failed(&self, failure: &Failure) {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.failures += 1;
        let since = *lately.since.get_or_insert_with(Instant::now);
        let is_over = !lately.has_taken || since.elapsed() >= PATIENCE;
        if lately.failures > FAILURES && is_over {
            self.give_up(failure);
        }
    }

    /// Nothing can be stored.
    pub fn give_up(&self, failure: &Failure) {
        self.given_up.get_or_init(|| Failure { may_pass: false, ..failure.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureCode;

    fn fail(outage: &Outage, times: u32) {
        let failure = Failure { may_pass: true, ..Failure::new(FailureCode::WriteFileError, "no") };
        (0..times).for_each(|_| outage.failed(&failure));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_took_anything_is_given_up_after_so_many_failures() {
        let outage = Outage::default();
        fail(&outage, FAILURES);
        assert!(outage.given_up().is_none());
        fail(&outage, 1);
        assert!(outage.given_up().is_some_and(|failure| !failure.may_pass));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_took_something_is_waited_for() {
        let outage = Outage::default();
        outage.took();
        tokio::time::sleep(PATIENCE).await;
        fail(&outage, 1000);
        assert!(outage.given_up().is_none(), "it may be busy, however long it was not needed");
        tokio::time::sleep(PATIENCE).await;
        outage.took();
        fail(&outage, 1000);
        assert!(outage.given_up().is_none(), "it took something since");
        tokio::time::sleep(PATIENCE).await;
        fail(&outage, 1);
        assert!(outage.given_up().is_some());
    }
}
