//! The versions of the secret that may log in, in order, each read only when the one before it was refused.

use std::io;
use std::path::Path;

use aws_config::SdkConfig;
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;

use super::{Secret, SecretError, SecretsManager};
use crate::config::SecretSource;

/// One version of the secret.
#[derive(Debug, Clone)]
pub struct Version {
    /// Where it is from, for logs: `partner/sftp at AWSPREVIOUS`.
    pub label: String,
    pub secret: Secret,
}

/// Reads one version after the other:
///
/// ```no_run
/// # use connector::secret::{SecretError, Versions};
/// # async fn example(mut versions: Versions) -> Result<(), SecretError> {
/// while let Some(version) = versions.next().await {
///     let version = version?;
///     // Connect with it. Where the server refuses the login, go on; otherwise, leave the loop.
/// }
/// // Refused all the way.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Versions {
    source: Source,
    /// The first version that was not there, as long as none was.
    missing: Option<SecretError>,
    found: bool,
}

#[derive(Debug)]
enum Source {
    SecretsManager {
        client: Box<SecretsManager>,
        id: String,
        stages: std::vec::IntoIter<String>,
    },
    /// What has one version, until it is read.
    Once(Option<Once>),
}

#[derive(Debug)]
enum Once {
    File(std::path::PathBuf),
    Json(SecretString),
}

impl Versions {
    /// Reads nothing yet. `aws` is used where the secret is in Secrets Manager.
    pub fn new(source: &SecretSource, aws: &SdkConfig) -> Self {
        let source = match source.clone() {
            SecretSource::SecretsManager { id, stages } => Source::SecretsManager {
                client: Box::new(SecretsManager::new(aws, &id)),
                id,
                stages: stages.into_iter(),
            },
            SecretSource::File(path) => Source::Once(Some(Once::File(path))),
            SecretSource::Json(json) => Source::Once(Some(Once::Json(json))),
        };
        Self { source, missing: None, found: false }
    }

    /// The next version. A stage without a version is passed over with a warning, unless no stage has one: in the days
    /// after a secret is made it has no `AWSPREVIOUS`. After an error there is nothing more worth trying.
    pub async fn next(&mut self) -> Option<Result<Version, SecretError>> {
        match &mut self.source {
            Source::Once(once) => Some(match once.take()? {
                Once::File(path) => read_file(&path).await.and_then(|json| version(format!("{path:?}"), &json)),
                Once::Json(json) => version(String::from("SECRET_JSON"), &json),
            }),
            Source::SecretsManager { client, id, stages } => {
                for stage in stages {
                    match client.get(id, &stage).await {
                        Ok(json) => {
                            self.found = true;
                            return Some(version(format!("{id} at {stage}"), &json));
                        }
                        Err(missing @ SecretError::NoSuchVersion { .. }) => {
                            warn!(secret = id, stage, "the secret has no version at this stage");
                            self.missing.get_or_insert(missing);
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                self.missing.take().filter(|_| !self.found).map(Err)
            }
        }
    }
}

fn version(label: String, json: &SecretString) -> Result<Version, SecretError> {
    Ok(Version { label, secret: Secret::parse(json.expose_secret())? })
}

async fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let problem = |error: io::Error| SecretError::File {
        path: path.display().to_string(),
        problem: match error.kind() {
            io::ErrorKind::NotFound => String::from("there is no such file; is the secret mounted?"),
            io::ErrorKind::PermissionDenied => {
                String::from("the program's user may not read it; see the mount's mode and owner")
            }
            io::ErrorKind::InvalidData => String::from("it is not UTF-8 text"),
            _ => error.to_string(),
        },
    };
    tokio::fs::read_to_string(path).await.map(SecretString::from).map_err(problem)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn nowhere() -> SdkConfig {
        SdkConfig::builder().build()
    }

    async fn from_file(bytes: &[u8]) -> Result<Version, SecretError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let mut versions = Versions::new(&SecretSource::File(file.path().to_owned()), &nowhere());
        let first = versions.next().await.expect("one version");
        assert!(versions.next().await.is_none(), "a file has one version");
        first
    }

    #[tokio::test]
    async fn a_file_is_one_version() {
        let version = from_file(b"{\"Username\": \"u\"}\n").await.expect("a secret");
        assert_eq!(version.secret.username.as_deref(), Some("u"));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_says_which_and_why() {
        let path = std::path::PathBuf::from("/nonexistent/secret");
        let error =
            Versions::new(&SecretSource::File(path), &nowhere()).next().await.expect("an answer").expect_err("none");
        assert!(
            error.to_string().contains("\"/nonexistent/secret\"") && error.to_string().contains("mounted"),
            "{error}"
        );
        let error = from_file(b"{\"Password\": \"hunter2\xff\"}").await.expect_err("not UTF-8").to_string();
        assert!(error.contains("UTF-8") && !error.contains("hunter2"), "{error}");
        assert!(from_file(b"hunter2").await.expect_err("not JSON").to_string().contains("not JSON"));
    }

    #[tokio::test]
    async fn json_is_one_version_and_is_not_shown() {
        let source = SecretSource::Json(SecretString::from("{\"Password\": \"hunter2\"}"));
        let mut versions = Versions::new(&source, &nowhere());
        assert!(!format!("{versions:?}").contains("hunter2"));
        let version = versions.next().await.expect("one version").expect("a secret");
        assert!(version.secret.password.is_some());
        assert!(versions.next().await.is_none());
    }
}
