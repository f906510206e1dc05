//! A Secrets Manager endpoint in this process: GetSecretValue over AWS JSON 1.1, with version stages, and the two
//! refusals that a user meets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running endpoint.
pub struct SecretsServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, shared.clone()));
                    // A client that leaves in the middle of a request is no news.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Ok(Self { address, state, _serving: serving })
    }

    /// `http://127.0.0.1:…`, for `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").cloned();
    let signed = request.headers().contains_key("authorization");
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match target {
        _ if !signed => refusal("MissingAuthenticationTokenException", "Missing Authentication Token"),
        Some(target) if target == "secretsmanager.GetSecretValue" => get_secret_value(&asked, &state),
        _ => refusal("UnknownOperationException", "Only GetSecretValue is served here."),
    })
}

fn get_secret_value(asked: &Value, state: &Mutex<State>) -> Response<Full<Bytes>> {
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
        Some(((name, stage), value)) => reply(
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

fn refusal(kind: &str, message: &str) -> Response<Full<Bytes>> {
    reply(StatusCode::BAD_REQUEST, json!({ "__type": kind, "Message": message }))
}

fn reply(status: StatusCode, body: Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/x-amz-json-1.1"));
    response
}
