//! Planned files into the store: the run loop, and what every file under way shares.
//!
//! The part is the unit of work: a byte range is read from the server, checksummed, put to the store, and tried again
//! alone when either side fails. One budget of bytes bounds all that is held between the two networks. Nothing waits
//! for the budget while it holds a place among the store's requests, so neither can starve the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::Utc;
use secrecy::SecretString;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::checksum::Crc64Nvme;
use crate::config::{UnpackSettings, UploadSettings};
use crate::exit::Exit;
use crate::failure::{Failure, FailureCode};
use crate::plan::{PlannedFile, SMALLEST_ARCHIVE};
use crate::remote::pool::Pool;
use crate::report::{Counters, FileRecord, FileResult, Reporter};
use crate::retry::Retry;
use crate::store::Store;
use crate::template::{KeyTemplate, ObjectKey};

mod budget;
mod fetch;
mod outage;
mod unpack;
mod upload;

pub use budget::Budget;
use outage::Outage;
use unpack::{Claims, KeyHasher, Settled};

/// Files under way at once: enough to keep hundreds of small ones in flight on each connection, few enough that what a
/// task weighs does not matter.
const FILES_AT_ONCE: usize = 512;

/// How a run transfers. Resolved once.
#[derive(Debug)]
pub struct Settings {
    pub upload: UploadSettings,
    pub unpack: UnpackSettings,
    pub keys: KeyTemplate,
    pub archive_password: Option<SecretString>,
}

/// When to stop what is under way.
#[derive(Debug, Clone)]
pub struct Stop {
    /// No new work, no further read; requests to the store that are under way are let finish.
    pub soon: CancellationToken,
    /// Nothing is waited for any more but the aborts.
    pub now: CancellationToken,
}

/// What every file under way shares.
pub struct Transfer {
    pool: Pool,
    store: Arc<dyn Store>,
    retry: Retry,
    settings: Settings,
    reporter: Reporter,
    stop: Stop,
    budget: Budget,
    /// Places among the requests to the store.
    requests: Semaphore,
    /// Held by the large file whose parts are being started: earlier files are finished first.
    turn: Semaphore,
    /// Places among the archives being unpacked.
    unpacking: Semaphore,
    /// What keys are hashed with, where who claims them is compared.
    hasher: KeyHasher,
    outage: Outage,
    counters: Arc<Counters>,
}

/// How the files ended.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub completed: u64,
    pub failed: u64,
    /// The exit codes that the failures' causes have, without repetition.
    causes: HashSet<Option<Exit>>,
    /// The first failure's message.
    first_failure: Option<String>,
}

impl Tally {
    pub fn fail(&mut self, path: &str, failure: &Failure) {
        self.failed += 1;
        self.causes.insert(failure.exit);
        self.first_failure.get_or_insert_with(|| format!("{path}: {failure}"));
    }

    /// What the last record says of the failures, if there are any.
    pub fn message(&self) -> Option<String> {
        let first = self.first_failure.as_ref()?;
        Some(match self.failed {
            1 => first.clone(),
            failed => format!("{failed} files failed; the first: {first}"),
        })
    }

    /// Takes in what another tally counted.
    pub fn add(&mut self, other: Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.causes.extend(other.causes);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// One cause that all files failed for gives its own code, anything else that failed 3.
    pub fn exit(&self) -> Exit {
        if self.failed == 0 {
            return Exit::Ok;
        }
        match self.causes.iter().next() {
            Some(Some(exit)) if self.causes.len() == 1 && self.completed == 0 => *exit,
            _ => Exit::Partial,
        }
    }
}

/// One file's end, for the tally.
enum FileEnd {
    Delivered,
    /// Its own object is there, but not all that was in it.
    InPart(Failure),
    Failed(Failure),
}

impl Transfer {
    pub fn new(
        pool: Pool,
        store: Arc<dyn Store>,
        retry: Retry,
        settings: Settings,
        memory_limit: u64,
        reporter: Reporter,
        stop: Stop,
    ) -> Self {
        let requests = Semaphore::new(settings.upload.concurrency.get());
        let budget = Budget::new(memory_limit);
        Self {
            pool,
            store,
            retry,
            settings,
            stop,
            budget,
            requests,
            turn: Semaphore::new(1),
            unpacking: Semaphore::new(unpack::places()),
            hasher: KeyHasher::default(),
            outage: Outage::default(),
            counters: reporter.counters().clone(),
            reporter,
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Transfers every file, in order, many at once. Returns when all have ended; each has its record by then. Files
    /// that were not begun when the run was stopped have none.
    /// Nothing is stored at a key of `contested`.
    pub async fn run(self: &Arc<Self>, files: Vec<PlannedFile>, contested: HashSet<ObjectKey>) -> Tally {
        let mut tally = Tally::default();
        let Settled { contested, mut failed } = self.settle(&files, contested).await;
        let contested = Arc::new(contested);
        let mut running = JoinSet::new();
        let mut paths = HashMap::new();
        for (index, file) in files.into_iter().enumerate() {
            while running.len() >= FILES_AT_ONCE {
                self.note(running.join_next_with_id().await, &mut paths, &mut tally).await;
            }
            if self.stop.soon.is_cancelled() {
                break;
            }
            let path = file.remote.to_text();
            let task = running.spawn(self.clone().transfer_file(file, failed.remove(&index), contested.clone()));
            paths.insert(task.id(), path);
            while let Some(ended) = running.try_join_next_with_id() {
                self.note(Some(ended), &mut paths, &mut tally).await;
            }
        }
        while !running.is_empty() {
            self.note(running.join_next_with_id().await, &mut paths, &mut tally).await;
        }
        tally
    }

    /// A place among those that `places` has, or what the run's stop leaves to say.
    async fn place_among<'a>(places: &'a Semaphore, stop: &CancellationToken) -> Result<SemaphorePermit<'a>, Failure> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Failure::interrupted()),
            place = places.acquire() => place.map_err(|_| Failure::interrupted()),
        }
    }

    async fn note(
        &self,
        ended: Option<Result<(Id, FileEnd), JoinError>>,
        paths: &mut HashMap<Id, String>,
        tally: &mut Tally,
    ) {
        let Some(ended) = ended else { return };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let path = paths.remove(&id).unwrap_or_default();
        let failure = match ended {
            Ok((_, FileEnd::Delivered)) => {
                tally.completed += 1;
                self.counters.files_completed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok((_, FileEnd::InPart(failure) | FileEnd::Failed(failure))) => failure,
            Err(panic) => {
                tracing::error!(file = path, error = %panic, "a file's task failed; this is a fault of the program");
                let failure = Failure {
                    exit: Some(Exit::Internal),
                    ..Failure::new(FailureCode::InternalError, "a fault of the program; see the log")
                };
                let result = FileResult::Failed { failure: failure.clone(), delivered: Vec::new() };
                let record = FileRecord { path: path.clone(), archive: None, start: Utc::now(), result };
                self.reporter.file(record).await;
                failure
            }
        };
        tally.fail(&path, &failure);
        self.counters.files_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Delivers one file, unless it failed already, and records its end.
    async fn transfer_file(
        self: Arc<Self>,
        file: PlannedFile,
        failed: Option<Failure>,
        contested: Arc<Claims>,
    ) -> FileEnd {
        let start = Utc::now();
        let path = file.remote.to_text();
        let mut refused = None;
        let mut delivered = Vec::new();
        let delivering = async {
            match failed {
                Some(failure) => Err(failure),
                None => self.deliver(&file, contested, &mut refused, &mut delivered).await,
            }
        };
        let result = match delivering.await {
            Ok(result) => result,
            Err(failure) => {
                tracing::warn!(file = %path, code = failure.code.as_str(), error = %failure, "a file failed");
                FileResult::Failed { failure, delivered }
            }
        };
        let end = match (&result, refused) {
            (FileResult::Failed { failure, .. }, _) => FileEnd::Failed(failure.clone()),
            (_, Some(failure)) => FileEnd::InPart(failure),
            _ => FileEnd::Delivered,
        };
        self.reporter.file(FileRecord { path, archive: None, start, result }).await;
        end
    }

    /// Delivers a file, its entries first where it is an archive: an archive that cannot be unpacked leaves no object.
    ///
    /// What few files need is boxed: hundreds of tasks would hold the room for it.
    async fn deliver(
        self: &Arc<Self>,
        file: &PlannedFile,
        contested: Arc<Claims>,
        refused: &mut Option<Failure>,
        delivered: &mut Vec<String>,
    ) -> Result<FileResult, Failure> {
        if let Some(failure) = self.outage.given_up() {
            return Err(failure.clone());
        }
        if self.settings.unpack.zip && file.size >= SMALLEST_ARCHIVE {
            match self.look(file).await? {
                upload::Look::Delivered(checksum) => return Ok(self.completed(file, checksum)),
                upload::Look::Plain => {}
                upload::Look::Archive => {
                    let unpacked = Box::pin(self.unpack(file, contested, delivered)).await?;
                    *refused = unpacked.refused;
                    if !self.settings.unpack.keep_archive {
                        return Ok(FileResult::Unpacked { bytes: file.size });
                    }
                }
            }
        }
        let checksum = Box::pin(self.upload_file(file)).await?;
        Ok(self.completed(file, checksum))
    }

    fn completed(&self, file: &PlannedFile, checksum: Crc64Nvme) -> FileResult {
        FileResult::Completed { key: file.key.clone(), checksum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(completed: u64, exits: &[Option<Exit>]) -> Tally {
        let mut tally = Tally { completed, ..Tally::default() };
        for exit in exits {
            tally.fail("a", &Failure { exit: *exit, ..Failure::new(FailureCode::ReadFileError, "no") });
        }
        tally
    }

    #[test]
    fn one_cause_for_every_file_gives_its_own_code() {
        assert_eq!(tally(0, &[]).exit(), Exit::Ok);
        assert_eq!(tally(9, &[]).exit(), Exit::Ok);
        assert_eq!(tally(0, &[Some(Exit::Destination), Some(Exit::Destination)]).exit(), Exit::Destination);
    }

    #[test]
    fn anything_else_that_failed_is_partial() {
        assert_eq!(tally(0, &[Some(Exit::Destination), Some(Exit::Unreachable)]).exit(), Exit::Partial);
        assert_eq!(tally(0, &[Some(Exit::Destination), None]).exit(), Exit::Partial);
        assert_eq!(tally(0, &[None]).exit(), Exit::Partial);
        assert_eq!(tally(1, &[Some(Exit::Destination)]).exit(), Exit::Partial);
    }
}
