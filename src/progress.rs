//! The progress bar: files, bytes, rate and time left, where stderr is a terminal; nothing elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::transfer::Transfer;

/// Between two looks at the counters.
const INTERVAL: Duration = Duration::from_millis(200);
const LINE: &str = "{bar:30} {msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// The terminal on stderr, if it is one, shared by the bar and the log.
#[derive(Debug, Clone)]
pub struct Terminal(MultiProgress);

impl Default for Terminal {
    fn default() -> Self {
        Self(MultiProgress::new())
    }
}

impl Terminal {
    /// Takes the bar off the terminal while `write` writes there.
    pub fn around(&self, write: &mut dyn FnMut()) {
        self.0.suspend(write);
    }
}

/// A bar that follows a transfer until it is finished.
#[derive(Debug)]
pub struct Progress {
    shown: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Progress {
    /// Shows `transfer`'s progress towards so many files and bytes.
    pub fn show(terminal: &Terminal, transfer: Arc<Transfer>, files: u64, bytes: u64) -> Self {
        let style = ProgressStyle::with_template(LINE);
        let (true, Ok(style)) = (std::io::stderr().is_terminal(), style) else {
            return Self { shown: None };
        };
        let bar = terminal.0.add(ProgressBar::new(bytes)).with_style(style);
        let follow = tokio::spawn({
            let bar = bar.clone();
            async move {
                loop {
                    let counters = transfer.counters();
                    let totals = counters.totals();
                    let done = totals.files_completed + totals.files_failed;
                    bar.set_message(format!("{done}/{files} files"));
                    bar.set_position(totals.bytes_read.min(bytes));
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        Self { shown: Some((bar, follow)) }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some((bar, follow)) = self.shown {
            follow.abort();
            bar.finish_and_clear();
        }
    }
}
