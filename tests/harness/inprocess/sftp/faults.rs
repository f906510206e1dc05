//! How a server departs from OpenSSH's ways: lawful habits of other servers, and plain misdeeds.

use std::ops::RangeInclusive;

/// Departures of one server. The default has none.
#[derive(Debug, Clone)]
pub struct Quirks {
    /// More open handles than this on a connection are refused with `SSH_FX_FAILURE`.
    pub max_handles: Option<usize>,
    /// More connections than this at one time are closed as soon as they are accepted.
    pub max_connections: Option<usize>,
    /// Whether `limits@openssh.com` is offered.
    pub limits: bool,
    /// Most bytes in one reply to a read, whatever was asked for.
    pub max_read: usize,
    /// Handles of 32 random bytes, which are not UTF-8, in place of OpenSSH's four-byte counter.
    pub random_handles: bool,
    /// Replies to requests that arrive together leave in reverse.
    pub reversed_replies: bool,
    /// Parts of the attributes that are never sent.
    pub omit_sizes: bool,
    pub omit_times: bool,
    pub omit_permissions: bool,
    /// Connections, counted from 1, that are not served.
    pub refusals: Vec<(RangeInclusive<u64>, Refusal)>,
    pub faults: Vec<Fault>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            max_handles: None,
            max_connections: None,
            limits: true,
            // OpenSSH's: a packet of 256 KiB less 1 KiB for what surrounds the data.
            max_read: 255 * 1024,
            random_handles: false,
            reversed_replies: false,
            omit_sizes: false,
            omit_times: false,
            omit_permissions: false,
            refusals: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Quirks {
    /// One fault, otherwise well behaved.
    pub fn fault(fault: Fault) -> Self {
        Self { faults: vec![fault], ..Self::default() }
    }

    pub(super) fn refusal(&self, connection: u64, open: usize) -> Option<Refusal> {
        if self.max_connections.is_some_and(|most| open >= most) {
            return Some(Refusal::Close);
        }
        self.refusals.iter().find(|(numbers, _)| numbers.contains(&connection)).map(|(_, refusal)| *refusal)
    }
}

/// How a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Closed at once.
    Close,
    /// Held open; not a byte is sent.
    Silence,
}

/// A misdeed, on which connections and when.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Connections, counted from 1.
    pub connections: RangeInclusive<u64>,
    pub trigger: Trigger,
    pub misdeed: Misdeed,
}

impl Fault {
    pub fn on_every_connection(trigger: Trigger, misdeed: Misdeed) -> Self {
        Self { connections: 1..=u64::MAX, trigger, misdeed }
    }

    pub fn on_connections(connections: RangeInclusive<u64>, trigger: Trigger, misdeed: Misdeed) -> Self {
        Self { connections, trigger, misdeed }
    }
}

/// When a misdeed happens: once on a connection, in place of the reply that would have been next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// After this many replies, `SSH_FXP_VERSION` counted.
    Replies(u64),
    /// After this many bytes of file data.
    Bytes(u64),
    /// After this many replies to reads.
    Reads(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// Nothing is sent any more; the connection stays open.
    Stall,
    /// The TCP connection is closed in the middle of things.
    Cut,
    /// The SFTP channel is closed in good order.
    CloseChannel,
    /// The reply carries an id that nobody asked with.
    WrongId,
    /// A packet that says to be this long.
    Length(u32),
    /// The reply's packet is cut short after its id: a length that is true, and fields that are missing.
    Truncated,
    /// A reply of a type that no request has.
    WrongType,
    /// More data than the read asked for.
    TooMuchData,
    /// The reply's data is empty, which is neither data nor the end of the file.
    EmptyData,
}
