//! Objects by a shorter way: a PutObject that is signed and sent without the SDK's machinery around an operation. That
//! costs more processor time than the bytes of a small object do; of a streamed one it takes a checksum of its own besides
//! the one that is taken as the bytes are read, and over plain HTTP a SHA-256 of all of it too.
//!
//! Endpoint, credentials, signature and connections are the SDK's. It knows no errors: what is not plainly stored is put
//! again by the SDK, which knows them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::config::endpoint::{DefaultResolver, Endpoint, Params, ResolveEndpoint as _};
use aws_sdk_s3::primitives::SdkBody;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use bytes::Bytes;
use futures::FutureExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Mutex;

use super::body::{PiecesBody, sdk_body};
use super::fault::source_broke;
use super::progress::Progress;
use super::trailed::{CHECKSUM_HEADER, TrailedBody};
use crate::checksum::Crc64Nvme;
use crate::pulse::Pulse;
use crate::store::{NewObject, Streamed};

/// To fetch credentials. The SDK, which has its own way to them, waits longer.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(5);

/// What a URI's path holds as it is: RFC 3986's unreserved characters, and the `/` between a key's segments.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Why an object is not known to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// The store is busy, or was not reached: it wants a pause.
    Busy,
    /// It did not take it, for a reason that the SDK finds out.
    Refused,
    /// The streamed body broke off.
    SourceBroke,
}

/// Puts objects into one bucket.
#[derive(Debug, Clone)]
pub struct Direct {
    inner: Arc<Inner>,
    moves: Pulse,
}

#[derive(Debug)]
struct Inner {
    connector: SharedHttpConnector,
    login: Login,
    /// Where the bucket is, without a `/` at its end.
    bucket_url: String,
    signing_region: String,
    signing_name: String,
    /// What every request carries, by lower-case name.
    headers: Vec<(&'static str, String)>,
    /// A refusal ends this way for the run: what is refused once is mostly refused each time, at two requests an object.
    is_closed: Closed,
    /// The same for streamed objects, after any failure: each costs a second reading of the source.
    is_closed_to_streams: Closed,
    /// The store has taken an object, whichever way.
    is_proven: AtomicBool,
}

/// Whether a way is closed. It is not opened again.
#[derive(Debug, Default)]
struct Closed(AtomicBool);

impl Closed {
    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn close(&self, way: &str, why: impl std::fmt::Debug) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::debug!(?why, "{way} are put by the SDK alone from here on, which costs more processor time");
        }
    }
}

/// A request's body as it is sent, and what tells of it.
struct Payload {
    body: SdkBody,
    headers: Vec<(&'static str, String)>,
    signable: SignableBody<'static>,
}

impl Direct {
    /// `None` where the bucket's endpoint wants more than a plain signature (a directory bucket's session), or there are
    /// no credentials.
    pub fn new(
        sdk: &SdkConfig,
        connector: SharedHttpConnector,
        params: Params,
        headers: Vec<(&'static str, String)>,
    ) -> Option<Self> {
        // Resolved from a table: there is nothing to wait for.
        let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
        let (signing_region, signing_name) = plain_signature(&endpoint)?;
        let inner = Inner {
            connector,
            login: Login { provider: sdk.credentials_provider()?, held: Mutex::default() },
            bucket_url: endpoint.url().trim_end_matches('/').to_owned(),
            signing_region,
            signing_name,
            headers,
            is_closed: Closed::default(),
            is_closed_to_streams: Closed::default(),
            is_proven: AtomicBool::new(false),
        };
        Some(Self { inner: Arc::new(inner), moves: Pulse::default() })
    }

    /// Counts what is sent to the store.
    pub fn counted_by(self, moves: Pulse) -> Self {
        Self { moves, ..self }
    }

    /// Whom requests are signed for; `None` where this way is closed, as it is from then on where there are no credentials.
    pub async fn identity(&self) -> Option<Identity> {
        let Inner { login, is_closed, .. } = &*self.inner;
        let mut held = login.held.lock().await;
        if is_closed.is_so() {
            return None;
        }
        let identity = login.identity(&mut held).await;
        if identity.is_none() {
            is_closed.close("objects", "no credentials in time");
        }
        identity
    }

    /// An object was stored.
    pub fn prove(&self) {
        self.inner.is_proven.store(true, Ordering::Relaxed);
    }

    /// Puts bytes that are at hand, once, and within `limit`; gives up where the store takes none of them for as long as
    /// `stalled_for`.
    pub async fn put(
        &self,
        identity: &Identity,
        object: &NewObject,
        pieces: &[Bytes],
        checksum: Crc64Nvme,
        (limit, stalled_for): (Duration, Duration),
    ) -> Result<(), NotStored> {
        let inner = &self.inner;
        let progress = Progress::new();
        let payload = Payload {
            body: sdk_body(PiecesBody::watched(pieces.to_vec(), progress.clone()), &self.moves),
            headers: vec![("content-length", checksum.len().to_string()), (CHECKSUM_HEADER, checksum.to_base64())],
            signable: SignableBody::UnsignedPayload,
        };
        let ended = tokio::select! {
            put = tokio::time::timeout(limit, inner.put(identity, object, payload)) => put.unwrap_or(Err(NotStored::Busy)),
            () = progress.stalled(stalled_for) => Err(NotStored::Busy),
        };
        match ended {
            Ok(()) => self.prove(),
            Err(NotStored::Refused) => inner.is_closed.close("objects", "one was refused"),
            Err(_) => {}
        }
        ended
    }

    /// Whether streamed objects may go this way. Not before the store has taken an object: what is refused until then is
    /// refused for a reason that the SDK knows, and tells.
    pub fn takes_streams(&self) -> bool {
        self.inner.is_proven.load(Ordering::Relaxed) && !self.inner.is_closed_to_streams.is_so()
    }

    /// Puts bytes as they come, once; gives up where the store takes none of them for as long as `stalled_for`. Given up
    /// midway by its caller, it counts as failed.
    pub async fn put_streamed(
        &self,
        identity: &Identity,
        object: &NewObject,
        streamed: Streamed,
        stalled_for: Duration,
    ) -> Result<(), NotStored> {
        let inner = &self.inner;
        let progress = Progress::new();
        let len = streamed.len;
        let body = TrailedBody::new(streamed, progress.clone());
        let payload = Payload {
            headers: vec![
                ("content-length", http_body::Body::size_hint(&body).lower().to_string()),
                ("content-encoding", "aws-chunked".to_owned()),
                ("x-amz-decoded-content-length", len.to_string()),
                ("x-amz-sdk-checksum-algorithm", "CRC64NVME".to_owned()),
                ("x-amz-trailer", CHECKSUM_HEADER.to_owned()),
            ],
            body: sdk_body(body, &self.moves),
            signable: SignableBody::StreamingUnsignedPayloadTrailer,
        };
        let mut trial = Trial { closed: &inner.is_closed_to_streams, ended: Err(NotStored::Busy) };
        trial.ended = tokio::select! {
            put = inner.put(identity, object, payload) => put,
            () = progress.stalled(stalled_for) => Err(NotStored::Busy),
        };
        trial.ended
    }
}

/// A streamed object under way. Whatever ends it but its being stored or its source closes the way to others.
struct Trial<'a> {
    closed: &'a Closed,
    ended: Result<(), NotStored>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Err(why @ (NotStored::Busy | NotStored::Refused)) = self.ended {
            self.closed.close("streamed objects", why);
        }
    }
}

impl Inner {
    async fn put(&self, identity: &Identity, object: &NewObject, payload: Payload) -> Result<(), NotStored> {
        let request = self.request(object, payload, identity).ok_or(NotStored::Refused)?;
        let response = self
            .connector
            .call(request)
            .await
            .map_err(|error| if source_broke(&error) { NotStored::SourceBroke } else { NotStored::Busy })?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            408 | 429 | 500..=599 => Err(NotStored::Busy),
            _ => Err(NotStored::Refused),
        }
    }

    /// The signed request; `None` where something in it has no place in a header.
    fn request(&self, object: &NewObject, payload: Payload, identity: &Identity) -> Option<HttpRequest> {
        let uri = format!("{}/{}", self.bucket_url, utf8_percent_encode(object.key.as_str(), ENCODED));
        let mut request = http::Request::put(&uri).header("content-type", &object.content_type);
        for (name, value) in payload.headers.iter().chain(&self.headers) {
            request = request.header(*name, value);
        }
        for (name, value) in &object.metadata {
            request = request.header(format!("x-amz-meta-{name}"), value);
        }
        let mut request = request.body(payload.body).ok()?;
        let mut settings = SigningSettings::default();
        // As S3 has it: the path as it is sent, encoded once; the body's checksum is another than the signature's.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.signing_region)
            .name(&self.signing_name)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .ok()?;
        let headers: Option<Vec<_>> =
            request.headers().iter().map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let signable = SignableRequest::new("PUT", &uri, headers?.into_iter(), payload.signable).ok()?;
        let (instructions, _) = sign(signable, &params.into()).ok()?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).ok()
    }
}

/// Region and service of the signature, where a version 4 signature of a request is all that the endpoint asks for.
fn plain_signature(endpoint: &Endpoint) -> Option<(String, String)> {
    let [scheme] = endpoint.auth_schemes() else { return None };
    let text = |name| scheme.get(name)?.as_string().map(str::to_owned);
    let is_plain = scheme.name() == "sigv4" && endpoint.headers().next().is_none();
    is_plain.then_some((text("signingRegion")?, text("signingName")?))
}

/// Credentials, fetched again before they expire.
#[derive(Debug)]
struct Login {
    provider: SharedCredentialsProvider,
    held: Mutex<Held>,
}

type Held = Option<(Identity, Option<SystemTime>)>;

impl Login {
    async fn identity(&self, held: &mut Held) -> Option<Identity> {
        let now = SystemTime::now();
        if let Some((identity, renew_at)) = held
            && renew_at.is_none_or(|at| now < at)
        {
            return Some(identity.clone());
        }
        let fetched = tokio::time::timeout(CREDENTIALS_WITHIN, self.provider.provide_credentials()).await;
        let identity = Identity::from(fetched.ok()?.ok()?);
        // A tenth of their life is left for what takes long.
        let renew_at = identity.expiration().map(|end| now + end.duration_since(now).unwrap_or_default() * 9 / 10);
        *held = Some((identity.clone(), renew_at));
        Some(identity)
    }
}
