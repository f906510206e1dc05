//! Logs on stderr: JSON lines, or text where a person reads them.
//!
//! What is logged of other crates is bounded: at `debug` and `trace` they write requests, headers and payloads, and with
//! them what is secret. No setting opens that.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings, OWN_CRATES, granted_level};

/// What other crates log where nothing is said.
const OTHERS: LevelFilter = LevelFilter::WARN;

/// Sets up logging for the whole process; the second call changes nothing. `main` calls it, the library never.
///
/// Every line is written by the function that `around` is given: [`directly`] just calls it, a progress bar takes itself
/// off the terminal meanwhile.
pub fn init(settings: &LogSettings, around: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) {
    let terminal = io::stderr().is_terminal();
    let format = settings.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let writer = Around { around: Arc::new(around), out: io::stderr };
    // An error says that there is a logger already: a test's, or that of the first call.
    let _ = registry().with(layer(format, terminal, writer).with_filter(targets(settings))).try_init();
}

/// For [`init`], where nothing else writes to the terminal.
pub fn directly(write: &mut dyn FnMut()) {
    write();
}

/// Writes a line to where the log goes, whole, for whoever reads it there by its own format.
pub fn write_line(line: &str) {
    // As with the log itself, there is nobody to tell where it cannot be written.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn layer<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> registry::LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(colours).boxed(),
    }
}

fn targets(settings: &LogSettings) -> Targets {
    let named = settings.crates.iter().map(|(name, level)| (name.as_str(), granted_level(name, *level)));
    let own = OWN_CRATES.iter().map(|name| (*name, settings.level));
    // `off` is meant for all.
    Targets::new().with_default(OTHERS.min(settings.level)).with_targets(named).with_targets(own)
}

/// Calls what it is given, once, with whatever else is on the terminal out of the way.
type Suspend = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// Writes each line through a function, whole.
struct Around<O> {
    around: Arc<Suspend>,
    out: fn() -> O,
}

impl<O: Write> Write for Around<O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut written = Ok(());
        (self.around)(&mut || written = (self.out)().write_all(line));
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.out)().flush()
    }
}

impl<O: Write> MakeWriter<'_> for Around<O> {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self { around: Arc::clone(&self.around), out: self.out }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tracing::Level;

    use super::*;

    thread_local! {
        static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    struct Here;

    impl Write for Here {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.with_borrow_mut(|written| written.write(bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log` runs, with every line between brackets that `around` puts there.
    fn written(format: LogFormat, settings: &LogSettings, log: impl FnOnce()) -> String {
        let around = |write: &mut dyn FnMut()| {
            let mark = |mark: &[u8]| WRITTEN.with_borrow_mut(|written| written.extend_from_slice(mark));
            mark(b"<");
            write();
            mark(b">");
        };
        let writer = Around { around: Arc::new(around), out: || Here };
        let subscriber = registry().with(layer(format, false, writer).with_filter(targets(settings)));
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(WRITTEN.take()).expect("text")
    }

    fn settings(level: LevelFilter, crates: &[(&str, LevelFilter)]) -> LogSettings {
        let crates = crates.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        LogSettings { format: None, level, crates }
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let line = written(LogFormat::Json, &LogSettings::default(), || {
            tracing::info!(target: "connector::list", files = 3, "listed\nall");
        });
        let line = line.strip_prefix('<').and_then(|line| line.strip_suffix("\n>")).expect("one whole line");
        let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&object["level"], &object["message"], &object["files"]),
            (&"INFO".into(), &"listed\nall".into(), &3.into())
        );
        assert!(object["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }

    #[test]
    fn text_is_readable_and_each_line_goes_through_the_function() {
        let lines = written(LogFormat::Text, &LogSettings::default(), || {
            tracing::info!(target: "connector", "one");
            tracing::warn!(target: "sftp_s3_connector", "two");
        });
        assert!(lines.contains("INFO") && lines.contains("one\n><") && lines.ends_with("two\n>"), "{lines}");
    }

    #[test]
    fn the_level_is_this_programs_and_others_stay_at_warnings() {
        let targets = targets(&settings(LevelFilter::TRACE, &[]));
        assert!(targets.would_enable("connector::remote::russh", &Level::TRACE));
        assert!(targets.would_enable("sftp_s3_connector", &Level::TRACE));
        assert!(targets.would_enable("globset", &Level::WARN) && !targets.would_enable("globset", &Level::INFO));
    }

    #[test]
    fn no_setting_lets_another_crate_log_payloads() {
        for name in ["russh", "russh::client", "ssh2", "aws_smithy_runtime", "hyper_util", "h2", "rustls", "aws_sdk_s3"]
        {
            let targets =
                targets(&settings(LevelFilter::TRACE, &[(name, LevelFilter::TRACE), ("", LevelFilter::TRACE)]));
            assert!(targets.would_enable(name, &Level::INFO), "{name}");
            assert!(!targets.would_enable(name, &Level::DEBUG), "{name}");
        }
    }

    #[test]
    fn a_module_of_this_program_may_have_a_level_of_its_own() {
        let targets = targets(&settings(LevelFilter::INFO, &[("connector::remote", LevelFilter::TRACE)]));
        assert!(targets.would_enable("connector::remote::russh", &Level::TRACE));
        assert!(!targets.would_enable("connector::list", &Level::DEBUG));
    }

    #[test]
    fn off_is_off_for_all() {
        let targets = targets(&settings(LevelFilter::OFF, &[]));
        assert!(!targets.would_enable("connector", &Level::ERROR) && !targets.would_enable("russh", &Level::ERROR));
    }
}
