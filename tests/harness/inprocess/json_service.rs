//! An AWS service in this process: signed requests of the AWS JSON protocol over HTTP, each answered by a function.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What a request is answered with.
pub type Answer = (StatusCode, Value);

/// A running service. Dropping it stops it.
pub struct JsonService {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl JsonService {
    /// `answer` is given the operation, as `X-Amz-Target` names it (`secretsmanager.GetSecretValue`), and its parameters.
    pub async fn start(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> std::io::Result<Self> {
        let answer = Arc::new(answer);
        Self::serve(move |request| reply(request, answer.clone())).await
    }

    async fn serve<F>(reply: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> std::io::Result<Self>
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let reply = reply.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let reply = reply(request);
                        async move { Ok::<_, Infallible>(reply.await) }
                    });
                    // A client that leaves in the middle of a request is no news.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Ok(Self { address, _serving: serving })
    }

    /// `http://127.0.0.1:…`, for `AWS_ENDPOINT_URL_…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A service that answers every request, signed or not, with this document: a metadata endpoint.
pub async fn plain(document: Value) -> std::io::Result<JsonService> {
    JsonService::serve(move |_| {
        let body = document.to_string();
        async move { json(StatusCode::OK, body) }
    })
    .await
}

/// A refusal by its code.
pub fn refusal(code: &str, message: &str) -> Answer {
    (StatusCode::BAD_REQUEST, json!({ "__type": code, "Message": message, "message": message }))
}

async fn reply(
    request: Request<Incoming>,
    answer: Arc<impl Fn(&str, &Value) -> Answer + Send + Sync>,
) -> Response<Full<Bytes>> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).map(str::to_owned);
    let signed = request.headers().contains_key("authorization");
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, body) = match target {
        _ if !signed => refusal("MissingAuthenticationTokenException", "Missing Authentication Token"),
        Some(target) => answer(&target, &asked),
        None => refusal("UnknownOperationException", "No operation is named."),
    };
    json(status, body.to_string())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert("content-type", json);
    response
}
