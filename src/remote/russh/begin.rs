//! How an SFTP session begins: the version agreed on, the server's limits learned.
//!
//! One message at a time, before there is anything to do side by side.

use bytes::Bytes;

use super::session::{Inbound, Outbound};
use crate::remote::path::bytes_to_text;
use crate::remote::protocol::{self, Framer, LIMITS_EXTENSION, Limits, Malformed, Message, Reply, Request};
use crate::remote::{Error, Kind};

/// Bytes asked for by one read, where the server allows it (OpenSSH: 255 KiB). Where one answer ends and the next begins, an
/// SSH packet holds bytes of both, and is kept for one or copied for the other: long answers have few such places.
const READ_LEN: u32 = 256 * 1024;

/// The same where the server states no limit; the draft promises no more (draft-ietf-secsh-filexfer-02 §3).
const READ_LEN_UNSTATED: u32 = 32 * 1024;

/// Handles open at once: what keeps a connection busy with small files, and what OpenSSH allows several times over.
const MAX_HANDLES: usize = 256;

/// The same where the server states no limit.
const HANDLES_UNSTATED: usize = 64;

/// An extension that OpenSSH's own `sftp-server` has since 8.0, and few others have: behind OpenSSH's sshd, which may run
/// any, it tells that one. It is a loop over its requests. Others answer in order, but work on several requests at once.
const OF_OPENSSH: &[u8] = b"lsetstat@openssh.com";

/// What the server said of itself when the session began.
#[derive(Debug, Default)]
pub struct Greeting {
    pub version: u32,
    pub extensions: Vec<(String, String)>,
}

/// What both sides keep to.
pub struct Agreement {
    pub greeting: Greeting,
    /// The most bytes that one read may ask for.
    pub read_len: u32,
    /// The most handles that may be open.
    pub handles: usize,
    /// The server has said so itself.
    pub handles_stated: bool,
    /// The server does what it is asked in the order in which it was asked.
    pub works_in_order: bool,
}

/// Agrees with the server, which messages call `peer`; `is_openssh` is what its SSH layer says it is. What it sends beyond
/// that stays in `framer`.
pub async fn agree(
    inbound: &mut impl Inbound,
    outbound: &mut impl Outbound,
    framer: &mut Framer,
    peer: &str,
    is_openssh: bool,
) -> Result<Agreement, Error> {
    let lost = |reason: String| Error::new(Kind::Lost, format!("no SFTP session with {peer}: {reason}"));
    let version = exchange(inbound, outbound, framer, protocol::init()).await.map_err(lost)?;
    let Message::Version { version, extensions } = version else {
        return Err(lost("it did not begin with its version".to_owned()));
    };
    if version < protocol::VERSION {
        return Err(lost(format!("it speaks SFTP version {version}, and 3 is needed")));
    }
    let mut limits = None;
    if extensions.iter().any(|(name, _)| name == LIMITS_EXTENSION) {
        let reply = exchange(inbound, outbound, framer, Request::Limits.encode(0)).await.map_err(lost)?;
        if let Message::Reply { id: 0, reply: Reply::Extended(body) } = reply {
            match Limits::decode(body) {
                Ok(stated) => limits = Some(stated),
                Err(malformed) => {
                    tracing::debug!(%malformed, "the server's limits cannot be read: going by the usual ones")
                }
            }
        }
    }
    let works_in_order = is_openssh && extensions.iter().any(|(name, _)| name == OF_OPENSSH);
    let extensions = extensions.iter().map(|(name, data)| (bytes_to_text(name), bytes_to_text(data))).collect();
    let stated = limits.map(|limits| limits.max_open_handles).filter(|stated| *stated > 0);
    Ok(Agreement {
        greeting: Greeting { version, extensions },
        read_len: read_len(limits.as_ref()),
        handles: stated
            .map_or(HANDLES_UNSTATED, |stated| usize::try_from(stated).unwrap_or(MAX_HANDLES).min(MAX_HANDLES)),
        handles_stated: stated.is_some(),
        works_in_order,
    })
}

fn read_len(limits: Option<&Limits>) -> u32 {
    /// What a data packet holds beside the data, with room to spare; OpenSSH takes as much off.
    const PACKET_OVERHEAD: u64 = 1024;
    let Some(limits) = limits else { return READ_LEN_UNSTATED };
    let stated = |limit: u64, unstated| if limit == 0 { unstated } else { limit };
    let by_packet = stated(limits.max_packet_len, u64::MAX).saturating_sub(PACKET_OVERHEAD);
    let by_read = stated(limits.max_read_len, u64::from(READ_LEN_UNSTATED));
    let len = by_read.min(by_packet).clamp(512, u64::from(READ_LEN));
    len as u32 // no more than READ_LEN
}

/// One message for another, before the session has tasks.
async fn exchange(
    inbound: &mut impl Inbound,
    outbound: &mut impl Outbound,
    framer: &mut Framer,
    request: Bytes,
) -> Result<Message, String> {
    let sent = outbound.send(request).await;
    loop {
        if let Some(message) = framer.next_message().map_err(not_sftp)? {
            return Ok(message);
        }
        // Where the channel is gone, its receiving end knows why.
        framer.push(inbound.receive().await?);
        if sent.is_err() {
            return Err("the channel is closed".to_owned());
        }
    }
}

/// In words, with what is most often behind it.
pub fn not_sftp(malformed: Malformed) -> String {
    format!("the server sent what is not SFTP ({malformed}); the greeting of a login shell is a common cause")
}
