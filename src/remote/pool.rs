//! The connections of a run: opened as the work needs, as many as the server allows, replaced when they are lost.
//!
//! The first connection decides how the run ends if it cannot be had. A further one is a favour: when the server refuses
//! it, the pool stays at what it has. A pool that lost every connection and could not get one back stays down, so that
//! ten thousand files do not each wait out the same dead server.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Engine, Error, Kind, Remote, ServerInfo};
use crate::retry::Retry;

/// A connection with this many calls under way is busy enough for another to be opened beside it.
const WORTH_ANOTHER: usize = 2;

/// Connections to one endpoint. Clones share them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    retry: Retry,
    state: Mutex<State>,
    /// A connection came, went, or was given back.
    changed: Notify,
}

struct State {
    connections: Vec<Arc<Connection>>,
    /// Most connections; falls when the server refuses one.
    allowed: usize,
    /// Connections being opened.
    opening: usize,
    /// Why there will be no connection any more.
    down: Option<(Kind, String)>,
    /// Connections opened so far, for the log.
    opened: usize,
}

struct Connection {
    remote: Box<dyn Remote>,
    calls: AtomicUsize,
}

impl Pool {
    /// Opens the first connection. `most` bounds how many there will be at once.
    ///
    /// # Errors
    ///
    /// What [`Engine::connect`] says, after the retries that may help.
    pub async fn open(engine: Arc<dyn Engine>, most: NonZeroUsize, retry: Retry) -> Result<Self, Error> {
        let first = retry.run(Error::may_pass, |_| engine.connect()).await?;
        let state = State {
            connections: vec![Arc::new(Connection { remote: first, calls: AtomicUsize::new(0) })],
            allowed: most.get(),
            opening: 0,
            down: None,
            opened: 1,
        };
        Ok(Self { shared: Arc::new(Shared { engine, retry, state: Mutex::new(state), changed: Notify::new() }) })
    }

    /// A connection to make one call on. Waits where every connection has all the calls that it can serve.
    ///
    /// # Errors
    ///
    /// Where no connection is left and none could be had again.
    pub async fn lease(&self) -> Result<Lease, Error> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change between the look and the wait is missed.
            changed.as_mut().enable();
            if let Some(lease) = self.try_lease()? {
                return Ok(lease);
            }
            changed.await;
        }
    }

    /// What the server told on the connection that is open now, if one is.
    pub fn server(&self) -> Option<ServerInfo> {
        self.shared.lock().connections.first().map(|connection| connection.remote.server().clone())
    }

    fn try_lease(&self) -> Result<Option<Lease>, Error> {
        let mut state = self.shared.lock();
        if let Some((kind, message)) = &state.down {
            return Err(Error::new(*kind, message));
        }
        let before = state.connections.len();
        state.connections.retain(|connection| !connection.remote.is_lost());
        if state.connections.len() < before {
            tracing::warn!(left = state.connections.len(), "an SFTP connection was lost");
        }
        let calls = |connection: &Arc<Connection>| connection.calls.load(Ordering::Relaxed);
        let idlest = state.connections.iter().min_by_key(|connection| calls(connection)).cloned();
        let all_busy = idlest
            .as_ref()
            .is_none_or(|connection| calls(connection) >= WORTH_ANOTHER.min(connection.remote.concurrency()));
        if all_busy && state.opening == 0 && state.connections.len() < state.allowed {
            state.opening += 1;
            tokio::spawn(open_another(self.shared.clone()));
        }
        let Some(connection) = idlest.filter(|connection| calls(connection) < connection.remote.concurrency()) else {
            return Ok(None);
        };
        connection.calls.fetch_add(1, Ordering::Relaxed);
        drop(state);
        Ok(Some(Lease { connection, shared: self.shared.clone() }))
    }
}

impl Shared {
    /// The lock is never held across an await or a call into an engine that blocks.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens one connection more, or brings the only one back.
async fn open_another(shared: Arc<Shared>) {
    let last_hope = AtomicBool::new(false);
    let result = shared
        .retry
        .run(
            |error: &Error| error.may_pass() && shared.lock().connections.is_empty(),
            |_| {
                last_hope.store(shared.lock().connections.is_empty(), Ordering::Relaxed);
                shared.engine.connect()
            },
        )
        .await;
    let mut state = shared.lock();
    state.opening -= 1;
    match result {
        Ok(remote) => {
            state.opened += 1;
            tracing::debug!(open = state.connections.len() + 1, opened = state.opened, "opened an SFTP connection");
            state.connections.push(Arc::new(Connection { remote, calls: AtomicUsize::new(0) }));
        }
        // Others still work, or did when this attempt began: the next lease looks again.
        Err(error) if !last_hope.load(Ordering::Relaxed) || !state.connections.is_empty() => {
            state.allowed = state.connections.len().max(1);
            tracing::info!(
                connections = state.allowed,
                error = %error,
                "the server gives no further SFTP connection; going on with those there are"
            );
        }
        Err(error) => state.down = Some((error.kind, error.to_string())),
    }
    drop(state);
    shared.changed.notify_waiters();
}

/// One call's hold on a connection.
pub struct Lease {
    connection: Arc<Connection>,
    shared: Arc<Shared>,
}

impl Deref for Lease {
    type Target = dyn Remote;

    fn deref(&self) -> &Self::Target {
        &*self.connection.remote
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.calls.fetch_sub(1, Ordering::Relaxed);
        self.shared.changed.notify_one();
    }
}
