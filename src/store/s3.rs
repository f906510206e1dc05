//! The S3 adapter: requests, checksums and error codes of the S3 API. Promises what `store.rs` says.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, SdkConfig, stalled_stream_protection::StalledStreamProtectionConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::endpoint::Params;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
    StorageClass,
};
use aws_smithy_http_client::{Connector, proxy::ProxyConfig, tls};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector, http_client_fn};
use aws_types::service_config::ServiceConfigKey;

use super::{Body, Error, Kind, NewObject, Part, Sent, SourceBroke, Store, Upload, UploadId};
use crate::causes::causes;
use crate::checksum::Crc64Nvme;
use crate::config::{ObjectAttributes, UploadSettings};
use crate::pulse::Pulse;

mod body;
mod direct;
mod fault;
mod limit;
mod lookup;
mod progress;
mod trailed;

use body::Wire;
use direct::{Direct, NotStored};
use fault::{advice, classify, shown};
use limit::{ANSWER, BRIEF, COMPLETION, CONNECT_TIMEOUT, Limit, STALLED_FOR, timeouts, within};

/// At most so long a pause follows a first attempt that found the store busy, as the SDK has it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What an object that went the shorter way and did not arrive is said to be; the next attempt, by the SDK, knows why.
const NOT_TAKEN: &str = "the store did not take it";

/// How far the shorter way came.
enum Directly {
    Stored,
    /// Nothing was sent.
    NotTried(Body),
    /// An attempt was spent, and the object is not known to be stored.
    NotKnown(Body),
}

/// One bucket over `aws-sdk-s3`. Cheap to share; every request goes through one connection pool.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    /// The shorter way, where there is one.
    direct: Option<Direct>,
    max_attempts: u32,
    moves: Pulse,
    bucket: String,
    /// The one that was set, if one was, as it may be shown.
    endpoint: Option<String>,
    attributes: ObjectAttributes,
    /// `OBJECT_TAGS` in the form of the `x-amz-tagging` header.
    tagging: Option<String>,
}

/// Region, credentials and endpoint from the SDK's own chain of environment, profile, container and instance.
pub async fn load_sdk(region: Option<String>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = region {
        loader = loader.region(aws_config::Region::new(region));
    }
    loader.load().await
}

/// The endpoint that was set, for S3 or for every service, in the environment or in a profile.
fn custom_endpoint(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_service = || sdk.service_config()?.load_config(key.ok()?);
    of_service().or_else(|| sdk.endpoint_url().map(str::to_owned))
}

/// What keeps every request to S3 from being sent, so that nothing else need be tried.
pub fn unusable(sdk: &SdkConfig) -> Option<String> {
    if sdk.region().is_none() {
        let why = "REGION is not set: give the bucket's region, or any for a store that is not AWS (nor is there an AWS_REGION, a region in a profile, or that of an instance)";
        return Some(why.to_owned());
    }
    let endpoint = custom_endpoint(sdk)?;
    let is_url = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    (!is_url).then(|| {
        "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is no address: give it as https://HOST or http://HOST:PORT"
            .to_owned()
    })
}

/// One pool of connections for all requests, to one bucket or several. Clones share it.
#[derive(Debug, Clone)]
pub struct Connections(SharedHttpConnector);

impl Default for Connections {
    /// As the SDK's own client has it, but for the time to connect.
    fn default() -> Self {
        let connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .proxy_config(ProxyConfig::from_env());
        Self(SharedHttpConnector::new(connector.build()))
    }
}

impl S3Store {
    /// `sdk` brings region, credentials and endpoint; `max_attempts` counts the first try.
    pub fn new(sdk: &SdkConfig, bucket: String, settings: &UploadSettings, max_attempts: u32) -> Self {
        Self::over(Connections::default(), sdk, bucket, settings, max_attempts)
    }

    /// Counts what is sent to the store.
    pub fn counted_by(self, moves: Pulse) -> Self {
        Self { direct: self.direct.map(|direct| direct.counted_by(moves.clone())), moves, ..self }
    }

    /// The same, over connections that others use too.
    pub fn over(
        Connections(connector): Connections,
        sdk: &SdkConfig,
        bucket: String,
        settings: &UploadSettings,
        max_attempts: u32,
    ) -> Self {
        let endpoint = custom_endpoint(sdk);
        let path_style = settings.path_style.unwrap_or(endpoint.is_some());
        let endpoint_shown = endpoint.as_deref().and_then(shown);
        let config = aws_sdk_s3::config::Builder::from(sdk)
            .force_path_style(path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(max_attempts))
            .timeout_config(timeouts(Some(BRIEF)))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(http_client_fn({
                let connector = connector.clone();
                move |_, _| connector.clone()
            }))
            .build();
        let attributes = settings.attributes.clone();
        let tagging = (!attributes.tags.is_empty()).then(|| tagging_header(&attributes.tags));
        let params = Params::builder()
            .bucket(&bucket)
            .set_region(sdk.region().map(ToString::to_string))
            .set_endpoint(endpoint)
            .force_path_style(path_style)
            .set_use_fips(sdk.use_fips())
            .set_use_dual_stack(sdk.use_dual_stack())
            .build();
        let headers = headers(&attributes, tagging.as_deref());
        // Whatever is not stored is put again by the SDK, so there has to be a second attempt.
        let direct = params.ok().filter(|_| max_attempts > 1);
        let direct = direct.and_then(|params| Direct::new(sdk, connector, params, headers));
        Self {
            client: Client::from_conf(config),
            direct,
            max_attempts,
            moves: Pulse::default(),
            bucket,
            endpoint: endpoint_shown,
            attributes,
            tagging,
        }
    }

    /// Puts an object the shorter way, where there is one.
    async fn put_directly(&self, object: &NewObject, body: Body, limit: Limit) -> Result<Directly, Error> {
        let Some(direct) = &self.direct else { return Ok(Directly::NotTried(body)) };
        let Some(identity) = direct.identity().await else { return Ok(Directly::NotTried(body)) };
        match body {
            Body::Buffered { pieces, checksum } => {
                let limits = (limit.attempt().unwrap_or(BRIEF), STALLED_FOR);
                let ended = direct.put(&identity, object, &pieces, checksum, limits).await;
                if ended == Err(NotStored::Busy) {
                    tokio::time::sleep(FIRST_PAUSE.mul_f64(rand::random())).await;
                }
                let body = Body::Buffered { pieces, checksum };
                Ok(ended.map_or_else(|_| Directly::NotKnown(body), |()| Directly::Stored))
            }
            Body::Streamed(streamed) if direct.takes_streams() => {
                let action = format!("PutObject to s3://{}/{}", self.bucket, object.key.as_str());
                let not_taken = || Error::new(Kind::Unavailable, format!("{action}: {NOT_TAKEN}"));
                Err(match direct.put_streamed(&identity, object, streamed, STALLED_FOR).await {
                    Ok(()) => return Ok(Directly::Stored),
                    Err(NotStored::SourceBroke) => Error::new(Kind::SourceBroke, format!("{action}: {SourceBroke}")),
                    Err(NotStored::Refused) => not_taken().as_refusal(),
                    Err(NotStored::Busy) => not_taken(),
                })
            }
            body => Ok(Directly::NotTried(body)),
        }
    }

    /// Puts an object, the shorter way first.
    async fn try_to_put(&self, object: &NewObject, body: Body) -> Result<(), Error> {
        let limit = Limit::of(&body);
        let (body, attempts) = match self.put_directly(object, body, limit).await? {
            Directly::Stored => return Ok(()),
            Directly::NotTried(body) => (body, None),
            Directly::NotKnown(body) => (body, Some(self.max_attempts - 1)),
        };
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(object.key.as_str())
            .content_type(&object.content_type)
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.attributes.kms_key_id.clone())
            .set_storage_class(self.storage_class())
            .set_tagging(self.tagging.clone())
            .set_metadata(Some(
                object.metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ));
        let wire = Wire::of(body, &self.moves);
        let request = request
            .set_content_length(wire.content_length)
            .set_checksum_crc64_nvme(wire.checksum)
            .set_checksum_algorithm(wire.algorithm)
            .body(wire.body);
        let stored = within(request.customize(), limit, attempts).send().await;
        stored.map_err(|error| self.error("PutObject to", object.key.as_str(), error))?;
        self.prove();
        Ok(())
    }

    /// An object was stored by the SDK.
    fn prove(&self) {
        if let Some(direct) = &self.direct {
            direct.prove();
        }
    }

    fn error<E>(&self, action: &str, key: &str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let code = error.code().map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let kind = classify(code.as_deref(), status, &error);
        let target = format!("s3://{}/{key}", self.bucket);
        let said = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => causes(&error),
        };
        let request = match error
            .as_service_error()
            .and(error.raw_response())
            .and_then(|r| r.headers().get("x-amz-request-id"))
        {
            Some(id) => format!(" (request {id})"),
            None => String::new(),
        };
        let advice = advice(kind, code.as_deref(), &self.bucket, self.endpoint.as_deref());
        Error::new(kind, format!("{action} {target}: {said}{request}{advice}"))
    }

    fn sse(&self) -> Option<ServerSideEncryption> {
        self.attributes.sse.as_deref().map(ServerSideEncryption::from)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.attributes.storage_class.as_deref().map(StorageClass::from)
    }

    /// Whether the object is there as it was sent, with these bytes: the answer to a request whose own answer was lost. Asked `attempts`
    /// times, or as often as any.
    async fn holds(&self, object: &NewObject, checksum: Crc64Nvme, attempts: Option<u32>) -> bool {
        let head = self.client.head_object().bucket(&self.bucket).key(object.key.as_str());
        let head = head.checksum_mode(ChecksumMode::Enabled);
        let told = within(head.customize(), Limit::Brief, attempts).send().await;
        told.is_ok_and(|head| lookup::is_it(&head, object, checksum, &self.attributes))
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, object: &NewObject, body: Body) -> Result<(), Error> {
        let sent = body.sent();
        // Who feeds a streamed body tries again himself.
        let attempts = matches!(sent, Sent::Following(_)).then_some(1);
        match answered(&sent, self.try_to_put(object, body)).await {
            // The answer may be what was lost.
            Err(error) if error.kind == Kind::Unavailable && !error.is_refusal() => match sent.checksum() {
                Some(checksum) if self.holds(object, checksum, attempts).await => Ok(()),
                _ => Err(error),
            },
            stored => stored,
        }
    }

    async fn begin(&self, object: &NewObject) -> Result<UploadId, Error> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(object.key.as_str())
            .content_type(&object.content_type)
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.attributes.kms_key_id.clone())
            .set_storage_class(self.storage_class())
            .set_tagging(self.tagging.clone())
            .set_metadata(Some(
                object.metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ));
        let sent = request.send().await;
        let begun = sent.map_err(|e| self.error("CreateMultipartUpload of", object.key.as_str(), e))?;
        match begun.upload_id() {
            Some(id) => Ok(UploadId(id.to_owned())),
            None => Err(Error::new(
                Kind::Rejected,
                format!(
                    "CreateMultipartUpload of s3://{}/{}: the answer has no upload id",
                    self.bucket,
                    object.key.as_str()
                ),
            )),
        }
    }

    async fn upload_part(&self, upload: &Upload<'_>, number: u32, body: Body) -> Result<Part, Error> {
        let key = upload.object.key.as_str();
        let request =
            self.client.upload_part().bucket(&self.bucket).key(key).upload_id(&upload.id.0).part_number(number as i32);
        let (limit, sent) = (Limit::of(&body), body.sent());
        let wire = Wire::of(body, &self.moves);
        let request = request
            .set_content_length(wire.content_length)
            .set_checksum_crc64_nvme(wire.checksum)
            .set_checksum_algorithm(wire.algorithm)
            .body(wire.body);
        let upload = async {
            let stored = within(request.customize(), limit, None).send().await;
            stored.map_err(|error| self.error("UploadPart of", key, error))
        };
        let stored = answered(&sent, upload).await?;
        match stored.e_tag() {
            Some(etag) => Ok(Part { number, etag: etag.to_owned(), checksum: sent.checksum() }),
            None => Err(Error::new(
                Kind::Rejected,
                format!("UploadPart {number} of s3://{}/{key}: the answer has no ETag", self.bucket),
            )),
        }
    }

    async fn complete(&self, upload: &Upload<'_>, parts: &[Part], checksum: Crc64Nvme) -> Result<(), Error> {
        let key = upload.object.key.as_str();
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number as i32)
                .e_tag(&part.etag)
                .set_checksum_crc64_nvme(part.checksum.map(Crc64Nvme::to_base64))
                .build()
        });
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(&upload.id.0)
            .checksum_type(ChecksumType::FullObject)
            .checksum_crc64_nvme(checksum.to_base64())
            .mpu_object_size(checksum.len() as i64)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build());
        match within(request.customize(), Limit::Within(COMPLETION), None).send().await {
            Ok(_) => {
                self.prove();
                Ok(())
            }
            Err(error) => {
                let error = self.error("CompleteMultipartUpload of", key, error);
                // The answer may be what was lost; a completion that is sent again then finds no upload.
                let unsure = matches!(error.kind, Kind::NoUpload | Kind::Unavailable);
                if !unsure || !self.holds(upload.object, checksum, None).await {
                    return Err(error);
                }
                // What is there may be an earlier run's, and the parts of this one beside it.
                if error.kind == Kind::Unavailable {
                    self.abandon(upload).await;
                }
                Ok(())
            }
        }
    }

    async fn abort(&self, upload: &Upload<'_>) -> Result<(), Error> {
        let key = upload.object.key.as_str();
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(&upload.id.0);
        let sent = request.send().await;
        match sent.map_err(|error| self.error("AbortMultipartUpload of", key, error)) {
            Err(error) if error.kind != Kind::NoUpload => Err(error),
            _ => Ok(()),
        }
    }
}

/// A request's answer, which is waited for only so long once the last of a streamed body was sent.
async fn answered<T>(sent: &Sent, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let Sent::Following(checksum) = sent else { return request.await };
    let silence = async {
        match checksum.clone().await {
            Ok(_) => tokio::time::sleep(ANSWER).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = request => answer,
        () = silence => Err(Error::new(Kind::Unavailable, "the store did not answer once all was sent")),
    }
}

/// What every object of a run is stored with, as headers.
fn headers(attributes: &ObjectAttributes, tagging: Option<&str>) -> Vec<(&'static str, String)> {
    let headers = [
        ("user-agent", Some(concat!("sftp-s3-connector/", env!("CARGO_PKG_VERSION")))),
        ("x-amz-server-side-encryption", attributes.sse.as_deref()),
        ("x-amz-server-side-encryption-aws-kms-key-id", attributes.kms_key_id.as_deref()),
        ("x-amz-storage-class", attributes.storage_class.as_deref()),
        ("x-amz-tagging", tagging),
    ];
    headers.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))).collect()
}

/// `k=v&k=v`, percent-encoded as a URL query.
fn tagging_header(tags: &[(String, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
