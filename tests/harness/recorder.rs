//! A proxy between the program and its AWS services that records every call: what is asked of whom, as IAM names it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Call {
    /// From the signature: `s3`, `secretsmanager`, `events`, `states`.
    pub service: String,
    /// From the signature.
    pub region: String,
    /// Of services that speak JSON: `PutEvents`.
    pub operation: String,
    pub method: String,
    pub path_and_query: String,
    /// Of services that speak JSON.
    pub body: Value,
    /// Names in lower case.
    pub headers: BTreeSet<String>,
}

impl Call {
    /// What a policy has to allow for it (Service Authorization Reference).
    pub fn actions(&self) -> Vec<String> {
        if self.service != "s3" {
            return vec![format!("{}:{}", self.service, self.operation)];
        }
        let has = |parameter: &str| {
            let query = self.path_and_query.split_once('?').map_or("", |(_, query)| query);
            query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
        };
        let mut actions = vec![match self.method.as_str() {
            "PUT" | "POST" => "s3:PutObject",
            "DELETE" if has("uploadId") => "s3:AbortMultipartUpload",
            "HEAD" | "GET" => "s3:GetObject",
            other => panic!("no action is known for {other} {}", self.path_and_query),
        }];
        if self.headers.contains("x-amz-tagging") {
            actions.push("s3:PutObjectTagging");
        }
        actions.into_iter().map(str::to_owned).collect()
    }
}

/// A recording proxy. It ends with the runtime.
pub struct Recorder {
    port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recorder {
    /// Passes S3 on to one port of the loopback, all other services to another.
    pub async fn start(s3: u16, others: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let recorded = calls.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, client) = (recorded.clone(), client.clone());
                let service = service_fn(move |request| {
                    let (calls, client) = (calls.clone(), client.clone());
                    async move { Ok::<_, Infallible>(pass_on(request, &client, &calls, (s3, others)).await) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that hangs up is its own affair.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { port, calls }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every call by now, in the order of their beginning.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no thread panics holding it").clone()
    }

    /// Every action that a policy has to allow for them.
    pub fn actions(&self) -> BTreeSet<String> {
        self.calls().iter().flat_map(Call::actions).collect()
    }
}

type Body = BoxBody<Bytes, hyper::Error>;
type Upstream = Client<hyper_util::client::legacy::connect::HttpConnector, Body>;

async fn pass_on(
    request: Request<Incoming>,
    client: &Upstream,
    calls: &Mutex<Vec<Call>>,
    (s3, others): (u16, u16),
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let (region, service) = scope_of(&parts).unwrap_or_default();
    let path_and_query = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let (body, document) = if service == "s3" {
        (body.boxed(), Value::Null)
    } else {
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let document = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (Full::new(bytes).map_err(|never| match never {}).boxed(), document)
    };
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let call = Call {
        operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
        method: parts.method.to_string(),
        path_and_query: path_and_query.clone(),
        body: document,
        headers: parts.headers.keys().map(ToString::to_string).collect(),
        service,
        region,
    };
    let port = if call.service == "s3" { s3 } else { others };
    calls.lock().expect("no thread panics holding it").push(call);
    let uri: Uri = format!("http://127.0.0.1:{port}{path_and_query}").parse().expect("a URI as it came");
    parts.uri = uri;
    match client.request(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(|body| body.boxed()),
        Err(error) => {
            let text = Full::new(Bytes::from(error.to_string())).map_err(|never| match never {}).boxed();
            let mut response = Response::new(text);
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

/// Region and service of `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn scope_of(parts: &Parts) -> Option<(String, String)> {
    let signature = parts.headers.get("authorization")?.to_str().ok()?;
    let mut scope = signature.split("Credential=").nth(1)?.split('/').skip(2).map(str::to_owned);
    Some((scope.next()?, scope.next()?))
}
