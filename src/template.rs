//! `KEY_TEMPLATE` and `UNPACK_TEMPLATE`: from a file's path and time to its S3 key.

/// A parsed `KEY_TEMPLATE`.
#[derive(Debug, Clone)]
pub struct KeyTemplate {}

/// A parsed `UNPACK_TEMPLATE`.
#[derive(Debug, Clone)]
pub struct UnpackTemplate {}
