//! From the configuration to an open, logged-in connection: the secret, its versions, the engine.

use std::sync::Arc;

use aws_config::SdkConfig;
use secrecy::SecretString;

use crate::config::{Config, EngineKind, SecretSource};
use crate::exit::Exit;
use crate::pulse::Pulse;
#[cfg(feature = "libssh2")]
use crate::remote::libssh2::Libssh2Engine;
use crate::remote::pool::Pool;
use crate::remote::russh::RusshEngine;
use crate::remote::{Endpoint, Engine, Error, Kind};
use crate::retry::Retry;
use crate::secret::{Secret, Version, Versions};

/// A server that is connected to, and what else the secret held.
pub struct Connected {
    pub pool: Pool,
    pub endpoint: Endpoint,
    pub archive_password: Option<SecretString>,
}

/// Why there is no connection: how the run ends, and what to say.
#[derive(Debug)]
pub struct NotConnected {
    pub exit: Exit,
    pub message: String,
    /// Where the connection would have gone, if that was found out.
    pub endpoint: Option<Box<Endpoint>>,
}

/// Connects with the first version of the secret that the server lets in. `moves` counts what the server sends.
///
/// # Errors
///
/// [`Exit::Secret`], [`Exit::Unreachable`], [`Exit::HostKey`], or [`Exit::Auth`] where every version was refused.
pub async fn connect(
    config: &Config,
    sdk: &SdkConfig,
    retry: &Retry,
    moves: &Pulse,
) -> Result<Connected, NotConnected> {
    let mut versions = Versions::new(&config.secret, sdk);
    let mut why_not = None;
    while let Some(version) = versions.next().await {
        let tried = match version {
            Ok(Version { label, secret }) => (label, connect_with(config, secret, retry, moves).await),
            Err(error) => ("the secret".to_owned(), Err(no_secret(&error, None))),
        };
        let (label, failed) = match tried {
            (_, Ok(connected)) => return Ok(connected),
            (label, Err(failed)) => (label, failed),
        };
        // Another version may have another login, and nothing else that would help.
        if !matches!(failed.exit, Exit::Auth | Exit::Secret) {
            return Err(failed);
        }
        if has_versions(&config.secret) {
            tracing::warn!(secret = label, error = failed.message, "this version of the secret does not log in");
        }
        // That the server refused one says more than that another could not be read.
        if why_not.as_ref().is_none_or(|before: &NotConnected| before.exit == Exit::Secret) {
            why_not = Some(failed);
        }
    }
    Err(why_not.unwrap_or_else(|| NotConnected {
        exit: Exit::Secret,
        message: "the secret has no version to log in with; check SECRET_VERSION_STAGES".to_owned(),
        endpoint: None,
    }))
}

async fn connect_with(
    config: &Config,
    secret: Secret,
    retry: &Retry,
    moves: &Pulse,
) -> Result<Connected, NotConnected> {
    let endpoint = secret.resolve(&config.sftp).map_err(|error| no_secret(&error, None))?;
    let engine = engine(config.sftp.engine, &endpoint, moves)?;
    match Pool::open(engine, config.sftp.connections, retry.clone()).await {
        Ok(pool) => Ok(Connected { pool, endpoint, archive_password: secret.archive_password }),
        Err(error) => {
            Err(NotConnected { exit: exit_of(&error), message: error.to_string(), endpoint: Some(Box::new(endpoint)) })
        }
    }
}

/// Whether there may be another version to try.
fn has_versions(source: &SecretSource) -> bool {
    matches!(source, SecretSource::SecretsManager { stages, .. } if stages.len() > 1)
}

fn no_secret(error: &impl std::fmt::Display, endpoint: Option<&Endpoint>) -> NotConnected {
    NotConnected { exit: Exit::Secret, message: error.to_string(), endpoint: endpoint.cloned().map(Box::new) }
}

fn engine(kind: EngineKind, endpoint: &Endpoint, moves: &Pulse) -> Result<Arc<dyn Engine>, NotConnected> {
    let failed = |error: Error| no_secret(&error, Some(endpoint));
    match kind {
        EngineKind::Russh => {
            Ok(Arc::new(RusshEngine::new(endpoint.clone()).map_err(failed)?.counted_by(moves.clone())))
        }
        #[cfg(feature = "libssh2")]
        EngineKind::Libssh2 => {
            Ok(Arc::new(Libssh2Engine::new(endpoint.clone()).map_err(failed)?.counted_by(moves.clone())))
        }
        #[cfg(not(feature = "libssh2"))]
        EngineKind::Libssh2 => Err(NotConnected {
            exit: Exit::Config,
            message: "SFTP_ENGINE=libssh2: this build leaves that engine out".to_owned(),
            endpoint: Some(Box::new(endpoint.clone())),
        }),
    }
}

/// How a run ends that has no connection for this reason.
pub fn exit_of(error: &Error) -> Exit {
    match error.kind {
        Kind::Unreachable | Kind::Lost => Exit::Unreachable,
        Kind::HostKey => Exit::HostKey,
        Kind::Auth => Exit::Auth,
        Kind::NotFound | Kind::Denied | Kind::Failed => Exit::Directory,
    }
}
