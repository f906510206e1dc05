//! The ECS task that the program runs in, as the container's metadata endpoint tells it (version 4).

use std::time::Duration;

use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};

use crate::causes::causes;

/// The endpoint is a process on the same host.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A task's description is a few kilobytes.
const MOST_BYTES: usize = 1 << 20;

/// What names a task in the console, in the report and in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "kebab-case"))]
pub struct Task {
    #[serde(rename(deserialize = "TaskARN"))]
    pub task_arn: String,
    /// Its ARN, or its name alone.
    #[serde(rename(deserialize = "Cluster"))]
    pub cluster: String,
    /// Of the task definition.
    #[serde(rename(deserialize = "Family"))]
    pub family: String,
    /// Of the task definition.
    #[serde(rename(deserialize = "Revision"))]
    pub revision: String,
}

/// Asks `endpoint`, which is what ECS put into `ECS_CONTAINER_METADATA_URI_V4`.
///
/// # Errors
///
/// Says why there is no answer; a run does not need one.
pub async fn task(endpoint: &str) -> Result<Task, String> {
    let url = format!("{}/task", endpoint.trim_end_matches('/'));
    let asked = tokio::time::timeout(ANSWER_WITHIN, get(&url)).await;
    let answer = asked.map_err(|_| format!("{url}: no answer within {} s", ANSWER_WITHIN.as_secs()))?;
    let answer = answer.map_err(|error| format!("{url}: {error}"))?;
    serde_json::from_slice(&answer).map_err(|error| format!("{url}: {error}"))
}

async fn get(url: &str) -> Result<Vec<u8>, String> {
    let request = HttpRequest::get(url).map_err(|error| error.to_string())?;
    let connector = Connector::builder()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(ANSWER_WITHIN).build());
    let response = SharedHttpConnector::new(connector.build()).call(request).await;
    let response = response.map_err(|error| causes(&error))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(format!("HTTP status {status}"));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_from_the_endpoints_words_and_told_in_ours() {
        let answer = r#"{"Cluster": "default", "TaskARN": "arn:aws:ecs:us-west-2:111122223333:task/default/158d",
            "Family": "connector", "Revision": "5", "DesiredStatus": "RUNNING", "Limits": {"CPU": 0.25, "Memory": 512}}"#;
        let task: Task = serde_json::from_str(answer).expect("a task");
        let told = r#"{"task-arn":"arn:aws:ecs:us-west-2:111122223333:task/default/158d","cluster":"default",
            "family":"connector","revision":"5"}"#;
        assert_eq!(serde_json::to_string(&task).expect("JSON"), told.split_whitespace().collect::<String>());
    }
}
