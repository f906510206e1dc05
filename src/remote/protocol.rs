//! The SFTP version 3 messages that this program sends and receives (draft-ietf-secsh-filexfer-02), as bytes.
//!
//! Pure: requests become bytes, bytes become replies; nothing here waits, keeps an id or knows a connection. Handles and
//! names are opaque bytes. File data stays in the buffers it arrived in. No input panics: what is not a well-formed
//! message is a [`Malformed`], after which the stream is of no more use.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Attributes, FileKind};

mod framer;

pub use framer::{COPY_BELOW, Framer};

/// The version that is asked for, and the only one spoken.
pub const VERSION: u32 = 3;

/// The longest packet taken, without its length field: OpenSSH's own limit for either direction, and some.
pub const MAX_PACKET: u32 = 256 * 1024 + 1024;

/// The extension that tells a server's limits (OpenSSH's PROTOCOL §4.8).
pub const LIMITS_EXTENSION: &str = "limits@openssh.com";

/// Message types (§3).
mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const FSTAT: u8 = 8;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const READLINK: u8 = 19;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// `SSH_FXF_READ` (§6.3).
const OPEN_FOR_READING: u32 = 1;

/// Status codes (§7).
pub mod status {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
    pub const OP_UNSUPPORTED: u32 = 8;

    /// The code's name, for messages.
    pub fn name(code: u32) -> &'static str {
        match code {
            OK => "SSH_FX_OK",
            EOF => "SSH_FX_EOF",
            NO_SUCH_FILE => "SSH_FX_NO_SUCH_FILE",
            PERMISSION_DENIED => "SSH_FX_PERMISSION_DENIED",
            FAILURE => "SSH_FX_FAILURE",
            5 => "SSH_FX_BAD_MESSAGE",
            6 => "SSH_FX_NO_CONNECTION",
            7 => "SSH_FX_CONNECTION_LOST",
            OP_UNSUPPORTED => "SSH_FX_OP_UNSUPPORTED",
            _ => "an unknown status",
        }
    }
}

/// What is asked of the server. Strings are shorter than 4 GiB: they came from one packet or one environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Open for reading (§6.3).
    Open { path: &'a [u8] },
    /// §6.3
    Close { handle: &'a [u8] },
    /// §6.4
    Read { handle: &'a [u8], offset: u64, len: u32 },
    /// §6.7
    OpenDir { path: &'a [u8] },
    /// §6.7
    ReadDir { handle: &'a [u8] },
    /// §6.8, links followed.
    Stat { path: &'a [u8] },
    /// §6.8
    FStat { handle: &'a [u8] },
    /// §6.10
    ReadLink { path: &'a [u8] },
    /// §6.11
    RealPath { path: &'a [u8] },
    /// `limits@openssh.com`, an extended request (§8).
    Limits,
}

impl Request<'_> {
    /// The whole packet, its length field included.
    pub fn encode(&self, id: u32) -> Bytes {
        match *self {
            Self::Open { path } => packet(kind::OPEN, id, path, 8, |packet| {
                packet.put_u32(OPEN_FOR_READING);
                packet.put_u32(0); // no attributes
            }),
            Self::Close { handle } => packet(kind::CLOSE, id, handle, 0, |_| {}),
            Self::Read { handle, offset, len } => packet(kind::READ, id, handle, 12, |packet| {
                packet.put_u64(offset);
                packet.put_u32(len);
            }),
            Self::OpenDir { path } => packet(kind::OPENDIR, id, path, 0, |_| {}),
            Self::ReadDir { handle } => packet(kind::READDIR, id, handle, 0, |_| {}),
            Self::Stat { path } => packet(kind::STAT, id, path, 0, |_| {}),
            Self::FStat { handle } => packet(kind::FSTAT, id, handle, 0, |_| {}),
            Self::ReadLink { path } => packet(kind::READLINK, id, path, 0, |_| {}),
            Self::RealPath { path } => packet(kind::REALPATH, id, path, 0, |_| {}),
            Self::Limits => packet(kind::EXTENDED, id, LIMITS_EXTENSION.as_bytes(), 0, |_| {}),
        }
    }
}

/// `SSH_FXP_INIT` (§4), the first packet of a session.
pub fn init() -> Bytes {
    let mut packet = BytesMut::with_capacity(9);
    packet.put_u32(5);
    packet.put_u8(kind::INIT);
    packet.put_u32(VERSION);
    packet.freeze()
}

/// Every request has this form: an id, one string, and for some a few numbers.
fn packet(kind: u8, id: u32, string: &[u8], more: usize, tail: impl FnOnce(&mut BytesMut)) -> Bytes {
    let len = 1 + 4 + 4 + string.len() + more;
    let mut packet = BytesMut::with_capacity(4 + len);
    packet.put_u32(len as u32);
    packet.put_u8(kind);
    packet.put_u32(id);
    packet.put_u32(string.len() as u32);
    packet.put_slice(string);
    tail(&mut packet);
    debug_assert_eq!(packet.len(), 4 + len);
    packet.freeze()
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The answer to [`init`], and the only message without an id (§4).
    Version {
        version: u32,
        /// Names and data, in the server's order.
        extensions: Vec<(Bytes, Bytes)>,
    },
    Reply {
        id: u32,
        reply: Reply,
    },
}

/// The answer to one request (§7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status {
        code: u32,
        /// In the server's words; empty where it sent none.
        message: Bytes,
    },
    Handle(Bytes),
    /// In file order, no empty piece.
    Data(Vec<Bytes>),
    Names(Names),
    Attributes(Attributes),
    /// The reply to an extended request: what follows its id.
    Extended(Bytes),
}

/// What the server sent is not SFTP version 3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a packet of {0} bytes, where {MAX_PACKET} are the most")]
    TooLong(u32),
    #[error("a packet of no bytes")]
    Empty,
    #[error("a packet of type {0}, which no server sends")]
    UnknownType(u8),
    #[error("a packet that ends inside its {0}")]
    CutShort(&'static str),
}

/// The message in one whole packet that is not `SSH_FXP_DATA`; `body` is what follows the type.
fn decode(kind: u8, mut body: Bytes) -> Result<Message, Malformed> {
    if kind == kind::VERSION {
        let version = take_u32(&mut body, "version")?;
        let mut extensions = Vec::new();
        while body.has_remaining() {
            extensions.push((take_string(&mut body, "extension")?, take_string(&mut body, "extension")?));
        }
        return Ok(Message::Version { version, extensions });
    }
    if !(kind::STATUS..=kind::ATTRS).contains(&kind) && kind != kind::EXTENDED_REPLY {
        return Err(Malformed::UnknownType(kind));
    }
    let id = take_u32(&mut body, "id")?;
    let reply = match kind {
        kind::STATUS => {
            let code = take_u32(&mut body, "status")?;
            // Drafts before 02 had no message, and some servers still send none.
            let message = if body.has_remaining() { take_string(&mut body, "status")? } else { Bytes::new() };
            Reply::Status { code, message }
        }
        // Copied, since it outlives the chunk that it arrived in.
        kind::HANDLE => Reply::Handle(Bytes::copy_from_slice(&take_string(&mut body, "handle")?)),
        kind::NAME => Reply::Names(Names { count: take_u32(&mut body, "names")?, rest: body }),
        kind::ATTRS => Reply::Attributes(take_attributes(&mut body)?),
        _ => Reply::Extended(body),
    };
    Ok(Message::Reply { id, reply })
}

/// `SSH_FXP_NAME` (§7), read name by name, so that no more than one name is held beside the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    count: u32,
    rest: Bytes,
}

impl Names {
    /// How many names the packet says it has; not to be relied on for an allocation.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Hands over every name with its attributes. The long name, made for people to read, is passed over.
    pub fn each(mut self, mut each: impl FnMut(&[u8], Attributes)) -> Result<(), Malformed> {
        for _ in 0..self.count {
            let name = take_string(&mut self.rest, "names")?;
            take_string(&mut self.rest, "names")?;
            let attributes = take_attributes(&mut self.rest)?;
            each(&name, attributes);
        }
        Ok(())
    }
}

/// The reply to [`Request::Limits`]. Zero means that the server states none (OpenSSH's PROTOCOL §4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_packet_len: u64,
    pub max_read_len: u64,
    pub max_write_len: u64,
    pub max_open_handles: u64,
}

impl Limits {
    /// From what follows the id of an extended reply.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        Ok(Self {
            max_packet_len: take_u64(&mut body, "limits")?,
            max_read_len: take_u64(&mut body, "limits")?,
            max_write_len: take_u64(&mut body, "limits")?,
            max_open_handles: take_u64(&mut body, "limits")?,
        })
    }
}

/// `ATTRS` (§5).
fn take_attributes(body: &mut Bytes) -> Result<Attributes, Malformed> {
    const SIZE: u32 = 0x1;
    const UID_GID: u32 = 0x2;
    const PERMISSIONS: u32 = 0x4;
    const AC_MOD_TIME: u32 = 0x8;
    const EXTENDED: u32 = 0x8000_0000;
    const WHAT: &str = "attributes";

    let mut attributes = Attributes::default();
    let flags = take_u32(body, WHAT)?;
    if flags & SIZE != 0 {
        attributes.size = Some(take_u64(body, WHAT)?);
    }
    if flags & UID_GID != 0 {
        take_u64(body, WHAT)?;
    }
    if flags & PERMISSIONS != 0 {
        attributes.kind = file_kind(take_u32(body, WHAT)?);
    }
    if flags & AC_MOD_TIME != 0 {
        take_u32(body, WHAT)?;
        attributes.mtime = Some(take_u32(body, WHAT)?);
    }
    if flags & EXTENDED != 0 {
        for _ in 0..take_u32(body, WHAT)? {
            take_string(body, WHAT)?;
            take_string(body, WHAT)?;
        }
    }
    Ok(attributes)
}

/// POSIX file types (`S_IFMT`); a server that leaves them out of the permissions tells no more than one without any.
fn file_kind(permissions: u32) -> FileKind {
    match permissions & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0 => FileKind::Unknown,
        _ => FileKind::Special,
    }
}

fn take_u32(body: &mut Bytes, what: &'static str) -> Result<u32, Malformed> {
    body.try_get_u32().map_err(|_| Malformed::CutShort(what))
}

fn take_u64(body: &mut Bytes, what: &'static str) -> Result<u64, Malformed> {
    body.try_get_u64().map_err(|_| Malformed::CutShort(what))
}

fn take_string(body: &mut Bytes, what: &'static str) -> Result<Bytes, Malformed> {
    let len = take_u32(body, what)? as usize;
    if len > body.len() {
        return Err(Malformed::CutShort(what));
    }
    Ok(body.split_to(len))
}

#[cfg(test)]
mod tests;
