//! An archive into its entries, each an object of its own, read in place on the server.
//!
//! A thread decodes and hands pieces over a short channel; here they become objects. Nothing touches a disk, and no
//! archive is held whole: a small entry is held while it is put, a larger one is sent as it is decoded, a large one goes
//! up in parts. An entry's last byte is sent only after its checksum held.
//!
//! While an archive is open it holds a window of the budget and asks for more, entry by entry. So that this cannot lock
//! up, few archives are open at once, no entry asks for more than they leave all together, and everyone else who holds
//! some of the budget gives it back without asking for more.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use self::range_reader::RangeReader;
use self::zip::{Sink, Want};
use super::Transfer;
use crate::failure::{Failure, FailureCode};
use crate::plan::PlannedFile;
use crate::remote::path::bytes_to_text;

mod entries;
mod judge;
mod range_reader;
mod zip;

use judge::{Judge, Verdict};

/// The end record of an archive without entries.
pub const SMALLEST_ZIP: u64 = 22;
/// First bytes that tell what a file is.
pub const SIGNATURE_LEN: u64 = 4;
/// Decoded pieces that may wait for the store.
const PIECES_WAITING: usize = 4;
/// What an open archive holds: two readers' windows (directory and content), and the pieces that wait.
const WINDOW: u64 = 2 * range_reader::WINDOW + (1 << 20);

/// Whether these pieces begin a zip file.
pub fn is_zip(pieces: &[Bytes]) -> bool {
    let start: Vec<u8> = pieces.iter().flatten().take(SIGNATURE_LEN as usize).copied().collect();
    zip::is_zip(&start)
}

/// Archives open at once: as many as cores can decode, within a quarter of the budget.
pub fn places(memory_limit: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    usize::try_from(memory_limit / 4 / WINDOW).unwrap_or(usize::MAX).clamp(1, cores)
}

/// What the budget has left when every place among the archives is taken: nobody may wait for more than this while an
/// archive is open.
pub fn left_for_entries(memory_limit: u64, places: usize) -> u64 {
    memory_limit.saturating_sub(places as u64 * WINDOW)
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
    /// Delivers every entry of the archive. Keys of those that were delivered are added to `delivered`, also where it
    /// fails.
    pub(super) async fn unpack(
        self: &Arc<Self>,
        file: &PlannedFile,
        delivered: &mut Vec<String>,
    ) -> Result<Unpacked, Failure> {
        let _place = tokio::select! {
            biased;
            () = self.stop.soon.cancelled() => return Err(Failure::interrupted()),
            place = self.unpacking.acquire() => place.map_err(|_| Failure::interrupted())?,
        };
        let _window = self.hold(WINDOW).await?;
        let file = Arc::new(file.clone());
        let judge = Arc::new(self.read_headers(&file).await?);
        entries::Entries::new(self.clone(), file, judge, delivered).deliver().await
    }

    /// The first pass: what the archive holds, and which of its entries may not be delivered.
    async fn read_headers(self: &Arc<Self>, file: &Arc<PlannedFile>) -> Result<Judge, Failure> {
        let reader = RangeReader::new(self.clone(), file.clone());
        let mut judge = Judge::new(self, file);
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
