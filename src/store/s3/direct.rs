//! Small objects by a shorter way: a PutObject that is signed and sent without the SDK's machinery around an operation,
//! which costs more processor time than the bytes of a small object do.
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

use super::body::PiecesBody;
use crate::checksum::Crc64Nvme;
use crate::store::NewObject;

/// To fetch credentials; the SDK's own limit.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(5);

/// What a URI's path holds as it is: RFC 3986's unreserved characters, and the `/` between a key's segments.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Why an object is not known to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// The store is busy, or was not reached: it wants a pause.
    Busy,
    /// Another reason, which the SDK finds out.
    Refused,
    /// An earlier object was refused: nothing was sent.
    Closed,
}

/// Puts objects into one bucket.
#[derive(Debug, Clone)]
pub struct Direct(Arc<Inner>);

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
    /// For each attempt.
    limit: Duration,
    /// A refusal ends this way for good: what is refused once would be refused each time, at two requests an object.
    is_closed: AtomicBool,
}

impl Direct {
    /// `None` where the bucket's endpoint wants more than a plain signature (a directory bucket's session), or there are
    /// no credentials.
    pub fn new(
        sdk: &SdkConfig,
        connector: SharedHttpConnector,
        params: Params,
        headers: Vec<(&'static str, String)>,
        limit: Duration,
    ) -> Option<Self> {
        // Resolved from a table: there is nothing to wait for.
        let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
        let (signing_region, signing_name) = plain_signature(&endpoint)?;
        Some(Self(Arc::new(Inner {
            connector,
            login: Login { provider: sdk.credentials_provider()?, held: Mutex::default() },
            bucket_url: endpoint.url().trim_end_matches('/').to_owned(),
            signing_region,
            signing_name,
            headers,
            limit,
            is_closed: AtomicBool::new(false),
        })))
    }

    /// Puts bytes that are at hand, once.
    pub async fn put(&self, object: &NewObject, pieces: &[Bytes], checksum: Crc64Nvme) -> Result<(), NotStored> {
        let inner = &self.0;
        if inner.is_closed.load(Ordering::Relaxed) {
            return Err(NotStored::Closed);
        }
        let put = tokio::time::timeout(inner.limit, inner.put(object, pieces, checksum)).await;
        let ended = put.unwrap_or(Err(NotStored::Busy));
        if ended == Err(NotStored::Refused) {
            inner.is_closed.store(true, Ordering::Relaxed);
        }
        ended
    }
}

impl Inner {
    async fn put(&self, object: &NewObject, pieces: &[Bytes], checksum: Crc64Nvme) -> Result<(), NotStored> {
        let identity = self.login.identity().await.ok_or(NotStored::Refused)?;
        let request = self.request(object, pieces, checksum, &identity).ok_or(NotStored::Refused)?;
        let response = self.connector.call(request).await.map_err(|_| NotStored::Busy)?;
        match response.status().as_u16() {
            200 => Ok(()),
            408 | 429 | 500..=599 => Err(NotStored::Busy),
            _ => Err(NotStored::Refused),
        }
    }

    /// The signed request; `None` where something in it has no place in a header.
    fn request(
        &self,
        object: &NewObject,
        pieces: &[Bytes],
        checksum: Crc64Nvme,
        identity: &Identity,
    ) -> Option<HttpRequest> {
        let uri = format!("{}/{}", self.bucket_url, utf8_percent_encode(object.key.as_str(), ENCODED));
        let mut request = http::Request::put(&uri)
            .header("content-length", checksum.len())
            .header("content-type", &object.content_type)
            .header("x-amz-checksum-crc64nvme", checksum.to_base64());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        for (name, value) in &object.metadata {
            request = request.header(format!("x-amz-meta-{name}"), value);
        }
        let body = SdkBody::from_body_1_x(PiecesBody::new(pieces.to_vec()));
        let mut request = request.body(body).ok()?;
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
        let signable = SignableRequest::new("PUT", &uri, headers?.into_iter(), SignableBody::UnsignedPayload).ok()?;
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
    held: Mutex<Option<(Identity, Option<SystemTime>)>>,
}

impl Login {
    async fn identity(&self) -> Option<Identity> {
        let now = SystemTime::now();
        let mut held = self.held.lock().await;
        if let Some((identity, renew_at)) = &*held
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
