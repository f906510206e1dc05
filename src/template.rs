//! `KEY_TEMPLATE` and `UNPACK_TEMPLATE`: from a file's path and times to its S3 key.
//!
//! A template that parses renders without a panic, whatever the path. What it renders to becomes an [`ObjectKey`] or
//! fails with [`KeyError`], whose record says `KEY_INVALID`.
//!
//! Two rules keep keys free of the scars of what a path lacks:
//!
//! - A segment of the template (what stands between two `/`) that holds a placeholder and comes out empty is left out
//!   with its `/`: `in/{dir}/{name}` gives `in/a.csv` for a file at the top.
//! - An empty `{ext}` takes the `.` right before it along, so that `{stem}.{ext}` is always `{name}`.

mod object_key;
mod parse;
mod prefix;

use std::fmt::{self, Write as _};

use chrono::format::Item;
use chrono::{DateTime, Utc};

pub use object_key::{KeyError, ObjectKey, RESERVED};
pub use parse::TemplateError;

/// What a template may speak of.
#[derive(Debug, Clone, Copy)]
pub struct FileContext<'a> {
    /// Relative to `SFTP_DIRECTORY_PATH`, or as `UNPACK_TEMPLATE` made it; as text, `/` between segments.
    pub path: &'a str,
    /// `None` where the server tells none.
    pub mtime: Option<DateTime<Utc>>,
    pub run_start: DateTime<Utc>,
    pub run_id: &'a str,
}

/// A parsed `KEY_TEMPLATE`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    source: String,
    segments: Vec<Vec<KeyPiece>>,
    /// The key of the run's report, where that is known beforehand.
    report: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyPiece {
    Literal(String),
    Path,
    Dir,
    Name,
    Stem,
    Ext { after_dot: bool },
    ModificationTime(TimeFormat),
    RunStart(TimeFormat),
    RunId,
}

type TimeFormat = Vec<Item<'static>>;

/// A parsed `UNPACK_TEMPLATE`: what `{path}` of `KEY_TEMPLATE` is for an entry of an archive.
#[derive(Clone, PartialEq, Eq)]
pub struct UnpackTemplate {
    source: String,
    segments: Vec<Vec<UnpackPiece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UnpackPiece {
    Literal(String),
    Archive,
    Entry,
}

impl KeyTemplate {
    /// The same, but no file's key is `report`.
    pub fn sparing(self, report: Option<String>) -> Self {
        Self { report, ..self }
    }

    /// The key of a file. [`KeyError::NoModificationTime`] where `{mtime:…}` is asked for and there is none.
    pub fn render(&self, file: &FileContext<'_>) -> Result<ObjectKey, KeyError> {
        let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
        let (stem, ext) = split_extension(name);
        let mut key = String::new();
        render_segments(&mut key, &self.segments, |piece, key| {
            match piece {
                KeyPiece::Literal(text) => key.push_str(text),
                KeyPiece::Path => key.push_str(file.path),
                KeyPiece::Dir => key.push_str(dir),
                KeyPiece::Name => key.push_str(name),
                KeyPiece::Stem => key.push_str(stem),
                KeyPiece::Ext { after_dot } => {
                    if *after_dot && !ext.is_empty() {
                        key.push('.');
                    }
                    key.push_str(ext);
                }
                KeyPiece::ModificationTime(format) => {
                    push_time(key, file.mtime.ok_or(KeyError::NoModificationTime)?, format)?;
                }
                KeyPiece::RunStart(format) => push_time(key, file.run_start, format)?,
                KeyPiece::RunId => key.push_str(file.run_id),
            }
            Ok(())
        })?;
        if key.starts_with(RESERVED) {
            return Err(KeyError::Reserved);
        }
        if self.report.as_ref() == Some(&key) {
            return Err(KeyError::Report);
        }
        ObjectKey::new(key)
    }
}

impl UnpackTemplate {
    /// The path of an entry, for `KEY_TEMPLATE` to work on. `archive` is the archive's own path; its suffix is taken off
    /// here. `entry` is the path inside, as it is: what is unsafe is refused before it gets here.
    pub fn render(&self, archive: &str, entry: &str) -> String {
        let archive = without_suffix(archive);
        let push = |piece: &UnpackPiece, path: &mut String| {
            path.push_str(match piece {
                UnpackPiece::Literal(text) => text,
                UnpackPiece::Archive => archive,
                UnpackPiece::Entry => entry,
            });
            Ok::<(), std::convert::Infallible>(())
        };
        let mut path = String::new();
        match render_segments(&mut path, &self.segments, push) {
            Ok(()) => path,
            Err(never) => match never {},
        }
    }
}

/// Pieces of a template, as far as [`render_segments`] has to know them.
trait Piece {
    fn is_literal(&self) -> bool;
}

impl Piece for KeyPiece {
    fn is_literal(&self) -> bool {
        matches!(self, KeyPiece::Literal(_))
    }
}

impl Piece for UnpackPiece {
    fn is_literal(&self) -> bool {
        matches!(self, UnpackPiece::Literal(_))
    }
}

/// Joins the segments with `/`, leaving out those that hold a placeholder and come out empty. What was rendered before an
/// error stays.
fn render_segments<P: Piece, E>(
    rendered: &mut String,
    segments: &[Vec<P>],
    mut push: impl FnMut(&P, &mut String) -> Result<(), E>,
) -> Result<(), E> {
    let mut first = true;
    for segment in segments {
        let before = rendered.len();
        if !first {
            rendered.push('/');
        }
        let start = rendered.len();
        for piece in segment {
            push(piece, rendered)?;
        }
        if rendered.len() == start && segment.iter().any(|piece| !piece.is_literal()) {
            rendered.truncate(before);
        } else {
            first = false;
        }
    }
    Ok(())
}

fn push_time(key: &mut String, time: DateTime<Utc>, format: &[Item<'static>]) -> Result<(), KeyError> {
    // Formats are checked when they are parsed; a time that still cannot be written is one past the calendar's end.
    write!(key, "{}", time.format_with_items(format.iter())).map_err(|_| KeyError::NoModificationTime)
}

/// `("a.tar", "gz")` for `a.tar.gz`. A name that only begins or ends with its dot has no extension.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rsplit_once('.') {
        Some((stem, ext)) if !stem.is_empty() && !ext.is_empty() => (stem, ext),
        _ => (name, ""),
    }
}

/// Letters and digits that a suffix has at most; what is longer, or has no letter, is part of a name (`report.2026-11-20`).
const LONGEST_SUFFIX: usize = 10;

/// The path without its suffix, whatever that is: an archive is known by its content, and what unpacks to `delivery/` may
/// be called `delivery.dat`. A name without a suffix, or with nothing before it, stays whole.
fn without_suffix(path: &str) -> &str {
    let is_suffix = |suffix: &str| {
        (1..=LONGEST_SUFFIX).contains(&suffix.len())
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && suffix.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    match path.rsplit_once('.') {
        Some((stem, suffix)) if is_suffix(suffix) && !stem.is_empty() && !stem.ends_with('/') => stem,
        _ => path,
    }
}

impl Default for KeyTemplate {
    /// `{path}`
    fn default() -> Self {
        Self { source: String::from("{path}"), segments: vec![vec![KeyPiece::Path]], report: None }
    }
}

impl Default for UnpackTemplate {
    /// `{archive}/{entry}`
    fn default() -> Self {
        let segments = vec![vec![UnpackPiece::Archive], vec![UnpackPiece::Entry]];
        Self { source: String::from("{archive}/{entry}"), segments }
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Display for UnpackTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Debug for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl fmt::Debug for UnpackTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

#[cfg(test)]
mod tests;
