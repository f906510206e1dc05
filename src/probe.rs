//! `OPERATION=TEST`: each step that a run depends on, tried for itself, and what it found.

use std::sync::Arc;

use crate::config::Config;
use crate::connect::{Connected, NotConnected, exit_of};
use crate::exit::Exit;
use crate::list;
use crate::plan::{self, RunContext};
use crate::remote::HostKeyPolicy;
use crate::report::{Outcome, RunIdentity, Server, Step, Totals};
use crate::retry::Retry;
use crate::select::Decision;
use crate::shutdown::Shutdown;
use crate::store::{Kind, Store, Upload};

/// The name that the bucket check gives its object; nothing of it stays.
const PROBE_NAME: &str = "sftp-s3-connector-test";

/// The steps in order, and how the test ends: as a run would that met the first failure.
#[derive(Debug, Default)]
pub struct Findings {
    pub steps: Vec<Step>,
    first_failure: Option<(Exit, String)>,
}

impl Findings {
    fn found(&mut self, step: &'static str, message: String, server: Option<Server>) {
        tracing::info!(step, "{message}");
        self.steps.push(Step { step, status: "OK", message, server });
    }

    fn failed(&mut self, step: &'static str, exit: Exit, message: String) {
        tracing::error!(step, exit = exit.name(), "{message}");
        self.steps.push(Step { step, status: "ERROR", message: message.clone(), server: None });
        self.first_failure.get_or_insert((exit, message));
    }

    pub fn outcome(&self) -> Outcome {
        let (exit, message) = self.first_failure.clone().unzip();
        Outcome { exit: exit.unwrap_or(Exit::Ok), totals: Totals::default(), message }
    }
}

/// Tries the connection, the directory and the bucket. The bucket is tried also where the server could not be reached:
/// a user mends both at once.
pub async fn test(
    config: &Config,
    connected: Result<Connected, NotConnected>,
    store: Arc<dyn Store>,
    retry: &Retry,
    run: &RunIdentity,
    shutdown: &Shutdown,
) -> Findings {
    let mut findings = Findings::default();
    match connected {
        Err(error) => findings.failed(step_of(error.exit), error.exit, error.message),
        Ok(connected) => {
            let endpoint = &connected.endpoint;
            findings.found("secret", format!("the secret gives a login for {}", endpoint.url()), None);
            let server = connected.pool.server().map(Server::from);
            let checked = match (&endpoint.host_keys, &server) {
                (HostKeyPolicy::Strict(_), _) => "its host key is a trusted one".to_owned(),
                (HostKeyPolicy::Off, Some(server)) => {
                    format!("its host key was NOT checked; to pin it: TRUSTED_HOST_KEYS=\"{}\"", server.host_key)
                }
                (HostKeyPolicy::Off, None) => "its host key was NOT checked".to_owned(),
            };
            findings.found("connect", format!("logged in to {}; {checked}", endpoint.url()), server);
            tokio::select! {
                biased;
                () = shutdown.token().cancelled() => return findings,
                () = test_directory(&mut findings, config, &connected, retry) => {}
            }
        }
    }
    // Not given up midway: what it begins it aborts.
    test_bucket(&mut findings, config, store.as_ref(), run).await;
    findings
}

async fn test_directory(findings: &mut Findings, config: &Config, connected: &Connected, retry: &Retry) {
    let listed = async {
        let directory = crate::run::absolute(&connected.pool, retry, &config.directory).await?;
        let listing = list::list(&connected.pool, retry, &directory, &config.rules).await?;
        Ok((directory, listing))
    };
    match listed.await {
        Ok((directory, listing)) => {
            let taken =
                |entry: &&list::Entry| config.rules.decide(&entry.path, entry.attributes.kind) == Decision::Take;
            let selected = listing.entries.iter().filter(taken).count();
            let files = listing.entries.len();
            findings.found("list", format!("{directory} holds {files} files; a run would select {selected}"), None);
            if let Some(first) = listing.unreadable.first() {
                let message = format!("{} more could not be read, first {first}", listing.unreadable.len());
                findings.failed("list", Exit::Partial, message);
            }
        }
        Err(error) => {
            let message = format!("SFTP_DIRECTORY_PATH {:?} cannot be listed: {error}", config.directory.to_text());
            findings.failed("list", exit_of(&error), message);
        }
    }
}

/// Begins an upload where a run's objects would go, and aborts it.
async fn test_bucket(findings: &mut Findings, config: &Config, store: &dyn Store, run: &RunIdentity) {
    let context = RunContext { id: &run.transfer_id, start: run.start };
    let key = match plan::key_of(&config.keys, context, PROBE_NAME, Some(0)) {
        Ok(key) => key,
        Err(failure) => return findings.failed("bucket", Exit::Config, failure.to_string()),
    };
    let object = plan::new_object(key, None, &PROBE_NAME.into(), PROBE_NAME);
    let tried = async {
        let id = store.begin(&object).await?;
        store.abort(&Upload { object: &object, id: &id }).await
    };
    match tried.await {
        Ok(()) => {
            findings.found("bucket", format!("s3://{} can be written; nothing was left there", config.bucket), None);
        }
        Err(error) => {
            let exit = match error.kind {
                Kind::NoBucket | Kind::Denied => Exit::Destination,
                Kind::Unavailable => Exit::Unreachable,
                _ => Exit::Partial,
            };
            findings.failed("bucket", exit, error.to_string());
        }
    }
}

/// The step at which connecting failed.
fn step_of(exit: Exit) -> &'static str {
    match exit {
        Exit::Secret | Exit::Config => "secret",
        Exit::HostKey => "host-key",
        Exit::Auth => "login",
        _ => "connect",
    }
}
