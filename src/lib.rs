//! sftp-s3-connector: an SFTP directory into S3, once, with a status.
//!
//! Data flows one way, and so do the modules: `config` → `secret` → `connect` (`remote`) → `list` → `select` → `plan` →
//! `transfer` (`store`) → `report` → `exit`. Nothing below `config` reads the environment, and nothing but `main` ends the
//! process. `ARCHITECTURE.md` is the map.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::config::{Config, Operation};
use crate::exit::Exit;
use crate::progress::Terminal;
use crate::report::{Outcome, Records, Reporter, RunIdentity, Step};
use crate::retry::Retry;
use crate::shutdown::Shutdown;
use crate::store::s3::S3Store;

pub mod checksum;
pub mod config;
pub mod connect;
pub mod exit;
pub mod failure;
pub mod list;
pub mod logging;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod remote;
pub mod report;
pub mod retry;
pub mod run;
pub mod secret;
pub mod select;
pub mod shutdown;
pub mod store;
pub mod template;
pub mod transfer;
pub mod units;

/// A stopped run's last record is given up after this, where nobody reads stdout.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs one operation to its end, writes its records, and says how it ended.
///
/// Returns within the grace period once `shutdown` asks it to stop.
pub async fn run(config: Config, records: Records, terminal: Terminal, shutdown: Shutdown) -> Exit {
    let mut identity = identity(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        operation = identity.operation,
        run = identity.transfer_id,
        "starting"
    );
    tracing::debug!(settings = config.summary(), "as configured");
    let out_of_time = shutdown.grace_is_over(config.stop_grace - (2 * LAST_WORDS).min(config.stop_grace / 4));
    let operation = AssertUnwindSafe(operate(&config, &mut identity, &records, &terminal, &shutdown)).catch_unwind();
    let (outcome, steps) = tokio::select! {
        biased;
        // The records of files that were still under way are lost; the last one is not.
        () = out_of_time => (run::stopped(&shutdown, records.totals()), Vec::new()),
        ended = operation => ended.unwrap_or_else(|_| {
            let message = "a fault of the program: please report it with the log".to_owned();
            (Outcome { exit: Exit::Internal, totals: records.totals(), message: Some(message) }, Vec::new())
        }),
    };
    log_end(&outcome);
    tokio::select! {
        () = records.finish(&identity, &outcome, &steps) => {}
        () = shutdown.grace_is_over(LAST_WORDS.min(config.stop_grace / 8)) => {
            tracing::error!("nobody reads stdout; the last records are missing from it");
        }
    }
    outcome.exit
}

/// Ends a run whose configuration is wrong: nothing was contacted.
pub async fn refuse(faults: &config::Faults, records: Records) -> Exit {
    let outcome = Outcome::early(Exit::Config, faults.to_string());
    log_end(&outcome);
    let identity = RunIdentity {
        operation: faults.operation().name(),
        connector_id: faults.job_name().unwrap_or("unknown").to_owned(),
        transfer_id: Uuid::now_v7().to_string(),
        bucket: String::new(),
        url: String::new(),
        start: Utc::now(),
    };
    records.finish(&identity, &outcome, &[]).await;
    outcome.exit
}

async fn operate(
    config: &Config,
    identity: &mut RunIdentity,
    records: &Records,
    terminal: &Terminal,
    shutdown: &Shutdown,
) -> (Outcome, Vec<Step>) {
    let retry = Retry { max_attempts: config.max_attempts, stop: shutdown.token().clone() };
    let sdk = store::s3::load_sdk(config.region.clone()).await;
    let store = Arc::new(S3Store::new(&sdk, config.bucket.clone(), &config.upload, config.max_attempts.get()));
    let connected = tokio::select! {
        biased;
        () = shutdown.token().cancelled() => return (run::stopped(shutdown, records.totals()), Vec::new()),
        connected = connect::connect(config, &sdk, &retry) => connected,
    };
    let endpoint = connected.as_ref().map_or_else(|error| error.endpoint.as_deref(), |open| Some(&open.endpoint));
    if let Some(endpoint) = endpoint {
        identity.url = endpoint.url();
        if config.job_name.is_none() {
            identity.connector_id = job_hash(&endpoint.host, endpoint.port, config);
        }
    }
    if connected.is_ok() {
        tracing::info!(job = identity.connector_id, server = identity.url, "connected and logged in");
    }
    match config.operation {
        Operation::Test => {
            let findings = probe::test(config, connected, store, &retry, identity, shutdown).await;
            match shutdown.cause() {
                Some(_) => (run::stopped(shutdown, records.totals()), findings.steps),
                None => (findings.outcome(), findings.steps),
            }
        }
        Operation::Retrieve => match connected {
            Err(error) => (Outcome::early(error.exit, error.message), Vec::new()),
            Ok(connected) => {
                let reporter = Reporter::new(identity.clone(), records);
                (run::retrieve(config, connected, store, retry, reporter, terminal, shutdown).await, Vec::new())
            }
        },
    }
}

fn identity(config: &Config) -> RunIdentity {
    RunIdentity {
        operation: config.operation.name(),
        // Its hash follows once the secret has told the host.
        connector_id: config.job_name.clone().unwrap_or_else(|| "unknown".to_owned()),
        transfer_id: Uuid::now_v7().to_string(),
        bucket: config.bucket.clone(),
        url: String::new(),
        start: Utc::now(),
    }
}

/// Names a job that was given no name: the same job has the same name on every run.
fn job_hash(host: &str, port: u16, config: &Config) -> String {
    let mut hasher = Sha256::new();
    for part in [host.as_bytes(), port.to_string().as_bytes(), config.directory.as_bytes(), config.bucket.as_bytes()] {
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn log_end(outcome: &Outcome) {
    let exit = outcome.exit;
    let totals = outcome.totals;
    match &outcome.message {
        None => tracing::info!(
            exit = exit.name(),
            code = exit.code(),
            files = totals.files_completed,
            objects = totals.objects,
            bytes = totals.bytes_written,
            "done"
        ),
        Some(message) => tracing::error!(
            exit = exit.name(),
            code = exit.code(),
            completed = totals.files_completed,
            failed = totals.files_failed,
            "{message}"
        ),
    }
}
