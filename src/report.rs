//! Records: one JSON object a line on stdout, for each file and at the end of the run.
//!
//! Field names and their order follow the log of an AWS Transfer Family SFTP connector, so that queries written for it
//! carry over. Records are written as they happen, by a thread of their own: a reader that is slow holds the run back
//! instead of filling its memory, and a reader that went away costs the records, not the files.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::checksum::Crc64Nvme;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::remote::ServerInfo;
use crate::select::SkipReason;
use crate::template::ObjectKey;

/// Records that may wait for a slow reader.
const WAITING: usize = 1024;
/// The writer rests so long once it has written all there is: woken for each of thousands of lines a second, it would cost
/// more than they do.
const BREATH: Duration = Duration::from_millis(5);

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

/// Numbers file records and sends them to the writer. Clones share both.
#[derive(Debug, Clone)]
pub struct Reporter {
    identity: Arc<RunIdentity>,
    next: Arc<AtomicU64>,
    counters: Arc<Counters>,
    lines: mpsc::Sender<Line>,
}

impl Reporter {
    pub fn new(identity: RunIdentity, records: &Records) -> Self {
        Self {
            identity: Arc::new(identity),
            next: Arc::new(AtomicU64::new(1)),
            counters: records.counters.clone(),
            lines: records.lines.clone(),
        }
    }

    pub fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// The run's sums, for whoever adds to them.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Writes one file's record.
    pub async fn file(&self, record: FileRecord) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = file_line(&self.identity, number, &record, Utc::now());
        // The writer outlives every reporter; were it gone, there would be nowhere to say so.
        let _ = self.lines.send(Line::Record(line)).await;
    }
}

/// Writes lines, in the order in which they were sent, on a thread of its own.
#[derive(Debug)]
pub struct Records {
    counters: Arc<Counters>,
    lines: mpsc::Sender<Line>,
    writer: std::thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Line {
    Record(String),
    Last(String),
}

impl Records {
    /// Starts the writer.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, receiver) = mpsc::channel(WAITING);
        let writer = std::thread::Builder::new().name("records".to_owned()).spawn(|| write_lines(output, receiver))?;
        Ok(Self { counters: Arc::default(), lines, writer })
    }

    /// The run's sums by now.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// Writes the last record, after all that were sent before, and ends the writer. What is sent after it is dropped.
    /// Waits for whoever reads stdout.
    pub async fn finish(self, identity: &RunIdentity, outcome: &Outcome, steps: &[Step]) {
        let line = last_line(identity, outcome, steps, Utc::now());
        let _ = self.lines.send(Line::Last(line)).await;
        drop(self.lines);
        let joined = tokio::task::spawn_blocking(move || self.writer.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread that writes records failed; records may be missing from stdout");
        }
    }
}

fn write_lines(mut output: impl Write, mut lines: mpsc::Receiver<Line>) {
    let mut broken = false;
    while let Some(line) = lines.blocking_recv() {
        let (text, last) = match line {
            Line::Record(text) => (text, false),
            Line::Last(text) => (text, true),
        };
        if !broken {
            // One write a line: readers of a shared pipe never see a half.
            let written = output.write_all(format!("{text}\n").as_bytes()).and_then(|()| output.flush());
            if let Err(error) = written {
                broken = true;
                tracing::warn!(error = %error, "stdout cannot be written; the run goes on without records");
            }
        }
        if last {
            return;
        }
        if lines.is_empty() {
            std::thread::sleep(BREATH);
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct FileLine<'a> {
    operation: &'static str,
    timestamp: String,
    connector_id: &'a str,
    transfer_id: &'a str,
    file_transfer_id: String,
    url: &'a str,
    file_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_path: Option<&'a str>,
    status_code: &'static str,
    start_time: String,
    end_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_file_location: Option<Location<'a>>,
    #[serde(rename = "checksum-crc64nvme", skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_message: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entries_delivered: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Location<'a> {
    domain: &'static str,
    bucket: &'a str,
    key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LastLine<'a> {
    operation: &'static str,
    timestamp: String,
    connector_id: &'a str,
    transfer_id: &'a str,
    status_code: &'static str,
    exit_code: u8,
    exit_name: &'static str,
    files_selected: u64,
    files_completed: u64,
    files_failed: u64,
    files_skipped: u64,
    objects: u64,
    bytes_read: u64,
    bytes_written: u64,
    start_time: String,
    end_time: String,
    failure_message: Option<&'a str>,
    /// Of `OPERATION=TEST`.
    #[serde(skip_serializing_if = "<[Step]>::is_empty")]
    steps: &'a [Step],
}

fn file_line(identity: &RunIdentity, number: u64, record: &FileRecord, now: DateTime<Utc>) -> String {
    let mut line = FileLine {
        operation: identity.operation,
        timestamp: time(now),
        connector_id: &identity.connector_id,
        transfer_id: &identity.transfer_id,
        file_transfer_id: format!("{}/{number}", identity.transfer_id),
        url: &identity.url,
        file_path: &record.path,
        archive_path: record.archive.as_deref(),
        status_code: "COMPLETED",
        start_time: time(record.start),
        end_time: time(now),
        bytes: None,
        local_file_location: None,
        checksum: None,
        failure_code: None,
        failure_message: None,
        entries_delivered: &[],
        skip_reason: None,
    };
    match &record.result {
        FileResult::Completed { key, checksum } => {
            line.bytes = Some(checksum.len());
            line.local_file_location = Some(Location { domain: "S3", bucket: &identity.bucket, key: key.as_str() });
            line.checksum = Some(checksum.to_base64());
        }
        FileResult::Unpacked { bytes } => line.bytes = Some(*bytes),
        FileResult::Failed { failure, delivered } => {
            line.status_code = "FAILED";
            line.failure_code = Some(failure.code.as_str());
            line.failure_message = Some(&failure.message);
            line.entries_delivered = delivered;
        }
        FileResult::Planned { key, bytes } => {
            line.status_code = "SKIPPED";
            line.skip_reason = Some("DRY_RUN");
            line.bytes = Some(*bytes);
            line.local_file_location = Some(Location { domain: "S3", bucket: &identity.bucket, key: key.as_str() });
        }
        FileResult::Skipped(reason) => {
            line.status_code = "SKIPPED";
            line.skip_reason = Some(reason.as_str());
        }
    }
    to_json(&line)
}

fn last_line(identity: &RunIdentity, outcome: &Outcome, steps: &[Step], now: DateTime<Utc>) -> String {
    let Outcome { exit, totals, message } = outcome;
    to_json(&LastLine {
        operation: identity.operation,
        timestamp: time(now),
        connector_id: &identity.connector_id,
        transfer_id: &identity.transfer_id,
        status_code: if *exit == Exit::Ok { "COMPLETED" } else { "FAILED" },
        exit_code: exit.code(),
        exit_name: exit.name(),
        files_selected: totals.files_selected,
        files_completed: totals.files_completed,
        files_failed: totals.files_failed,
        files_skipped: totals.files_skipped,
        objects: totals.objects,
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
        start_time: time(identity.start),
        end_time: time(now),
        failure_message: message.as_deref(),
        steps,
    })
}

/// RFC 3339, UTC, microseconds.
fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn to_json(line: &impl Serialize) -> String {
    // Strings and numbers only: there is nothing in a line that JSON cannot hold.
    serde_json::to_string(line).unwrap_or_else(|error| format!("{{\"internal-error\":\"{error}\"}}"))
}
