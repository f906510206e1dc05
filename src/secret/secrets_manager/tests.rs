//! Against a server on loopback that answers as Secrets Manager does, one canned answer a request.

use std::sync::{Arc, Mutex};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::config::SecretSource;
use crate::secret::Versions;

/// Answers each request with the next of `answers` (status, body) and notes what was asked.
async fn serve(answers: Vec<(u16, &'static str)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            let mut length = 0;
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                stream.read_line(&mut head).await.expect("a header");
                let line = head[start..].to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut request = vec![0; length];
            stream.read_exact(&mut request).await.expect("a body");
            notes.lock().expect("not poisoned").push(format!("{head}{}", String::from_utf8_lossy(&request)));
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.expect("answered");
        }
    });
    (endpoint, asked)
}

fn aws(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "the-secret-access-key", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

async fn get(status: u16, body: &'static str) -> Result<SecretString, SecretError> {
    let (endpoint, _) = serve(vec![(status, body)]).await;
    SecretsManager::new(&aws(&endpoint), "partner/sftp").get("partner/sftp", "AWSCURRENT").await
}

const NOT_FOUND: (u16, &str) =
    (400, r#"{"__type": "ResourceNotFoundException", "Message": "Secrets Manager can't find the specified secret."}"#);

#[tokio::test]
async fn text_and_utf8_bytes_are_both_a_secret() {
    let text = get(200, r#"{"Name": "partner/sftp", "SecretString": "{\"Password\":\"hunter2\"}"}"#).await;
    assert_eq!(text.expect("text").expose_secret(), r#"{"Password":"hunter2"}"#);
    let bytes = get(200, r#"{"Name": "partner/sftp", "SecretBinary": "eyJQb3J0IjoyMn0="}"#).await;
    assert_eq!(bytes.expect("bytes").expose_secret(), r#"{"Port":22}"#);
    for neither in [r#"{"Name": "partner/sftp", "SecretBinary": "/////w=="}"#, r#"{"Name": "partner/sftp"}"#] {
        let error = get(200, neither).await.expect_err("neither").to_string();
        assert!(error.contains("neither text nor UTF-8"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_secret_the_stage_and_what_to_mend() {
    for (body, words) in [
        (
            r#"{"__type": "AccessDeniedException", "Message": "User: x is not authorized"}"#,
            "secretsmanager:GetSecretValue",
        ),
        (r#"{"__type": "DecryptionFailure", "Message": "no"}"#, "kms:Decrypt"),
        (
            r#"{"__type": "UnrecognizedClientException", "message": "The security token is invalid"}"#,
            "refuses the credentials",
        ),
        (r#"{"__type": "ExpiredTokenException", "message": "expired"}"#, "ExpiredTokenException"),
        (r#"{"__type": "InvalidRequestException", "Message": "it was marked for deletion"}"#, "marked for deletion"),
    ] {
        let error = get(400, body).await.expect_err(body).to_string();
        for word in [words, "partner/sftp", "AWSCURRENT"] {
            assert!(error.contains(word), "{error}");
        }
    }
    let (status, body) = NOT_FOUND;
    let error = get(status, body).await.expect_err(body);
    assert!(matches!(error, SecretError::NoSuchVersion { .. }), "{error}");
    assert!(error.to_string().contains("eu-west-1") && error.to_string().contains("SECRET_NAME"), "{error}");
}

#[tokio::test]
async fn silence_says_what_stands_in_the_way() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", closed.local_addr().expect("its address"));
    drop(closed);
    let error = SecretsManager::new(&aws(&endpoint), "s").get("s", "AWSCURRENT").await.expect_err("closed");
    assert!(error.to_string().contains("does not answer"), "{error}");

    let mut anonymous = aws("http://127.0.0.1:9").into_builder();
    anonymous.set_credentials_provider(None);
    let error = SecretsManager::new(&anonymous.build(), "s").get("s", "AWSCURRENT").await.expect_err("nobody");
    assert!(error.to_string().contains("no AWS credentials"), "{error}");

    let mut nowhere = aws("http://127.0.0.1:9").into_builder();
    nowhere.set_region(None);
    let error = SecretsManager::new(&nowhere.build(), "s").get("s", "AWSCURRENT").await.expect_err("nowhere");
    assert!(error.to_string().contains("set REGION"), "{error}");
}

#[tokio::test]
async fn an_arn_is_asked_for_in_its_own_region() {
    let (endpoint, asked) = serve(vec![(200, r#"{"SecretString": "{}"}"#)]).await;
    let arn = "arn:aws:secretsmanager:ap-south-1:123456789012:secret:partner/sftp-AbCdEf";
    SecretsManager::new(&aws(&endpoint), arn).get(arn, "AWSPENDING").await.expect("a secret");
    let asked = asked.lock().expect("not poisoned").concat();
    for part in ["/ap-south-1/secretsmanager/aws4_request", arn, "AWSPENDING"] {
        assert!(asked.contains(part), "{asked}");
    }
}

fn versions(endpoint: &str, stages: &[&str]) -> Versions {
    let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
    Versions::new(&SecretSource::SecretsManager { id: String::from("s"), stages }, &aws(endpoint))
}

#[tokio::test]
async fn stages_are_read_in_order_and_each_only_when_asked_for() {
    let answers = vec![(200, r#"{"SecretString": "{\"Port\":1}"}"#), (200, r#"{"SecretString": "{\"Port\":2}"}"#)];
    let (endpoint, asked) = serve(answers).await;
    let mut versions = versions(&endpoint, &["AWSCURRENT", "AWSPREVIOUS"]);
    let count = || asked.lock().expect("not poisoned").len();
    assert_eq!(count(), 0);
    let first = versions.next().await.expect("a version").expect("a secret");
    assert_eq!((first.label.as_str(), first.secret.port, count()), ("s at AWSCURRENT", Some(1), 1));
    let second = versions.next().await.expect("a version").expect("a secret");
    assert_eq!((second.label.as_str(), second.secret.port, count()), ("s at AWSPREVIOUS", Some(2), 2));
    assert!(versions.next().await.is_none());
}

#[tokio::test]
async fn a_stage_without_a_version_is_passed_over_before_and_after_one_that_has_one() {
    let one = (200, r#"{"SecretString": "{\"Port\":1}"}"#);
    let (endpoint, _) = serve(vec![NOT_FOUND, one, NOT_FOUND]).await;
    let mut versions = versions(&endpoint, &["AWSPENDING", "AWSCURRENT", "AWSPREVIOUS"]);
    assert_eq!(versions.next().await.expect("a version").expect("a secret").label, "s at AWSCURRENT");
    assert!(versions.next().await.is_none());
}

#[tokio::test]
async fn with_no_version_at_any_stage_the_first_is_what_is_missing() {
    let (endpoint, _) = serve(vec![NOT_FOUND, NOT_FOUND]).await;
    let mut versions = versions(&endpoint, &["AWSCURRENT", "AWSPREVIOUS"]);
    let error = versions.next().await.expect("an answer").expect_err("no version");
    assert!(matches!(&error, SecretError::NoSuchVersion { stage, .. } if stage == "AWSCURRENT"), "{error}");
    assert!(versions.next().await.is_none());
}
