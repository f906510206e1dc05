//! Tries one repeatable step again, with exponential backoff and full jitter.
//!
//! One layer owns each retry: the SDK its requests, this one the part. A step is retried only where its error may pass,
//! and never once the run is stopping.

use std::num::NonZeroU32;
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

/// The longest wait before the second try; doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How often, and until when.
#[derive(Debug, Clone)]
pub struct Retry {
    pub max_attempts: NonZeroU32,
    /// Ends the waiting: the last error is returned at once.
    pub stop: CancellationToken,
}

impl Retry {
    /// Runs `step` until it succeeds, its error is one that cannot pass, the attempts are used up or the run stops.
    /// `step` is given the number of the attempt, from 1.
    pub async fn run<T, E, F>(&self, may_pass: impl Fn(&E) -> bool, mut step: impl FnMut(u32) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let mut attempt = 1;
        loop {
            let error = match step(attempt).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !may_pass(&error) {
                return Err(error);
            }
            if attempt < self.max_attempts.get() && !self.stop.is_cancelled() {
                let (next, of) = (attempt + 1, self.max_attempts);
                tracing::info!(attempt = next, of, error = %error, "trying again ({next} of {of})");
            }
            if !self.wait(attempt).await {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Waits before the try after the `attempt`-th; `false` at once where there is to be none.
    pub async fn wait(&self, attempt: u32) -> bool {
        if attempt >= self.max_attempts.get() {
            return false;
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(backoff(attempt)) => true,
        }
    }
}

/// A random wait up to the limit that doubles with each attempt: tasks that failed together do not come back together.
fn backoff(attempt: u32) -> Duration {
    let limit = FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_WAIT);
    rand::rng().random_range(limit / 8..=limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(max_attempts: u32) -> Retry {
        Retry { max_attempts: NonZeroU32::new(max_attempts).unwrap(), stop: CancellationToken::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_passes_the_third_time_is_tried_three_times() {
        let result =
            retry(5).run(|_: &String| true, |n| async move { if n == 3 { Ok(n) } else { Err("no".to_owned()) } }).await;
        assert_eq!(result, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_comes_back_when_attempts_are_used_up() {
        let result: Result<(), String> = retry(4).run(|_| true, |n| async move { Err(format!("try {n}")) }).await;
        assert_eq!(result, Err("try 4".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_is_not_tried_again() {
        let result: Result<(), String> = retry(4).run(|_| false, |n| async move { Err(format!("try {n}")) }).await;
        assert_eq!(result, Err("try 1".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_run_does_not_wait() {
        let policy = retry(4);
        policy.stop.cancel();
        let before = tokio::time::Instant::now();
        let result: Result<(), String> = policy.run(|_| true, |n| async move { Err(format!("try {n}")) }).await;
        assert_eq!((result, before.elapsed()), (Err("try 1".to_owned()), Duration::ZERO));
    }

    #[test]
    fn no_wait_is_over_the_longest() {
        for attempt in 1..100 {
            assert!(backoff(attempt) <= LONGEST_WAIT);
        }
    }
}
