//! The environment turned into a `Config`: every fault at once, one table behind the parser and `--help`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::remote::{RemotePath, TrustedHostKey};
use crate::select::Rules;
use crate::template::{KeyTemplate, UnpackTemplate};
use crate::units::ByteSize;

/// A run, as configured. Nothing below this module reads the environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub operation: Operation,
    pub bucket: String,
    pub region: Option<String>,
    pub secret: SecretSource,
    pub sftp: SftpSettings,
    pub directory: RemotePath,
    pub rules: Rules,
    pub keys: KeyTemplate,
    pub unpack: UnpackSettings,
    pub upload: UploadSettings,
    /// Bytes of file data held at once, between both networks.
    pub memory_limit: ByteSize,
    /// Tries of one step, the first included.
    pub max_attempts: NonZeroU32,
    pub dry_run: bool,
    /// `None`: a hash of host, port, directory and bucket.
    pub job_name: Option<String>,
    /// From SIGTERM to exit, at most.
    pub stop_grace: Duration,
    /// What to warn about once logging is up: near-miss names and the like.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Retrieve,
    Test,
}

#[derive(Debug, Clone)]
pub enum SecretSource {
    /// Name or ARN, and the version stages to try in order (at least one).
    SecretsManager {
        id: String,
        stages: Vec<String>,
    },
    File(PathBuf),
    Json(SecretString),
}

/// What the environment says of the server; the secret supplies the rest.
#[derive(Debug, Clone)]
pub struct SftpSettings {
    pub host: Option<String>,
    pub username: Option<String>,
    pub port: Option<u16>,
    /// `None`: the secret's.
    pub trusted_host_keys: Option<Vec<TrustedHostKey>>,
    pub host_key_check: HostKeyCheck,
    pub engine: EngineKind,
    /// Most connections.
    pub connections: NonZeroUsize,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyCheck {
    Strict,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    Russh,
    Libssh2,
}

#[derive(Debug, Clone)]
pub struct UnpackSettings {
    /// `UNPACK` names `zip`.
    pub zip: bool,
    pub keep_archive: bool,
    pub template: UnpackTemplate,
    /// Bytes that one archive may expand to.
    pub max_size: ByteSize,
    /// Entries that one archive may hold.
    pub max_entries: u64,
    /// Expanded bytes over stored bytes, past an archive's first 100 MiB.
    pub max_ratio: u64,
}

#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// An object of more bytes than this is uploaded in parts.
    pub multipart_threshold: ByteSize,
    /// 5 MiB to 5 GiB.
    pub part_size: ByteSize,
    /// Most S3 requests under way.
    pub concurrency: NonZeroUsize,
    /// `None`: as the endpoint suggests.
    pub path_style: Option<bool>,
    pub attributes: ObjectAttributes,
}

/// What every object is stored with; `None` and empty leave it to the bucket.
#[derive(Debug, Clone, Default)]
pub struct ObjectAttributes {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`.
    pub sse: Option<String>,
    pub kms_key_id: Option<String>,
    pub storage_class: Option<String>,
    pub tags: Vec<(String, String)>,
}
