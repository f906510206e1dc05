//! Calls of any AWS API, by boto3: for the services that the program itself does not speak to.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::process::installed;

/// Calls `operation` (in boto3's spelling, `create_stack`) of `service` at `endpoint`. An error of the service is an answer
/// with the member `Error`.
pub fn try_call(endpoint: &str, service: &str, operation: &str, parameters: &Value) -> Value {
    python("tests/stacks/aws.py", &[endpoint, service, operation], &parameters.to_string())
}

/// The same, which has to succeed.
#[track_caller]
pub fn call(endpoint: &str, service: &str, operation: &str, parameters: &Value) -> Value {
    let answer = try_call(endpoint, service, operation, parameters);
    // A template is long.
    let asked: String = parameters.to_string().chars().take(500).collect();
    assert!(answer.get("Error").is_none(), "{service} {operation} {asked}: {answer}");
    answer
}

/// The template as JSON, its short forms written out.
pub fn template(file: &str) -> Value {
    python("tests/stacks/template.py", &[file], "")
}

fn python(script: &str, arguments: &[&str], input: &str) -> Value {
    let mut child = Command::new(installed("python"))
        .arg(script)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{script}: {error}; `make setup`?"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
