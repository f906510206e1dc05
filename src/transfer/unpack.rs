//! An archive into its entries, each an object of its own, read in place on the server.
//!
//! A thread decodes and hands pieces over a short channel; here they become objects. Nothing touches a disk, and no
//! archive is held whole: a small entry is held while it is put, a larger one is sent as it is decoded, a large one goes
//! up in parts. An entry's last byte is sent only after its checksum held.
//!
//! An archive takes its share of the budget at once, for decoding and for the entries that are held, and asks for no more
//! while it is open: one that waited for the budget while it held some of it could wait for itself.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{SemaphorePermit, mpsc};

use self::range_reader::RangeReader;
use self::zip::{Sink, Want};
use super::{Budget, Transfer};
use crate::failure::{Failure, FailureCode};
use crate::plan::{PlannedFile, SMALLEST_ARCHIVE};
use crate::remote::path::bytes_to_text;

mod claims;
mod entries;
mod judge;
mod pieces;
mod range_reader;
mod settle;
mod window;
mod zip;

pub use claims::{Claims, KeyHasher};
use judge::{Judge, Verdict};
pub use settle::Settled;

/// First bytes that tell what a file is.
const SIGNATURE_LEN: u64 = 4;
/// Decoded pieces that may wait for the store.
const PIECES_WAITING: usize = 4;
/// What decoding holds at most: two readers' windows (directory and content), and the pieces that wait.
const WINDOW: u64 = 2 * range_reader::WINDOW + (PIECES_WAITING as u64) * (zip::PIECE as u64);

/// Whether these pieces begin a zip file.
pub fn is_zip(pieces: &[Bytes]) -> bool {
    let start: Vec<u8> = pieces.iter().flatten().take(SIGNATURE_LEN as usize).copied().collect();
    zip::is_zip(&start)
}

/// Archives open at once: as many as cores can decode.
pub fn places() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What an archive says of an entry.
#[derive(Debug, Clone)]
struct Entry {
    name: Vec<u8>,
    kind: EntryKind,
    /// Bytes when decoded, as declared.
    size: u64,
    /// Seconds since the epoch.
    mtime: Option<u32>,
}

impl Entry {
    fn text(&self) -> String {
        bytes_to_text(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File,
    Directory,
    Link,
    Special,
}

/// What the decoding thread tells.
enum Event {
    /// An entry and what becomes of it. Its data follows where it is to be delivered.
    Entry(Entry, Verdict),
    Data(Bytes),
    /// The entry is complete and its checksum held.
    End,
    /// Nothing follows.
    Done(Result<(), Failure>),
}

/// How the unpacking of an archive that could be read to its end went.
pub struct Unpacked {
    /// The first entry that was refused, if any.
    pub refused: Option<Failure>,
}

impl Transfer {
    /// Whether the file is an archive: its first bytes tell.
    pub(super) async fn is_archive(&self, file: &PlannedFile) -> Result<bool, Failure> {
        let is_long_enough = file.size >= SMALLEST_ARCHIVE;
        Ok(is_long_enough && is_zip(&self.range(file, 0, SIGNATURE_LEN, &self.stop.soon).await?))
    }

    /// Delivers every entry of the archive whose key is not `contested`. Keys of those that were delivered are added to
    /// `delivered`, also where it fails.
    pub(super) async fn unpack(
        self: &Arc<Self>,
        file: &PlannedFile,
        contested: Arc<Claims>,
        delivered: &mut Vec<String>,
    ) -> Result<Unpacked, Failure> {
        let _place = self.place_to_unpack().await?;
        let file = Arc::new(file.clone());
        let judge = {
            let _window = self.hold(range_reader::WINDOW.min(file.size)).await?;
            Arc::new(self.read_headers(&file, contested).await?.all_seen())
        };
        // Two parts, so that one is filled while another is sent; less where the archive or the budget is small.
        let room = self.budget.bytes().saturating_sub(WINDOW);
        let for_entries = (2 * self.settings.upload.part_size.0).min(judge.unpacked()).min(room);
        let _share = self.hold(WINDOW.min(2 * file.size + judge.unpacked()) + for_entries).await?;
        let budget = Budget::new(for_entries);
        entries::Entries::new(self.clone(), file, judge, budget, delivered).deliver().await
    }

    /// A place among the archives that are open.
    async fn place_to_unpack(&self) -> Result<SemaphorePermit<'_>, Failure> {
        Self::place_among(&self.unpacking, &self.stop.soon).await
    }

    /// The first pass: what the archive holds, and which of its entries may not be delivered.
    async fn read_headers(self: &Arc<Self>, file: &Arc<PlannedFile>, contested: Arc<Claims>) -> Result<Judge, Failure> {
        let reader = RangeReader::new(self.clone(), file.clone());
        let mut judge = Judge::new(self, file, contested);
        let max_entries = self.settings.unpack.max_entries;
        let pass = move || {
            zip::headers(reader, max_entries, |entry| judge.see(&entry))?;
            Ok(judge)
        };
        tokio::task::spawn_blocking(pass).await.map_err(|panic| decoder_failed(&panic))?
    }

    /// The second pass: decodes the entries after the first `skip` on a thread of its own. Dropping the receiver ends
    /// it.
    fn decode(self: &Arc<Self>, file: &Arc<PlannedFile>, judge: &Arc<Judge>, skip: usize) -> mpsc::Receiver<Event> {
        let (events, receiver) = mpsc::channel(PIECES_WAITING);
        let directory = RangeReader::new(self.clone(), file.clone());
        let mut content = RangeReader::new(self.clone(), file.clone());
        let (transfer, judge) = (self.clone(), judge.clone());
        tokio::task::spawn_blocking(move || {
            let settings = &transfer.settings;
            let mut sink = Channel { events, judge };
            let decoded = zip::decode(
                directory,
                &mut content,
                settings.unpack.max_entries,
                skip,
                settings.archive_password.as_ref(),
                &mut sink,
            );
            // Where nobody listens any more, nobody needs to know.
            let _ = sink.events.blocking_send(Event::Done(decoded));
        });
        receiver
    }
}

fn decoder_failed(error: &tokio::task::JoinError) -> Failure {
    tracing::error!(error = %error, "the zip decoder failed; this is a fault of the program");
    Failure::new(FailureCode::InternalError, "the zip decoder failed; see the log")
}

/// Sends what is decoded to the task that delivers it.
struct Channel {
    events: mpsc::Sender<Event>,
    judge: Arc<Judge>,
}

impl Sink for Channel {
    fn entry(&mut self, entry: Entry) -> Want {
        let verdict = self.judge.verdict(&entry);
        let wanted = if matches!(verdict, Verdict::Deliver(_)) { Want::Data } else { Want::Next };
        match self.events.blocking_send(Event::Entry(entry, verdict)) {
            Ok(()) => wanted,
            Err(_) => Want::NoMore,
        }
    }

    fn data(&mut self, piece: Bytes) -> bool {
        self.events.blocking_send(Event::Data(piece)).is_ok()
    }

    fn end(&mut self) -> bool {
        self.events.blocking_send(Event::End).is_ok()
    }
}
