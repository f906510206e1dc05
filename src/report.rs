//! What is told of a run and of each of its files: the values, and who adds them up.
//!
//! How they become JSON is `report/lines.rs`, how they reach stdout `report/records.rs`, and the run's report, one document
//! for all of them, `report/document.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::checksum::Crc64Nvme;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::remote::ServerInfo;
use crate::select::SkipReason;
use crate::template::ObjectKey;

mod document;
mod lines;
mod records;
mod spool;

pub use document::Document;
pub use lines::{RunEnd, Told};
pub use records::{EventQueue, FileEvent, Records, Reporter};
pub use spool::Kept;

/// What every record of a run has in common.
#[derive(Debug, Clone)]
pub struct RunIdentity {
    /// `RETRIEVE` or `TEST`.
    pub operation: &'static str,
    /// `JOB_NAME`, or a hash of what the job is.
    pub connector_id: String,
    /// A UUIDv7.
    pub transfer_id: String,
    pub bucket: String,
    /// `sftp://host:port`.
    pub url: String,
    pub start: DateTime<Utc>,
}

/// How one file, or one entry of an archive, ended.
#[derive(Debug)]
pub struct FileRecord {
    /// Remote path as text; of an entry, its path inside the archive.
    pub path: String,
    /// The archive's remote path, where this is an entry.
    pub archive: Option<String>,
    pub start: DateTime<Utc>,
    pub result: FileResult,
}

#[derive(Debug)]
pub enum FileResult {
    Completed {
        key: ObjectKey,
        checksum: Crc64Nvme,
    },
    /// Every object of it was delivered as entries; it has none of its own (`KEEP_ARCHIVE=false`).
    Unpacked {
        bytes: u64,
    },
    Failed {
        failure: Failure,
        /// Keys of an archive's entries that were delivered before it failed.
        delivered: Vec<String>,
    },
    Skipped(SkipReason),
    /// `DRY_RUN`: it would have been delivered there.
    Planned {
        key: ObjectKey,
        bytes: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub exit: Exit,
    pub totals: Totals,
    /// `failure-message` of the last record.
    pub message: Option<String>,
}

impl Outcome {
    /// Of a run that ended before anything was selected.
    pub fn early(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, totals: Totals::default(), message: Some(message.into()) }
    }
}

/// One step of `OPERATION=TEST`, in the last record's `steps`.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub step: &'static str,
    #[serde(rename = "status-code")]
    pub status: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

/// What the server told of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Server {
    identification: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    banner: Option<String>,
    /// As `TRUSTED_HOST_KEYS` takes it.
    pub host_key: String,
    host_key_fingerprint: String,
    algorithms: serde_json::Map<String, serde_json::Value>,
    login_method: &'static str,
    sftp_version: u32,
    sftp_extensions: Vec<String>,
}

impl From<ServerInfo> for Server {
    fn from(info: ServerInfo) -> Self {
        let (host_key, host_key_fingerprint) =
            info.host_key.map_or_else(Default::default, |key| (key.to_line(), key.fingerprint()));
        Self {
            identification: info.identification,
            banner: info.banner,
            host_key,
            host_key_fingerprint,
            algorithms: info.algorithms.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            login_method: info.login_method,
            sftp_version: info.sftp_version,
            sftp_extensions: info.extensions.into_iter().map(|(name, data)| format!("{name} {data}")).collect(),
        }
    }
}

/// What the last record counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub files_selected: u64,
    pub files_completed: u64,
    pub files_failed: u64,
    pub files_skipped: u64,
    pub objects: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

/// Running sums of a run, shared by those who add to them, the progress bar, and the last record of a run that is cut
/// short.
#[derive(Debug, Default)]
pub struct Counters {
    pub files_selected: AtomicU64,
    pub files_skipped: AtomicU64,
    pub files_completed: AtomicU64,
    pub files_failed: AtomicU64,
    pub objects: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_written: AtomicU64,
}

impl Counters {
    /// The sums by now.
    pub fn totals(&self) -> Totals {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            files_selected: now(&self.files_selected),
            files_completed: now(&self.files_completed),
            files_failed: now(&self.files_failed),
            files_skipped: now(&self.files_skipped),
            objects: now(&self.objects),
            bytes_read: now(&self.bytes_read),
            bytes_written: now(&self.bytes_written),
        }
    }
}
