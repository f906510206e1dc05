//! sftp-s3-connector: an SFTP directory into S3, once, with a status.
//!
//! Data flows one way, and so do the modules: `config` → `secret` → `connect` (`remote`) → `list` → `select` → `plan` →
//! `transfer` (`store`) → `report` → `exit`. Nothing below `config` reads the environment, and nothing but `main` ends the
//! process. `ARCHITECTURE.md` is the map.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use aws_config::SdkConfig;
use chrono::Utc;
use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::config::{Config, Operation, ToldWith};
use crate::exit::Exit;
use crate::notify::Notify;
use crate::progress::Terminal;
use crate::pulse::Pulse;
use crate::report::{EventQueue, Outcome, Records, Reporter, RunEnd, RunIdentity, Step, Told};
use crate::retry::Retry;
use crate::shutdown::{Phases, Shutdown};
use crate::store::s3::{Connections, S3Store};

mod causes;
pub mod checksum;
pub mod config;
pub mod connect;
pub mod ecs;
pub mod exit;
pub mod failure;
pub mod list;
pub mod logging;
mod metrics;
mod notify;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod pulse;
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

/// Runs one operation to its end, writes its records, tells the outside, and says how it ended.
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
    let phases = Phases::of(config.stop_grace);
    let retry = Retry { max_attempts: config.max_attempts, stop: shutdown.token().clone() };
    let moves = Pulse::default();
    let sdk = store::s3::load_sdk(config.region.clone()).await;
    let connections = Connections::default();
    let notify = Notify::start(
        &config.notify.of_a_run(config.delivers()),
        &config.upload,
        (&sdk, &connections),
        &shutdown,
        &moves,
    );
    let job =
        Job { config: &config, sdk: &sdk, connections, retry, records: &records, events: notify.file_events(), moves };
    let operation = AssertUnwindSafe(job.operate(&mut identity, &terminal, &shutdown)).catch_unwind();
    let (outcome, steps) = tokio::select! {
        biased;
        // The records of files that were still under way are lost; the last one is not.
        () = shutdown.grace_is_over(phases.aborting) => (run::stopped(&shutdown, records.totals()), Vec::new()),
        ended = operation => ended.unwrap_or_else(|_| {
            let message = "a fault of the program: please report it with the log".to_owned();
            (Outcome { exit: Exit::Internal, totals: records.totals(), message: Some(message) }, Vec::new())
        }),
    };
    log_end(&outcome);
    let end = RunEnd { identity: &identity, outcome: &outcome, steps: &steps, end: Utc::now() };
    finish(Some(notify), records, &end, config.shown(), (&shutdown, phases)).await;
    outcome.exit
}

/// Ends a run whose configuration is wrong. Nobody is contacted for it but who waits to be told.
pub async fn refuse(faults: &config::Faults, records: Records, shutdown: Shutdown) -> Exit {
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
    let end = RunEnd { identity: &identity, outcome: &outcome, steps: &[], end: Utc::now() };
    let ToldWith { region, upload, stop_grace, delivers, notify } = faults.told_with();
    let mut notify = notify.of_a_run(*delivers);
    if notify.ecs_metadata.is_none() && !notify.report_is_asked_for {
        // On a laptop, a misspelt variable is answered at once.
        notify.report = None;
    }
    let notify = if notify.speaks_to_anybody() {
        let sdk = store::s3::load_sdk(region.clone()).await;
        let connections = Connections::default();
        Some(Notify::start(&notify, upload, (&sdk, &connections), &shutdown, &Pulse::default()))
    } else {
        None
    };
    finish(notify, records, &end, Vec::new(), (&shutdown, Phases::of(*stop_grace))).await;
    outcome.exit
}

/// Tells the outside how the run ended, and writes the last record. Whatever happens on the way, the run has ended as it has.
async fn finish(
    notify: Option<Notify>,
    records: Records,
    end: &RunEnd<'_>,
    settings: Vec<(&'static str, String)>,
    (shutdown, phases): (&Shutdown, Phases),
) {
    let mut told = Told::default();
    let files = records.kept();
    let mut abandoned = None;
    if let Some(notify) = notify {
        let telling = AssertUnwindSafe(notify.tell(end, files, settings, (shutdown, phases), &mut told)).catch_unwind();
        let trouble = tokio::select! {
            biased;
            () = shutdown.grace_is_over(phases.telling) => {
                Some("the time to stop in was over before all was told of the run's end: see STOP_GRACE")
            }
            ended = telling => match ended {
                Ok(left) => {
                    abandoned = left;
                    None
                }
                Err(_) => Some("a fault of the program, in telling the outside: please report it with the log"),
            },
        };
        if let Some(trouble) = trouble {
            tracing::warn!("{trouble}");
            told.warnings.push(trouble.to_owned());
        }
    }
    tokio::select! {
        () = records.finish(end.record(&told)) => {}
        () = shutdown.grace_is_over(phases.last_words) => {
            tracing::error!("nobody reads stdout; the last records are missing from it");
        }
    }
    if let Some(ending) = abandoned {
        tokio::select! {
            _ = ending => {}
            () = shutdown.grace_is_over(phases.last_words) => {}
        }
    }
}

/// What an operation works with.
struct Job<'a> {
    config: &'a Config,
    sdk: &'a SdkConfig,
    connections: Connections,
    retry: Retry,
    records: &'a Records,
    events: Option<EventQueue>,
    moves: Pulse,
}

impl Job<'_> {
    async fn operate(
        self,
        identity: &mut RunIdentity,
        terminal: &Terminal,
        shutdown: &Shutdown,
    ) -> (Outcome, Vec<Step>) {
        let Self { config, sdk, connections, retry, records, events, moves } = self;
        if let Some(why) = store::s3::unusable(sdk) {
            return (Outcome::early(Exit::Config, why), Vec::new());
        }
        let store = S3Store::over(connections, sdk, config.bucket.clone(), &config.upload, config.max_attempts.get());
        let store = Arc::new(store.counted_by(moves.clone()));
        let connected = tokio::select! {
            biased;
            () = shutdown.token().cancelled() => return (run::stopped(shutdown, records.totals()), Vec::new()),
            connected = connect::connect(config, sdk, &retry, &moves) => connected,
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
                    let reporter = Reporter::new(identity.clone(), records, events);
                    (run::retrieve(config, connected, store, retry, reporter, terminal, shutdown).await, Vec::new())
                }
            },
        }
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
