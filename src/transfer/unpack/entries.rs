//! The entries of one archive into objects, in order, as the decoder hands them over.

use std::pin::pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::judge::{Judge, Verdict};
use super::pieces::{Events, Pieces, feed, next_piece, out_of_step};
use super::{Entry, Event, Unpacked};
use crate::checksum::Crc64Nvme;
use crate::failure::{Failure, FailureCode};
use crate::plan::{self, PlannedFile};
use crate::remote::RemotePath;
use crate::report::{FileRecord, FileResult};
use crate::store::{self, Body, NewObject, Part, Upload};
use crate::template::ObjectKey;
use crate::transfer::upload::NotSent;
use crate::transfer::{Budget, Transfer};

/// Small entries being put at once, from one archive.
const PUTS_AT_ONCE: usize = 64;

/// Delivers the entries of one archive.
pub struct Entries<'a> {
    transfer: Arc<Transfer>,
    archive: Arc<PlannedFile>,
    judge: Arc<Judge>,
    /// The archive's own share of the budget, for entries and parts that are held.
    budget: Budget,
    delivered: &'a mut Vec<String>,
    puts: JoinSet<Result<ObjectKey, Failure>>,
    refused: Option<Failure>,
    /// The first entry that could not be stored.
    not_stored: Option<Failure>,
}

/// Why an entry was not delivered.
enum EntryError {
    /// The archive cannot be read on, or the run stops: nothing of it follows.
    Archive(Failure),
    /// The store did not take it; the entry could be decoded again.
    Store(Failure),
}

impl<'a> Entries<'a> {
    pub fn new(
        transfer: Arc<Transfer>,
        archive: Arc<PlannedFile>,
        judge: Arc<Judge>,
        budget: Budget,
        delivered: &'a mut Vec<String>,
    ) -> Self {
        Self { transfer, archive, judge, budget, delivered, puts: JoinSet::new(), refused: None, not_stored: None }
    }

    /// Runs to the archive's end, or to what makes it fail. Entries that were under way by then are let finish.
    pub async fn deliver(mut self) -> Result<Unpacked, Failure> {
        let ended = self.deliver_all().await;
        while let Some(put) = self.puts.join_next().await {
            self.note(put);
        }
        ended?;
        match self.not_stored {
            Some(failure) => Err(failure),
            None => Ok(Unpacked { refused: self.refused }),
        }
    }

    async fn deliver_all(&mut self) -> Result<(), Failure> {
        let mut index = 0;
        let mut attempt = 1;
        let mut events = self.transfer.decode(&self.archive, &self.judge, index);
        loop {
            while let Some(put) = self.puts.try_join_next() {
                self.note(put);
            }
            if let Some(failure) = self.transfer.outage.given_up() {
                return Err(failure.clone());
            }
            let (entry, verdict) = match events.recv().await {
                // A decoder that has its data at hand would go on.
                Some(Event::Entry(..)) if self.transfer.stop.soon.is_cancelled() => return Err(Failure::interrupted()),
                Some(Event::Entry(entry, verdict)) => (entry, verdict),
                Some(Event::Done(ended)) => return ended,
                _ => return Err(out_of_step()),
            };
            let start = Utc::now();
            match verdict {
                Verdict::Nothing => {}
                Verdict::Skip(reason) => self.record(&entry, start, FileResult::Skipped(reason)).await,
                Verdict::Refuse(failure) => self.refuse(&entry, start, failure).await,
                Verdict::Deliver(key) => match self.deliver_entry(&entry, &key, start, &mut events).await {
                    Ok(()) => {}
                    Err(EntryError::Archive(failure)) if failure.code == FailureCode::Interrupted => {
                        let message = format!("entry {:?}: {failure}", entry.text());
                        return Err(Failure { message, ..failure });
                    }
                    Err(EntryError::Archive(failure)) => return Err(failure),
                    Err(EntryError::Store(failure)) => {
                        let again = failure.may_pass && self.transfer.retry.wait(attempt).await;
                        if again {
                            attempt += 1;
                        } else {
                            self.fail(&entry, start, failure).await;
                            (index, attempt) = (index + 1, 1);
                        }
                        events = self.transfer.decode(&self.archive, &self.judge, index);
                        continue;
                    }
                },
            }
            (index, attempt) = (index + 1, 1);
        }
    }

    /// Delivers one entry, whose data is the next to come.
    async fn deliver_entry(
        &mut self,
        entry: &Entry,
        key: &ObjectKey,
        start: DateTime<Utc>,
        events: &mut Events,
    ) -> Result<(), EntryError> {
        let mut object = plan::new_object(key.clone(), self.judge.mtime(entry), &self.archive.remote, &entry.text());
        object.metadata.push(("archive-entry", RemotePath::new(entry.name.clone()).percent_encoded()));
        plan::fit_metadata(&mut object);
        let threshold = self.transfer.settings.upload.multipart_threshold.0;
        if entry.size <= self.held_whole().min(threshold) {
            return self.spawn_put(entry, object, start, events).await.map_err(EntryError::Archive);
        }
        let checksum = if entry.size <= threshold {
            self.put_streamed(&object, entry.size, events).await?
        } else {
            self.put_in_parts(&object, entry.size, events).await?
        };
        self.delivered.push(key.as_str().to_owned());
        self.record(entry, start, FileResult::Completed { key: key.clone(), checksum }).await;
        Ok(())
    }

    /// Gathers a small entry and puts it while the next ones are decoded.
    async fn spawn_put(
        &mut self,
        entry: &Entry,
        object: NewObject,
        start: DateTime<Utc>,
        events: &mut Events,
    ) -> Result<(), Failure> {
        while self.puts.len() >= PUTS_AT_ONCE {
            if let Some(put) = self.puts.join_next().await {
                self.note(put);
            }
        }
        let held = self.budget.hold(entry.size).await;
        let mut pieces = Vec::new();
        while let Some(piece) = next_piece(events).await? {
            pieces.push(piece);
        }
        let transfer = self.transfer.clone();
        let (path, archive) = (entry.text(), self.archive.remote.to_text());
        self.puts.spawn(async move {
            let (result, put) = match transfer.put_whole(&object, pieces, held).await {
                Ok(checksum) => (FileResult::Completed { key: object.key.clone(), checksum }, Ok(object.key)),
                Err(failure) => (
                    FileResult::Failed { failure: failure.clone(), delivered: Vec::new() },
                    Err(Failure { message: format!("entry {path:?}: {failure}"), ..failure }),
                ),
            };
            transfer.reporter.file(FileRecord { path, archive: Some(archive), start, result }).await;
            put
        });
        Ok(())
    }

    /// Sends an entry with one request while it is decoded.
    async fn put_streamed(&self, object: &NewObject, size: u64, events: &mut Events) -> Result<Crc64Nvme, EntryError> {
        let mut pieces = Pieces::new(events);
        let send = |body| self.transfer.store.put(object, body);
        let (checksum, ()) = self.stream(&mut pieces, size, true, send, Failure::unanswered).await?;
        self.transfer.count_object(checksum.len());
        Ok(checksum)
    }

    /// Sends the next `len` bytes as a request's body. With `last`, the last of them only once the entry's checksum held.
    async fn stream<T, F>(
        &self,
        pieces: &mut Pieces<'_>,
        len: u64,
        last: bool,
        send: impl FnOnce(Body) -> F,
        unanswered: fn() -> Failure,
    ) -> Result<(Crc64Nvme, T), EntryError>
    where
        F: Future<Output = Result<T, store::Error>>,
    {
        let _place = self.transfer.place(&self.transfer.stop.soon).await.map_err(EntryError::Archive)?;
        let (feeder, body) = store::streamed(len);
        let feed = feed(pieces, len, last, feeder);
        match self.transfer.fed(feed, send(Body::Streamed(body)), unanswered).await {
            Ok(sent) => Ok(sent),
            Err(NotSent::Source(failure)) => Err(EntryError::Archive(failure)),
            Err(NotSent::Store(failure)) if failure.code == FailureCode::Interrupted => {
                Err(EntryError::Archive(failure))
            }
            Err(NotSent::Store(failure)) => Err(EntryError::Store(failure)),
        }
    }

    /// Uploads a large entry in parts while it is decoded.
    async fn put_in_parts(&self, object: &NewObject, size: u64, events: &mut Events) -> Result<Crc64Nvme, EntryError> {
        let transfer = &self.transfer;
        let id = transfer.begin(object).await.map_err(EntryError::Store)?;
        let upload = Upload { object, id: &id };
        let result = async {
            let parts = self.put_parts(&upload, size, events).await?;
            transfer.complete(&upload, parts).await.map_err(EntryError::Store)
        };
        let result = result.await;
        if result.is_err() {
            transfer.store.abandon(&upload).await;
        }
        result
    }

    async fn put_parts(
        &self,
        upload: &Upload<'_>,
        size: u64,
        events: &mut Events,
    ) -> Result<Vec<(Part, Crc64Nvme)>, EntryError> {
        let transfer = &self.transfer;
        let part_size = plan::part_size(size, transfer.settings.upload.part_size.0);
        let held_whole = part_size <= self.held_whole();
        let mut pieces = Pieces::new(events);
        let mut running = FuturesUnordered::new();
        let mut done: Vec<(Part, Crc64Nvme)> = Vec::new();
        let result: Result<(), EntryError> = async {
            for (number, (offset, len)) in (1..).zip(plan::parts(size, part_size)) {
                if !held_whole {
                    let last = offset + len == size;
                    let send = |body| transfer.store.upload_part(upload, number, body);
                    let (checksum, part) = self.stream(&mut pieces, len, last, send, Failure::interrupted).await?;
                    done.push((part, checksum));
                    continue;
                }
                let gather = async {
                    let held = self.budget.hold(len).await;
                    Ok((pieces.take(len).await?, held))
                };
                let (part, held) = meanwhile(gather, &mut running, &mut done).await?;
                running.push(transfer.put_part(upload, number, part, held, &transfer.stop.soon));
            }
            if held_whole {
                meanwhile(pieces.end(), &mut running, &mut done).await?;
            }
            Ok(())
        }
        .await;
        // Whatever happened: no request of this upload may be under way when it is completed or aborted.
        let mut store_failure = None;
        while let Some(put) = running.next().await {
            match put {
                Ok(part) => done.push(part),
                Err(failure) => store_failure = store_failure.or(Some(failure)),
            }
        }
        result?;
        if let Some(failure) = store_failure {
            return Err(EntryError::Store(failure));
        }
        Ok(done)
    }

    /// Bytes up to which an entry, or a part of one, is held; what is larger is sent as it is decoded.
    fn held_whole(&self) -> u64 {
        self.transfer.settings.upload.part_size.0.min(self.budget.bytes())
    }

    fn note(&mut self, put: Result<Result<ObjectKey, Failure>, tokio::task::JoinError>) {
        match put {
            Ok(Ok(key)) => self.delivered.push(key.into_string()),
            Ok(Err(failure)) => {
                self.not_stored.get_or_insert(failure);
            }
            Err(panic) => {
                self.not_stored.get_or_insert(super::decoder_failed(&panic));
            }
        }
    }

    async fn refuse(&mut self, entry: &Entry, start: DateTime<Utc>, failure: Failure) {
        tracing::warn!(
            archive = %self.archive.remote, entry = entry.text(), code = failure.code.as_str(), error = %failure,
            "an entry was refused"
        );
        self.refused.get_or_insert_with(|| failure.clone());
        self.record(entry, start, FileResult::Failed { failure, delivered: Vec::new() }).await;
    }

    async fn fail(&mut self, entry: &Entry, start: DateTime<Utc>, failure: Failure) {
        let message = format!("entry {:?}: {failure}", entry.text());
        self.not_stored.get_or_insert(Failure { message, ..failure.clone() });
        self.record(entry, start, FileResult::Failed { failure, delivered: Vec::new() }).await;
    }

    async fn record(&self, entry: &Entry, start: DateTime<Utc>, result: FileResult) {
        let archive = Some(self.archive.remote.to_text());
        self.transfer.reporter.file(FileRecord { path: entry.text(), archive, start, result }).await;
    }
}

/// Waits for what the decoder brings, while the parts under way go on.
async fn meanwhile<T>(
    decoded: impl Future<Output = Result<T, Failure>>,
    running: &mut FuturesUnordered<impl Future<Output = Result<(Part, Crc64Nvme), Failure>>>,
    done: &mut Vec<(Part, Crc64Nvme)>,
) -> Result<T, EntryError> {
    let mut decoded = pin!(decoded);
    loop {
        tokio::select! {
            biased;
            Some(put) = running.next(), if !running.is_empty() => done.push(put.map_err(EntryError::Store)?),
            decoded = &mut decoded => return decoded.map_err(EntryError::Archive),
        }
    }
}
