//! From an endpoint to a connection that is ready to log in: addresses, TCP, key exchange, and the host key.
//!
//! The host key is judged inside the key exchange. If it is not trusted the connection ends there: no login has begun,
//! and not even a user name was sent.

use std::borrow::Cow;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use russh::client::{Config, DisconnectReason, GexParams, Handler, Session};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate};
use russh::{Disconnect, Limits, Preferred, SshId, cipher, compression, kex, mac};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::remote::host_key::Order;
use crate::remote::{Endpoint, Error, HostKey, HostKeyPolicy, Kind, ServerInfo};

/// How long an address is tried alone before the next is tried beside it (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// What may be on its way to us unread: twice the widest window of reads, since it is topped up when half of it is used.
const CHANNEL_WINDOW: u32 = 32 * 1024 * 1024;

/// The most that the crate allows itself.
const CHANNEL_PACKET: u32 = 65535;

/// Packets that wait to be taken from the channel before the connection is read no further.
const CHANNEL_BUFFER: usize = 64;

/// Without a byte for this long, the server is asked for one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Bytes of a server's greeting that are kept.
const BANNER_KEPT: usize = 8 * 1024;

pub type Handle = russh::client::Handle<Watcher>;

/// How to connect to an endpoint, asking for its host keys in this order. A key is used for at most `rekey_after` bytes.
pub fn config(endpoint: &Endpoint, rekey_after: usize, host_keys: &Order) -> Arc<Config> {
    let unanswered = endpoint.idle_timeout.as_secs().div_ceil(KEEPALIVE_INTERVAL.as_secs()).max(1);
    Arc::new(Config {
        // RFC 4253 §4.2: no minus sign in the version.
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-sftp_s3_connector_", env!("CARGO_PKG_VERSION")))),
        limits: Limits { rekey_read_limit: rekey_after, rekey_write_limit: rekey_after, ..Limits::default() },
        window_size: CHANNEL_WINDOW,
        maximum_packet_size: CHANNEL_PACKET,
        channel_buffer_size: CHANNEL_BUFFER,
        preferred: preferred(host_keys),
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        // The interval in which the limit is passed counts too.
        keepalive_max: usize::try_from(unanswered).unwrap_or(usize::MAX),
        // RFC 8270 §3: no group below 2048 bits.
        gex: GexParams::new(2048, 4096, 8192).unwrap_or_default(),
        ..Config::default()
    })
}

/// AES-GCM first, for it costs least; what only old servers speak last.
fn preferred(host_keys: &Order) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::ECDH_SHA2_NISTP521,
            kex::DH_G16_SHA512,
            kex::DH_G14_SHA256,
            kex::DH_G18_SHA512,
            kex::DH_GEX_SHA256,
            kex::DH_G14_SHA1,
            kex::DH_GEX_SHA1,
            kex::DH_G1_SHA1,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]),
        key: Cow::Owned(host_key_algorithms(host_keys)),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::AES_128_CTR,
            cipher::AES_192_CTR,
            cipher::AES_256_CTR,
            cipher::CHACHA20_POLY1305,
            cipher::AES_128_CBC,
            cipher::AES_192_CBC,
            cipher::AES_256_CBC,
            cipher::TRIPLE_DES_CBC,
        ]),
        mac: Cow::Borrowed(&[
            mac::HMAC_SHA256_ETM,
            mac::HMAC_SHA512_ETM,
            mac::HMAC_SHA256,
            mac::HMAC_SHA512,
            mac::HMAC_SHA1_ETM,
            mac::HMAC_SHA1,
        ]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// What is asked for first in front.
fn host_key_algorithms(order: &Order) -> Vec<Algorithm> {
    let mut algorithms = vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        Algorithm::Rsa { hash: None },
    ];
    algorithms.sort_by_key(|algorithm| order.rank(algorithm.as_str()));
    algorithms
}

/// The TCP connection beneath, which ends when this is dropped, whatever the task that uses it waits for.
pub struct Socket(std::net::TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Connects to the first of the host's addresses that answers.
pub async fn tcp(endpoint: &Endpoint) -> Result<(TcpStream, Socket), Error> {
    let (host, port) = (endpoint.host.as_str(), endpoint.port);
    let unreachable = |why: String| Error::new(Kind::Unreachable, format!("cannot reach {host} port {port}: {why}"));
    let addresses = lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> =
        addresses.map_err(|error| unreachable(format!("its name does not resolve: {error}")))?.collect();
    if addresses.is_empty() {
        return Err(unreachable("its name has no address".to_owned()));
    }
    let stream = first_to_answer(in_turns(addresses)).await.map_err(unreachable)?;
    split_off(stream).map_err(|error| unreachable(error.to_string()))
}

fn split_off(stream: TcpStream) -> io::Result<(TcpStream, Socket)> {
    let stream = stream.into_std()?;
    let socket = Socket(stream.try_clone()?);
    Ok((TcpStream::from_std(stream)?, socket))
}

/// The resolver's order, but the two families in turns (RFC 8305 §4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let turns = first.len().max(second.len());
    (0..turns).flat_map(|turn| [first.get(turn), second.get(turn)]).flatten().copied().collect()
}

/// The winner of a race in which each address has a head start over the next; or how each of them failed.
async fn first_to_answer(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut to_try = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = to_try.next() {
            trying.push(async move { (address, connect_to(address).await) });
        }
        tokio::select! {
            answer = trying.next() => match answer {
                Some((_, Ok(stream))) => return Ok(stream),
                Some((address, Err(error))) => failures.push(format!("{address}: {error}")),
                None => return Err(failures.join("; ")),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if to_try.len() > 0 => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

/// What a connection has told of itself so far, and how it ended.
#[derive(Default)]
pub struct Told {
    pub server: ServerInfo,
    end: Option<End>,
}

/// How the server or the connection brought it to an end.
pub enum End {
    /// By a message, with its reason code where it is one of RFC 4253 §11.1.
    Disconnected {
        reason: Disconnect,
        words: String,
    },
    Failed(russh::Error),
}

/// Sees what happens on a connection. Clones see the same one.
#[derive(Clone)]
pub struct Watcher {
    policy: HostKeyPolicy,
    host: String,
    port: u16,
    told: Arc<Mutex<Told>>,
}

/// Why the connection was not established.
#[derive(Debug)]
pub enum NotConnected {
    HostKey(Error),
    Ssh(russh::Error),
}

impl From<russh::Error> for NotConnected {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Watcher {
    pub fn new(endpoint: &Endpoint) -> Self {
        let Endpoint { host, port, host_keys, .. } = endpoint;
        Self { policy: host_keys.clone(), host: host.clone(), port: *port, told: Arc::default() }
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the connection ended, if it has, told once.
    pub fn take_end(&self) -> Option<End> {
        self.told().end.take()
    }

    /// Exchanges keys, and ends with an error where the host key is not trusted.
    pub async fn shake_hands(&self, config: Arc<Config>, stream: TcpStream) -> Result<Handle, Error> {
        russh::client::connect_stream(config, stream, self.clone()).await.map_err(|error| match error {
            NotConnected::HostKey(error) => error,
            NotConnected::Ssh(error) => {
                let kind =
                    if matches!(error, russh::Error::NoCommonAlgo { .. }) { Kind::Unreachable } else { Kind::Lost };
                let end = self.take_end().unwrap_or(End::Failed(error));
                Error::new(kind, format!("no SSH connection with {} port {}: {end}", self.host, self.port))
            }
        })
    }

    fn judge(&self, key: &PublicKeyOrCertificate) -> Result<(), Error> {
        let refuse = |why: String| Error::new(Kind::HostKey, format!("the host key of {}: {why}", self.host));
        let blob = key.public_key().to_bytes().map_err(|error| refuse(error.to_string()))?;
        let key = HostKey::from_blob(blob).map_err(|error| refuse(error.to_string()))?;
        let verdict = self.policy.check(&key, &self.host, self.port);
        self.told().server.host_key = Some(key);
        verdict
    }
}

impl Handler for Watcher {
    type Error = NotConnected;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, NotConnected> {
        self.judge(key).map_err(NotConnected::HostKey)?;
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), NotConnected> {
        let server = &mut self.told().server;
        // Only the first time: a key exchange later on changes nothing that is told.
        if server.algorithms.is_empty() {
            let identification = String::from_utf8_lossy(session.remote_sshid());
            server.identification = identification.trim_end().to_owned();
            server.algorithms = algorithms(names);
        }
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), NotConnected> {
        let told = &mut self.told().server.banner;
        let text = told.get_or_insert_default();
        let shown = banner.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t'));
        text.extend(shown.take(BANNER_KEPT.saturating_sub(text.len())));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<NotConnected>) -> Result<(), NotConnected> {
        let end = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                End::Disconnected { reason: info.reason_code, words: info.message }
            }
            DisconnectReason::Error(NotConnected::Ssh(error)) => End::Failed(error),
            DisconnectReason::Error(NotConnected::HostKey(_)) => return Ok(()),
        };
        self.told().end = Some(end);
        Ok(())
    }
}

fn algorithms(names: &russh::Names) -> Vec<(&'static str, String)> {
    let cipher = names.cipher.as_ref();
    let mut algorithms = vec![
        ("kex", names.kex.as_ref().to_owned()),
        ("host-key", names.key.as_str().to_owned()),
        ("cipher", cipher.to_owned()),
    ];
    // These two authenticate by themselves, and a MAC that is negotiated beside them is not used.
    if ![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305].contains(&names.cipher) {
        algorithms.push(("mac", names.server_mac.as_ref().to_owned()));
    }
    algorithms.push(("compression", "none".to_owned()));
    algorithms
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disconnected { words, .. } if words.is_empty() => f.write_str("the server ended the connection"),
            Self::Disconnected { words, .. } => write!(f, "the server ended the connection and said {words:?}"),
            Self::Failed(error) => write_failure(error, f),
        }
    }
}

fn write_failure(error: &russh::Error, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let what = match kind {
                russh::AlgorithmKind::Kex => "key exchange",
                russh::AlgorithmKind::Key => "host key type",
                russh::AlgorithmKind::Cipher => "cipher",
                russh::AlgorithmKind::Compression => "compression",
                russh::AlgorithmKind::Mac => "MAC",
            };
            write!(f, "no common {what}: the server offers {}; SFTP_ENGINE=libssh2 may know one", theirs.join(", "))
        }
        russh::Error::Version => f.write_str("what answers is not an SSH server"),
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::RecvError | russh::Error::SendError => {
            f.write_str("the server closed the connection")
        }
        russh::Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            f.write_str("the server closed the connection")
        }
        russh::Error::KeepaliveTimeout => f.write_str("the server does not answer any more"),
        other => write!(f, "{other}"),
    }
}
