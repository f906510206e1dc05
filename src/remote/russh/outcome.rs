//! A request that did not get what it asked for, and the words for it.

use std::fmt;

use bytes::Bytes;

use crate::remote::path::bytes_to_text;
use crate::remote::protocol::status;
use crate::remote::{Error, Kind};

/// A status where something else was asked for.
#[derive(Debug)]
pub struct Refusal {
    pub code: u32,
    pub message: Bytes,
}

/// A request that did not get what it asked for.
#[derive(Debug)]
pub enum Failure {
    Refused(Refusal),
    Lost(Error),
}

impl Failure {
    /// In words: `deed` is what could not be done, and on what.
    pub fn into_error(self, deed: impl fmt::Display) -> Error {
        let refusal = match self {
            Self::Lost(error) => return error,
            Self::Refused(refusal) => refusal,
        };
        let kind = match refusal.code {
            status::NO_SUCH_FILE => Kind::NotFound,
            status::PERMISSION_DENIED => Kind::Denied,
            _ => Kind::Failed,
        };
        Error::new(kind, format!("cannot {deed}: {refusal}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Bytes of a server's own words that are shown.
        const SHOWN: usize = 200;
        let name = status::name(self.code);
        let words = bytes_to_text(&self.message[..self.message.len().min(SHOWN)]);
        let words: String = words.chars().filter(|char| !char.is_control()).collect();
        if words.is_empty() { write!(f, "{name} ({})", self.code) } else { write!(f, "{words} ({name})") }
    }
}
