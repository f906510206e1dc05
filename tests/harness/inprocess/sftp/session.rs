//! One SFTP session: requests in, replies out, with the server's quirks and faults in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::tree::{Node, NodeKind};
use super::wire::{self, Attrs, Limits, Request, Status};
use super::{Misdeed, Shared, Trigger};

/// How many names one reply to a READDIR holds, as OpenSSH's.
const NAMES_PER_REPLY: usize = 100;

/// Serves one channel until either side ends it.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    connection: u64,
    shared: Arc<Shared>,
) {
    let mut session = Session::new(connection, shared);
    let mut input = BytesMut::new();
    // An end or an error of the stream is the client's leaving, however it left.
    while let Ok(1..) = stream.read_buf(&mut input).await {
        let mut replies = Vec::new();
        while let Some(packet) = wire::take_packet(&mut input) {
            match session.answer(packet) {
                Next::Reply(reply) => replies.push(reply),
                Next::Stall => {
                    let _ = send(&mut stream, replies).await;
                    return std::future::pending().await;
                }
                Next::Cut => {
                    let _ = send(&mut stream, replies).await;
                    return session.shared.cut(connection);
                }
                Next::CloseChannel => {
                    let _ = send(&mut stream, replies).await;
                    let _ = stream.shutdown().await;
                    return;
                }
            }
            if !session.shared.quirks.reversed_replies && send(&mut stream, std::mem::take(&mut replies)).await.is_err()
            {
                return;
            }
        }
        replies.reverse();
        if send(&mut stream, replies).await.is_err() {
            return;
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), replies: Vec<Bytes>) -> std::io::Result<()> {
    for reply in replies {
        stream.write_all(&reply).await?;
    }
    stream.flush().await
}

enum Next {
    Reply(Bytes),
    Stall,
    Cut,
    CloseChannel,
}

/// What an open handle is on. A file's is a path: a file that changes, changes under its reader.
enum Open {
    File(Vec<u8>),
    Directory(Vec<(Vec<u8>, Attrs)>),
}

struct Session {
    connection: u64,
    shared: Arc<Shared>,
    handles: HashMap<Vec<u8>, Open>,
    handles_given: u32,
    replies: u64,
    reads: u64,
    bytes: u64,
    /// For each of the server's faults, whether it happened here.
    happened: Vec<bool>,
}

impl Session {
    fn new(connection: u64, shared: Arc<Shared>) -> Self {
        let happened = vec![false; shared.quirks.faults.len()];
        Self { connection, shared, handles: HashMap::new(), handles_given: 0, replies: 0, reads: 0, bytes: 0, happened }
    }

    fn answer(&mut self, packet: Bytes) -> Next {
        let misdeed = self.due();
        let next = if wire::init_version(&packet).is_some() {
            let limits: &[(&str, &str)] = if self.shared.quirks.limits { &[("limits@openssh.com", "1")] } else { &[] };
            self.reply(0, wire::version(limits), misdeed)
        } else {
            self.shared.stats.requests.fetch_add(1, Ordering::SeqCst);
            match wire::parse(packet) {
                Some((id, request)) => {
                    let reply = self.serve(id, request).unwrap_or_else(|status| wire::failed(id, status));
                    self.reply(id, reply, misdeed)
                }
                None => Next::Reply(wire::failed(0, Status::BadMessage)),
            }
        };
        self.replies += 1;
        next
    }

    /// The misdeed that is due on this connection, if any.
    fn due(&mut self) -> Option<Misdeed> {
        let shared = self.shared.clone();
        for (fault, happened) in shared.quirks.faults.iter().zip(&mut self.happened) {
            let due = match fault.trigger {
                Trigger::Replies(count) => self.replies >= count,
                Trigger::Reads(count) => self.reads >= count,
                Trigger::Bytes(count) => self.bytes >= count,
            };
            if due && !*happened && fault.connections.contains(&self.connection) {
                *happened = true;
                shared.stats.faults.fetch_add(1, Ordering::SeqCst);
                return Some(fault.misdeed);
            }
        }
        None
    }

    /// What is sent where `reply` would be.
    fn reply(&self, id: u32, reply: Bytes, misdeed: Option<Misdeed>) -> Next {
        Next::Reply(match misdeed {
            None => reply,
            Some(Misdeed::Stall) => return Next::Stall,
            Some(Misdeed::Cut) => return Next::Cut,
            Some(Misdeed::CloseChannel) => return Next::CloseChannel,
            Some(Misdeed::WrongId) => wire::ok(id.wrapping_add(0x5eed_0000)),
            Some(Misdeed::Length(len)) => {
                let mut packet = reply.to_vec();
                packet[..4].copy_from_slice(&len.to_be_bytes());
                packet.into()
            }
            // Length, type and id are nine bytes; half of a field follows.
            Some(Misdeed::Truncated) => wire::framed(&reply[4..reply.len().min(11)]),
            Some(Misdeed::WrongType) => {
                let mut packet = reply.to_vec();
                packet[4] = 77;
                packet.into()
            }
            Some(Misdeed::TooMuchData) => wire::data(id, &vec![b'!'; 512 * 1024]),
            Some(Misdeed::EmptyData) => wire::data(id, b""),
        })
    }

    fn serve(&mut self, id: u32, request: Request) -> Result<Bytes, Status> {
        match request {
            Request::Open { path, flags } => self.open(id, &path, flags),
            Request::OpenDir { path } => self.open_directory(id, &path),
            Request::Close { handle } => match self.handles.remove(handle.as_ref()) {
                Some(_) => Ok(wire::ok(id)),
                None => Err(Status::Failure),
            },
            Request::Read { handle, offset, len } => self.read(id, &handle, offset, len),
            Request::ReadDir { handle } => self.read_directory(id, &handle),
            Request::Stat { path } => self.stat(id, &path, true),
            Request::Lstat { path } => self.stat(id, &path, false),
            Request::Fstat { handle } => match self.handles.get(handle.as_ref()) {
                Some(Open::File(path)) => self.stat(id, path, true),
                _ => Err(Status::Failure),
            },
            Request::RealPath { path } => {
                let path = self.resolve(&path, true)?;
                Ok(wire::names(id, [(path.as_slice(), Attrs::default())].into_iter()))
            }
            Request::ReadLink { path } => {
                let path = self.resolve(&path, false)?;
                match self.shared.tree().get(&path).map(|node| &node.kind) {
                    Some(NodeKind::Link(to)) => Ok(wire::names(id, [(to.as_slice(), Attrs::default())].into_iter())),
                    Some(_) => Err(Status::Failure),
                    None => Err(Status::NoSuchFile),
                }
            }
            Request::Extended { name } if name == "limits@openssh.com" && self.shared.quirks.limits => {
                let quirks = &self.shared.quirks;
                Ok(wire::limits(
                    id,
                    Limits {
                        max_packet: 256 * 1024,
                        max_read: quirks.max_read as u64,
                        max_write: 255 * 1024,
                        max_handles: quirks.max_handles.unwrap_or(0) as u64,
                    },
                ))
            }
            Request::Extended { .. } | Request::Other => Err(Status::Unsupported),
        }
    }

    fn open(&mut self, id: u32, path: &[u8], flags: u32) -> Result<Bytes, Status> {
        let path = self.resolve(path, true)?;
        match self.shared.tree().get(&path) {
            None => return Err(Status::NoSuchFile),
            Some(node) if node.gone => return Err(Status::NoSuchFile),
            Some(node) if node.denied || flags != wire::READ => return Err(Status::PermissionDenied),
            Some(Node { kind: NodeKind::File(_), .. }) => {}
            Some(_) => return Err(Status::Failure),
        }
        let reply = self.give_handle(id, Open::File(path))?;
        self.shared.stats.opens.fetch_add(1, Ordering::SeqCst);
        Ok(reply)
    }

    fn open_directory(&mut self, id: u32, path: &[u8]) -> Result<Bytes, Status> {
        let path = self.resolve(path, true)?;
        let names = match self.shared.tree().get(&path) {
            None => return Err(Status::NoSuchFile),
            Some(node) if node.denied => return Err(Status::PermissionDenied),
            Some(Node { kind: NodeKind::Directory(children), .. }) => {
                let own = [b".".as_slice(), b".."].map(|name| (name.to_vec(), Attrs::default()));
                let children = children.iter().map(|(name, node)| (name.clone(), self.attributes(node)));
                // From the end, because replies take from there.
                let mut names: Vec<_> = own.into_iter().chain(children).collect();
                names.reverse();
                names
            }
            Some(_) => return Err(Status::Failure),
        };
        self.give_handle(id, Open::Directory(names))
    }

    fn give_handle(&mut self, id: u32, open: Open) -> Result<Bytes, Status> {
        if self.shared.quirks.max_handles.is_some_and(|most| self.handles.len() >= most) {
            self.shared.stats.refused_opens.fetch_add(1, Ordering::SeqCst);
            return Err(Status::Failure);
        }
        let handle = if self.shared.quirks.random_handles {
            rand::random::<[u8; 32]>().to_vec()
        } else {
            self.handles_given.to_be_bytes().to_vec()
        };
        self.handles_given += 1;
        let reply = wire::handle(id, &handle);
        self.handles.insert(handle, open);
        self.shared.stats.most_handles.fetch_max(self.handles.len() as u64, Ordering::SeqCst);
        Ok(reply)
    }

    fn read(&mut self, id: u32, handle: &[u8], offset: u64, len: u32) -> Result<Bytes, Status> {
        let Some(Open::File(path)) = self.handles.get(handle) else { return Err(Status::Failure) };
        let content = match self.shared.tree().get(path).map(|node| &node.kind) {
            Some(NodeKind::File(content)) => content.clone(),
            _ => return Err(Status::NoSuchFile),
        };
        let len = (len as usize).min(self.shared.quirks.max_read);
        let data = content.read(offset, len).map_err(|_| Status::Failure)?;
        if let Some(node) = self.shared.tree().get_mut(path) {
            node.serve(data.len() as u64);
        }
        if data.is_empty() {
            return Err(Status::Eof);
        }
        self.reads += 1;
        self.bytes += data.len() as u64;
        self.shared.stats.reads.fetch_add(1, Ordering::SeqCst);
        self.shared.stats.bytes.fetch_add(data.len() as u64, Ordering::SeqCst);
        Ok(wire::data(id, &data))
    }

    fn read_directory(&mut self, id: u32, handle: &[u8]) -> Result<Bytes, Status> {
        let Some(Open::Directory(names)) = self.handles.get_mut(handle) else { return Err(Status::Failure) };
        if names.is_empty() {
            return Err(Status::Eof);
        }
        let batch = names.split_off(names.len().saturating_sub(NAMES_PER_REPLY));
        Ok(wire::names(id, batch.iter().rev().map(|(name, attrs)| (name.as_slice(), *attrs))))
    }

    fn stat(&self, id: u32, path: &[u8], follow: bool) -> Result<Bytes, Status> {
        let path = self.resolve(path, follow)?;
        let tree = self.shared.tree();
        let node = tree.get(&path).ok_or(Status::NoSuchFile)?;
        if node.broken {
            return Err(Status::Failure);
        }
        Ok(wire::attrs(id, self.attributes(node)))
    }

    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>, Status> {
        self.shared.tree().resolve(path, &self.shared.home, follow_last)
    }

    fn attributes(&self, node: &Node) -> Attrs {
        let quirks = &self.shared.quirks;
        Attrs {
            size: (!quirks.omit_sizes).then(|| node.size()),
            permissions: (!quirks.omit_permissions).then(|| node.mode()),
            mtime: (!quirks.omit_times).then_some(node.mtime),
        }
    }
}
