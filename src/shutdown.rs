//! Stopping in good order: SIGTERM and SIGINT become a token that everything under way listens to.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// Whether the run is to stop, and how it will have ended then. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    cause: Arc<OnceLock<Exit>>,
}

impl Shutdown {
    /// Cancelled once the run is to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// How the run ends if it stops for this; `None` while nothing asked it to.
    pub fn cause(&self) -> Option<Exit> {
        self.cause.get().copied()
    }

    /// Asks the run to stop. The first cause stands.
    pub fn stop(&self, cause: Exit) {
        if self.cause.set(cause).is_ok() {
            self.token.cancel();
        }
    }

    /// Ends `grace` after the run was asked to stop; never while it was not.
    pub async fn grace_is_over(&self, grace: Duration) {
        self.token.cancelled().await;
        tokio::time::sleep(grace).await;
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
    for (kind, cause) in [(SignalKind::terminate(), Exit::Terminated), (SignalKind::interrupt(), Exit::Interrupted)] {
        let mut signals = signal(kind)?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::warn!(signal = cause.code() - 128, "stopping: no new work is begun, open uploads are aborted");
                shutdown.stop(cause);
            }
        });
    }
    Ok(shutdown)
}
