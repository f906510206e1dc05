//! The client against a server made of memory, which does what real ones do on a bad day.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, BufMut, BytesMut};
use futures::future::join_all;
use proptest::prelude::*;
use std::sync::Mutex;
use tokio::sync::mpsc;

use super::session::{Inbound, Outbound};
use super::*;
use crate::remote::FileKind;

const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const FSTAT: u8 = 8;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const EXTENDED: u8 = 200;

/// What the server has, and how it behaves.
#[derive(Default)]
struct Server {
    files: HashMap<&'static [u8], Vec<u8>>,
    /// Names of the only directory, `/d`, in the packets that they are sent in.
    names: Vec<Vec<&'static [u8]>>,
    /// In `SSH_FXP_VERSION`, and answered; max read length and open handles.
    limits: Option<(u64, u64)>,
    /// Opens beyond this are refused.
    max_open: Option<usize>,
    /// No read gets more than this.
    max_data: Option<usize>,
    /// Replies with no data at the end of a file.
    empty_at_end: bool,
    /// Requests of this type are never answered.
    ignores: Option<u8>,
    /// Sent in place of the answer to a request of this type.
    answers: Option<(u8, Vec<u8>)>,
    no_fstat: bool,
    seen: Arc<Seen>,
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    open: AtomicUsize,
    most_open: AtomicUsize,
    refused: AtomicUsize,
    kinds: Mutex<Vec<u8>>,
}

struct State {
    open: HashMap<Vec<u8>, (Vec<u8>, usize)>,
    next_handle: u8,
}

impl Server {
    fn with_file(path: &'static [u8], content: Vec<u8>) -> Self {
        Self { files: HashMap::from([(path, content)]), ..Self::default() }
    }

    /// The client's session, and what the server sees of it.
    async fn serve(self) -> Result<(Connection, Arc<Seen>), Error> {
        self.serve_with(Duration::from_secs(30)).await
    }

    async fn serve_with(self, idle_timeout: Duration) -> Result<(Connection, Arc<Seen>), Error> {
        let seen = Arc::clone(&self.seen);
        let (to_server, requests) = mpsc::unbounded_channel();
        let (replies, from_server) = mpsc::unbounded_channel();
        tokio::spawn(self.run(requests, replies));
        let (session, greeting) =
            Session::start(FromServer(from_server), ToServer(to_server), "test".into(), idle_timeout).await?;
        let server =
            ServerInfo { sftp_version: greeting.version, extensions: greeting.extensions, ..ServerInfo::default() };
        Ok((Connection { session, server }, seen))
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
                let (content, _) = &state.open[&argument[..]];
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

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
    packet.push(kind);
    packet.extend_from_slice(body);
    packet
}

fn reply(kind: u8, id: u32, body: &[u8]) -> Vec<u8> {
    framed(kind, &[&id.to_be_bytes()[..], body].concat())
}

fn status(id: u32, code: u32) -> Vec<u8> {
    reply(101, id, &[&code.to_be_bytes()[..], &string(b"so it is"), &string(b"en")].concat())
}

fn attributes(id: u32, size: usize) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(5);
    body.put_u64(size as u64);
    body.put_u32(0o100_644);
    reply(105, id, &body)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

struct FromServer(mpsc::UnboundedReceiver<Bytes>);

impl Inbound for FromServer {
    async fn receive(&mut self) -> Result<Bytes, String> {
        self.0.recv().await.ok_or_else(|| "the test server ended".to_owned())
    }
}

struct ToServer(mpsc::UnboundedSender<Bytes>);

impl Outbound for ToServer {
    async fn send(&mut self, bytes: Bytes) -> Result<(), ()> {
        self.0.send(bytes).map_err(|_| ())
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn path() -> RemotePath {
    RemotePath::from("/f")
}

/// Yields to the server and the session's tasks until something is so; all of them are in this thread.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never so: {what}");
}

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_range_is_what_the_file_has_of_it(
        size in 0usize..300_000,
        offset in 0u64..320_000,
        len in 0u64..320_000,
        max_data in prop_oneof![Just(None), (1usize..70_000).prop_map(Some).prop_filter("not too slow", |max| max.unwrap() > 100)],
        limits in prop_oneof![Just(None), Just(Some((0, 0))), Just(Some((5000, 2))), Just(Some((261_120, 1000)))],
        empty_at_end: bool,
    ) {
        on_one_thread(async {
            let file = content(size);
            let expected = file.get(offset as usize..).unwrap_or_default();
            let expected = expected[..expected.len().min(len as usize)].to_vec();
            let server = Server { max_data, limits, empty_at_end, ..Server::with_file(b"/f", file) };
            let (connection, seen) = server.serve().await.unwrap();
            let chunk = connection.read(&path(), offset, len).await.unwrap();
            assert_eq!(chunk.len(), expected.len() as u64);
            assert!(chunk.data.concat() == expected);
            assert!(chunk.data.iter().all(|piece| !piece.is_empty()));
            assert_eq!(chunk.attributes, Attributes { size: Some(size as u64), mtime: None, kind: FileKind::File });
            until("closed", || seen.open.load(Relaxed) == 0).await;
            // The attributes are asked for after the last byte has come.
            let kinds = seen.kinds.lock().unwrap();
            assert!(kinds.iter().rposition(|kind| *kind == READ) < kinds.iter().position(|kind| *kind == FSTAT));
        });
    }
}

#[tokio::test]
async fn a_server_that_allows_one_handle_serves_many_reads() {
    for max_open in [1, 3, 20] {
        let server = Server { max_open: Some(max_open), ..Server::with_file(b"/f", content(1000)) };
        let (connection, seen) = server.serve().await.unwrap();
        let path = path();
        let reads = (0..200).map(|_| connection.read(&path, 0, 1000));
        for chunk in join_all(reads).await {
            assert_eq!(chunk.unwrap().data.concat(), content(1000));
        }
        assert_eq!(connection.concurrency(), max_open);
        assert_eq!(seen.most_open.load(Relaxed), max_open);
        assert!(seen.refused.load(Relaxed) < 200 / 64 + 64, "refused {:?} times", seen.refused);
    }
}

#[tokio::test]
async fn a_stated_number_of_handles_is_kept_to_and_a_refusal_is_the_files_own() {
    let server = Server { limits: Some((0, 5)), ..Server::with_file(b"/f", content(10)) };
    let (connection, seen) = server.serve().await.unwrap();
    assert_eq!(connection.concurrency(), 5);
    let path = path();
    assert!(join_all((0..50).map(|_| connection.read(&path, 0, 10))).await.iter().all(Result::is_ok));
    assert_eq!(seen.most_open.load(Relaxed), 5);

    let server = Server { limits: Some((0, 5)), max_open: Some(0), ..Server::with_file(b"/f", content(10)) };
    let (connection, seen) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path, 0, 10).await.unwrap_err().kind, Kind::Failed);
    assert_eq!((connection.concurrency(), seen.refused.load(Relaxed)), (5, 1));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_costs_no_handles() {
    let server = Server { answers: None, max_open: Some(0), ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap_err().kind, Kind::Failed);
    assert_eq!(connection.concurrency(), 64);
    assert!(!connection.is_lost());
}

#[tokio::test]
async fn a_missing_file_is_told_by_name() {
    let (connection, _) = Server::default().serve().await.unwrap();
    let error = connection.read(&RemotePath::new(b"/caf\xe9".to_vec()), 0, 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(error.to_string(), "cannot open /caf%E9: so it is (SSH_FX_NO_SUCH_FILE)");
}

#[tokio::test]
async fn a_read_that_is_dropped_at_any_point_leaves_nothing_open_and_the_connection_good() {
    let server = Server { max_data: Some(1000), ..Server::with_file(b"/f", content(50_000)) };
    let (connection, seen) = server.serve().await.unwrap();
    let path = path();
    for polls in 0..60 {
        let mut read = Box::pin(connection.read(&path, 0, 50_000));
        for _ in 0..polls {
            if futures::poll!(&mut read).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(read);
        until("all closed", || seen.open.load(Relaxed) == 0).await;
        let chunk = connection.read(&path, 7, 5).await.unwrap();
        assert_eq!(chunk.data.concat(), content(12)[7..]);
    }
    assert_eq!(connection.concurrency(), 64);
}

#[tokio::test]
async fn attributes_are_asked_for_by_path_where_the_server_knows_no_other_way() {
    let server = Server { no_fstat: true, ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap().attributes.size, Some(10));
}

#[tokio::test]
async fn a_directory_is_listed_name_by_name_without_what_is_no_name() {
    let names: Vec<Vec<&[u8]>> = vec![vec![b".", b"..", b"a"], vec![b"", b"x/y", b"z\0", b"caf\xe9"], vec![b"b"]];
    let (connection, seen) = Server { names, ..Server::default() }.serve().await.unwrap();
    let mut listed = Vec::new();
    connection.list(&RemotePath::from("/d"), &mut |entry| listed.push(entry.name)).await.unwrap();
    assert_eq!(listed, [&b"a"[..], b"caf\xe9", b"b"]);
    until("closed", || seen.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_directory_without_end_ends() {
    let (connection, _) = Server { names: vec![vec![b"a"], vec![]], ..Server::default() }.serve().await.unwrap();
    let mut listed = 0;
    connection.list(&RemotePath::from("/d"), &mut |_| listed += 1).await.unwrap();
    assert_eq!(listed, 1);
}

#[tokio::test]
async fn a_file_is_not_a_missing_directory() {
    let (connection, _) = Server::with_file(b"/f", vec![]).serve().await.unwrap();
    let error = connection.list(&path(), &mut |_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.to_string().as_str()), (Kind::Failed, "cannot list /f: it is not a directory"));
    let error = connection.list(&RemotePath::from("/x"), &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
}

#[tokio::test]
async fn the_login_directory_is_resolved() {
    let (connection, _) = Server::default().serve().await.unwrap();
    assert_eq!(connection.canonicalize(&RemotePath::from(".")).await.unwrap(), RemotePath::from("/home"));
}

#[tokio::test]
async fn what_no_server_should_send_ends_the_connection_and_nothing_else() {
    let too_much = reply(103, 2, &string(&content(70_000)));
    for (kind, answer) in [
        (READ, b"This account is currently not available.".to_vec()),
        (READ, status(99, 4)),
        (READ, too_much),
        (READ, reply(102, 2, &string(b"h"))),
        (READ, framed(2, &[0, 0, 0, 3])),
        (FSTAT, reply(103, 3, &string(b""))),
        (OPEN, reply(103, 1, &string(b""))),
        (OPEN, reply(101, 1, &[0; 4])),
        (REALPATH, reply(104, 1, &[0; 4])),
        (READDIR, reply(104, 2, &[0, 0, 0, 9])),
    ] {
        let server = Server { answers: Some((kind, answer)), ..Server::with_file(b"/f", content(10)) };
        let (connection, _) = server.serve().await.unwrap();
        let (path, dir) = (path(), RemotePath::from("/d"));
        let error = match kind {
            REALPATH => connection.canonicalize(&path).await.unwrap_err(),
            READDIR => connection.list(&dir, &mut |_| {}).await.unwrap_err(),
            _ => connection.read(&path, 0, 10).await.unwrap_err(),
        };
        assert_eq!(error.kind, Kind::Lost, "{kind}: {error}");
        assert!(connection.is_lost());
        assert_eq!(connection.stat(&path).await.unwrap_err().kind, Kind::Lost);
        assert_eq!(connection.read(&path, 0, 10).await.unwrap_err().kind, Kind::Lost);
    }
}

#[tokio::test]
async fn what_is_no_sftp_server_is_told_before_anything_is_asked() {
    for answer in [b"Welcome!".to_vec(), framed(2, &[0, 0, 0, 2]), status(0, 0)] {
        let server = Server { answers: Some((1, answer)), ..Server::default() };
        assert_eq!(server.serve().await.err().map(|error| error.kind), Some(Kind::Lost));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection_while_a_request_is_outstanding_and_every_call_with_it() {
    let idle = Duration::from_secs(60);
    let server = Server { ignores: Some(READ), ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve_with(idle).await.unwrap();
    let path = path();
    let reads = join_all((0..100).map(|_| connection.read(&path, 0, 10))).await;
    let kinds: BTreeSet<String> = reads.into_iter().map(|read| format!("{:?}", read.unwrap_err().kind)).collect();
    assert_eq!(kinds, BTreeSet::from(["Lost".to_owned()]));
    assert!(connection.is_lost());
}

#[tokio::test(start_paused = true)]
async fn silence_is_fine_while_nothing_is_asked() {
    let (connection, _) = Server::with_file(b"/f", content(10)).serve_with(Duration::from_secs(60)).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(1000), connection.session.lost()).await;
    assert!(lost.is_err(), "lost while idle");
    assert!(connection.stat(&path()).await.is_ok());
}

#[tokio::test]
async fn dropping_a_connection_ends_its_session() {
    let (connection, _) = Server::default().serve().await.unwrap();
    let session = connection.session.clone();
    drop(connection);
    session.lost().await;
    assert!(session.lost_error().to_string().contains("it was closed"));
}
