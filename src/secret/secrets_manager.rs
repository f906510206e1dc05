//! AWS Secrets Manager: one call, and its failures in words that say what to mend.
//!
//! The SDK retries what can be retried; what comes back from here is final.

use std::error::Error;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Builder, ProvideCredentials, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::{GetSecretValueError, GetSecretValueOutput};
use secrecy::{SecretString, zeroize::Zeroizing};

use super::SecretError;
use crate::causes::{causes, refusal};

/// One try of the call. An answer is a few kilobytes; what takes longer hangs, and without this would hang for ever.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// A client in the secret's region.
#[derive(Debug, Clone)]
pub struct SecretsManager {
    client: Client,
    aws: SdkConfig,
    region: Option<Region>,
}

impl SecretsManager {
    /// `id` as in `SECRET_NAME`: an ARN's own region is the one to ask in, wherever the bucket is.
    pub fn new(aws: &SdkConfig, id: &str) -> Self {
        let region = region_of_arn(id).map(Region::new).or_else(|| aws.region().cloned());
        let timeout = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
        let config = Builder::from(aws).region(region.clone()).timeout_config(timeout).build();
        Self { client: Client::from_conf(config), aws: aws.clone(), region }
    }

    /// The secret's text at a version stage; a binary secret counts where it is UTF-8.
    pub async fn get(&self, id: &str, stage: &str) -> Result<SecretString, SecretError> {
        let failed =
            |problem: String| SecretError::SecretsManager { id: id.to_owned(), stage: stage.to_owned(), problem };
        let Some(region) = &self.region else {
            return Err(failed(String::from("no AWS region is known: set REGION")));
        };
        match self.client.get_secret_value().secret_id(id).version_stage(stage).send().await {
            Ok(output) => text_of(output).ok_or_else(|| failed(String::from("it is neither text nor UTF-8 bytes"))),
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                Err(SecretError::NoSuchVersion {
                    id: id.to_owned(),
                    stage: stage.to_owned(),
                    region: region.to_string(),
                })
            }
            Err(SdkError::ServiceError(error)) => {
                Err(failed(refusal(error.err().code(), error.err().message(), advice)))
            }
            Err(error) => Err(failed(self.silence(&error).await)),
        }
    }

    /// Why there was no answer.
    async fn silence<R: std::fmt::Debug + 'static>(&self, error: &SdkError<GetSecretValueError, R>) -> String
    where
        SdkError<GetSecretValueError, R>: Error,
    {
        let unreachable = match error {
            SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout(),
            SdkError::TimeoutError(_) => true,
            _ => false,
        };
        if unreachable {
            return format!(
                "Secrets Manager does not answer ({}): check the subnet's route to it (NAT or a VPC endpoint), its \
                 security group, and AWS_ENDPOINT_URL if that is set",
                causes(error)
            );
        }
        // Credentials are looked for while the request is made; asked for again, they say for themselves what is wrong.
        let credentials = match self.aws.credentials_provider() {
            Some(provider) => provider.provide_credentials().await.err().map(|error| causes(&error)),
            None => Some(String::from("none are configured")),
        };
        match credentials {
            Some(causes) => format!(
                "no AWS credentials were found ({causes}): give the task a role, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
            ),
            None => causes(error),
        }
    }
}

fn text_of(output: GetSecretValueOutput) -> Option<SecretString> {
    if let Some(text) = output.secret_string {
        return Some(SecretString::from(text));
    }
    let bytes = Zeroizing::new(output.secret_binary?.into_inner());
    std::str::from_utf8(&bytes).ok().map(SecretString::from)
}

/// What to do about a code.
fn advice(code: &str) -> &'static str {
    match code {
        "AccessDeniedException" => {
            ": allow secretsmanager:GetSecretValue on it to the task's role, and kms:Decrypt where the secret has a KMS key \
             of its own"
        }
        "DecryptionFailure" => ": allow kms:Decrypt on its KMS key to the task's role",
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => ": AWS refuses the credentials themselves",
        _ => "",
    }
}

/// `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`
fn region_of_arn(id: &str) -> Option<String> {
    let mut parts = id.strip_prefix("arn:")?.split(':').skip(1);
    let (service, region) = (parts.next()?, parts.next()?);
    (service == "secretsmanager" && !region.is_empty()).then(|| region.to_owned())
}

#[cfg(test)]
mod tests;
