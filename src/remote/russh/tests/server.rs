//! An SFTP server made of memory, which does what real ones do on a bad day.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::session::{Inbound, Outbound, Session};
use super::super::{Connection, Files, ServerInfo};
use crate::pulse::Pulse;
use crate::remote::Error;

pub const OPEN: u8 = 3;
pub const CLOSE: u8 = 4;
pub const READ: u8 = 5;
pub const FSTAT: u8 = 8;
pub const OPENDIR: u8 = 11;
pub const READDIR: u8 = 12;
pub const REALPATH: u8 = 16;
pub const STAT: u8 = 17;
pub const EXTENDED: u8 = 200;

/// What the server has, and how it behaves.
#[derive(Default)]
pub struct Server {
    pub files: HashMap<&'static [u8], Vec<u8>>,
    /// Names of the only directory, `/d`, in the packets that they are sent in.
    pub names: Vec<Vec<&'static [u8]>>,
    /// In `SSH_FXP_VERSION`, and answered; max read length and open handles.
    pub limits: Option<(u64, u64)>,
    /// Opens beyond this are refused.
    pub max_open: Option<usize>,
    /// No read gets more than this.
    pub max_data: Option<usize>,
    /// Replies with no data at the end of a file.
    pub empty_at_end: bool,
    /// Requests of this type are never answered.
    pub ignores: Option<u8>,
    /// Sent in place of the answer to a request of this type.
    pub answers: Option<(u8, Vec<u8>)>,
    pub no_fstat: bool,
    /// A handle is good for so many reads.
    pub forgets_after: Option<usize>,
    /// Says that it is OpenSSH, and has its extensions.
    pub is_openssh: bool,
    /// Between a reply and its arrival.
    pub delay: Duration,
    pub seen: Arc<Seen>,
}

/// What the server saw.
#[derive(Default)]
pub struct Seen {
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    pub refused: AtomicUsize,
    pub kinds: Mutex<Vec<u8>>,
}

struct State {
    open: HashMap<Vec<u8>, (Vec<u8>, usize)>,
    next_handle: u8,
}

impl Server {
    pub fn with_file(path: &'static [u8], content: Vec<u8>) -> Self {
        Self { files: HashMap::from([(path, content)]), ..Self::default() }
    }

    /// The client's session, and what the server sees of it.
    pub async fn serve(self) -> Result<(Connection, Arc<Seen>), Error> {
        self.serve_with(Duration::from_secs(30)).await
    }

    pub async fn serve_with(self, idle_timeout: Duration) -> Result<(Connection, Arc<Seen>), Error> {
        let (seen, delay, is_openssh) = (Arc::clone(&self.seen), self.delay, self.is_openssh);
        let (to_server, requests) = mpsc::unbounded_channel();
        let (replies, from_server) = mpsc::unbounded_channel();
        tokio::spawn(self.run(requests, replies));
        let inbound = FromServer { replies: from_server, delay, arriving: None };
        let (session, greeting) =
            Session::start(inbound, ToServer(to_server), "test".into(), is_openssh, idle_timeout, Pulse::default())
                .await?;
        let server =
            ServerInfo { sftp_version: greeting.version, extensions: greeting.extensions, ..ServerInfo::default() };
        Ok((Connection { session, server, files: Files::default() }, seen))
    }

    async fn run(self, mut requests: mpsc::UnboundedReceiver<Bytes>, replies: mpsc::UnboundedSender<Bytes>) {
        let mut state = State { open: HashMap::new(), next_handle: 0 };
        let mut stream = BytesMut::new();
        while let Some(bytes) = requests.recv().await {
            stream.extend_from_slice(&bytes);
            while stream.len() >= 4 && stream.len() >= 4 + (&stream[..4]).get_u32() as usize {
                let len = stream.get_u32() as usize;
                let reply = self.reply(&mut state, stream.split_to(len).freeze());
                if !reply.is_empty() && replies.send(Bytes::from(reply)).is_err() {
                    return;
                }
            }
        }
    }

    fn reply(&self, state: &mut State, mut request: Bytes) -> Vec<u8> {
        let kind = request.get_u8();
        self.seen.kinds.lock().unwrap().push(kind);
        if self.ignores == Some(kind) {
            return vec![];
        }
        if let Some((_, answer)) = self.answers.as_ref().filter(|(of, _)| *of == kind) {
            return answer.clone();
        }
        if kind == 1 {
            let mut version = 3u32.to_be_bytes().to_vec();
            if self.is_openssh {
                version.extend([string(b"lsetstat@openssh.com"), string(b"1")].concat());
            }
            if self.limits.is_some() {
                version.extend([string(b"limits@openssh.com"), string(b"1")].concat());
            }
            return framed(2, &version);
        }
        let id = request.get_u32();
        let len = request.get_u32() as usize;
        let argument = request.split_to(len);
        match kind {
            OPEN | OPENDIR => {
                let content = match self.files.get(&argument[..]) {
                    Some(content) if kind == OPEN => content.clone(),
                    None if kind == OPENDIR && &argument[..] == b"/d" => vec![],
                    _ => return status(id, 2),
                };
                if self.max_open.is_some_and(|max| state.open.len() >= max) {
                    self.seen.refused.fetch_add(1, Relaxed);
                    return status(id, 4);
                }
                let handle = vec![0xff, 0x00, state.next_handle];
                state.next_handle = state.next_handle.wrapping_add(1);
                state.open.insert(handle.clone(), (content, 0));
                self.seen.open.store(state.open.len(), Relaxed);
                self.seen.most_open.fetch_max(state.open.len(), Relaxed);
                reply(102, id, &string(&handle))
            }
            CLOSE => {
                let known = state.open.remove(&argument[..]).is_some();
                self.seen.open.store(state.open.len(), Relaxed);
                status(id, if known { 0 } else { 4 })
            }
            READ => {
                let (content, reads) = state.open.get_mut(&argument[..]).unwrap();
                *reads += 1;
                if self.forgets_after.is_some_and(|reads_allowed| *reads > reads_allowed) {
                    return status(id, 4);
                }
                let (offset, len) = (request.get_u64() as usize, request.get_u32() as usize);
                let from = content.get(offset..).unwrap_or_default();
                let data = &from[..from.len().min(len).min(self.max_data.unwrap_or(usize::MAX))];
                if data.is_empty() && !self.empty_at_end { status(id, 1) } else { reply(103, id, &string(data)) }
            }
            FSTAT if self.no_fstat => status(id, 8),
            FSTAT => attributes(id, state.open[&argument[..]].0.len()),
            STAT => match self.files.get(&argument[..]) {
                Some(content) => attributes(id, content.len()),
                None => status(id, 2),
            },
            READDIR => {
                let (_, sent) = state.open.get_mut(&argument[..]).unwrap();
                *sent += 1;
                let Some(names) = self.names.get(*sent - 1) else { return status(id, 1) };
                let mut body = u32::try_from(names.len()).unwrap().to_be_bytes().to_vec();
                for name in names {
                    body.extend([string(name), string(b"-rw-r--r--  1 root"), vec![0; 4]].concat());
                }
                reply(104, id, &body)
            }
            REALPATH => reply(104, id, &[&[0, 0, 0, 1][..], &string(b"/home"), &string(b""), &[0; 4]].concat()),
            EXTENDED => {
                let (read, handles) = self.limits.unwrap_or_default();
                reply(201, id, &[262_144, read, 0, handles].map(u64::to_be_bytes).concat())
            }
            _ => status(id, 8),
        }
    }
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
    packet.push(kind);
    packet.extend_from_slice(body);
    packet
}

pub fn reply(kind: u8, id: u32, body: &[u8]) -> Vec<u8> {
    framed(kind, &[&id.to_be_bytes()[..], body].concat())
}

pub fn status(id: u32, code: u32) -> Vec<u8> {
    reply(101, id, &[&code.to_be_bytes()[..], &string(b"so it is"), &string(b"en")].concat())
}

fn attributes(id: u32, size: usize) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(5);
    body.put_u64(size as u64);
    body.put_u32(0o100_644);
    reply(105, id, &body)
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

struct FromServer {
    replies: mpsc::UnboundedReceiver<Bytes>,
    /// For how long bytes are on their way.
    delay: Duration,
    arriving: Option<(Instant, Bytes)>,
}

impl Inbound for FromServer {
    async fn receive(&mut self) -> Result<Bytes, String> {
        if self.arriving.is_none() {
            let bytes = self.replies.recv().await.ok_or_else(|| "the test server ended".to_owned())?;
            self.arriving = Some((Instant::now() + self.delay, bytes));
        }
        if let Some((when, _)) = &self.arriving
            && !self.delay.is_zero()
        {
            tokio::time::sleep_until(*when).await;
        }
        Ok(self.arriving.take().map(|(_, bytes)| bytes).unwrap_or_default())
    }
}

struct ToServer(mpsc::UnboundedSender<Bytes>);

impl Outbound for ToServer {
    async fn send(&mut self, bytes: Bytes) -> Result<(), ()> {
        self.0.send(bytes).map_err(|_| ())
    }
}
