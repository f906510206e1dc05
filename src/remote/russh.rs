//! The default engine: SSH by `russh`, SFTP by our own client over its channel.
//!
//! Many requests are under way at once over one connection, file data is copied once (by `russh`, out of the packet
//! that it decrypted), and handles and names are bytes from end to end. It opens the `sftp` subsystem and no other
//! channel: no shell, no command. `russh` is named here, in this module's folder and in `private_key`, and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{Config, Msg};
use russh::keys::PrivateKey;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect};

use super::host_key::KnownType;
use super::path::bytes_to_text;
use super::protocol::{Reply, Request};
use super::{Attributes, Chunk, Each, Endpoint, Engine, Error, Kind, Remote, RemotePath, ServerInfo, private_key};
use crate::pulse::Pulse;
use connect::{Handle, Socket, Watcher};
use files::Files;
use session::{Inbound, Outbound, Session};

mod begin;
mod connect;
mod files;
mod handles;
mod list;
mod login;
mod outcome;
mod read;
mod session;
mod window;

/// Bytes under one key, in either direction: 1 GiB (RFC 4253 §9).
const REKEY_AFTER: usize = 1 << 30;

/// What the identification of OpenSSH's server begins with, whatever its version.
const OPENSSH: &str = "SSH-2.0-OpenSSH";

/// How long a server has to take leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connects to one endpoint with `russh`.
pub struct RusshEngine {
    endpoint: Endpoint,
    host_key: KnownType,
    rekey_after: usize,
    key: Option<Arc<PrivateKey>>,
    moves: Pulse,
}

impl RusshEngine {
    /// Reads the private key, so that every connection need not. [`Kind::Auth`] if it cannot be read.
    pub fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let key = endpoint.credentials.private_key.as_ref().map(private_key::load).transpose();
        let key = key.map_err(|error| Error::new(Kind::Auth, error))?.map(Arc::new);
        Ok(Self { endpoint, host_key: KnownType::default(), rekey_after: REKEY_AFTER, key, moves: Pulse::default() })
    }

    /// Asks for new keys after this many bytes, at most 1 GiB.
    pub fn rekey_after(mut self, bytes: usize) -> Self {
        self.rekey_after = bytes.min(REKEY_AFTER);
        self
    }

    /// Counts the data and names that the SFTP servers send.
    pub fn counted_by(self, moves: Pulse) -> Self {
        Self { moves, ..self }
    }

    /// As many tries as it takes to be shown the host key that is trusted.
    async fn establish(&self, stage: &Stage) -> Result<Connection, Error> {
        let mut search = self.host_key.search(&self.endpoint);
        loop {
            let config = connect::config(&self.endpoint, self.rekey_after, &search.order());
            let watcher = Watcher::new(&self.endpoint);
            let tried = self.try_once(config, &watcher, stage).await;
            let presented = watcher.told().server.host_key.clone();
            match (tried, presented) {
                (Ok(connection), Some(trusted)) => {
                    search.succeeded(&trusted);
                    return Ok(connection);
                }
                (Ok(connection), None) => return Ok(connection),
                (Err(error), presented) => search.failed(error, presented)?,
            }
        }
    }

    async fn try_once(&self, config: Arc<Config>, watcher: &Watcher, stage: &Stage) -> Result<Connection, Error> {
        stage.set(Stage::TCP);
        let (stream, socket) = connect::tcp(&self.endpoint).await?;
        stage.set(Stage::KEYS);
        let mut handle = watcher.shake_hands(config, stream).await?;
        stage.set(Stage::LOGIN);
        let login_method = login::login(&mut handle, watcher, &self.endpoint, self.key.as_ref(), stage).await?;
        stage.set(Stage::SFTP);
        let (session, greeting) = self.start_sftp(&handle, watcher).await?;
        let mut server = watcher.told().server.clone();
        server.login_method = login_method;
        server.sftp_version = greeting.version;
        server.extensions = greeting.extensions;
        tokio::spawn(close_when_lost(session.clone(), handle, socket));
        Ok(Connection { session, server, files: Files::default() })
    }

    async fn start_sftp(&self, handle: &Handle, watcher: &Watcher) -> Result<(Session, begin::Greeting), Error> {
        let Endpoint { host, port, idle_timeout, .. } = &self.endpoint;
        let peer = format!("{host} port {port}");
        let failed = |error: russh::Error| {
            let why = watcher.take_end().unwrap_or(connect::End::Failed(error));
            Error::new(Kind::Lost, format!("no SFTP session with {peer}: {why}"))
        };
        let channel = handle.channel_open_session().await.map_err(failed)?;
        channel.request_subsystem(true, "sftp").await.map_err(failed)?;
        let (mut receiving, sending) = channel.split();
        loop {
            match receiving.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) => {
                    let message = format!("{peer} has no SFTP for this user: it refuses to start the sftp subsystem");
                    return Err(Error::new(Kind::Unreachable, message));
                }
                Some(ChannelMsg::Close) | None => return Err(failed(russh::Error::Disconnect)),
                Some(_) => {}
            }
        }
        let inbound = Receiving { channel: receiving, watcher: watcher.clone(), exit_status: None };
        let is_openssh = watcher.told().server.identification.starts_with(OPENSSH);
        Session::start(inbound, Sending(sending), peer, is_openssh, *idle_timeout, self.moves.clone()).await
    }
}

#[async_trait]
impl Engine for RusshEngine {
    async fn connect(&self) -> Result<Box<dyn Remote>, Error> {
        let stage = Stage::default();
        match tokio::time::timeout(self.endpoint.connect_timeout, self.establish(&stage)).await {
            Ok(connection) => Ok(Box::new(connection?)),
            Err(_) => Err(stage.timed_out(&self.endpoint)),
        }
    }
}

/// How far connecting has come.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
    const TCP: u8 = 0;
    const KEYS: u8 = 1;
    const LOGIN: u8 = 2;
    /// The password was sent, and not answered yet.
    const PASSWORD: u8 = 3;
    const SFTP: u8 = 4;

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    fn timed_out(&self, endpoint: &Endpoint) -> Error {
        let (kind, what) = match self.0.load(Ordering::Relaxed) {
            Self::KEYS => (Kind::Lost, "a connection, but no end of the key exchange,"),
            Self::LOGIN => (Kind::Lost, "keys, but no answer to the login,"),
            // It would be sent again with each try, and a server may lock the account. `russh` leaves the demand for a new
            // password (RFC 4252 §8) unanswered and untold.
            Self::PASSWORD => {
                (Kind::Auth, "no answer to the password (some servers do this when it has expired and must be changed)")
            }
            Self::SFTP => (Kind::Lost, "a login, but no SFTP session,"),
            _ => (Kind::Unreachable, "no answer"),
        };
        let Endpoint { host, port, connect_timeout, .. } = endpoint;
        let message = format!("{host} port {port}: {what} within CONNECT_TIMEOUT ({connect_timeout:?})");
        Error::new(kind, message).for_want_of_time()
    }
}

/// Ends the connection when its session is over: with a word to the server if it still listens, and in any case.
async fn close_when_lost(session: Session, mut handle: Handle, socket: Socket) {
    session.lost().await;
    let goodbye = async {
        if handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
            // Returns when the message is sent. How the connection ended is of no interest any more.
            let _ = (&mut handle).await;
        }
    };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        tracing::debug!("the connection was cut: the server did not take leave in time");
    }
    drop(socket);
}

/// A connection with its SFTP session.
struct Connection {
    session: Session,
    server: ServerInfo,
    files: Files,
}

impl Connection {
    /// The path that is the answer to `request`, which is to do `action` to `path`.
    async fn named(&self, request: Request<'_>, action: &str, path: &RemotePath) -> Result<RemotePath, Error> {
        let reply = self.session.request(request).await;
        let Reply::Names(names) = reply.map_err(|failure| failure.into_error(format_args!("{action} {path}")))? else {
            return Err(self.session.out_of_step());
        };
        let mut named = None;
        let whole = names.each(|name, _| {
            named.get_or_insert_with(|| RemotePath::new(name));
        });
        match (whole, named) {
            (Ok(()), Some(named)) => Ok(named),
            _ => Err(self.session.out_of_step()),
        }
    }
}

#[async_trait]
impl Remote for Connection {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn concurrency(&self) -> usize {
        self.session.handles()
    }

    fn is_lost(&self) -> bool {
        self.session.is_lost()
    }

    async fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        self.named(Request::RealPath { path: path.as_asked()? }, "resolve", path).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        self.named(Request::ReadLink { path: path.as_asked()? }, "read the link", path).await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, Error> {
        read::stat(&self.session, path).await
    }

    async fn list(&self, dir: &RemotePath, each: &mut Each<'_>) -> Result<(), Error> {
        let _opening = self.files.opening();
        list::list(&self.session, dir, each).await
    }

    async fn read(&self, path: &RemotePath, offset: u64, len: u64) -> Result<Chunk, Error> {
        read::read(&self.session, &self.files, path, offset, len).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.session.end("it was closed");
    }
}

/// The channel's receiving half.
struct Receiving {
    channel: ChannelReadHalf,
    watcher: Watcher,
    exit_status: Option<u32>,
}

impl Inbound for Receiving {
    async fn receive(&mut self) -> Result<Bytes, String> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Ok(data),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    tracing::debug!(text = ?bytes_to_text(&data), "the SFTP server wrote to its standard error");
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.exit_status = Some(exit_status),
                Some(ChannelMsg::Close) => {
                    let status = self.exit_status.map_or_else(String::new, |status| format!(" with status {status}"));
                    return Err(format!("the server's SFTP process ended{status}"));
                }
                None => {
                    let end = self.watcher.take_end();
                    return Err(end.map_or_else(|| "the connection was closed".to_owned(), |end| end.to_string()));
                }
                Some(_) => {}
            }
        }
    }
}

/// The channel's sending half.
struct Sending(ChannelWriteHalf<Msg>);

impl Outbound for Sending {
    async fn send(&mut self, bytes: Bytes) -> Result<(), ()> {
        self.0.data_bytes(bytes).await.map_err(|_| ())
    }
}

#[cfg(test)]
mod tests;
