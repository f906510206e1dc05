//! The environment turned into a `Config`: every fault at once, one table behind the parser and `--help`.
//!
//! Here are the types that a run is configured by, and nothing that was not checked. How they come about:
//! `environment` (the only reader of variables) -> `table` (names and defaults) -> `parse` and `values` (types).

mod container;
mod describe;
mod environment;
mod fault;
mod help;
mod log;
mod outside;
mod parse;
mod table;
mod values;

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::remote::{RemotePath, TrustedHostKey};
use crate::select::Rules;
use crate::template::{KeyTemplate, UnpackTemplate};
use crate::units::ByteSize;

pub use fault::{Fault, Faults, ToldWith};
pub use help::help;
pub use log::{LogFormat, LogSettings, OWN_CRATES, granted_level};
pub use outside::{EventBus, NotifySettings, ReportUri};
pub use table::{GROUPS, Group, Variable, WhenUnset};
pub(crate) use values::{host as parse_host, username as parse_username};

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
    pub notify: NotifySettings,
    pub log: LogSettings,
    /// What to warn about once logging is up: near-miss names and the like.
    pub warnings: Vec<String>,
}

impl Config {
    /// From the process's variables and the container's memory limit. Contacts nothing.
    pub fn from_env() -> Result<Self, Faults> {
        Self::from_os_vars(environment::process(), container::memory_limit(Path::new("/")))
    }

    /// From the given variables, as if no container set a limit.
    pub fn from_vars(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Faults> {
        Self::from_os_vars(variables.into_iter().map(|(name, value)| (name.into(), value.into())), None)
    }

    /// Whether the run is to make objects: not a test, nor a dry run.
    pub fn delivers(&self) -> bool {
        self.operation.delivers(self.dry_run)
    }

    fn from_os_vars(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        container: Option<ByteSize>,
    ) -> Result<Self, Faults> {
        parse::config(environment::read(variables), container)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Retrieve,
    Test,
}

impl Operation {
    /// Whether the operation is to make objects.
    pub fn delivers(self, dry_run: bool) -> bool {
        self == Operation::Retrieve && !dry_run
    }

    /// As `OPERATION` and the records spell it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Retrieve => "RETRIEVE",
            Operation::Test => "TEST",
        }
    }
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

#[cfg(test)]
mod tests;
