//! What went wrong with a request: its kind, from the service's codes, and words for the person who reads the log.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::SdkError;

use crate::store::{Kind, SourceBroke};

/// From the service's code first, the HTTP status second, and what kind of failure the SDK saw last.
pub fn classify<E>(code: Option<&str>, status: Option<u16>, error: &SdkError<E>) -> Kind
where
    E: std::error::Error + 'static,
{
    if source_broke(error) {
        return Kind::SourceBroke;
    }
    match (code, status) {
        (Some("NoSuchBucket"), _) => Kind::NoBucket,
        (Some("NoSuchUpload"), _) => Kind::NoUpload,
        (
            Some(
                "SlowDown"
                | "RequestTimeout"
                | "InternalError"
                | "ServiceUnavailable"
                | "BadDigest"
                | "XAmzContentChecksumMismatch"
                | "IncompleteBody",
            ),
            _,
        ) => Kind::Unavailable,
        (Some(code), _) if is_denial(code) => Kind::Denied,
        (_, Some(301 | 401 | 403)) => Kind::Denied,
        (_, Some(408 | 429 | 500..=599)) => Kind::Unavailable,
        (_, Some(_)) => Kind::Rejected,
        (_, None) => match error {
            // No credentials, no region: nothing was sent, and nothing will be.
            SdkError::ConstructionFailure(_) => Kind::Denied,
            SdkError::DispatchFailure(failure) if failure.is_other() && has_no_credentials(error) => Kind::Denied,
            _ => Kind::Unavailable,
        },
    }
}

/// Codes that say: not with these credentials, not from this region, not with this key.
fn is_denial(code: &str) -> bool {
    code.starts_with("KMS.")
        || is_of_credentials(code)
        || is_of_region(code)
        || matches!(code, "AccessDenied" | "AllAccessDisabled" | "AccountProblem")
}

fn is_of_credentials(code: &str) -> bool {
    matches!(
        code,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "RequestTimeTooSkewed"
    )
}

fn is_of_region(code: &str) -> bool {
    matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")
}

/// An endpoint as it may be shown: without the user and password, the path and the query that a URL may have.
pub fn shown(endpoint: &str) -> Option<String> {
    let uri: http::Uri = endpoint.parse().ok()?;
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
}

/// What to do about it. `endpoint` is the one that was set, if one was, as it may be shown.
pub fn advice(kind: Kind, code: Option<&str>, bucket: &str, endpoint: Option<&str>) -> String {
    match (kind, code) {
        (Kind::Unavailable, None) => endpoint.map_or_else(String::new, |endpoint| {
            format!("; the endpoint is {endpoint}, from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the AWS profile")
        }),
        (Kind::NoBucket, _) => format!("; check that the bucket {bucket} exists"),
        (Kind::Denied, None) => "; no usable AWS credentials or region were found: give the task a role, or set \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and see that REGION is set"
            .to_owned(),
        (Kind::Denied, Some(code)) if is_of_region(code) => {
            "; the bucket is in another region: set REGION to the bucket's".to_owned()
        }
        (Kind::Denied, Some(code)) if is_of_credentials(code) => {
            "; the AWS credentials themselves are not accepted: they are wrong, expired or for another partition"
                .to_owned()
        }
        (Kind::Denied, Some(code)) if code.starts_with("KMS.") => {
            "; check KMS_KEY_ID, or the bucket's default key, and that the task role may use it".to_owned()
        }
        (Kind::Denied, Some(_)) => format!(
            "; is {bucket} the right bucket, and whose is it? The task role needs s3:PutObject and s3:AbortMultipartUpload on the \
             bucket's objects, s3:PutObjectTagging with OBJECT_TAGS, and kms:GenerateDataKey and kms:Decrypt where a KMS \
             key encrypts them"
        ),
        _ => String::new(),
    }
}

/// Whether the request could not be signed for want of credentials.
fn has_no_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<CredentialsError>())
}

/// Whether the body's own error is what ended the request.
pub fn source_broke(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<SourceBroke>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_without_what_may_be_secret() {
        for (endpoint, seen) in [
            ("http://127.0.0.1:9000", Some("http://127.0.0.1:9000")),
            ("https://user:password@s3.example.com/path?token=1", Some("https://s3.example.com")),
            ("https://[::1]:9000/", Some("https://[::1]:9000")),
            ("no address", None),
        ] {
            assert_eq!(shown(endpoint).as_deref(), seen);
        }
    }
}
