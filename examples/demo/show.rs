//! What the demo prints: the environment without its secrets, the records as a table, the bucket beside the source.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::inprocess::run::Finished;
use crate::inprocess::s3::S3Server;
use crate::inprocess::sftp::Content;

/// Variables whose value is a secret.
const SECRET_VARIABLES: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "SECRET_JSON"];

pub fn heading(text: &str) {
    println!("\n{text}\n{}", "─".repeat(text.chars().count()));
}

pub fn pair(name: &str, value: &str) {
    println!("  {name:<16} {value}");
}

pub fn environment(variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        let value = if SECRET_VARIABLES.contains(&name.as_str()) { "********" } else { value };
        println!("  {name}={value}");
    }
}

/// The records, a line each.
pub fn records(finished: &Finished) {
    for record in finished.files() {
        let key = record["local-file-location"]["key"].as_str().unwrap_or("–");
        let file = record["file-path"].as_str().unwrap_or("–");
        let path = match record["archive-path"].as_str() {
            Some(archive) => format!("{archive} : {file}"),
            None => file.to_owned(),
        };
        let status = record["status-code"].as_str().unwrap_or("–");
        println!("  {status:<10} {:>12}  {path}  →  {key}", bytes(record["bytes"].as_u64()));
        for why in ["failure-message", "skip-reason"] {
            if let Some(why) = record[why].as_str() {
                println!("             {why}");
            }
        }
    }
    let run = finished.run();
    let name = run["exit-name"].as_str().unwrap_or("–");
    println!(
        "\n  exit {} ({name}) after {:.1} s: {} files selected, {} completed, {} failed, {} objects, {} written",
        finished.exit,
        finished.elapsed.as_secs_f64(),
        number(&run["files-selected"]),
        number(&run["files-completed"]),
        number(&run["files-failed"]),
        number(&run["objects"]),
        bytes(run["bytes-written"].as_u64()),
    );
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn bytes(count: Option<u64>) -> String {
    let Some(count) = count else { return "–".to_owned() };
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// A line for each key of either side. Whether the bucket holds what it should, and nothing else.
pub async fn comparison(expected: &BTreeMap<String, Content>, store: &S3Server, bucket: &str) -> bool {
    let stored: BTreeSet<String> = store.keys(bucket).await.into_iter().collect();
    let keys: BTreeSet<&String> = expected.keys().chain(&stored).collect();
    println!("  {:>12}  {:>12}     key", "source", "bucket");
    let mut same = true;
    for key in keys {
        let object = store.read(bucket, key).await;
        let size = bytes(object.as_ref().map(|object| object.len() as u64));
        let (mark, source) = match expected.get(key) {
            None => ("✗", bytes(None)),
            Some(content) => {
                let equal = object.is_some_and(|object| content.to_bytes().is_ok_and(|source| source == object));
                (if equal { "✓" } else { "✗" }, bytes(Some(content.len())))
            }
        };
        same &= mark == "✓";
        let parts = match stored.contains(key) {
            // A multipart object's ETag ends with the number of its parts.
            true => store.head(bucket, key).await.e_tag().and_then(|tag| Some(tag.rsplit_once('-')?.1.to_owned())),
            false => None,
        };
        let parts = parts.map(|parts| format!("  ({} parts)", parts.trim_matches('"'))).unwrap_or_default();
        println!("  {source:>12}  {size:>12}  {mark}  {key}{parts}");
    }
    same
}
