//! The second engine: libssh2 by way of `ssh2`, for servers that only that stack talks to (`SFTP_ENGINE=libssh2`).
//!
//! libssh2 does one thing at a time and blocks while it does, so every connection has a thread of its own that works off
//! a queue of jobs. Nothing here waits for that thread: a dropped connection hangs up and lets it end by itself. Within a
//! read, requests are pipelined; reads that are asked for side by side wait for each other.
//!
//! libssh2 has no idle timeout: it limits the time of one call, and a call ends when one reply (32 KiB of data, a
//! hundred names) is in. So the idle timeout is that of a reply here, not that of a byte.

mod failure;
mod login;
mod session;

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::host_key::{KnownType, Order};
use super::{Attributes, Chunk, Each, Endpoint, Engine, Error, Kind, Remote, RemotePath, ServerInfo, private_key};
use crate::pulse::Pulse;
use session::Session;

/// Between two keepalive messages while nothing is asked for: less than the five minutes after which firewalls forget.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Directory entries handed over at once.
const ENTRIES: usize = 256;

/// Opens connections to one endpoint through libssh2.
#[derive(Debug, Clone)]
pub struct Libssh2Engine {
    endpoint: Arc<Endpoint>,
    host_key: Arc<KnownType>,
    key: Option<Arc<SecretString>>,
    moves: Pulse,
}

impl Libssh2Engine {
    /// Reads the private key, so that every connection need not. [`Kind::Auth`] if it cannot be read.
    pub fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let key = endpoint.credentials.private_key.as_ref().map(|key| {
            let text = private_key::load(key).and_then(|key| private_key::to_openssh(&key));
            text.map(Arc::new).map_err(|error| Error::new(Kind::Auth, error))
        });
        Ok(Self {
            key: key.transpose()?,
            host_key: Arc::default(),
            endpoint: Arc::new(endpoint),
            moves: Pulse::default(),
        })
    }

    /// Counts the data and names that the SFTP servers send.
    pub fn counted_by(self, moves: Pulse) -> Self {
        Self { moves, ..self }
    }

    async fn try_once(&self, host_keys: Order, deadline: Instant) -> Result<Libssh2Remote, login::Failed> {
        let endpoint = &self.endpoint;
        let socket = reach(endpoint, deadline).await?;
        let hang_up = HangUp(socket.try_clone().map_err(|error| unreachable(endpoint, &error))?);

        let state = Arc::new(State::default());
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, open) = oneshot::channel();
        let for_thread = (self.clone(), Arc::clone(&state));
        std::thread::Builder::new()
            .name("libssh2".into())
            .spawn(move || {
                let (Self { endpoint, key, moves, .. }, state) = for_thread;
                match login::open(&endpoint, key.as_deref(), &host_keys, socket, deadline.into_std()) {
                    Ok((session, server)) => {
                        if opened.send(Ok(server)).is_ok() {
                            work(session.counted_by(moves), queue, &state);
                        }
                    }
                    // Nobody listens any more where connecting was given up.
                    Err(error) => _ = opened.send(Err(error)),
                }
            })
            .map_err(|error| unreachable(endpoint, &format!("no thread for it: {error}")))?;

        // The thread keeps the deadline by itself, but for the name of a phase that it hangs in: a little later.
        let server = match timeout_at(deadline + Duration::from_millis(500), open).await {
            Ok(Ok(server)) => server?,
            Ok(Err(_)) => return Err(Error::new(Kind::Lost, format!("libssh2 gave up on {}", endpoint.url())).into()),
            Err(_) => return Err(unreachable(endpoint, &failure::NO_ANSWER).into()),
        };
        Ok(Libssh2Remote { url: endpoint.url(), server, jobs, state, hang_up })
    }
}

#[async_trait]
impl Engine for Libssh2Engine {
    async fn connect(&self) -> Result<Box<dyn Remote>, Error> {
        let deadline = Instant::now() + self.endpoint.connect_timeout;
        // As many tries as it takes to be shown the host key that is trusted.
        let mut search = self.host_key.search(&self.endpoint);
        loop {
            match self.try_once(search.order(), deadline).await {
                Ok(remote) => {
                    if let Some(trusted) = &remote.server.host_key {
                        search.succeeded(trusted);
                    }
                    return Ok(Box::new(remote));
                }
                Err(login::Failed { error, presented }) => search.failed(error, presented)?,
            }
        }
    }
}

/// A TCP connection to the first of the host's addresses that answers; each gets an equal share of the time left.
async fn reach(endpoint: &Endpoint, deadline: Instant) -> Result<TcpStream, Error> {
    let addresses = timeout_at(deadline, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)))
        .await
        .map_err(|_| unreachable(endpoint, &"its name was not resolved within CONNECT_TIMEOUT"))?
        .map_err(|error| unreachable(endpoint, &format!("its name does not resolve: {error}")))?;
    let addresses: Vec<_> = addresses.collect();
    let mut last = unreachable(endpoint, &"its name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                // Small requests are what SFTP is made of.
                let ready = socket.set_nodelay(true).and_then(|()| socket.into_std());
                return ready.map_err(|error| unreachable(endpoint, &error));
            }
            Ok(Err(error)) => last = unreachable(endpoint, &format!("{address}: {error}")),
            Err(_) => last = unreachable(endpoint, &format!("{address}: {}", failure::NO_ANSWER)),
        }
    }
    Err(last)
}

fn unreachable(endpoint: &Endpoint, why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Unreachable, format!("cannot connect to {}: {why}", endpoint.url()))
}

/// What the thread does with its session; it answers for itself.
type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// What a connection and its thread both look at.
#[derive(Debug, Default)]
struct State {
    /// Why the connection is gone, once it is.
    lost: OnceLock<String>,
    /// A job is under way, so that only the socket can interrupt the thread.
    busy: AtomicBool,
}

/// The life of a connection's thread after login: until it is lost, or nobody has jobs for it any more.
fn work(mut session: Session, queue: mpsc::Receiver<Job>, state: &State) {
    while state.lost.get().is_none() {
        match queue.recv_timeout(KEEPALIVE) {
            Ok(job) => {
                state.busy.store(true, Ordering::Release);
                job(&mut session);
                state.busy.store(false, Ordering::Release);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Err(error) = session.keep_alive() {
                    _ = state.lost.set(error.to_string());
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                session.close();
                return;
            }
        }
    }
    // Whoever waits in the queue learns of it now.
    drop(queue);
    session.abandon();
}

/// Ends the connection from outside of its thread, which may be waiting for the server.
#[derive(Debug)]
struct HangUp(TcpStream);

impl HangUp {
    fn now(&self) {
        // A socket that is closed already is as good.
        _ = self.0.shutdown(Shutdown::Both);
    }
}

/// One connection: the near end of its thread's queue.
struct Libssh2Remote {
    url: String,
    server: ServerInfo,
    jobs: mpsc::Sender<Job>,
    state: Arc<State>,
    hang_up: HangUp,
}

impl Libssh2Remote {
    /// Has the thread do `job`, which may look whether its result is still wanted.
    async fn call<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session, &dyn Fn() -> bool) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let state = Arc::clone(&self.state);
        let job: Job = Box::new(move |session| {
            if reply.is_closed() {
                return;
            }
            let result = job(session, &|| !reply.is_closed());
            // Before the answer, so that who has it finds `is_lost` true.
            if let Err(error) = &result
                && error.kind == Kind::Lost
            {
                _ = state.lost.set(error.to_string());
            }
            _ = reply.send(result);
        });
        self.jobs.send(job).map_err(|_| self.lost())?;
        answer.await.unwrap_or_else(|_| Err(self.lost()))
    }

    fn lost(&self) -> Error {
        let why = self.state.lost.get().map_or("its thread ended", String::as_str);
        Error::new(Kind::Lost, format!("the connection to {} is gone: {why}", self.url))
    }
}

impl Drop for Libssh2Remote {
    fn drop(&mut self) {
        // An idle thread says goodbye to the server by itself.
        if self.state.busy.load(Ordering::Acquire) {
            self.hang_up.now();
        }
    }
}

#[async_trait]
impl Remote for Libssh2Remote {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn is_lost(&self) -> bool {
        self.state.lost.get().is_some()
    }

    async fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        let path = path.clone();
        self.call(move |session, _| session.canonicalize(&path)).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        let path = path.clone();
        self.call(move |session, _| session.read_link(&path)).await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, Error> {
        let path = path.clone();
        self.call(move |session, _| session.stat(&path)).await
    }

    async fn list(&self, dir: &RemotePath, each: &mut Each<'_>) -> Result<(), Error> {
        let dir = dir.clone();
        let (entries, mut listed) = tokio::sync::mpsc::channel(4);
        let call =
            self.call(move |session, _| session.list(&dir, ENTRIES, |batch| entries.blocking_send(batch).is_ok()));
        tokio::pin!(call);
        let mut result = None;
        loop {
            tokio::select! {
                // Entries first: the result may overtake the last of them.
                biased;
                batch = listed.recv() => match batch {
                    Some(batch) => Vec::into_iter(batch).try_for_each(&mut *each)?,
                    None => return match result {
                        Some(result) => result,
                        None => call.await,
                    },
                },
                done = &mut call, if result.is_none() => result = Some(done),
            }
        }
    }

    async fn read(&self, path: &RemotePath, offset: u64, len: u64) -> Result<Chunk, Error> {
        let path = path.clone();
        self.call(move |session, wanted| session.read(&path, offset, len, wanted)).await
    }
}
