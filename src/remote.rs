//! The SFTP server as the rest of the program sees it: one connection, five questions, bytes in and bytes out.
//!
//! Two engines answer (`remote/russh.rs`, `remote/libssh2.rs`); both pass `tests/engines/main.rs`. Nothing here knows
//! S3, configuration or retries: every call is tried once, and its error says whether another connection would help.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub mod credentials;
pub mod host_key;
#[cfg(feature = "libssh2")]
pub mod libssh2;
mod listing;
pub mod path;
pub mod pool;
pub mod private_key;
pub mod protocol;
pub mod russh;

pub use credentials::{Credentials, PrivateKey};
pub use host_key::{HostKey, HostKeyPolicy, TrustedHostKey};
pub use path::RemotePath;

/// Where SSH listens (RFC 4250 §4.2).
pub const DEFAULT_PORT: u16 = 22;

/// Everything needed to open a connection. The same for every connection of a run.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Host name or address, without brackets around IPv6.
    pub host: String,
    pub port: u16,
    pub credentials: Credentials,
    pub host_keys: HostKeyPolicy,
    /// To resolve, connect, exchange keys, authenticate and start the `sftp` subsystem, all together.
    pub connect_timeout: Duration,
    /// A connection that has a request outstanding and receives no byte for this long is lost.
    pub idle_timeout: Duration,
}

impl Endpoint {
    /// `sftp://host:port`, as records show it; IPv6 addresses in brackets.
    pub fn url(&self) -> String {
        if self.host.contains(':') {
            format!("sftp://[{}]:{}", self.host, self.port)
        } else {
            format!("sftp://{}:{}", self.host, self.port)
        }
    }
}

/// Opens connections to one endpoint.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Connects, checks the host key, and only then logs in: key, password, keyboard-interactive, as the server asks.
    ///
    /// Errors: [`Kind::Unreachable`], [`Kind::HostKey`], [`Kind::Auth`], [`Kind::Lost`] (the server closed or timed
    /// out midway, as one does that allows no further connection). Never retries.
    async fn connect(&self) -> Result<Box<dyn Remote>, Error>;
}

/// One logged-in connection with its SFTP session. Calls may run side by side. Dropping it closes the connection.
#[async_trait]
pub trait Remote: Send + Sync {
    /// What the server told of itself.
    fn server(&self) -> &ServerInfo;

    /// How many [`read`](Remote::read)s may usefully run at once: the handles that the server allows to be open, or 1
    /// where the engine does one thing at a time. More may be asked for; they wait. Falls when an open is refused.
    fn concurrency(&self) -> usize;

    /// Whether the connection is gone: every further call would end with [`Kind::Lost`].
    fn is_lost(&self) -> bool;

    /// The absolute path of `path`, as the server sees it (`SSH_FXP_REALPATH`).
    async fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error>;

    /// What the symbolic link at `path` holds: a path from the link's own directory, or an absolute one
    /// (`SSH_FXP_READLINK`).
    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error>;

    /// Attributes of what `path` leads to, symbolic links followed (`SSH_FXP_STAT`).
    async fn stat(&self, path: &RemotePath) -> Result<Attributes, Error>;

    /// Hands every entry of the directory to `each`, in the server's order, without `.` and `..`. An entry's
    /// attributes are its own (a link's, not its target's). The first error of `each` ends the listing.
    ///
    /// Errors: [`Kind::NotFound`], [`Kind::Denied`]; [`Kind::Failed`] where `dir` is not a directory, which OpenSSH calls
    /// [`Kind::NotFound`] too. After an error `each` may have seen a part of the directory.
    async fn list(&self, dir: &RemotePath, each: &mut Each<'_>) -> Result<(), Error>;

    /// Reads `len` bytes at `offset`. Fewer come back only at the end of the file. The server takes the attributes after it
    /// has read the last byte: of the open file, or by path where it knows no other way.
    async fn read(&self, path: &RemotePath, offset: u64, len: u64) -> Result<Chunk, Error>;
}

/// Takes the entries of a directory, one by one.
pub type Each<'a> = dyn FnMut(DirEntry) -> Result<(), Error> + Send + 'a;

/// Bytes of a file, in the buffers they arrived in, and the file's attributes after the last of them.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// In file order; no empty piece.
    pub data: Vec<Bytes>,
    pub attributes: Attributes,
}

impl Chunk {
    /// Bytes in all pieces together.
    pub fn len(&self) -> u64 {
        self.data.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether no byte was read.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name's bytes: without `/`, not `.` or `..`, not empty. Not necessarily UTF-8.
    pub name: Vec<u8>,
    pub attributes: Attributes,
}

/// What the SFTP server says of a file (draft-ietf-secsh-filexfer-02 §5). Each part may be left out by a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// Seconds since the epoch, UTC.
    pub mtime: Option<u32>,
    pub kind: FileKind,
}

/// From the permission bits' file type (`S_IFMT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    /// A device, socket or pipe.
    Special,
    /// The server sent no permission bits.
    #[default]
    Unknown,
}

/// What a server tells of itself while connecting. `OPERATION=TEST` prints it.
#[derive(Debug, Clone, Default)]
pub struct ServerInfo {
    /// The identification string, `SSH-2.0-…`.
    pub identification: String,
    /// The text shown before login, if any.
    pub banner: Option<String>,
    pub host_key: Option<HostKey>,
    /// Negotiated: `kex`, `host-key`, `cipher`, `mac`, `compression`, in that order where known.
    pub algorithms: Vec<(&'static str, String)>,
    /// The login method that succeeded last: `publickey`, `password`, `keyboard-interactive`, `none`.
    pub login_method: &'static str,
    /// Protocol version of the SFTP server, 3 at least.
    pub sftp_version: u32,
    /// Name and data of the extensions in `SSH_FXP_VERSION`.
    pub extensions: Vec<(String, String)>,
}

/// What went wrong, chosen from codes and never from message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No connection: the name does not resolve, the port is closed, no answer within the connect timeout, no common
    /// algorithm.
    Unreachable,
    /// The server's host key is not a trusted one. The message shows the key and how to pin it.
    HostKey,
    /// The server refused the login.
    Auth,
    /// There was a connection and it is gone: closed, reset, silent for the idle timeout, or talking nonsense.
    Lost,
    /// `SSH_FX_NO_SUCH_FILE`.
    NotFound,
    /// `SSH_FX_PERMISSION_DENIED`.
    Denied,
    /// Any other status for one request; the connection is still good.
    Failed,
}

/// An error of one call, in words for the person who reads the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    message: String,
    lasting: bool,
    timed_out: bool,
}

impl Error {
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), lasting: false, timed_out: false }
    }

    /// The same error, which no further attempt will mend.
    pub fn lasting(self) -> Self {
        Self { lasting: true, ..self }
    }

    /// The same error, for want of an answer in time.
    pub fn for_want_of_time(self) -> Self {
        Self { timed_out: true, ..self }
    }

    /// Whether the server said nothing, rather than something else.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Whether the same call may succeed on another connection, or later.
    pub fn may_pass(&self) -> bool {
        !self.lasting && matches!(self.kind, Kind::Unreachable | Kind::Lost | Kind::Failed)
    }
}
