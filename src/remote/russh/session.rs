//! One SFTP session over one channel: requests side by side, every reply matched to its request by id.
//!
//! A task reads, a task writes, and nothing else waits for the network. What the server sends that it was not asked for,
//! or that is not SFTP, ends the session; so does silence while a request is outstanding. Then every call, begun or to
//! come, ends with [`Kind::Lost`] and the reason. A call that is dropped midway leaves nothing open on the server: its
//! reply is taken when it comes, and a handle that nobody has any more is closed.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::begin::{self, Agreement, Greeting, not_sftp};
use super::handles::{Handles, Refused, Slot};
use super::outcome::{Failure, Refusal};
use super::window::{self, Asked, Pace};
use crate::pulse::Pulse;
use crate::remote::protocol::{Framer, Message, Reply, Request, status};
use crate::remote::{Error, Kind};

/// Reads under way to begin with, where they are short.
const READS_UNDER_WAY: u32 = 64;
/// Bytes under way to begin with, where they are long.
const BYTES_UNDER_WAY: u32 = 4 * 1024 * 1024;

/// How often an open is tried again that was refused while others were open.
const OPENS_TRIED_AGAIN: usize = 3;

/// What arrives on the channel, in any chunks.
pub trait Inbound: Send + 'static {
    /// The next bytes, or why there are none any more. Dropping the future loses nothing.
    fn receive(&mut self) -> impl Future<Output = Result<Bytes, String>> + Send;
}

/// What is sent on the channel.
pub trait Outbound: Send + 'static {
    /// Returns once the bytes are on their way. An error says no more than that the channel is gone.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), ()>> + Send;
}

/// A session that has begun. Clones are the same session.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    /// The server, as messages name it.
    peer: String,
    state: Mutex<State>,
    outbound: mpsc::UnboundedSender<Bytes>,
    /// Bytes asked for and not yet received, in [`window::UNIT`]s.
    window: Arc<Semaphore>,
    handles: Arc<Handles>,
    /// The server has stated how many handles may be open.
    handles_stated: bool,
    read_len: u32,
    works_in_order: bool,
    moves: Pulse,
    lost: CancellationToken,
}

struct State {
    waiters: HashMap<u32, (Asked, Waiter)>,
    pace: Pace,
    next_id: u32,
    /// When bytes came last, or the first of the waiters came, whichever was later.
    quiet_since: Instant,
    lost: Option<Lost>,
}

/// Why a session is over.
struct Lost {
    reason: String,
    /// The server said nothing.
    timed_out: bool,
}

/// Who gets a reply, and what is given back when it comes.
enum Waiter {
    Reply { to: oneshot::Sender<Reply>, max_data: u32, _window: Option<OwnedSemaphorePermit> },
    Open { to: oneshot::Sender<Opening>, slot: Slot },
    Close { _slot: Slot },
}

/// The answer to an open.
enum Opening {
    Open(Handle),
    Refused { refusal: Refusal, slot: Slot },
}

/// A file or directory that is open on the server. Dropping it sends the close and waits for nothing.
pub struct Handle {
    bytes: Bytes,
    open: Option<(Session, Slot)>,
}

impl Session {
    /// Agrees on the version, learns the server's limits, and starts the session's tasks. `peer` names the server in
    /// messages; `is_openssh` is what its SSH layer says it is. `moves` counts data and names that come.
    pub async fn start(
        mut inbound: impl Inbound,
        mut outbound: impl Outbound,
        peer: String,
        is_openssh: bool,
        idle_timeout: Duration,
        moves: Pulse,
    ) -> Result<(Self, Greeting), Error> {
        let mut framer = Framer::default();
        let Agreement { greeting, read_len, handles, handles_stated, works_in_order } =
            begin::agree(&mut inbound, &mut outbound, &mut framer, &peer, is_openssh).await?;
        let window = (READS_UNDER_WAY * read_len).min(BYTES_UNDER_WAY).div_ceil(window::UNIT);
        let (requests, queue) = mpsc::unbounded_channel();
        let session = Self(Arc::new(Inner {
            peer,
            state: Mutex::new(State {
                waiters: HashMap::new(),
                pace: Pace::new(u64::from(window) * u64::from(window::UNIT)),
                next_id: 1,
                quiet_since: Instant::now(),
                lost: None,
            }),
            outbound: requests,
            window: Arc::new(Semaphore::new(window as usize)),
            handles: Handles::new(handles),
            handles_stated,
            read_len,
            works_in_order,
            moves,
            lost: CancellationToken::new(),
        }));
        tokio::spawn(session.clone().read_replies(inbound, framer, idle_timeout));
        tokio::spawn(session.clone().write_requests(outbound, queue));
        Ok((session, greeting))
    }

    /// How many handles may be open at once, as far as is known.
    pub fn handles(&self) -> usize {
        self.0.handles.limit()
    }

    /// Whether somebody waits for a handle, as many being open as may be.
    pub fn handle_is_wanted(&self) -> bool {
        self.0.handles.is_wanted()
    }

    /// The most bytes that one read may ask for.
    pub fn read_len(&self) -> u32 {
        self.0.read_len
    }

    /// Whether the server does what it is asked in the order in which it was asked, and not just answers so.
    pub fn works_in_order(&self) -> bool {
        self.0.works_in_order
    }

    /// Permits of bytes under way, in [`window::UNIT`]s; never more in all than the window is wide.
    pub fn window(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.window)
    }

    pub fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
    }

    /// Ready when the session is over.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }

    /// Ends the session. The first reason given is the one that is told.
    pub fn end(&self, reason: impl Into<String>) {
        self.end_as(Lost { reason: reason.into(), timed_out: false });
    }

    fn end_as(&self, lost: Lost) {
        let waiters = {
            let mut state = self.state();
            if state.lost.is_none() {
                state.lost = Some(lost);
            }
            std::mem::take(&mut state.waiters)
        };
        self.0.window.close();
        self.0.handles.close();
        self.0.lost.cancel();
        // Each tells whoever waits by going away; the lock is free again, which handles that are dropped take.
        drop(waiters);
    }

    /// Why nothing more can be asked.
    pub fn lost_error(&self) -> Error {
        let state = self.state();
        let reason = state.lost.as_ref().map_or("it is closed", |lost| &lost.reason);
        let error = Error::new(Kind::Lost, format!("the connection to {} is lost: {reason}", self.0.peer));
        if state.lost.as_ref().is_some_and(|lost| lost.timed_out) { error.for_want_of_time() } else { error }
    }

    /// Ends the session over a reply of the wrong type.
    pub fn out_of_step(&self) -> Error {
        self.end("the server answered something else than it was asked");
        self.lost_error()
    }

    /// Sends a request now; the reply comes to whoever awaits what is returned.
    pub fn request(&self, request: Request<'_>) -> Pending {
        self.send(request, 0, None)
    }

    /// Sends a read of at most [`read_len`](Self::read_len) bytes; its permit is given back when the reply comes, also
    /// if nobody awaits it any more.
    pub fn request_read(&self, handle: &Handle, offset: u64, len: u32, window: OwnedSemaphorePermit) -> Pending {
        self.send(Request::Read { handle: &handle.bytes, offset, len }, len, Some(window))
    }

    fn send(&self, request: Request<'_>, max_data: u32, window: Option<OwnedSemaphorePermit>) -> Pending {
        let (to, reply) = oneshot::channel();
        self.submit(request, Waiter::Reply { to, max_data, _window: window });
        Pending { session: self.clone(), reply }
    }

    /// Opens a file or directory, waiting for its turn where the server allows no more handles.
    pub async fn open(&self, request: Request<'_>) -> Result<Handle, Failure> {
        let lost = || Failure::Lost(self.lost_error());
        let mut slot = self.0.handles.acquire().await.map_err(|_| lost())?;
        let mut refused = Vec::new();
        loop {
            let (to, opening) = oneshot::channel();
            self.submit(request, Waiter::Open { to, slot });
            let (refusal, given_back) = match opening.await.map_err(|_| lost())? {
                Opening::Open(handle) => {
                    refused.into_iter().for_each(Refused::settle);
                    return Ok(handle);
                }
                Opening::Refused { refusal, slot } => (refusal, slot),
            };
            let for_their_number =
                refusal.code == status::FAILURE && !self.0.handles_stated && refused.len() < OPENS_TRIED_AGAIN;
            let exchanged = if for_their_number { given_back.exchange() } else { None };
            let Some((wait, next)) = exchanged else { return Err(Failure::Refused(refusal)) };
            refused.push(wait);
            slot = next.await.map_err(|_| lost())?;
        }
    }

    fn submit(&self, request: Request<'_>, waiter: Waiter) {
        let mut state = self.state();
        if state.lost.is_some() {
            // Released before the waiter is dropped: its slot may pass to another, who comes here.
            drop(state);
            return;
        }
        let now = Instant::now();
        if state.waiters.is_empty() {
            state.quiet_since = now;
        }
        let mut id = state.next_id;
        while state.waiters.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        state.next_id = id.wrapping_add(1);
        let asked = state.pace.ask(now);
        state.waiters.insert(id, (asked, waiter));
        // Fails only when the writer is gone, which ends the session and this waiter with it.
        let _ = self.0.outbound.send(request.encode(id));
    }

    /// Hands a message, whose last byte came at `now`, to whoever waits for it; what nobody waits for is an error.
    fn deliver(&self, message: Message, now: Instant) -> Result<(), String> {
        let Message::Reply { id, reply } = message else { return Err("the server began again midway".to_owned()) };
        let data = if let Reply::Data(pieces) = &reply { pieces.iter().map(Bytes::len).sum() } else { 0 };
        let (waiter, more) = {
            let mut state = self.state();
            let Some((asked, waiter)) = state.waiters.remove(&id) else {
                return Err("the server replied to a request that was not made".to_owned());
            };
            (waiter, state.pace.answered(asked, now, data as u64))
        };
        // Opens and refusals alone are no progress.
        if data > 0 || matches!(reply, Reply::Names(_)) {
            self.0.moves.beat();
        }
        if more > 0 {
            self.0.window.add_permits(more);
        }
        match (waiter, reply) {
            (Waiter::Reply { to, max_data, .. }, reply) => {
                if data > max_data as usize {
                    return Err("the server sent more data than was asked for".to_owned());
                }
                // Nobody may want it any more.
                let _ = to.send(reply);
            }
            (Waiter::Open { to, mut slot }, Reply::Handle(bytes)) => {
                slot.opened();
                // Closed at once if nobody wants it any more.
                let _ = to.send(Opening::Open(Handle { bytes, open: Some((self.clone(), slot)) }));
            }
            (Waiter::Open { to, slot }, Reply::Status { code, message }) if code != status::OK => {
                let _ = to.send(Opening::Refused { refusal: Refusal { code, message }, slot });
            }
            (Waiter::Open { .. }, _) => return Err("the server answered an open with something else".to_owned()),
            (Waiter::Close { .. }, _) => {}
        }
        Ok(())
    }

    async fn read_replies(self, mut inbound: impl Inbound, mut framer: Framer, idle_timeout: Duration) {
        let mut watch = pin!(tokio::time::sleep(idle_timeout));
        let mut timed_out = false;
        let reason = loop {
            tokio::select! {
                // Bytes before the clock: what has arrived was not silence, however late this task came to see it.
                biased;
                () = self.lost() => return,
                received = inbound.receive() => match received {
                    Err(reason) => break reason,
                    Ok(chunk) => {
                        let now = Instant::now();
                        self.state().quiet_since = now;
                        framer.push(chunk);
                        if let Err(reason) = self.deliver_all(&mut framer, now) {
                            break reason;
                        }
                    }
                },
                () = &mut watch => match self.quiet_for(idle_timeout) {
                    Ok(until) => watch.as_mut().reset(until),
                    Err(requests) => {
                        timed_out = true;
                        break format!(
                            "the server sent nothing for {idle_timeout:?} with {requests} requests outstanding"
                        );
                    }
                },
            }
        };
        self.end_as(Lost { reason, timed_out });
    }

    fn deliver_all(&self, framer: &mut Framer, now: Instant) -> Result<(), String> {
        while let Some(message) = framer.next_message().map_err(not_sftp)? {
            self.deliver(message, now)?;
        }
        Ok(())
    }

    /// When to look again, or how many requests have had no answer for too long.
    fn quiet_for(&self, idle_timeout: Duration) -> Result<Instant, usize> {
        let state = self.state();
        let now = Instant::now();
        if state.waiters.is_empty() {
            return Ok(now + idle_timeout);
        }
        let until = state.quiet_since + idle_timeout;
        if until > now { Ok(until) } else { Err(state.waiters.len()) }
    }

    async fn write_requests(self, mut outbound: impl Outbound, mut queue: mpsc::UnboundedReceiver<Bytes>) {
        /// Requests put into one packet, where so many wait.
        const BATCH: usize = 64;
        let mut requests = Vec::with_capacity(BATCH);
        loop {
            let sent = async {
                queue.recv_many(&mut requests, BATCH).await;
                let bytes = match requests.as_slice() {
                    [one] => one.clone(),
                    many => Bytes::from(many.concat()),
                };
                requests.clear();
                outbound.send(bytes).await
            };
            tokio::select! {
                () = self.lost() => return,
                sent = sent => if sent.is_err() {
                    // The reader, whose end of the channel knows why, ends the session.
                    return;
                },
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reply that is to come. Dropping it does not take the request back.
pub struct Pending {
    session: Session,
    reply: oneshot::Receiver<Reply>,
}

impl Future for Pending {
    type Output = Result<Reply, Failure>;

    /// A status that is not an error is a refusal too: nothing that is asked here is answered by one.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.reply).poll(context)) {
            Ok(Reply::Status { code, message }) => Err(Failure::Refused(Refusal { code, message })),
            Ok(reply) => Ok(reply),
            Err(_) => Err(Failure::Lost(self.session.lost_error())),
        })
    }
}

impl Handle {
    /// Asks for the next names of this directory.
    pub fn read_names(&self, session: &Session) -> Pending {
        session.request(Request::ReadDir { handle: &self.bytes })
    }

    /// Asks for the attributes of this file.
    pub fn attributes(&self, session: &Session) -> Pending {
        session.request(Request::FStat { handle: &self.bytes })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some((session, slot)) = self.open.take() {
            session.submit(Request::Close { handle: &self.bytes }, Waiter::Close { _slot: slot });
        }
    }
}
