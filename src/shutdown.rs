//! Stopping in good order: SIGTERM, SIGINT and whoever no longer wants the run become a token that everything under way
//! listens to.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// Why a run stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
    /// Step Functions, which had waited for the run, no longer does: another try may be under way.
    GivenUp,
}

impl Cause {
    /// How the run ends for it.
    pub fn exit(self) -> Exit {
        match self {
            Cause::Terminated | Cause::GivenUp => Exit::Terminated,
            Cause::Interrupted => Exit::Interrupted,
        }
    }

    /// What stopped the run, for its last record.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Terminated | Cause::Interrupted => "stopped by a signal",
            Cause::GivenUp => "stopped because Step Functions no longer waits for this task",
        }
    }
}

/// Whether the run is to stop, and why. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    /// Why, and since when.
    cause: Arc<OnceLock<(Cause, Instant)>>,
}

impl Shutdown {
    /// Cancelled once the run is to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// `None` while nothing asked the run to stop.
    pub fn cause(&self) -> Option<Cause> {
        self.cause.get().map(|(cause, _)| *cause)
    }

    /// Asks the run to stop. The first cause stands.
    pub fn stop(&self, cause: Cause) {
        if self.cause.set((cause, Instant::now())).is_ok() {
            self.token.cancel();
        }
    }

    /// Ends `grace` after the run was asked to stop, at once where that is past; never while it was not asked.
    pub async fn grace_is_over(&self, grace: Duration) {
        self.token.cancelled().await;
        let since = self.cause.get().map_or_else(Instant::now, |(_, since)| *since);
        tokio::time::sleep_until(since + grace).await;
    }
}

/// How the grace period is shared out: from the signal to the end of each phase.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// What was begun may end; then it is given up.
    pub finishing: Duration,
    /// Uploads are aborted; then the operation is cut off.
    pub aborting: Duration,
    /// The outside is told.
    pub telling: Duration,
    /// The last record is written.
    pub last_words: Duration,
}

impl Phases {
    /// Of 25 seconds, the last eight are three to abort in, three to tell in, and one for the last record, with one to spare.
    pub fn of(grace: Duration) -> Self {
        let unit = (grace / 16).min(Duration::from_secs(1));
        let before_the_end = |units: u32| grace - unit * units;
        Self {
            finishing: before_the_end(8),
            aborting: before_the_end(5),
            telling: before_the_end(2),
            last_words: before_the_end(1),
        }
    }
}

/// A [`Shutdown`] that SIGTERM and SIGINT trigger. A second signal changes nothing: the grace period is already short.
///
/// # Errors
///
/// Where the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<Shutdown> {
    let shutdown = Shutdown::default();
    for (kind, cause) in [(SignalKind::terminate(), Cause::Terminated), (SignalKind::interrupt(), Cause::Interrupted)] {
        let mut signals = signal(kind)?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::warn!(
                    signal = cause.exit().code() - 128,
                    "stopping: no new work is begun, open uploads are aborted"
                );
                shutdown.stop(cause);
            }
        });
    }
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_phases_are_counted_from_the_signal_whenever_they_are_waited_for() {
        let phases = Phases::of(Duration::from_secs(25));
        let shutdown = Shutdown::default();
        let start = Instant::now();
        shutdown.stop(Cause::Terminated);
        for (phase, seconds) in
            [(phases.finishing, 17), (phases.aborting, 20), (phases.telling, 23), (phases.last_words, 24)]
        {
            shutdown.grace_is_over(phase).await;
            assert_eq!(start.elapsed(), Duration::from_secs(seconds));
        }
        // What is past is over.
        shutdown.grace_is_over(phases.aborting).await;
        assert_eq!(start.elapsed(), Duration::from_secs(24));
    }

    #[test]
    fn a_short_grace_is_shared_out_too() {
        let Phases { finishing, aborting, telling, last_words } = Phases::of(Duration::from_secs(1));
        assert!(
            finishing < aborting && aborting < telling && telling < last_words && last_words < Duration::from_secs(1)
        );
    }
}
