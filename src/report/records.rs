//! Records on their way to stdout, where nothing else is written.
//!
//! They are written as they happen, by a thread of their own: a reader that is slow holds the run back instead of filling its
//! memory, and a reader that went away costs the records, not the files. They are kept for the report before they are
//! written, so that it does not wait for a reader either.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lines::file_line;
use super::spool::{Kept, Spool};
use super::{Counters, FileRecord, FileResult, RunIdentity, Totals};

/// Records that may wait for a slow reader.
const WAITING: usize = 1024;
/// The writer rests so long once it has written all there is: woken for each of thousands of lines a second, it would cost
/// more than they do.
const BREATH: Duration = Duration::from_millis(5);

/// Of an event's record; a longer one loses what may be long. A thousand may wait.
const MOST_EVENT_BYTES: usize = 16 * 1024;
/// Events that may wait to be sent.
const EVENTS_WAITING: usize = 1000;
/// A file's end waits so long for room among them, once; then nobody takes them fast enough, and they are dropped.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// How a remote file ended, for whoever is told of each: an entry of an archive is none, nor is a file that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    pub failed: bool,
    /// Its record.
    pub record: String,
}

impl FileEvent {
    fn of(failed: bool, record: &str) -> Self {
        Self { failed, record: if record.len() > MOST_EVENT_BYTES { shortened(record) } else { record.to_owned() } }
    }
}

/// A record without what may be long of it: the names of an archive's entries.
fn shortened(record: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(record) else { return String::from("{}") };
    if let Some(Value::Array(delivered)) = fields.remove("entries-delivered") {
        fields.insert("entries-delivered-count".to_owned(), delivered.len().into());
    }
    fields.retain(|_, value| value.as_str().is_none_or(|text| text.len() < MOST_EVENT_BYTES / 2));
    Value::Object(fields).to_string()
}

/// Where file events wait to be sent. Clones share it.
#[derive(Debug, Clone)]
pub struct EventQueue {
    waiting: mpsc::Sender<FileEvent>,
    dropped: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl EventQueue {
    /// With its other end. Once `stop` is cancelled, nobody waits for room.
    pub fn new(stop: CancellationToken) -> (Self, mpsc::Receiver<FileEvent>) {
        let (waiting, queue) = mpsc::channel(EVENTS_WAITING);
        (Self { waiting, dropped: Arc::default(), stop }, queue)
    }

    /// Events that nobody has taken yet.
    pub fn waiting(&self) -> u64 {
        (self.waiting.max_capacity() - self.waiting.capacity()) as u64
    }

    /// Events that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn add(&self, event: FileEvent) {
        // The first that finds no room in time speaks for those behind it: a run is held up once.
        let room = if self.dropped() == 0 { ROOM_WITHIN } else { Duration::ZERO };
        let added = tokio::select! {
            biased;
            sent = self.waiting.send_timeout(event, room) => sent.is_ok(),
            () = self.stop.cancelled() => false,
        };
        if !added {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Numbers file records and sends them to the writer. Clones share both.
#[derive(Debug, Clone)]
pub struct Reporter {
    identity: Arc<RunIdentity>,
    next: Arc<AtomicU64>,
    counters: Arc<Counters>,
    lines: mpsc::Sender<Line>,
    kept: Keeper,
    events: Option<EventQueue>,
}

impl Reporter {
    /// `events` takes what is told of each file besides.
    pub fn new(identity: RunIdentity, records: &Records, events: Option<EventQueue>) -> Self {
        Self {
            identity: Arc::new(identity),
            next: Arc::new(AtomicU64::new(1)),
            counters: records.counters.clone(),
            lines: records.lines.clone(),
            kept: records.kept.clone(),
            events,
        }
    }

    pub fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// The run's sums, for whoever adds to them.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Writes one file's record.
    pub async fn file(&self, record: FileRecord) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = file_line(&self.identity, number, &record, Utc::now());
        let failed = match &record.result {
            FileResult::Completed { .. } | FileResult::Unpacked { .. } => Some(false),
            FileResult::Failed { .. } => Some(true),
            FileResult::Skipped(_) | FileResult::Planned { .. } => None,
        };
        let event = failed.filter(|_| record.archive.is_none() && self.events.is_some());
        let event = event.map(|failed| FileEvent::of(failed, &line));
        self.kept.add(&line);
        // The writer outlives every reporter; were it gone, there would be nowhere to say so.
        let _ = self.lines.send(Line::Record(line)).await;
        if let (Some(event), Some(events)) = (event, &self.events) {
            events.add(event).await;
        }
    }
}

/// Keeps records, where they are to be kept. Clones share them.
#[derive(Debug, Clone, Default)]
struct Keeper(Arc<Mutex<Option<Spool>>>);

impl Keeper {
    fn add(&self, record: &str) {
        if let Some(spool) = self.spool().as_mut() {
            spool.add(record);
        }
    }

    fn spool(&self) -> MutexGuard<'_, Option<Spool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes lines, in the order in which they were sent, on a thread of its own.
#[derive(Debug)]
pub struct Records {
    counters: Arc<Counters>,
    kept: Keeper,
    lines: mpsc::Sender<Line>,
    writer: std::thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Line {
    Record(String),
    Last(String),
}

impl Records {
    /// Starts the writer; the records are kept besides where `keeps` says so.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn start(output: impl Write + Send + 'static, keeps: bool) -> io::Result<Self> {
        let (lines, receiver) = mpsc::channel(WAITING);
        let writer = std::thread::Builder::new().name("records".to_owned()).spawn(|| write_lines(output, receiver))?;
        let kept = Keeper(Arc::new(Mutex::new(keeps.then(Spool::default))));
        Ok(Self { counters: Arc::default(), kept, lines, writer })
    }

    /// The run's sums by now.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// The records of all files by now; nothing where they are not kept. None is kept after that.
    pub fn kept(&self) -> Kept {
        self.kept.spool().take().map(Spool::finish).unwrap_or_default()
    }

    /// Writes the last record, after all that were sent before, and ends the writer. What is sent after it is dropped.
    /// Waits for whoever reads stdout.
    pub async fn finish(self, last: String) {
        let _ = self.lines.send(Line::Last(last)).await;
        drop(self.lines);
        let joined = tokio::task::spawn_blocking(move || self.writer.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread that writes records failed; records may be missing from stdout");
        }
    }
}

fn write_lines(mut output: impl Write, mut lines: mpsc::Receiver<Line>) {
    let mut broken = false;
    while let Some(line) = lines.blocking_recv() {
        let (text, last) = match line {
            Line::Record(text) => (text, false),
            Line::Last(text) => (text, true),
        };
        if !broken {
            // One write a line: readers of a shared pipe never see a half.
            let written = output.write_all(format!("{text}\n").as_bytes()).and_then(|()| output.flush());
            if let Err(error) = written {
                broken = true;
                tracing::warn!(error = %error, "stdout cannot be written; the run goes on without records");
            }
        }
        if last {
            return;
        }
        if lines.is_empty() {
            std::thread::sleep(BREATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_that_is_too_long_for_an_event_loses_what_is_long() {
        let names: Vec<_> = (0..20_000).map(|n| format!("archive/a-name-of-some-length-{n}.txt")).collect();
        let record =
            json!({"file-path": "/out/a.zip", "status-code": "FAILED", "entries-delivered": names}).to_string();
        let event = FileEvent::of(true, &record);
        assert!(event.record.len() < MOST_EVENT_BYTES);
        let detail: Value = serde_json::from_str(&event.record).expect("JSON");
        let left = json!({"file-path": "/out/a.zip", "status-code": "FAILED", "entries-delivered-count": 20_000});
        assert_eq!(detail, left);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_nobody_empties_holds_a_run_up_once() {
        let (events, _queue) = EventQueue::new(CancellationToken::new());
        let start = tokio::time::Instant::now();
        for _ in 0..EVENTS_WAITING + 500 {
            events.add(FileEvent { failed: false, record: String::new() }).await;
        }
        assert_eq!((events.dropped(), events.waiting()), (500, EVENTS_WAITING as u64));
        assert_eq!(start.elapsed(), ROOM_WITHIN);

        // Nor does one that is to stop wait.
        let stop = CancellationToken::new();
        let (events, _queue) = EventQueue::new(stop.clone());
        stop.cancel();
        for _ in 0..EVENTS_WAITING + 1 {
            events.add(FileEvent { failed: false, record: String::new() }).await;
        }
        assert_eq!((events.dropped(), start.elapsed()), (1, ROOM_WITHIN));
    }
}
