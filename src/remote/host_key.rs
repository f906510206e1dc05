//! Which host keys are trusted, and what to say of one that is not.
//!
//! Pure: keys as text and as bytes in, a verdict in words out. No input panics; no message echoes what was given beyond
//! the name of a key type, since what lands in the wrong field may be a secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use super::{Error, Kind};

mod search;

pub use search::{KnownType, Order, Search};

/// Padding is optional: OpenSSH leaves it out of fingerprints, other tools do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What every key's base64 begins with: its first field is a name shorter than 256 bytes, so three zero bytes lead.
const BLOB_START: &str = "AAAA";

/// A public host key as the server presents it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, … The type of the key, not of a signature made with it: an RSA
    /// key is `ssh-rsa` also where `rsa-sha2-512` was negotiated (RFC 8332 §3).
    pub algorithm: String,
    /// The key in its wire format (RFC 4253 §6.6).
    pub blob: Vec<u8>,
}

/// One key that is trusted: the key itself, or its SHA-256 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedHostKey {
    Key(HostKey),
    /// SHA-256 of the key's wire format.
    Fingerprint([u8; 32]),
}

/// What a presented key is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// `HOST_KEY_CHECK=strict`. An empty list trusts nothing, and the error shows the key to pin.
    Strict(Vec<TrustedHostKey>),
    /// `HOST_KEY_CHECK=off`.
    Off,
}

/// Why a text is not a trusted host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustedHostKeyError {
    #[error("no host key: expected {EXPECTED}")]
    Empty,
    #[error("not a host key: expected {EXPECTED}")]
    Unrecognised,
    #[error("a private key was given where the server's public host key belongs: expected {EXPECTED}")]
    PrivateKey,
    #[error("a known_hosts line marked {0} is not a host key: give the server's own key, as `ssh-keyscan` prints it")]
    Marker(String),
    #[error("an MD5 fingerprint proves too little: give the SHA256 one, or the key as `ssh-keyscan` prints it")]
    Md5,
    #[error("the fingerprint after `SHA256:` is not the base64 of 32 bytes: was a part of it lost?")]
    Fingerprint,
    #[error("the key after {0:?} is not base64: was a part of it lost?")]
    Base64(String),
    #[error("the key after {0:?} is not a whole public key: was a part of it lost?")]
    Malformed(String),
    #[error("the key is of type {inner:?}, but the text before it says {outer:?}")]
    TypeMismatch { outer: String, inner: String },
}

const EXPECTED: &str = "`ssh-ed25519 AAAA…` (a line of `ssh-keyscan`) or `SHA256:…`";

impl HostKey {
    /// A key from its wire format, which must be whole: a type's name, then fields with nothing missing or left over.
    pub fn from_blob(blob: impl Into<Vec<u8>>) -> Result<Self, TrustedHostKeyError> {
        let blob = blob.into();
        let (name, mut rest) = split_field(&blob).ok_or(TrustedHostKeyError::Unrecognised)?;
        let algorithm = match std::str::from_utf8(name) {
            Ok(name) if is_type_name(name) => name.to_owned(),
            _ => return Err(TrustedHostKeyError::Unrecognised),
        };
        let mut fields = Vec::new();
        while !rest.is_empty() {
            match split_field(rest) {
                Some((field, after)) => {
                    fields.push(field);
                    rest = after;
                }
                None => return Err(TrustedHostKeyError::Malformed(algorithm)),
            }
        }
        let whole = match (algorithm.as_str(), fields.as_slice()) {
            ("ssh-ed25519", [key]) => key.len() == 32,
            ("ssh-rsa", [exponent, modulus]) => !exponent.is_empty() && !modulus.is_empty(),
            ("ssh-ed25519" | "ssh-rsa", _) => false,
            (name, fields) => match (name.strip_prefix("ecdsa-sha2-"), fields) {
                (Some(curve), [named, point]) => *named == curve.as_bytes() && !point.is_empty(),
                (Some(_), _) => false,
                (None, fields) => !fields.is_empty(),
            },
        };
        if whole { Ok(Self { algorithm, blob }) } else { Err(TrustedHostKeyError::Malformed(algorithm)) }
    }

    /// `SHA256:…`, as OpenSSH prints it.
    pub fn fingerprint(&self) -> String {
        show_fingerprint(&self.digest())
    }

    /// `ssh-ed25519 AAAA…`: what to pin.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.algorithm, BASE64_STANDARD.encode(&self.blob))
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.blob).into()
    }
}

impl TrustedHostKey {
    /// Every key of a text in which they are separated by commas or newlines, as `TRUSTED_HOST_KEYS` and `ssh-keyscan`
    /// have them. Empty lines and lines that start with `#` are passed over; all faults come back, in order.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Vec<TrustedHostKeyError>> {
        let mut keys = Vec::new();
        let mut faults = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            for item in items(line) {
                match item.parse() {
                    Ok(key) => keys.push(key),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        if faults.is_empty() { Ok(keys) } else { Err(faults) }
    }

    /// Whether `presented` is this key. Only the wire format counts: one RSA key, whatever its signatures are called.
    pub fn matches(&self, presented: &HostKey) -> bool {
        match self {
            Self::Key(key) => key.blob == presented.blob,
            Self::Fingerprint(digest) => *digest == presented.digest(),
        }
    }

    /// `SHA256:…`, of either form.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Key(key) => key.fingerprint(),
            Self::Fingerprint(digest) => show_fingerprint(digest),
        }
    }
}

impl FromStr for TrustedHostKey {
    type Err = TrustedHostKeyError;

    /// `[host] type base64 [comment]` or `SHA256:base64`. The host is not looked at: the key is trusted for the one
    /// server that a run talks to, and its name may be hashed. What `ssh-keygen -l` prints is taken too.
    fn from_str(text: &str) -> Result<Self, TrustedHostKeyError> {
        if text.contains("PRIVATE KEY") {
            return Err(TrustedHostKeyError::PrivateKey);
        }
        let words: Vec<&str> = text.split_ascii_whitespace().take(3).collect();
        match words.as_slice() {
            [] => Err(TrustedHostKeyError::Empty),
            ["@cert-authority" | "@revoked", ..] => Err(TrustedHostKeyError::Marker(words[0].to_owned())),
            [bits, word, ..] if bits.bytes().all(|byte| byte.is_ascii_digit()) => parse_fingerprint(word),
            [outer, key, ..] if key.starts_with(BLOB_START) => parse_key(outer, key),
            [_, outer, key] if key.starts_with(BLOB_START) => parse_key(outer, key),
            [word, ..] => parse_fingerprint(word),
        }
    }
}

impl fmt::Display for TrustedHostKey {
    /// Text that parses to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(&key.to_line()),
            Self::Fingerprint(digest) => f.write_str(&show_fingerprint(digest)),
        }
    }
}

impl HostKeyPolicy {
    /// Whether the key that `host:port` presented is trusted; [`Kind::HostKey`] with what to do if it is not.
    pub fn check(&self, presented: &HostKey, host: &str, port: u16) -> Result<(), Error> {
        let trusted = match self {
            Self::Off => return Ok(()),
            Self::Strict(trusted) => trusted,
        };
        if trusted.iter().any(|key| key.matches(presented)) {
            return Ok(());
        }
        Err(self.refusal(std::slice::from_ref(presented), host, port))
    }

    /// What to say of keys that `host:port` presented and that are not trusted, in the order of its connections. There is
    /// one at least.
    fn refusal(&self, presented: &[HostKey], host: &str, port: u16) -> Error {
        let shown: Vec<_> = presented.iter().map(|key| format!("{} ({})", key.fingerprint(), key.algorithm)).collect();
        let shown = shown.join(", ");
        let message = match (self, presented) {
            (Self::Strict(trusted), _) if !trusted.is_empty() => {
                let pinned: Vec<String> = trusted.iter().map(TrustedHostKey::fingerprint).collect();
                format!(
                    "the host key of {host} port {port} is not a trusted one, so nothing was sent to it.\n  \
                     presented: {shown}\n  trusted ({count}): {pinned}\n\
                     Either the server has a new key or somebody intercepts the connection. Do not pin the new key before \
                     the server's operator has confirmed its fingerprint, by another way than this connection.",
                    count = pinned.len(),
                    pinned = pinned.join(", "),
                )
            }
            (_, keys) => {
                let line = keys.first().map(HostKey::to_line).unwrap_or_default();
                let fingerprint = keys.first().map(HostKey::fingerprint).unwrap_or_default();
                format!(
                    "no trusted host key is given for {host} port {port}, so nothing was sent to it. It presented this \
                     key:\n  {line}\n  {fingerprint}\n\
                     Ask the server's operator for the fingerprint, by another way than this connection. If it is the same, \
                     pin the key: TRUSTED_HOST_KEYS=\"{line}\", or that line as TrustedHostKeys in the secret."
                )
            }
        };
        Error::new(Kind::HostKey, message)
    }

    /// The host key algorithms to ask for first, so that a server with several keys presents a pinned one. Empty where
    /// nothing, or only fingerprints, are pinned.
    pub fn preferred_algorithms(&self) -> Vec<&str> {
        let mut preferred = Vec::new();
        let Self::Strict(trusted) = self else { return preferred };
        for key in trusted {
            let TrustedHostKey::Key(key) = key else { continue };
            for name in search::signed_as(&key.algorithm) {
                if !preferred.contains(&name) {
                    preferred.push(name);
                }
            }
        }
        preferred
    }
}

/// One line cut at its commas, but not at those between the names of one host (`sftp.example.com,192.0.2.1 ssh-rsa …`):
/// a piece without a space that is no fingerprint belongs to what follows it.
fn items(line: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut start = 0;
    for (at, _) in line.match_indices(',').chain([(line.len(), "")]) {
        let piece = line[start..at].trim();
        let names_host = !piece.contains(char::is_whitespace) && !is_fingerprint(piece);
        if at == line.len() || piece.is_empty() || !names_host {
            if !piece.is_empty() {
                items.push(piece);
            }
            start = (at + 1).min(line.len());
        }
    }
    items
}

fn is_fingerprint(word: &str) -> bool {
    word.starts_with("SHA256:") || word.starts_with("MD5:")
}

fn parse_fingerprint(word: &str) -> Result<TrustedHostKey, TrustedHostKeyError> {
    if word.starts_with("MD5:") {
        return Err(TrustedHostKeyError::Md5);
    }
    let digest = word.strip_prefix("SHA256:").ok_or(TrustedHostKeyError::Unrecognised)?;
    let digest = BASE64.decode(digest).map_err(|_| TrustedHostKeyError::Fingerprint)?;
    let digest = digest.try_into().map_err(|_| TrustedHostKeyError::Fingerprint)?;
    Ok(TrustedHostKey::Fingerprint(digest))
}

fn parse_key(outer: &str, key: &str) -> Result<TrustedHostKey, TrustedHostKeyError> {
    if !is_type_name(outer) {
        return Err(TrustedHostKeyError::Unrecognised);
    }
    let blob = BASE64.decode(key).map_err(|_| TrustedHostKeyError::Base64(outer.to_owned()))?;
    let key = HostKey::from_blob(blob).map_err(|_| TrustedHostKeyError::Malformed(outer.to_owned()))?;
    if key.algorithm != outer {
        return Err(TrustedHostKeyError::TypeMismatch { outer: outer.to_owned(), inner: key.algorithm });
    }
    Ok(TrustedHostKey::Key(key))
}

/// Printable ASCII without a comma, at most 64 characters (RFC 4250 §4.6.1).
fn is_type_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A `string` of RFC 4251 §5, and what follows it.
fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn show_fingerprint(digest: &[u8; 32]) -> String {
    format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests;
