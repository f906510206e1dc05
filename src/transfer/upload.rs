//! One remote file into one object: with one request, with one request whose body is read as it is sent, or in parts.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::budget::Held;
use super::fetch::STREAM_WINDOW;
use super::{Transfer, unpack};
use crate::checksum::Crc64Nvme;
use crate::exit::Exit;
use crate::failure::{Failure, FailureCode};
use crate::plan::{self, PlannedFile};
use crate::store::{self, Body, NewObject, Part, Upload, UploadId};

/// What a first look at a file's content told.
pub enum Look {
    /// Not an archive. The look had all of a small file in hand, so that it is in the store already.
    Delivered(Crc64Nvme),
    /// Not an archive.
    Plain,
    Archive,
}

/// Why a body was not sent to its end: which side failed.
pub enum NotSent {
    Source(Failure),
    Store(Failure),
}

impl Transfer {
    /// Bytes up to which an object is held whole while it is put.
    fn held_whole(&self) -> u64 {
        let upload = &self.settings.upload;
        upload.part_size.0.min(upload.multipart_threshold.0)
    }

    /// Finds out whether the file is an archive, by its content.
    pub(super) async fn look(&self, file: &PlannedFile) -> Result<Look, Failure> {
        if file.size > self.held_whole() {
            return Ok(if self.is_archive(file).await? { Look::Archive } else { Look::Plain });
        }
        let held = self.hold(file.size).await?;
        let pieces = self.range(file, 0, file.size, &self.stop.soon).await?;
        if unpack::is_zip(&pieces) {
            return Ok(Look::Archive);
        }
        self.put_whole(&file.object(), pieces, held).await.map(Look::Delivered)
    }

    /// Delivers the file as it is.
    pub(super) async fn upload_file(self: &Arc<Self>, file: &PlannedFile) -> Result<Crc64Nvme, Failure> {
        if file.size <= self.held_whole() {
            let held = self.hold(file.size).await?;
            let pieces = self.range(file, 0, file.size, &self.stop.soon).await?;
            self.put_whole(&file.object(), pieces, held).await
        } else if file.size <= self.settings.upload.multipart_threshold.0 {
            self.put_streamed(file).await
        } else {
            self.upload_in_parts(file).await
        }
    }

    /// Waits for `bytes` of the budget, or for the run to stop.
    pub(super) async fn hold(&self, bytes: u64) -> Result<Held, Failure> {
        tokio::select! {
            biased;
            () = self.stop.soon.cancelled() => Err(Failure::interrupted()),
            held = self.budget.hold(bytes) => Ok(held),
        }
    }

    /// Puts bytes that are at hand. `held` is their share of the budget.
    pub(super) async fn put_whole(
        &self,
        object: &NewObject,
        pieces: Vec<Bytes>,
        held: Held,
    ) -> Result<Crc64Nvme, Failure> {
        let checksum = Crc64Nvme::of(&pieces);
        let _place = self.place(&self.stop.soon).await?;
        self.request(self.store.put(object, Body::Buffered { pieces, checksum }), Failure::unanswered).await?;
        drop(held);
        self.count_object(checksum.len());
        Ok(checksum)
    }

    /// Puts a file that is too large to be held, with one request.
    async fn put_streamed(self: &Arc<Self>, file: &PlannedFile) -> Result<Crc64Nvme, Failure> {
        let _held = self.hold(STREAM_WINDOW.min(file.size)).await?;
        let object = file.object();
        let send = |body| self.store.put(&object, body);
        let whole = (0, file.size);
        let (checksum, ()) = self.stream(file, whole, &self.stop.soon, send, Failure::unanswered).await?;
        self.count_object(checksum.len());
        Ok(checksum)
    }

    /// Reads a range and sends it at the same time; begins again from the range's start where the store's side fails.
    async fn stream<T, F>(
        self: &Arc<Self>,
        file: &PlannedFile,
        range: (u64, u64),
        stop: &CancellationToken,
        send: impl Fn(Body) -> F,
        unanswered: fn() -> Failure,
    ) -> Result<(Crc64Nvme, T), Failure>
    where
        F: Future<Output = Result<T, store::Error>>,
    {
        self.retry
            .run(
                |failure: &Failure| failure.may_pass,
                |_| async {
                    let _place = self.place(stop).await?;
                    let (feeder, body) = store::streamed(range.1);
                    let feed = self.feed(file, range, feeder, stop);
                    match self.fed(feed, send(Body::Streamed(body)), unanswered).await {
                        Ok(sent) => Ok(sent),
                        Err(NotSent::Source(failure) | NotSent::Store(failure)) => Err(failure),
                    }
                },
            )
            .await
    }

    /// Waits for a request and for what feeds its body.
    ///
    /// The feeder is looked at first: it ends before the request that its failure breaks off, so that the cause is told
    /// and not the effect. `unanswered` is the failure of a request that the run did not wait for, once all of the body
    /// was handed over: before that, the store can have made nothing of it.
    pub(super) async fn fed<T>(
        &self,
        feed: impl Future<Output = Result<Option<Crc64Nvme>, Failure>>,
        request: impl Future<Output = Result<T, store::Error>>,
        unanswered: fn() -> Failure,
    ) -> Result<(Crc64Nvme, T), NotSent> {
        let (mut feed, mut request) = (pin!(feed), pin!(request));
        let (fed, sent) = tokio::select! {
            biased;
            fed = &mut feed => {
                let fed = fed.map_err(NotSent::Source)?;
                (fed, self.request(request, unanswered).await.map_err(NotSent::Store)?)
            }
            sent = self.request(&mut request, Failure::interrupted) => {
                let sent = sent.map_err(NotSent::Store)?;
                (feed.await.map_err(NotSent::Source)?, sent)
            }
        };
        let early = "the store took the object before all of it was sent";
        let checksum = fed.ok_or_else(|| NotSent::Store(Failure::new(FailureCode::WriteFileError, early)))?;
        Ok((checksum, sent))
    }

    /// Uploads a file in parts, several at once. Whatever goes wrong, the upload is aborted.
    async fn upload_in_parts(self: &Arc<Self>, file: &PlannedFile) -> Result<Crc64Nvme, Failure> {
        let turn = Self::place_among(&self.turn, &self.stop.soon).await?;
        let object = file.object();
        let id = self.begin(&object).await?;
        let upload = Upload { object: &object, id: &id };
        let result = async {
            let parts = self.upload_parts(file, &upload, turn).await?;
            self.complete(&upload, parts).await
        };
        let result = result.await;
        if result.is_err() {
            self.store.abandon(&upload).await;
        }
        result
    }

    /// Begins an upload in parts. Given up only with the last requests of a stopped run: the store may have begun it, and
    /// what has no id cannot be aborted.
    pub(super) async fn begin(&self, object: &NewObject) -> Result<UploadId, Failure> {
        let _place = self.place(&self.stop.soon).await?;
        // Not yet a sign that the store takes anything: with a KMS key, a part asks for a permission that this does not.
        self.answer(self.store.begin(object), Failure::interrupted).await
    }

    /// Makes the object out of its parts, whatever order they ended in.
    pub(super) async fn complete(
        &self,
        upload: &Upload<'_>,
        mut parts: Vec<(Part, Crc64Nvme)>,
    ) -> Result<Crc64Nvme, Failure> {
        parts.sort_unstable_by_key(|(part, _)| part.number);
        let checksum = parts.iter().fold(Crc64Nvme::EMPTY, |whole, (_, part)| whole.then(*part));
        let parts: Vec<_> = parts.into_iter().map(|(part, _)| part).collect();
        let _place = self.place(&self.stop.soon).await?;
        self.request(self.store.complete(upload, &parts, checksum), Failure::unanswered).await?;
        self.count_object(checksum.len());
        Ok(checksum)
    }

    /// Reads and uploads every part. After a failure no part is begun, reads are given up, and requests that are under
    /// way are let finish: an abort before them would leave their parts behind.
    async fn upload_parts(
        self: &Arc<Self>,
        file: &PlannedFile,
        upload: &Upload<'_>,
        turn: SemaphorePermit<'_>,
    ) -> Result<Vec<(Part, Crc64Nvme)>, Failure> {
        let part_size = plan::part_size(file.size, self.settings.upload.part_size.0);
        let stop = self.stop.soon.child_token();
        let mut turn = Some(turn);
        let mut waiting = (1..).zip(plan::parts(file.size, part_size)).peekable();
        let mut running = FuturesUnordered::new();
        let mut done = Vec::new();
        let mut failed = None;
        loop {
            let next = waiting.peek().map(|(_, (_, len))| *len).filter(|_| failed.is_none());
            if next.is_none() {
                // No part is waited for any more: the next large file may begin.
                turn.take();
                if running.is_empty() {
                    break;
                }
            }
            tokio::select! {
                biased;
                Some(part) = running.next(), if !running.is_empty() => match part {
                    Ok(part) => done.push(part),
                    Err(failure) => {
                        stop.cancel();
                        failed.get_or_insert(failure);
                    }
                },
                () = self.stop.soon.cancelled(), if failed.is_none() => failed = Some(Failure::interrupted()),
                held = self.budget.hold(self.part_weight(next.unwrap_or_default())), if next.is_some() => {
                    if let Some((number, range)) = waiting.next() {
                        running.push(self.upload_range(file, upload, number, range, held, &stop));
                    }
                }
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        Ok(done)
    }

    /// What a part of `len` bytes takes from the budget.
    fn part_weight(&self, len: u64) -> u64 {
        if len <= self.settings.upload.part_size.0 { len } else { STREAM_WINDOW }
    }

    /// One part: held whole where it has the configured size, streamed where the object's size made parts larger.
    async fn upload_range(
        self: &Arc<Self>,
        file: &PlannedFile,
        upload: &Upload<'_>,
        number: u32,
        (offset, len): (u64, u64),
        held: Held,
        stop: &CancellationToken,
    ) -> Result<(Part, Crc64Nvme), Failure> {
        if len > self.settings.upload.part_size.0 {
            let send = |body| self.store.upload_part(upload, number, body);
            let (checksum, part) = self.stream(file, (offset, len), stop, send, Failure::interrupted).await?;
            return Ok((part, checksum));
        }
        let pieces = self.range(file, offset, len, stop).await?;
        self.put_part(upload, number, pieces, held, stop).await
    }

    /// Uploads a part that is at hand.
    pub(super) async fn put_part(
        &self,
        upload: &Upload<'_>,
        number: u32,
        pieces: Vec<Bytes>,
        held: Held,
        stop: &CancellationToken,
    ) -> Result<(Part, Crc64Nvme), Failure> {
        let checksum = Crc64Nvme::of(&pieces);
        let _place = self.place(stop).await?;
        let body = Body::Buffered { pieces, checksum };
        let part = self.request(self.store.upload_part(upload, number, body), Failure::interrupted).await?;
        drop(held);
        Ok((part, checksum))
    }

    /// A place among the requests to the store. Never waited for by one who will ask for more of the budget.
    pub(super) async fn place(&self, stop: &CancellationToken) -> Result<SemaphorePermit<'_>, Failure> {
        Self::place_among(&self.requests, stop).await
    }

    /// Waits for a request that has the store take something.
    async fn request<T>(
        &self,
        request: impl Future<Output = Result<T, store::Error>>,
        unanswered: fn() -> Failure,
    ) -> Result<T, Failure> {
        let taken = self.answer(request, unanswered).await?;
        self.outage.took();
        Ok(taken)
    }

    /// Waits for a request, or until nothing can be waited for any more: `unanswered` is the failure then. A part that
    /// was not answered for makes no object.
    async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, store::Error>>,
        unanswered: fn() -> Failure,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            // An answer that is there counts, however late it is.
            answer = request => answer.map_err(|error| self.write_failure(&error)),
            // It may have taken it, and nobody will know.
            () = self.stop.now.cancelled() => Err(unanswered()),
        }
    }

    /// The record's failure for what the store said.
    fn write_failure(&self, error: &store::Error) -> Failure {
        let exit = match error.kind {
            store::Kind::NoBucket | store::Kind::Denied => Some(Exit::Destination),
            store::Kind::Unavailable => Some(Exit::Unreachable),
            _ => None,
        };
        let failure = Failure {
            exit,
            may_pass: error.may_pass(),
            ..Failure::new(FailureCode::WriteFileError, error.to_string())
        };
        match error.kind {
            store::Kind::NoBucket => self.outage.give_up(&failure),
            store::Kind::Denied | store::Kind::Unavailable => self.outage.failed(&failure),
            _ => {}
        }
        failure
    }

    pub(super) fn count_object(&self, bytes: u64) {
        self.counters.objects.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}
