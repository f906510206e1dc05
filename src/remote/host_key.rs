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
        let (line, fingerprint) = (presented.to_line(), presented.fingerprint());
        let message = if trusted.is_empty() {
            format!(
                "no trusted host key is given for {host} port {port}, so nothing was sent to it. It presented this key:\n  \
                 {line}\n  {fingerprint}\n\
                 Ask the server's operator for the fingerprint, by another way than this connection. If it is the same, pin \
                 the key: TRUSTED_HOST_KEYS=\"{line}\", or that line as TrustedHostKeys in the secret."
            )
        } else {
            let pinned: Vec<String> = trusted.iter().map(TrustedHostKey::fingerprint).collect();
            format!(
                "the host key of {host} port {port} is not a trusted one, so nothing was sent to it.\n  \
                 presented: {fingerprint} ({algorithm})\n  trusted ({count}): {pinned}\n\
                 Either the server has a new key or somebody intercepts the connection. Do not pin the new key before the \
                 server's operator has confirmed its fingerprint, by another way than this connection.",
                algorithm = presented.algorithm,
                count = pinned.len(),
                pinned = pinned.join(", "),
            )
        };
        Err(Error::new(Kind::HostKey, message))
    }

    /// The host key algorithms to ask for first, so that a server with several keys presents a pinned one. Empty where
    /// nothing, or only fingerprints, are pinned.
    pub fn preferred_algorithms(&self) -> Vec<&str> {
        let mut preferred = Vec::new();
        let Self::Strict(trusted) = self else { return preferred };
        for key in trusted {
            let TrustedHostKey::Key(key) = key else { continue };
            let names: &[&str] = match key.algorithm.as_str() {
                "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
                other => &[other],
            };
            for name in names {
                if !preferred.contains(name) {
                    preferred.push(*name);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    // Published by GitHub for the key above.
    const ED25519_FINGERPRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

    fn key(algorithm: &str, fields: &[&[u8]]) -> HostKey {
        let mut blob = Vec::new();
        for field in [algorithm.as_bytes()].iter().chain(fields) {
            blob.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
            blob.extend_from_slice(field);
        }
        HostKey { algorithm: algorithm.to_owned(), blob }
    }

    fn ed25519(byte: u8) -> HostKey {
        key("ssh-ed25519", &[&[byte; 32]])
    }

    fn parse(text: &str) -> Result<TrustedHostKey, TrustedHostKeyError> {
        text.parse()
    }

    #[test]
    fn a_published_key_has_its_published_fingerprint() {
        let trusted = parse(ED25519).unwrap();
        assert_eq!(trusted.fingerprint(), ED25519_FINGERPRINT);
        assert_eq!(trusted.to_string(), ED25519);
    }

    #[test]
    fn a_leading_host_and_a_trailing_comment_change_nothing() {
        let trusted = parse(ED25519).unwrap();
        for text in [
            format!("{ED25519} root@sftp"),
            format!("sftp.example.com {ED25519}"),
            format!("[sftp.example.com]:2222 {ED25519} a comment of words"),
            format!("[::1]:2222 {ED25519}"),
            format!("sftp.example.com,192.0.2.1 {ED25519}"),
            format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {ED25519}"),
            format!("  \t{ED25519}\r\n"),
        ] {
            assert_eq!(parse(&text).as_ref(), Ok(&trusted), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_with_or_without_its_padding_and_as_ssh_keygen_prints_it() {
        let TrustedHostKey::Key(key) = parse(ED25519).unwrap() else { panic!("a key") };
        for text in [
            ED25519_FINGERPRINT.to_owned(),
            format!("{ED25519_FINGERPRINT}="),
            format!("256 {ED25519_FINGERPRINT} sftp (ED25519)"),
        ] {
            assert!(parse(&text).unwrap().matches(&key), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        use TrustedHostKeyError as E;
        let (kind, base64) = ED25519.split_once(' ').unwrap();
        let cases = [
            ("", E::Empty),
            ("sftp.example.com", E::Unrecognised),
            (base64, E::Unrecognised),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", E::PrivateKey),
            ("MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", E::Md5),
            ("SHA256:abc", E::Fingerprint),
            ("SHA256:", E::Fingerprint),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(
            parse(&format!("@cert-authority *.example.com {ED25519}")),
            Err(E::Marker("@cert-authority".into()))
        );
        assert_eq!(parse(&format!("{kind} AAAA*")), Err(E::Base64(kind.into())));
        assert_eq!(parse(&ED25519[..ED25519.len() - 4]), Err(E::Malformed(kind.into())));
        assert_eq!(
            parse(&format!("ssh-rsa {base64}")),
            Err(E::TypeMismatch { outer: "ssh-rsa".into(), inner: "ssh-ed25519".into() })
        );
    }

    #[test]
    fn a_list_is_cut_at_commas_and_lines_but_not_inside_a_host() {
        let (one, two) = (ed25519(1).to_line(), ed25519(2).to_line());
        let text = format!(
            "# sftp.example.com:22 SSH-2.0-OpenSSH_9.2\nsftp.example.com,192.0.2.1 {one}, {two} comment\n\n{ED25519_FINGERPRINT},\n"
        );
        let keys = TrustedHostKey::parse_list(&text).unwrap();
        assert_eq!(keys, [parse(&one).unwrap(), parse(&two).unwrap(), parse(ED25519_FINGERPRINT).unwrap()]);
        assert_eq!(TrustedHostKey::parse_list(" ,\n"), Ok(vec![]));
        assert_eq!(
            TrustedHostKey::parse_list("what\nSHA256:x"),
            Err(vec![TrustedHostKeyError::Unrecognised, TrustedHostKeyError::Fingerprint])
        );
    }

    #[test]
    fn with_nothing_pinned_the_error_shows_the_key_and_how_to_pin_it() {
        let presented = ed25519(7);
        let error = HostKeyPolicy::Strict(vec![]).check(&presented, "sftp.example.com", 2222).unwrap_err();
        assert_eq!(error.kind, Kind::HostKey);
        let message = error.to_string();
        assert!(message.contains(&format!("TRUSTED_HOST_KEYS=\"{}\"", presented.to_line())), "{message}");
        for part in [presented.fingerprint().as_str(), "sftp.example.com port 2222", "TrustedHostKeys"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }

    #[test]
    fn a_key_that_is_not_pinned_is_refused_with_both_fingerprints_and_not_offered_for_pinning() {
        let (presented, pinned) = (ed25519(1), ed25519(2));
        let policy = HostKeyPolicy::Strict(vec![TrustedHostKey::Key(pinned.clone())]);
        let message = policy.check(&presented, "h", 22).unwrap_err().to_string();
        assert!(message.contains(&presented.fingerprint()) && message.contains(&pinned.fingerprint()), "{message}");
        assert!(!message.contains("TRUSTED_HOST_KEYS"), "{message}");
        assert!(policy.check(&pinned, "h", 22).is_ok());
        assert!(HostKeyPolicy::Off.check(&presented, "h", 22).is_ok());
    }

    #[test]
    fn pinned_types_are_preferred_and_rsa_by_every_name_of_its_signatures() {
        let rsa = TrustedHostKey::Key(key("ssh-rsa", &[&[1, 0, 1], &[0x7f; 256]]));
        let pinned = vec![rsa.clone(), TrustedHostKey::Key(ed25519(1)), rsa, TrustedHostKey::Fingerprint([0; 32])];
        assert_eq!(
            HostKeyPolicy::Strict(pinned).preferred_algorithms(),
            ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ssh-ed25519"]
        );
        assert!(HostKeyPolicy::Strict(vec![TrustedHostKey::Fingerprint([0; 32])]).preferred_algorithms().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
            let _ = TrustedHostKey::parse_list(&text);
        }

        #[test]
        fn no_text_that_resembles_a_key_panics(
            words in proptest::collection::vec("(ssh-rsa|SHA256:[A-Za-z0-9+/]{0,44}=?|AAAA[A-Za-z0-9+/]{0,60}|@[a-z]*|,|\\PC{0,5})", 0..5),
        ) {
            let text = words.join(" ");
            let _ = parse(&text);
            let _ = TrustedHostKey::parse_list(&text);
        }

        #[test]
        fn no_blob_panics(blob in any::<Vec<u8>>()) {
            let _ = HostKey::from_blob(blob);
        }

        #[test]
        fn a_key_survives_being_written_and_read(bytes in any::<[u8; 32]>(), point in proptest::collection::vec(any::<u8>(), 1..140)) {
            for key in [key("ssh-ed25519", &[&bytes]), key("ecdsa-sha2-nistp256", &[b"nistp256", &point])] {
                prop_assert_eq!(HostKey::from_blob(key.blob.clone()), Ok(key.clone()));
                let trusted = parse(&key.to_line()).unwrap();
                prop_assert!(trusted.matches(&key));
                prop_assert!(parse(&key.fingerprint()).unwrap().matches(&key));
                prop_assert_eq!(trusted, TrustedHostKey::Key(key));
            }
        }

        #[test]
        fn a_key_with_any_byte_changed_is_another_key(bytes in any::<[u8; 32]>(), at in 0usize..51, flip in 1u8..) {
            let trusted = ed25519_of(bytes);
            let mut other = trusted.clone();
            other.blob[at] ^= flip;
            for trusted in [TrustedHostKey::Key(trusted.clone()), parse(&trusted.fingerprint()).unwrap()] {
                prop_assert!(HostKeyPolicy::Strict(vec![trusted]).check(&other, "h", 22).is_err());
            }
        }
    }

    fn ed25519_of(bytes: [u8; 32]) -> HostKey {
        key("ssh-ed25519", &[&bytes])
    }
}
