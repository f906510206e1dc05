//! A TCP proxy between the program and a server that behaves as bad networks do: it delays, cuts, stalls, corrupts and
//! refuses, at the byte that a test names.
//!
//! It runs on the test's own runtime and ends with it, or when dropped. Bytes are counted over all connections together,
//! for each direction: a fault strikes the connection that carries the byte.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Which way a byte travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From the program: what an upload sends.
    Server,
    /// From the server: what a download receives.
    Client,
}

/// What happens at a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Both sides see the connection reset. What was forwarded before may be lost on the way, as in life.
    Cut,
    /// Nothing more comes through either way, and nobody is told.
    Stall,
    /// One bit of the byte is wrong.
    Corrupt,
}

/// A fault waiting for its byte.
#[derive(Debug, Clone, Copy)]
struct Trap {
    fault: Fault,
    toward: Toward,
    /// The number of the byte, from 0, over all connections.
    at: u64,
    /// How far on it is set again, and how many times more it strikes.
    every: u64,
    left: u32,
}

impl Trap {
    fn strike(&mut self) {
        self.at += self.every;
        self.left -= 1;
    }
}

/// What the proxy is to do. `Proxy::to(server)` alone forwards faithfully.
#[derive(Debug, Clone)]
pub struct Plan {
    server: SocketAddr,
    one_way: Duration,
    bytes_per_second: u64,
    at_most: usize,
    traps: Vec<Trap>,
}

impl Plan {
    /// The time from a request to its answer grows by this much. Throughput stays: bytes are on the way side by side.
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.one_way = time / 2;
        self
    }

    /// No connection carries more than this, either way.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = bytes_per_second;
        self
    }

    /// Resets the connection that carries the byte after each `bytes` bytes, `times` times.
    pub fn cut_every(mut self, toward: Toward, bytes: u64, times: u32) -> Self {
        self.traps.push(Trap { fault: Fault::Cut, toward, at: bytes, every: bytes, left: times });
        self
    }

    /// Lets `bytes` bytes through, then silences the connection that carries the next one, for good.
    pub fn stall_after(mut self, toward: Toward, bytes: u64) -> Self {
        self.traps.push(Trap { fault: Fault::Stall, toward, at: bytes, every: 0, left: 1 });
        self
    }

    /// Flips a bit of byte number `at` (from 0).
    pub fn corrupt(mut self, toward: Toward, at: u64) -> Self {
        self.traps.push(Trap { fault: Fault::Corrupt, toward, at, every: 0, left: 1 });
        self
    }

    /// Closes every connection that would be one more than this many at once, before a byte was sent.
    pub fn at_most(mut self, connections: usize) -> Self {
        self.at_most = connections;
        self
    }

    /// Listens on a free port of 127.0.0.1.
    pub async fn start(self) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            traffic: Mutex::new(Traffic {
                traps: self.traps.iter().copied().filter(|trap| trap.left > 0).collect(),
                sent: [0, 0],
            }),
            accepted: AtomicU64::default(),
            refused: AtomicU64::default(),
            open: AtomicUsize::default(),
            most_open: AtomicUsize::default(),
            faults: AtomicU64::default(),
        });
        let task = tokio::spawn(serve(listener, self, Arc::clone(&state)));
        Proxy { address, state, task }
    }
}

/// A running proxy. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Plan {
        Plan { server, one_way: Duration::ZERO, bytes_per_second: u64::MAX, at_most: usize::MAX, traps: Vec::new() }
    }

    /// The same, for a server on a port of 127.0.0.1.
    pub fn to_port(port: u16) -> Plan {
        Self::to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// For an S3 or Secrets Manager endpoint behind the proxy.
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections taken so far; those refused are not among them.
    pub fn connections(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }

    /// Cuts, stalls and corruptions that have happened.
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }

    /// Bytes that came from the other side to be forwarded, over all connections.
    pub fn bytes(&self, toward: Toward) -> u64 {
        self.state.traffic.lock().expect("no thread panics holding it").sent[toward as usize]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct State {
    traffic: Mutex<Traffic>,
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicUsize,
    most_open: AtomicUsize,
    faults: AtomicU64,
}

#[derive(Debug)]
struct Traffic {
    traps: Vec<Trap>,
    sent: [u64; 2],
}

impl State {
    /// Counts `chunk` and lets it run into the traps: leaves in it what may go on, and returns the fault that follows.
    fn pass(&self, toward: Toward, chunk: &mut BytesMut) -> Option<Fault> {
        let mut traffic = self.traffic.lock().expect("no thread panics holding it");
        let Traffic { traps, sent } = &mut *traffic;
        let sent = &mut sent[toward as usize];
        let mut ending = None;
        while ending.is_none() {
            let end = *sent + chunk.len() as u64;
            let ahead = traps.iter_mut().filter(|trap| trap.toward == toward && (*sent..end).contains(&trap.at));
            let Some(trap) = ahead.min_by_key(|trap| trap.at) else { break };
            let offset = usize::try_from(trap.at - *sent).expect("less than the chunk's length");
            match trap.fault {
                Fault::Corrupt => chunk[offset] ^= 1,
                fault => {
                    chunk.truncate(offset);
                    ending = Some(fault);
                }
            }
            self.faults.fetch_add(1, Ordering::SeqCst);
            trap.strike();
            traps.retain(|trap| trap.left > 0);
        }
        *sent += chunk.len() as u64;
        ending
    }
}

/// One connection among those that count as open.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>, at_most: usize) -> Option<Open> {
        let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
        let this = Open(Arc::clone(state));
        if open > at_most {
            state.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        state.accepted.fetch_add(1, Ordering::SeqCst);
        state.most_open.fetch_max(open, Ordering::SeqCst);
        Some(this)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(listener: TcpListener, plan: Plan, state: Arc<State>) {
    // Its tasks end with this one, so with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if let Some(open) = Open::new(&state, plan.at_most) {
            connections.spawn(connection(client, plan.clone(), open));
        }
    }
}

/// Forwards both ways until both sides are done, one is gone, or a fault strikes.
async fn connection(mut client: TcpStream, plan: Plan, open: Open) {
    // The handshake takes a round trip too.
    sleep(plan.one_way * 2).await;
    let Ok(mut server) = TcpStream::connect(plan.server).await else { return };
    for stream in [&client, &server] {
        // Else Nagle's algorithm would add a delay of its own.
        stream.set_nodelay(true).ok();
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let ended = tokio::try_join!(
        direction(from_client, to_server, Toward::Server, &plan, &open.0),
        direction(from_server, to_client, Toward::Client, &plan, &open.0),
    );
    match ended {
        Ok(_) => {}
        Err(End::Stalled) => std::future::pending().await,
        Err(End::Reset) => {
            // Closed so, with nothing lingering, each side sees a reset.
            client.set_zero_linger().ok();
            server.set_zero_linger().ok();
        }
    }
}

/// Why a connection ended out of order.
#[derive(Debug, Clone, Copy)]
enum End {
    Stalled,
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Reset
    }
}

/// What travels along the delay line.
enum InFlight {
    Bytes(Bytes),
    Fault(Fault),
    EndOfFile,
}

/// What is read and forwarded at once.
const CHUNK: usize = 64 * 1024;

/// A delayed line passes this much, more than loopback does with a client and a server behind it.
const LINE_BYTES_PER_SECOND: f64 = 1e9;

/// Bytes on the way at once. Without a delay just what is being written, so that a slow reader is felt by the sender.
fn line_length(one_way: Duration) -> usize {
    CHUNK + (LINE_BYTES_PER_SECOND * one_way.as_secs_f64()) as usize
}

async fn direction(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    toward: Toward,
    plan: &Plan,
    state: &State,
) -> Result<(), End> {
    let room = Semaphore::new(line_length(plan.one_way));
    let (line, mut arriving) = mpsc::unbounded_channel::<(Instant, InFlight)>();
    let send = async {
        // Dropped at the end, so that the other side of the line sees it.
        let line = line;
        let put = |item| line.send((Instant::now() + plan.one_way, item)).map_err(|_| End::Reset);
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            if from.read_buf(&mut chunk).await? == 0 {
                return put(InFlight::EndOfFile);
            }
            let fault = state.pass(toward, &mut chunk);
            let pause = Duration::from_secs_f64(chunk.len() as f64 / plan.bytes_per_second as f64);
            let permits = u32::try_from(chunk.len()).expect("a chunk's length");
            room.acquire_many(permits).await.expect("nobody closes it").forget();
            put(InFlight::Bytes(chunk.freeze()))?;
            if let Some(fault) = fault {
                return put(InFlight::Fault(fault));
            }
            // No time at all takes a timer's tick, too: see below.
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    };
    let receive = async {
        while let Some((arrival, item)) = arriving.recv().await {
            // A timer ticks each millisecond, for what is due already too: to wait for each chunk is to forward 50 MB/s.
            if arrival > Instant::now() {
                sleep_until(arrival).await;
            }
            match item {
                InFlight::Bytes(bytes) => {
                    to.write_all(&bytes).await?;
                    room.add_permits(bytes.len());
                }
                InFlight::EndOfFile => to.shutdown().await?,
                InFlight::Fault(Fault::Stall) => return Err(End::Stalled),
                InFlight::Fault(Fault::Cut | Fault::Corrupt) => return Err(End::Reset),
            }
        }
        Ok(())
    };
    tokio::try_join!(send, receive).map(|_| ())
}
