//! Why there is no secret to work with: which source, which fields, what to do. Never a value.

use std::fmt;

/// Ends the run with code 4.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the secret is not JSON (line {line}, column {column}): it has to be an object such as \
         {{\"Host\": \"…\", \"Username\": \"…\", \"Password\": \"…\"}}"
    )]
    NotJson { line: usize, column: usize },
    #[error("the secret is JSON but {0}, and it has to be an object with names such as Username and Password")]
    NotAnObject(&'static str),
    /// All of them at once: a secret is mended once.
    #[error("{0}")]
    Fields(FieldFaults),
    #[error("SECRET_FILE {path:?} cannot be read: {problem}")]
    File { path: String, problem: String },
    #[error("secret {id:?} at stage {stage} cannot be read: {problem}")]
    SecretsManager { id: String, stage: String, problem: String },
    /// Another stage may be there.
    #[error(
        "secret {id:?} has no version at stage {stage}, or does not exist in region {region}: check SECRET_NAME, REGION \
         and SECRET_VERSION_STAGES"
    )]
    NoSuchVersion { id: String, stage: String, region: String },
}

/// What is wrong with one field of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    #[error("{field} of the secret is wrong: {problem}")]
    Wrong { field: &'static str, problem: String },
    #[error("the secret has no {field}: add it, or set {variable}")]
    Missing { field: &'static str, variable: &'static str },
    #[error("the secret has neither Password nor PrivateKey: add one of them, or both")]
    NothingToLogInWith,
    /// The text names the field.
    #[error("{0}")]
    PrivateKey(String),
}

/// At least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFaults(pub(super) Vec<FieldFault>);

impl fmt::Display for FieldFaults {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}
