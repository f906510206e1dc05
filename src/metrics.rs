//! The run's metrics: one line in CloudWatch's embedded metric format, out of which CloudWatch Logs makes them.
//!
//! The format is that of "Specification: Embedded metric format" in the CloudWatch user guide: a JSON object with a member
//! for each metric and dimension, and `_aws` that says which is which.

use serde_json::{Value, json};

use crate::exit::Exit;
use crate::report::{Outcome, RunEnd, RunIdentity};

/// What the metrics are found under.
pub const NAMESPACE: &str = "SftpS3Connector";

/// Name and unit of each metric, by the words of CloudWatch's `MetricDatum`.
const METRICS: [(&str, &str); 8] = [
    ("Files", "Count"),
    ("Objects", "Count"),
    ("Bytes", "Bytes"),
    ("Duration", "Seconds"),
    ("Failures", "Count"),
    ("BytesPerSecond", "Bytes/Second"),
    ("RunsSucceeded", "Count"),
    ("RunsFailed", "Count"),
];

/// The line of a run that ended, without a line end. Its dimension is the job.
pub fn line(run: &RunEnd<'_>) -> String {
    let RunEnd { identity, outcome, end, .. } = run;
    let RunIdentity { connector_id, transfer_id, operation, start, .. } = identity;
    let Outcome { exit, totals, .. } = outcome;
    let seconds = (*end - *start).as_seconds_f64().max(0.0);
    let rate = if seconds > 0.0 { totals.bytes_written as f64 / seconds } else { 0.0 };
    let succeeded = u8::from(*exit == Exit::Ok);
    let values = [
        json!(totals.files_completed),
        json!(totals.objects),
        json!(totals.bytes_written),
        json!(seconds),
        json!(totals.files_failed),
        json!(rate),
        json!(succeeded),
        json!(1 - succeeded),
    ];
    let metrics: Vec<Value> = METRICS.iter().map(|(name, unit)| json!({"Name": name, "Unit": unit})).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": end.timestamp_millis(),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [["Job"]], "Metrics": metrics}],
        },
        "Job": connector_id,
        "transfer-id": transfer_id,
        "operation": operation,
        "exit-name": exit.name(),
    });
    for ((name, _), value) in METRICS.iter().zip(values) {
        line[name] = value;
    }
    line.to_string()
}
