//! The connections of a run: opened as the work needs, as many as the server allows, replaced when they are lost.
//!
//! The first connection decides how the run ends if it cannot be had. A further one is a favour: when the server refuses
//! it, the pool stays at what it has. A pool that lost every connection and could not get one back stays down, so that
//! ten thousand files do not each wait out the same dead server.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Engine, Error, Remote, ServerInfo};
use crate::retry::Retry;

/// A connection with this many calls under way is busy enough for another to be opened beside it.
const WORTH_ANOTHER: usize = 2;

/// Calls that may wait for a connection that has all it can serve: whoever becomes free has the next one at hand.
const AHEAD: usize = 1;

/// A server that refused a further connection is asked for one again after this: it may have been restarting.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(300);

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
    /// Most connections.
    most: usize,
    /// When the server refused a further connection last.
    refused: Option<Instant>,
    /// Connections being opened.
    opening: usize,
    /// Why there will be no connection any more.
    down: Option<Error>,
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
            most: most.get(),
            refused: None,
            opening: 0,
            down: None,
            opened: 1,
        };
        Ok(Self { shared: Arc::new(Shared { engine, retry, state: Mutex::new(state), changed: Notify::new() }) })
    }

    /// A connection to make one call on. Waits where every connection has all the calls that it can serve, and the next
    /// one at hand.
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
        if let Some(error) = &state.down {
            return Err(error.clone().lasting());
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
        let refused = state.refused.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER) && !state.connections.is_empty();
        // Doubling: soon enough for many calls, and a server that allows no more refuses few.
        let may_open =
            state.opening < state.connections.len().max(1) && state.connections.len() + state.opening < state.most;
        if all_busy && may_open && !refused {
            state.opening += 1;
            tokio::spawn(open_another(self.shared.clone()));
        }
        // Whoever may still get a connection to itself is not put behind another.
        let ahead = if state.opening == 0 && !may_open { AHEAD } else { 0 };
        let has_room = |connection: &Arc<Connection>| calls(connection) < connection.remote.concurrency() + ahead;
        let Some(connection) = idlest.filter(has_room) else {
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
        // It decides.
        Err(error) if state.opening > 0 && state.connections.is_empty() => {
            tracing::debug!(error = %error, "an SFTP connection could not be had; another is being tried");
        }
        // Others still work, or did when this attempt began: the next lease looks again.
        Err(error) if !last_hope.load(Ordering::Relaxed) || !state.connections.is_empty() => {
            state.refused = Some(Instant::now());
            tracing::info!(
                connections = state.connections.len(),
                error = %error,
                "the server gives no further SFTP connection; going on with those there are"
            );
        }
        Err(error) => state.down = Some(error),
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicBool as Flag;

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::remote::{Attributes, Chunk, Each, Kind, RemotePath};

    /// Lets so many connections be open at once, and none once it is closed.
    struct Server {
        allows: usize,
        open: Arc<AtomicUsize>,
        tried: AtomicUsize,
        closed: Arc<Flag>,
        concurrency: usize,
    }

    struct Open {
        open: Arc<AtomicUsize>,
        closed: Arc<Flag>,
        concurrency: usize,
        info: ServerInfo,
    }

    impl Drop for Open {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Engine for Server {
        async fn connect(&self) -> Result<Box<dyn Remote>, Error> {
            self.tried.fetch_add(1, Ordering::SeqCst);
            if self.closed.load(Ordering::SeqCst) || self.open.load(Ordering::SeqCst) >= self.allows {
                return Err(Error::new(Kind::Lost, "the server closed the connection"));
            }
            self.open.fetch_add(1, Ordering::SeqCst);
            let (open, closed) = (self.open.clone(), self.closed.clone());
            Ok(Box::new(Open { open, closed, concurrency: self.concurrency, info: ServerInfo::default() }))
        }
    }

    #[async_trait]
    impl Remote for Open {
        fn server(&self) -> &ServerInfo {
            &self.info
        }

        fn concurrency(&self) -> usize {
            self.concurrency
        }

        fn is_lost(&self) -> bool {
            self.closed.load(Ordering::SeqCst)
        }

        async fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error> {
            Ok(path.clone())
        }

        async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
            Ok(path.clone())
        }

        async fn stat(&self, _: &RemotePath) -> Result<Attributes, Error> {
            Ok(Attributes::default())
        }

        async fn list(&self, _: &RemotePath, _: &mut Each<'_>) -> Result<(), Error> {
            Ok(())
        }

        async fn read(&self, _: &RemotePath, _: u64, _: u64) -> Result<Chunk, Error> {
            Ok(Chunk { data: Vec::new(), attributes: Attributes::default() })
        }
    }

    fn server(allows: usize, concurrency: usize) -> Arc<Server> {
        Arc::new(Server {
            allows,
            open: Arc::default(),
            tried: AtomicUsize::new(0),
            closed: Arc::default(),
            concurrency,
        })
    }

    async fn pool(server: &Arc<Server>, most: usize) -> Result<Pool, Error> {
        let retry = Retry { max_attempts: NonZeroU32::new(3).unwrap(), stop: CancellationToken::new() };
        Pool::open(server.clone(), NonZeroUsize::new(most).unwrap(), retry).await
    }

    /// Lets spawned tasks run, and paused time pass.
    async fn settle() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_opened_as_calls_need_them_and_no_more_than_allowed() {
        let server = server(9, 100);
        let pool = pool(&server, 3).await.unwrap();
        let mut leases = vec![pool.lease().await.unwrap()];
        settle().await;
        assert_eq!(server.open.load(Ordering::SeqCst), 1, "one call needs one connection");
        for _ in 0..50 {
            leases.push(pool.lease().await.unwrap());
            settle().await;
        }
        assert_eq!(server.open.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_a_further_connection_is_not_asked_again() {
        let server = server(1, 100);
        let pool = pool(&server, 4).await.unwrap();
        let mut leases = Vec::new();
        for _ in 0..50 {
            leases.push(pool.lease().await.unwrap());
            settle().await;
        }
        assert_eq!(server.tried.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_where_every_connection_has_all_it_can_serve() {
        let server = server(2, 1);
        let pool = pool(&server, 2).await.unwrap();
        // Each connection serves one, and has the next one at hand.
        let first = pool.lease().await.unwrap();
        settle().await;
        let others = [pool.lease().await.unwrap(), pool.lease().await.unwrap(), pool.lease().await.unwrap()];
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.lease().await.is_ok() }
        });
        settle().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
        drop(others);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_replaced() {
        let server = server(1, 100);
        let pool = pool(&server, 1).await.unwrap();
        server.closed.store(true, Ordering::SeqCst);
        let lease = tokio::spawn({
            let pool = pool.clone();
            async move { pool.lease().await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        server.closed.store(false, Ordering::SeqCst);
        lease.await.unwrap().unwrap();
        assert_eq!(server.open.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_cannot_connect_again_stays_down() {
        let server = server(1, 100);
        let pool = pool(&server, 4).await.unwrap();
        server.closed.store(true, Ordering::SeqCst);
        assert!(pool.lease().await.is_err());
        let tried = server.tried.load(Ordering::SeqCst);
        assert_eq!(tried, 1 + 3, "the first, and three attempts to have it back");
        assert!(pool.lease().await.is_err());
        assert_eq!(server.tried.load(Ordering::SeqCst), tried);
    }

    /// Connects as it is told, one after the other: after so long, to a connection or an error.
    struct Scripted {
        steps: Mutex<VecDeque<(Duration, Option<Kind>)>>,
        /// Ends the connections that are open when it is set.
        closed: Mutex<Arc<Flag>>,
    }

    #[async_trait]
    impl Engine for Scripted {
        async fn connect(&self) -> Result<Box<dyn Remote>, Error> {
            let (after, fails) = self.steps.lock().unwrap().pop_front().expect("a step for each connection");
            tokio::time::sleep(after).await;
            if let Some(kind) = fails {
                return Err(Error::new(kind, "as told"));
            }
            let closed = self.closed.lock().unwrap().clone();
            Ok(Box::new(Open { open: Arc::default(), closed, concurrency: 1, info: ServerInfo::default() }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_connections_being_opened_one_is_enough() {
        let steps = [(0, None), (0, None), (1, Some(Kind::Lost)), (10, None), (0, Some(Kind::Auth))];
        let steps = steps.map(|(after, fails)| (Duration::from_secs(after), fails));
        let engine = Arc::new(Scripted { steps: Mutex::new(steps.into()), closed: Mutex::default() });
        let retry = Retry { max_attempts: NonZeroU32::new(3).unwrap(), stop: CancellationToken::new() };
        let pool = Pool::open(engine.clone(), NonZeroUsize::new(4).unwrap(), retry).await.unwrap();
        let first = pool.lease().await.unwrap();
        let second = tokio::spawn({
            let pool = pool.clone();
            async move { pool.lease().await.unwrap() }
        });
        let second = second.await.unwrap();
        // Two more are asked for, and are on their way when the two that are open end. One of them fails for good.
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.lease().await.is_ok() })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::mem::take(&mut *engine.closed.lock().unwrap()).store(true, Ordering::SeqCst);
        drop((first, second));
        for lease in waiting {
            assert!(lease.await.unwrap(), "the other is enough");
        }
        assert!(engine.steps.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_is_tried_again_and_then_fails_the_run() {
        let server = server(0, 100);
        assert_eq!(pool(&server, 4).await.err().map(|error| error.kind), Some(Kind::Lost));
        assert_eq!(server.tried.load(Ordering::SeqCst), 3);
    }
}
