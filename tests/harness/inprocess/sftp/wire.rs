//! SFTP version 3 packets (draft-ietf-secsh-filexfer-02), the server's half: requests taken apart, replies put
//! together. Names and handles are bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// `SSH_FX_*` (§7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// A request, less its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Open {
        path: Bytes,
        flags: u32,
    },
    Close {
        handle: Bytes,
    },
    Read {
        handle: Bytes,
        offset: u64,
        len: u32,
    },
    Lstat {
        path: Bytes,
    },
    Fstat {
        handle: Bytes,
    },
    OpenDir {
        path: Bytes,
    },
    ReadDir {
        handle: Bytes,
    },
    RealPath {
        path: Bytes,
    },
    Stat {
        path: Bytes,
    },
    ReadLink {
        path: Bytes,
    },
    Extended {
        name: Bytes,
    },
    /// One that this server does not serve.
    Other,
}

/// `SSH_FXF_READ` (§6.3).
pub const READ: u32 = 1;

/// What `limits@openssh.com` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_packet: u64,
    pub max_read: u64,
    pub max_write: u64,
    /// 0: no limit.
    pub max_handles: u64,
}

/// File attributes (§5): what is `None` is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attrs {
    pub size: Option<u64>,
    /// `st_mode`, with the file's type.
    pub permissions: Option<u32>,
    pub mtime: Option<u32>,
}

/// Takes the first whole packet off `input`, its length left out. `None`: more bytes are needed.
pub fn take_packet(input: &mut BytesMut) -> Option<Bytes> {
    let len = u32::from_be_bytes(input.get(..4)?.try_into().ok()?) as usize;
    if input.len() < 4 + len {
        return None;
    }
    input.advance(4);
    Some(input.split_to(len).freeze())
}

/// `SSH_FXP_INIT`'s version, where the packet is one.
pub fn init_version(packet: &Bytes) -> Option<u32> {
    let mut rest = packet.clone();
    (u8_of(&mut rest)? == 1).then(|| u32_of(&mut rest)).flatten()
}

/// The request's id and what it asks; `None` where the packet is malformed.
pub fn parse(packet: Bytes) -> Option<(u32, Request)> {
    let mut rest = packet;
    let kind = u8_of(&mut rest)?;
    let id = u32_of(&mut rest)?;
    let input = &mut rest;
    let request = match kind {
        3 => Request::Open { path: string(input)?, flags: u32_of(input)? },
        4 => Request::Close { handle: string(input)? },
        5 => Request::Read { handle: string(input)?, offset: u64_of(input)?, len: u32_of(input)? },
        7 => Request::Lstat { path: string(input)? },
        8 => Request::Fstat { handle: string(input)? },
        11 => Request::OpenDir { path: string(input)? },
        12 => Request::ReadDir { handle: string(input)? },
        16 => Request::RealPath { path: string(input)? },
        17 => Request::Stat { path: string(input)? },
        19 => Request::ReadLink { path: string(input)? },
        200 => Request::Extended { name: string(input)? },
        _ => Request::Other,
    };
    Some((id, request))
}

fn u8_of(input: &mut Bytes) -> Option<u8> {
    input.try_get_u8().ok()
}

fn u32_of(input: &mut Bytes) -> Option<u32> {
    input.try_get_u32().ok()
}

fn u64_of(input: &mut Bytes) -> Option<u64> {
    input.try_get_u64().ok()
}

fn string(input: &mut Bytes) -> Option<Bytes> {
    let len = u32_of(input)? as usize;
    (len <= input.len()).then(|| input.split_to(len))
}

/// `SSH_FXP_VERSION`.
pub fn version(extensions: &[(&str, &str)]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(2);
    body.put_u32(3);
    for (name, data) in extensions {
        put_string(&mut body, name.as_bytes());
        put_string(&mut body, data.as_bytes());
    }
    framed(&body)
}

/// A success or a failure, as `SSH_FXP_STATUS`.
pub fn status(id: u32, code: u32, message: &str) -> Bytes {
    let mut body = reply(101, id);
    body.put_u32(code);
    put_string(&mut body, message.as_bytes());
    put_string(&mut body, b"en");
    framed(&body)
}

pub fn ok(id: u32) -> Bytes {
    status(id, 0, "Success")
}

pub fn failed(id: u32, status_code: Status) -> Bytes {
    let message = match status_code {
        Status::Eof => "End of file",
        Status::NoSuchFile => "No such file",
        Status::PermissionDenied => "Permission denied",
        Status::Failure => "Failure",
        Status::BadMessage => "Bad message",
        Status::Unsupported => "Operation unsupported",
    };
    status(id, status_code as u32, message)
}

pub fn handle(id: u32, handle: &[u8]) -> Bytes {
    let mut body = reply(102, id);
    put_string(&mut body, handle);
    framed(&body)
}

pub fn data(id: u32, data: &[u8]) -> Bytes {
    let mut body = reply(103, id);
    put_string(&mut body, data);
    framed(&body)
}

/// `SSH_FXP_NAME`, with longnames as `ls -l` has them in part.
pub fn names<'a>(id: u32, names: impl ExactSizeIterator<Item = (&'a [u8], Attrs)>) -> Bytes {
    let mut body = reply(104, id);
    body.put_u32(names.len() as u32);
    for (name, attrs) in names {
        put_string(&mut body, name);
        let longname = [b"?????????? 1 partner partner 0 Jan 1 00:00 ".as_slice(), name].concat();
        put_string(&mut body, &longname);
        put_attrs(&mut body, attrs);
    }
    framed(&body)
}

pub fn attrs(id: u32, attrs: Attrs) -> Bytes {
    let mut body = reply(105, id);
    put_attrs(&mut body, attrs);
    framed(&body)
}

/// `SSH_FXP_EXTENDED_REPLY` to `limits@openssh.com`.
pub fn limits(id: u32, limits: Limits) -> Bytes {
    let mut body = reply(201, id);
    for limit in [limits.max_packet, limits.max_read, limits.max_write, limits.max_handles] {
        body.put_u64(limit);
    }
    framed(&body)
}

fn reply(kind: u8, id: u32) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u8(kind);
    body.put_u32(id);
    body
}

fn put_string(body: &mut BytesMut, bytes: &[u8]) {
    body.put_u32(bytes.len() as u32);
    body.put_slice(bytes);
}

fn put_attrs(body: &mut BytesMut, attrs: Attrs) {
    const SIZE: u32 = 1;
    const PERMISSIONS: u32 = 4;
    const TIMES: u32 = 8;
    let mut flags = 0;
    flags |= if attrs.size.is_some() { SIZE } else { 0 };
    flags |= if attrs.permissions.is_some() { PERMISSIONS } else { 0 };
    flags |= if attrs.mtime.is_some() { TIMES } else { 0 };
    body.put_u32(flags);
    if let Some(size) = attrs.size {
        body.put_u64(size);
    }
    if let Some(permissions) = attrs.permissions {
        body.put_u32(permissions);
    }
    if let Some(mtime) = attrs.mtime {
        // Access time, then modification time.
        body.put_u32(mtime);
        body.put_u32(mtime);
    }
}

/// `body` with its length before it.
pub fn framed(body: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(4 + body.len());
    put_string(&mut packet, body);
    packet.freeze()
}
