//! What is wrong with the environment: every fault at once, in words, without a secret value.

use std::fmt;
use std::time::Duration;

use super::{NotifySettings, Operation, UploadSettings};

/// One variable that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    variable: &'static str,
    /// As shown: quoted, cut, or withheld. `None` where nothing was given.
    given: Option<String>,
    /// What is wrong with it and what would be right. Never repeats what was given: that is shown, or not, above.
    problem: String,
}

impl Fault {
    pub(super) fn wrong(variable: &'static str, given: &str, problem: impl fmt::Display) -> Self {
        let withheld = || String::from("set to something that is not shown here");
        Self { variable, given: Some(show(variable, given).unwrap_or_else(withheld)), problem: problem.to_string() }
    }

    pub(super) fn missing(variable: &'static str, problem: impl fmt::Display) -> Self {
        Self { variable, given: None, problem: problem.to_string() }
    }

    /// The variable to mend.
    pub fn variable(&self) -> &'static str {
        self.variable
    }
}

impl fmt::Display for Fault {
    /// One line, whatever was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => write!(f, "{} is {given}: {}", self.variable, self.problem),
            None => write!(f, "{} is not set: {}", self.variable, self.problem),
        }
    }
}

/// Variables whose value is never shown: they hold the secret, or what grants something, or may by mistake.
const WITHHELD: [&str; 6] = ["SECRET_JSON", "SECRET_NAME", "SECRET_FILE", "SFTP_USERNAME", "SFTP_PROXY", "TASK_TOKEN"];

/// Letters of a value that are shown.
const SHOWN: usize = 100;

/// The value in quotes on one line, cut where long; `None`, so that it is withheld, where it is or resembles a secret: a JSON object (or what
/// is left of one), a key, an address with a user's name and password in it.
pub(super) fn show(variable: &str, value: &str) -> Option<String> {
    let opens_an_object = || value.split('{').skip(1).any(|inside| inside.trim_start().starts_with('"'));
    let resembles_a_secret =
        value.contains("PRIVATE KEY") || value.contains("\":") || value.contains('@') || opens_an_object();
    if WITHHELD.contains(&variable) || resembles_a_secret {
        return None;
    }
    Some(match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?} and more", &value[..end]),
        None => format!("{value:?}"),
    })
}

/// All that is wrong with the environment; at least one fault. Whose run it would have been is told as far as it could be
/// read, so that the run's record can say it.
#[derive(Debug, Clone)]
pub struct Faults {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
    pub(super) operation: Operation,
    pub(super) job_name: Option<String>,
    pub(super) told_with: Box<ToldWith>,
}

/// What it takes to tell the outside that a run's configuration is wrong, as far as that could be read.
#[derive(Debug, Clone)]
pub struct ToldWith {
    pub region: Option<String>,
    pub upload: UploadSettings,
    pub stop_grace: Duration,
    /// As [`Config::delivers`](super::Config::delivers).
    pub delivers: bool,
    pub notify: NotifySettings,
}

impl Faults {
    /// What `OPERATION` says; its default where that is wrong itself.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// What `JOB_NAME` says, if anything, and rightly.
    pub fn job_name(&self) -> Option<&str> {
        self.job_name.as_deref()
    }

    /// To tell the outside with.
    pub fn told_with(&self) -> &ToldWith {
        &self.told_with
    }

    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// What would have been warned about: a misspelt name is often the cause of one that is missing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Faults {
    /// One line for each fault, then one for each warning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.iter().map(ToString::to_string);
        let warnings = self.warnings.iter().map(|warning| format!("note: {warning}"));
        f.write_str(&faults.chain(warnings).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_variable_what_was_given_and_what_would_be_right() {
        assert_eq!(
            Fault::wrong("PORT", "70000", "a whole number from 1 to 65535").to_string(),
            "PORT is \"70000\": a whole number from 1 to 65535"
        );
        assert_eq!(Fault::missing("BUCKET", "the destination").to_string(), "BUCKET is not set: the destination");
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (variable, value) in [
            ("SECRET_JSON", "hunter2"),
            ("SECRET_NAME", "{\"Password\": \"hunter2\"}"),
            ("BUCKET", "{\"Password\": \"hunter2\"}"),
            ("INCLUDE", " { \n\"Password\" : \"hunter2\"}"),
            ("KEY_TEMPLATE", "'{\"hunter2"),
            ("SFTP_HOST", "sftp://user:hunter2@host"),
            ("TRUSTED_HOST_KEYS", "-----BEGIN OPENSSH PRIVATE KEY----- hunter2"),
        ] {
            let fault = Fault::wrong(variable, value, "is wrong");
            assert!(!format!("{fault} {fault:?}").contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn a_fault_is_one_line_however_long_or_broken_the_value() {
        let fault = Fault::wrong("INCLUDE", &"ä\n".repeat(500), "is wrong").to_string();
        assert_eq!(fault.lines().count(), 1);
        assert!(fault.len() < 400, "{fault}");
    }
}
