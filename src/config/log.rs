//! `LOG_FORMAT`, `LOG_LEVEL`, `RUST_LOG`: how much is logged and in what form. Needed before the rest is known to be right.

use std::ffi::OsString;

use tracing::level_filters::LevelFilter;

use super::environment::{self, Environment};
use super::parse::Reading;
use super::table::Settings;
use super::values::one_of;

/// What [`logging::init`](crate::logging::init) goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// Of this program.
    pub level: LevelFilter,
    /// Of other crates, by the beginning of their module paths; what is not named stays at warnings.
    pub crates: Vec<(String, LevelFilter)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One object a line.
    Json,
    Text,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: None, level: LevelFilter::INFO, crates: Vec::new() }
    }
}

const FORMATS: &[(&str, LogFormat)] = &[("json", LogFormat::Json), ("text", LogFormat::Text)];

/// What this program's own lines are logged under.
pub const OWN_CRATES: [&str; 2] = ["connector", "sftp_s3_connector"];

/// Most that other crates may log: beyond it they write what is secret.
const MOST_OF_OTHERS: LevelFilter = LevelFilter::INFO;

/// The level that the lines of `module` are logged at where `asked` is asked for.
pub fn granted_level(module: &str, asked: LevelFilter) -> LevelFilter {
    let of_own = |own: &&str| module.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if OWN_CRATES.iter().any(of_own) { asked } else { asked.min(MOST_OF_OTHERS) }
}

impl LogSettings {
    /// From the process's variables. Never fails, so that there is a log to report faults to: what is wrong counts as
    /// unset here and is a fault of [`Config::from_env`](super::Config::from_env).
    pub fn from_env() -> Self {
        Self::from_os_vars(environment::process())
    }

    /// As [`from_env`](Self::from_env), from the given variables.
    pub fn from_vars(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::from_os_vars(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn from_os_vars(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let Environment { settings, .. } = environment::read(variables);
        Self::read(&mut Reading::default(), &settings)
    }

    pub(super) fn read(reading: &mut Reading, settings: &Settings) -> Self {
        let format = reading.optional(&settings.log_format, one_of(FORMATS));
        // A wrong RUST_LOG is no fault where it does not count.
        let levels = if settings.log_level.given.is_some() { &settings.log_level } else { &settings.rust_log };
        let (level, crates) = reading.optional(levels, levels_of).unwrap_or((LevelFilter::INFO, Vec::new()));
        let lowered = |(name, level): &&(String, LevelFilter)| granted_level(name, *level) < *level;
        let lowered: Vec<_> = crates.iter().filter(lowered).map(|(name, _)| format!("{name:?}")).collect();
        if !lowered.is_empty() {
            reading.warnings.push(format!(
                "{}: {} is logged at {MOST_OF_OTHERS} at most: at debug and trace other crates write what is secret",
                levels.variable.name,
                lowered.join(", ")
            ));
        }
        Self { format, level, crates }
    }
}

/// A level, or a comma-separated list of `crate=level` and at most one level of this program.
fn levels_of(text: &str) -> Result<(LevelFilter, Vec<(String, LevelFilter)>), String> {
    let mut own = LevelFilter::INFO;
    let mut crates = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item.split_once('=') {
            None => own = level_of(item)?,
            Some((name, level)) if OWN_CRATES.contains(&name) => own = level_of(level)?,
            Some((name, level)) => crates.push((name.to_owned(), level_of(level)?)),
        }
    }
    Ok((own, crates))
}

fn level_of(word: &str) -> Result<LevelFilter, String> {
    const LEVELS: &[(&str, LevelFilter)] = &[
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    one_of(LEVELS)(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> LogSettings {
        LogSettings::from_vars(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_level_is_log_level_then_rust_log_then_info() {
        assert_eq!(settings(&[]), LogSettings::default());
        assert_eq!(settings(&[("RUST_LOG", "debug")]).level, LevelFilter::DEBUG);
        assert_eq!(settings(&[("RUST_LOG", "debug"), ("LOG_LEVEL", "WARN")]).level, LevelFilter::WARN);
        assert_eq!(settings(&[("RUST_LOG", "debug"), ("LOG_LEVEL", "")]).level, LevelFilter::DEBUG);
    }

    #[test]
    fn other_crates_are_named_with_their_level() {
        let settings = settings(&[("RUST_LOG", "tokio=debug, connector=trace ,aws_config=info")]);
        assert_eq!(settings.level, LevelFilter::TRACE);
        let crates = [("tokio".to_owned(), LevelFilter::DEBUG), ("aws_config".to_owned(), LevelFilter::INFO)];
        assert_eq!(settings.crates, crates);
    }

    #[test]
    fn a_level_that_is_not_granted_is_warned_about() {
        let warnings = |name: &str, levels: &str| {
            let given = [(name, levels), ("BUCKET", "b-1"), ("SFTP_DIRECTORY_PATH", "."), ("SECRET_NAME", "s")];
            let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
            crate::config::Config::from_vars(given).expect("a configuration").warnings
        };
        let lowered = warnings("RUST_LOG", "warn,russh=debug,h2=trace,hyper=info");
        assert!(
            matches!(&lowered[..], [one] if one.starts_with("RUST_LOG: \"russh\", \"h2\" is logged at info")),
            "{lowered:?}"
        );
        assert_eq!(warnings("LOG_LEVEL", "h2=debug").len(), 1);
        assert_eq!(warnings("RUST_LOG", "connector::remote=trace,sftp_s3_connector=debug,h2=off"), [""; 0]);
    }

    #[test]
    fn what_is_wrong_counts_as_unset_until_it_is_reported() {
        assert_eq!(settings(&[("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml")]), LogSettings::default());
        assert_eq!(settings(&[("LOG_FORMAT", "JSON")]).format, Some(LogFormat::Json));
    }
}
