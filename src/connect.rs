//! From the configuration to an open, logged-in connection: the secret, its versions, the engine.

use std::sync::Arc;

use aws_config::SdkConfig;
use secrecy::SecretString;

use crate::config::{Config, EngineKind, SecretSource};
use crate::exit::Exit;
use crate::remote::pool::Pool;
use crate::remote::russh::RusshEngine;
use crate::remote::{Endpoint, Engine, Error, Kind, private_key};
use crate::retry::Retry;
use crate::secret::{self, SecretError};

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
    pub endpoint: Option<Endpoint>,
}

/// Connects with the first version of the secret that the server lets in.
///
/// `resolved` is told each endpoint before it is connected to.
///
/// # Errors
///
/// [`Exit::Secret`], [`Exit::Unreachable`], [`Exit::HostKey`] or [`Exit::Auth`].
pub async fn connect(config: &Config, sdk: &SdkConfig, retry: &Retry) -> Result<Connected, NotConnected> {
    let stages = match &config.secret {
        SecretSource::SecretsManager { stages, .. } => stages.as_slice(),
        SecretSource::File(_) | SecretSource::Json(_) => &[],
    };
    let mut stages = stages.iter().map(String::as_str).peekable();
    loop {
        let stage = stages.next();
        let (endpoint, archive_password) = resolve(config, sdk, stage).await?;
        let opened = Pool::open(engine(config.sftp.engine, endpoint.clone())?, config.sftp.connections, retry.clone());
        match opened.await {
            Ok(pool) => return Ok(Connected { pool, endpoint, archive_password }),
            Err(error) if error.kind == Kind::Auth && stages.peek().is_some() => {
                tracing::warn!(stage, next = stages.peek(), error = %error, "login refused; trying the next version of the secret");
            }
            Err(error) => return Err(not_connected(&error, endpoint)),
        }
    }
}

async fn resolve(
    config: &Config,
    sdk: &SdkConfig,
    stage: Option<&str>,
) -> Result<(Endpoint, Option<SecretString>), NotConnected> {
    let failed = |error: SecretError| NotConnected { exit: Exit::Secret, message: error.to_string(), endpoint: None };
    let json = secret::fetch(&config.secret, stage, sdk).await.map_err(failed)?;
    let secret = secret::Secret::parse(&json).map_err(failed)?;
    let endpoint = secret.resolve(&config.sftp).map_err(failed)?;
    if let Some(key) = &endpoint.credentials.private_key {
        // Found out here, a key that cannot be read is a fault of the secret and not of the server.
        private_key::load(key).map_err(|error| NotConnected {
            exit: Exit::Secret,
            message: error.to_string(),
            endpoint: Some(endpoint.clone()),
        })?;
    }
    Ok((endpoint, secret.archive_password))
}

#[cfg_attr(feature = "libssh2", allow(clippy::unnecessary_wraps, reason = "an engine may be left out of the build"))]
fn engine(kind: EngineKind, endpoint: Endpoint) -> Result<Arc<dyn Engine>, NotConnected> {
    let failed = |error: Error, endpoint| NotConnected { exit: Exit::Secret, message: error.to_string(), endpoint };
    match kind {
        EngineKind::Russh => match RusshEngine::new(endpoint.clone()) {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(error) => Err(failed(error, Some(endpoint))),
        },
        #[cfg(feature = "libssh2")]
        EngineKind::Libssh2 => match crate::remote::libssh2::Libssh2Engine::new(endpoint.clone()) {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(error) => Err(failed(error, Some(endpoint))),
        },
        #[cfg(not(feature = "libssh2"))]
        EngineKind::Libssh2 => Err(NotConnected {
            exit: Exit::Config,
            message: "SFTP_ENGINE=libssh2: this build leaves that engine out".to_owned(),
            endpoint: Some(endpoint),
        }),
    }
}

fn not_connected(error: &Error, endpoint: Endpoint) -> NotConnected {
    NotConnected { exit: exit_of(error), message: error.to_string(), endpoint: Some(endpoint) }
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
