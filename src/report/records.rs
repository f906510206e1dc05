//! Records on their way to stdout, where nothing else is written.
//!
//! They are written as they happen, by a thread of their own: a reader that is slow holds the run back instead of filling its
//! memory, and a reader that went away costs the records, not the files. The same thread keeps them for the report.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{mpsc, oneshot};

use super::lines::file_line;
use super::spool::{Kept, Spool};
use super::{Counters, FileRecord, FileResult, RunIdentity, Totals};

/// Records that may wait for a slow reader.
const WAITING: usize = 1024;
/// The writer rests so long once it has written all there is: woken for each of thousands of lines a second, it would cost
/// more than they do.
const BREATH: Duration = Duration::from_millis(5);

/// How a remote file ended, for whoever is told of each: an entry of an archive is none, nor is a file that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    pub failed: bool,
    /// Its record.
    pub record: String,
}

/// Numbers file records and sends them to the writer. Clones share both.
#[derive(Debug, Clone)]
pub struct Reporter {
    identity: Arc<RunIdentity>,
    next: Arc<AtomicU64>,
    counters: Arc<Counters>,
    lines: mpsc::Sender<Line>,
    events: Option<mpsc::Sender<FileEvent>>,
}

impl Reporter {
    /// `events` takes what is told of each file besides.
    pub fn new(identity: RunIdentity, records: &Records, events: Option<mpsc::Sender<FileEvent>>) -> Self {
        Self {
            identity: Arc::new(identity),
            next: Arc::new(AtomicU64::new(1)),
            counters: records.counters.clone(),
            lines: records.lines.clone(),
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
        if let Some(events) = &self.events {
            let failed = match &record.result {
                FileResult::Completed { .. } | FileResult::Unpacked { .. } => Some(false),
                FileResult::Failed { .. } => Some(true),
                FileResult::Skipped(_) | FileResult::Planned { .. } => None,
            };
            if let Some(failed) = failed.filter(|_| record.archive.is_none()) {
                // Nobody takes them any more once the run is over, or they cannot be sent.
                let _ = events.send(FileEvent { failed, record: line.clone() }).await;
            }
        }
        // The writer outlives every reporter; were it gone, there would be nowhere to say so.
        let _ = self.lines.send(Line::Record(line)).await;
    }
}

/// Writes lines, in the order in which they were sent, on a thread of its own.
#[derive(Debug)]
pub struct Records {
    counters: Arc<Counters>,
    lines: mpsc::Sender<Line>,
    writer: std::thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Line {
    Record(String),
    /// All records that were kept go there.
    HandOver(oneshot::Sender<Kept>),
    Last(String),
}

impl Records {
    /// Starts the writer, which keeps the records besides where it `keeps` them.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn start(output: impl Write + Send + 'static, keeps: bool) -> io::Result<Self> {
        let (lines, receiver) = mpsc::channel(WAITING);
        let spool = keeps.then(Spool::default);
        let writer =
            std::thread::Builder::new().name("records".to_owned()).spawn(|| write_lines(output, receiver, spool))?;
        Ok(Self { counters: Arc::default(), lines, writer })
    }

    /// The run's sums by now.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// The records of all files that were sent before, once they are written; nothing where they are not kept. What is
    /// sent after it is not kept. Waits for whoever reads stdout.
    pub async fn kept(&self) -> Kept {
        let (to, kept) = oneshot::channel();
        let _ = self.lines.send(Line::HandOver(to)).await;
        kept.await.unwrap_or_default()
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

fn write_lines(mut output: impl Write, mut lines: mpsc::Receiver<Line>, mut spool: Option<Spool>) {
    let mut broken = false;
    while let Some(line) = lines.blocking_recv() {
        let (text, last) = match line {
            Line::Record(text) => (text, false),
            Line::Last(text) => (text, true),
            Line::HandOver(to) => {
                // Who asked may have gone.
                let _ = to.send(spool.take().map(Spool::finish).unwrap_or_default());
                continue;
            }
        };
        if let Some(spool) = spool.as_mut().filter(|_| !last) {
            spool.add(&text);
        }
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
