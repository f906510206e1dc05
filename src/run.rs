//! `OPERATION=RETRIEVE`: list, select, plan, transfer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connect::{Connected, exit_of};
use crate::failure::{Failure, FailureCode};
use crate::list::{self, Entry, Listing, Unreadable};
use crate::plan::{self, Plan, RunContext};
use crate::progress::{Progress, Terminal};
use crate::remote::pool::Pool;
use crate::remote::{Error, FileKind, Kind, RemotePath};
use crate::report::{FileRecord, FileResult, Outcome, Reporter, Totals};
use crate::retry::Retry;
use crate::select::{Decision, SkipReason};
use crate::shutdown::{Cause, Phases, Shutdown};
use crate::store::Store;
use crate::transfer::{Settings, Stop, Tally, Transfer};

/// Delivers what the configuration selects. Every file that was begun has its record when this returns.
pub async fn retrieve(
    config: &Config,
    connected: Connected,
    store: Arc<dyn Store>,
    retry: Retry,
    reporter: Reporter,
    terminal: &Terminal,
    shutdown: &Shutdown,
) -> Outcome {
    let pool = connected.pool;
    let listed = async {
        let directory = absolute(&pool, &retry, &config.directory).await?;
        let listing = list::list(&pool, &retry, &directory, &config.rules).await?;
        Ok((directory, listing))
    };
    let (directory, listing) = tokio::select! {
        biased;
        () = shutdown.token().cancelled() => return stopped(shutdown, Totals::default()),
        listed = listed => match listed {
            Ok(listed) => listed,
            Err(error) => return no_directory(config, &error),
        },
    };
    let (selected, skipped, unreadable) = select(config, listing);
    let counters = reporter.counters().clone();
    counters.files_selected.store(selected.len() as u64, Ordering::Relaxed);
    counters.files_skipped.store(skipped.len() as u64, Ordering::Relaxed);
    let identity = reporter.identity();
    let run = RunContext { id: &identity.transfer_id, start: identity.start };
    let unpack = config.unpack.zip.then_some(&config.unpack.template);
    let plan = plan::plan(selected, &directory, &config.keys, unpack, run);
    let bytes: u64 = plan.files.iter().map(|file| file.size).sum();
    tracing::info!(
        directory = %directory, selected = counters.totals().files_selected, skipped = skipped.len(), bytes,
        "listed the remote directory"
    );
    if counters.totals().files_selected == 0 {
        tracing::warn!(
            found = counters.totals().files_skipped,
            "nothing is selected: the directory holds no file, or INCLUDE, EXCLUDE and RECURSIVE leave none"
        );
    }

    let mut tally = Tally::default();
    record_undelivered(&reporter, &directory, skipped, unreadable, &plan, &mut tally).await;
    if config.dry_run {
        tracing::info!(files = plan.files.len(), bytes, "dry run: these would be delivered");
        for file in plan.files {
            record(&reporter, &file.remote, FileResult::Planned { key: file.key, bytes: file.size }).await;
        }
        return Outcome { exit: tally.exit(), totals: counters.totals(), message: tally.message() };
    }

    let stop = Stop { soon: shutdown.token().clone(), now: CancellationToken::new() };
    let give_up = tokio::spawn({
        let (shutdown, now, finishing) = (shutdown.clone(), stop.now.clone(), Phases::of(config.stop_grace).finishing);
        async move {
            shutdown.grace_is_over(finishing).await;
            now.cancel();
        }
    });
    let settings = Settings {
        upload: config.upload.clone(),
        unpack: config.unpack.clone(),
        keys: config.keys.clone(),
        archive_password: connected.archive_password,
    };
    let transfer = Transfer::new(pool, store, retry, settings, config.memory_limit.0, reporter, stop);
    let transfer = Arc::new(transfer);
    let planned = plan.files.len() as u64;
    // What failed before the first byte counts as done.
    let progress = Progress::show(terminal, transfer.clone(), planned + tally.failed, bytes);
    tally.add(transfer.run(plan.files, plan.contested).await);
    give_up.abort();
    progress.finish();

    let totals = counters.totals();
    match shutdown.cause() {
        Some(_) if tally.completed < planned => stopped(shutdown, totals),
        _ => Outcome { exit: tally.exit(), totals, message: tally.message() },
    }
}

/// The directory as the server names it, where it was given relative to the login directory.
pub async fn absolute(pool: &Pool, retry: &Retry, directory: &RemotePath) -> Result<RemotePath, Error> {
    if directory.is_absolute() {
        return Ok(directory.clone());
    }
    retry.run(Error::may_pass, |_| async { pool.lease().await?.canonicalize(directory).await }).await
}

type Skipped = Vec<(RemotePath, SkipReason)>;

fn select(config: &Config, listing: Listing) -> (Vec<Entry>, Skipped, Vec<Unreadable>) {
    let mut skipped = listing.skipped;
    let mut selected = Vec::with_capacity(listing.entries.len());
    for entry in listing.entries {
        match config.rules.decide(&entry.path, entry.attributes.kind) {
            Decision::Take => selected.push(entry),
            Decision::Skip(reason) => skipped.push((entry.path, reason)),
        }
    }
    (selected, skipped, listing.unreadable)
}

/// Records of everything whose end is known before the first byte is read.
async fn record_undelivered(
    reporter: &Reporter,
    directory: &RemotePath,
    skipped: Skipped,
    unreadable: Vec<Unreadable>,
    plan: &Plan,
    tally: &mut Tally,
) {
    for (path, reason) in skipped {
        record(reporter, &directory.join(path.as_bytes()), FileResult::Skipped(reason)).await;
    }
    let unreadable = unreadable.into_iter().map(|unreadable| {
        let code = match (unreadable.kind, unreadable.error.kind) {
            (FileKind::Directory, Kind::NotFound) => FailureCode::DirectoryNotFound,
            (FileKind::Directory, _) => FailureCode::ListDirectoryError,
            _ => FailureCode::ReadFileError,
        };
        (directory.join(unreadable.path.as_bytes()), Failure::new(code, unreadable.error.to_string()))
    });
    for (path, failure) in unreadable.chain(plan.failed.iter().cloned()) {
        tracing::warn!(file = %path, code = failure.code.as_str(), error = %failure, "cannot be transferred");
        tally.fail(&path.to_text(), &failure);
        reporter.counters().files_failed.fetch_add(1, Ordering::Relaxed);
        record(reporter, &path, FileResult::Failed { failure, delivered: Vec::new() }).await;
    }
}

async fn record(reporter: &Reporter, path: &RemotePath, result: FileResult) {
    reporter.file(FileRecord { path: path.to_text(), archive: None, start: Utc::now(), result }).await;
}

fn no_directory(config: &Config, error: &Error) -> Outcome {
    let message = format!("SFTP_DIRECTORY_PATH {:?} cannot be listed: {error}", config.directory.to_text());
    Outcome::early(exit_of(error), message)
}

/// A run that was stopped before its end.
pub fn stopped(shutdown: &Shutdown, totals: Totals) -> Outcome {
    let cause = shutdown.cause().unwrap_or(Cause::Terminated);
    let message = format!(
        "{}: {} of {} files were delivered; another run delivers all that it selects",
        cause.as_str(),
        totals.files_completed,
        totals.files_selected
    );
    Outcome { exit: cause.exit(), totals, message: Some(message) }
}
