//! Which host keys are trusted, and what to say of one that is not.

/// A public host key as the server presents it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, …
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
