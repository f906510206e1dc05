//! Records as JSON, one object each. Field names and their order follow the log of an AWS Transfer Family SFTP connector, so
//! that queries written for it carry over.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{FileRecord, FileResult, Outcome, RunIdentity, Step};
use crate::exit::Exit;

/// Bytes of a message in a record that is cut to what a listener takes.
const CUT_MESSAGE: usize = 1024;

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub struct RunEnd<'a> {
    pub identity: &'a RunIdentity,
    pub outcome: &'a Outcome,
    /// Of `OPERATION=TEST`.
    pub steps: &'a [Step],
    pub end: DateTime<Utc>,
}

/// What became of telling the outside, for the last record.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// `s3://BUCKET/KEY` of the run's report, once it is there.
    pub report: Option<String>,
    /// What could not be told, and why.
    pub warnings: Vec<String>,
}

impl RunEnd<'_> {
    /// The last record.
    pub fn record(&self, told: &Told) -> String {
        to_json(&self.line(told))
    }

    fn line<'a>(&'a self, told: &'a Told) -> LastLine<'a> {
        let Self { identity, outcome: Outcome { exit, totals, message }, steps, end } = *self;
        LastLine {
            operation: identity.operation,
            timestamp: time(end),
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
            end_time: time(end),
            failure_message: message.as_deref(),
            steps,
            report: told.report.as_deref(),
            warnings: &told.warnings,
        }
    }

    /// The last record, or, where that has more than `most` bytes, what does not grow with the run of it: the report has the
    /// rest. `most` is 16 KiB at least.
    pub fn record_within(&self, told: &Told, most: usize) -> String {
        let record = self.record(told);
        if record.len() <= most {
            return record;
        }
        let line = self.line(told);
        let failure_message = line.failure_message.map(|text| &text[..text.floor_char_boundary(CUT_MESSAGE)]);
        to_json(&LastLine { failure_message, steps: &[], warnings: &[], ..line })
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
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

/// One file's record; `number` is the file's in the run.
pub(super) fn file_line(identity: &RunIdentity, number: u64, record: &FileRecord, now: DateTime<Utc>) -> String {
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

/// RFC 3339, UTC, microseconds.
fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn to_json(line: &impl Serialize) -> String {
    // Strings and numbers only: there is nothing in a line that JSON cannot hold.
    serde_json::to_string(line).unwrap_or_else(|error| format!("{{\"internal-error\":\"{error}\"}}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_record_that_is_too_long_for_a_listener_still_says_how_the_run_ended() {
        let identity = RunIdentity {
            operation: "RETRIEVE",
            connector_id: "nightly".to_owned(),
            transfer_id: "run".to_owned(),
            bucket: "b".to_owned(),
            url: String::new(),
            start: DateTime::UNIX_EPOCH,
        };
        let message = format!("no file was delivered: {}", "\u{1}ä\n".repeat(100_000));
        let outcome = Outcome::early(Exit::Partial, message);
        let run = RunEnd { identity: &identity, outcome: &outcome, steps: &[], end: DateTime::UNIX_EPOCH };
        let told = Told { report: Some("s3://b/report.json".to_owned()), warnings: vec!["w".repeat(300_000)] };
        let whole = run.record(&told);
        assert_eq!(run.record_within(&told, whole.len()), whole);
        for most in [whole.len() - 1, 256 * 1024, 16 * 1024] {
            let cut = run.record_within(&told, most);
            assert!(cut.len() <= most, "{} of {most} bytes", cut.len());
            let cut: Value = serde_json::from_str(&cut).expect("JSON");
            assert_eq!((&cut["exit-name"], &cut["report"]), (&"PARTIAL".into(), &"s3://b/report.json".into()));
            assert!(cut["failure-message"].as_str().is_some_and(|text| text.starts_with("no file was delivered")));
        }
    }
}
