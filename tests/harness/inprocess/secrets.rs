//! A Secrets Manager endpoint in this process: GetSecretValue over AWS JSON 1.1, with version stages, and the two
//! refusals that a user meets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::json_service::{Answer, JsonService, refusal};

/// A running endpoint.
pub struct SecretsServer {
    service: JsonService,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Values by secret name and version stage.
    values: BTreeMap<(String, String), String>,
    /// Names that may not be read.
    denied: Vec<String>,
    /// What was asked for: name or ARN, and stage.
    asked: Vec<(String, String)>,
}

impl SecretsServer {
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let service = JsonService::start(move |operation, asked| match operation {
            "secretsmanager.GetSecretValue" => get_secret_value(asked, &shared),
            _ => refusal("UnknownOperationException", "Only GetSecretValue is served here."),
        });
        Ok(Self { service: service.await?, state })
    }

    /// `http://127.0.0.1:…`, for `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn url(&self) -> String {
        self.service.url()
    }

    /// Stores `value` as the secret's `AWSCURRENT` version.
    pub fn put(&self, name: &str, value: impl ToString) {
        self.put_stage(name, "AWSCURRENT", value);
    }

    pub fn put_stage(&self, name: &str, stage: &str, value: impl ToString) {
        self.state.lock().unwrap().values.insert((name.to_owned(), stage.to_owned()), value.to_string());
    }

    /// From now on `name` may not be read.
    pub fn deny(&self, name: &str) {
        self.state.lock().unwrap().denied.push(name.to_owned());
    }

    /// Name or ARN, and stage, of every request.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().asked.clone()
    }
}

/// The ARN of a secret here: six characters that Secrets Manager makes up follow the name.
pub fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}-AbCdEf")
}

fn get_secret_value(asked: &Value, state: &Mutex<State>) -> Answer {
    let id = asked["SecretId"].as_str().unwrap_or_default().to_owned();
    let stage = asked["VersionStage"].as_str().unwrap_or("AWSCURRENT").to_owned();
    let mut state = state.lock().unwrap();
    state.asked.push((id.clone(), stage.clone()));
    if state.denied.iter().any(|name| *name == id || arn(name) == id) {
        let message = format!("User is not authorized to perform: secretsmanager:GetSecretValue on resource: {id}");
        return refusal("AccessDeniedException", &message);
    }
    let found = state.values.iter().find(|((name, at), _)| *at == stage && (*name == id || arn(name) == id));
    match found {
        Some(((name, stage), value)) => (
            StatusCode::OK,
            json!({
                "ARN": arn(name),
                "Name": name,
                "VersionId": format!("00000000-0000-4000-8000-{:012}", stage.len()),
                "SecretString": value,
                "VersionStages": [stage],
                "CreatedDate": 1_767_323_045.0,
            }),
        ),
        None if state.values.keys().any(|(name, _)| *name == id || arn(name) == id) => refusal(
            "ResourceNotFoundException",
            &format!("Secrets Manager can't find the specified secret value for staging label: {stage}"),
        ),
        None => refusal("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
    }
}
