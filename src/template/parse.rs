//! From a template's text to its pieces, every mistake told before a file is looked at.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::DateTime;
use chrono::format::StrftimeItems;

use super::{KeyPiece, KeyTemplate, TimeFormat, UnpackPiece, UnpackTemplate};

/// Why a text is not a template. Nothing of it is repeated but names of placeholders: what is in the wrong variable may
/// be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a `{{` without its `}}`; a brace that is meant literally is written twice")]
    Unclosed,
    #[error("a `}}` without its `{{`; a brace that is meant literally is written twice")]
    Unopened,
    #[error("placeholder {number} is unknown; there are {known}")]
    Unknown { number: usize, known: &'static str },
    #[error("`{{{0}}}` needs a format, such as `{{{0}:%Y/%m/%d}}`")]
    NeedsFormat(&'static str),
    #[error("`{{{0}}}` takes no format")]
    TakesNoFormat(&'static str),
    #[error("what follows `{{{0}:` is not a strftime format, such as `{{{0}:%Y/%m/%d}}`")]
    BadFormat(&'static str),
    #[error("begins with `/`, which would make every key's first folder a nameless one; leave it out")]
    LeadingSlash,
    #[error("ends with `/`, which no object's key should; to put files below it append `{0}`")]
    TrailingSlash(&'static str),
    #[error("lacks `{{entry}}`, so that all entries of an archive would have one path")]
    LacksEntry,
}

impl FromStr for KeyTemplate {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        let segments = parse_segments(source, "{path}", |token, segment: &mut Vec<KeyPiece>| {
            let (number, name, format) = match token {
                Token::Literal(text) => {
                    segment.push(KeyPiece::Literal(text));
                    return Ok(());
                }
                Token::Placeholder { number, name, format } => (number, name, format),
            };
            takes_no_format(&["path", "dir", "name", "stem", "ext", "run_id"], name, format)?;
            let piece = match name {
                "mtime" => KeyPiece::ModificationTime(parse_time_format("mtime", format)?),
                "run_start" => KeyPiece::RunStart(parse_time_format("run_start", format)?),
                "path" => KeyPiece::Path,
                "dir" => KeyPiece::Dir,
                "name" => KeyPiece::Name,
                "stem" => KeyPiece::Stem,
                "ext" => KeyPiece::Ext { after_dot: take_final_dot(segment) },
                "run_id" => KeyPiece::RunId,
                _ => {
                    return Err(TemplateError::Unknown {
                        number,
                        known: "{path}, {dir}, {name}, {stem}, {ext}, {mtime:%Y/%m/%d}, {run_start:%Y-%m-%d}, {run_id}",
                    });
                }
            };
            segment.push(piece);
            Ok(())
        })?;
        Ok(Self { source: source.to_owned(), segments, report: None })
    }
}

/// Takes the `.` at the end of the segment's last literal off it, if there is one.
fn take_final_dot(segment: &mut [KeyPiece]) -> bool {
    let Some(KeyPiece::Literal(text)) = segment.last_mut() else { return false };
    let had_dot = text.ends_with('.');
    if had_dot {
        text.pop();
    }
    had_dot
}

impl FromStr for UnpackTemplate {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        let segments = parse_segments(source, "{entry}", |token, segment: &mut Vec<UnpackPiece>| {
            segment.push(match token {
                Token::Literal(text) => UnpackPiece::Literal(text),
                Token::Placeholder { number, name, format } => {
                    takes_no_format(&["archive", "entry"], name, format)?;
                    match name {
                        "archive" => UnpackPiece::Archive,
                        "entry" => UnpackPiece::Entry,
                        _ => return Err(TemplateError::Unknown { number, known: "{archive}, {entry}" }),
                    }
                }
            });
            Ok(())
        })?;
        if !segments.iter().flatten().any(|piece| matches!(piece, UnpackPiece::Entry)) {
            return Err(TemplateError::LacksEntry);
        }
        Ok(Self { source: source.to_owned(), segments })
    }
}

fn takes_no_format(plain: &[&'static str], name: &str, format: Option<&str>) -> Result<(), TemplateError> {
    match plain.iter().find(|plain| **plain == name) {
        Some(name) if format.is_some() => Err(TemplateError::TakesNoFormat(name)),
        _ => Ok(()),
    }
}

fn parse_time_format(placeholder: &'static str, format: Option<&str>) -> Result<TimeFormat, TemplateError> {
    let bad = TemplateError::BadFormat(placeholder);
    match format {
        None => Err(TemplateError::NeedsFormat(placeholder)),
        Some("") => Err(bad),
        Some(format) => {
            let format = StrftimeItems::new(format).parse_to_owned().map_err(|_| bad)?;
            // Some serve to read a time alone, such as `%#z`.
            if write!(String::new(), "{}", DateTime::UNIX_EPOCH.format_with_items(format.iter())).is_err() {
                return Err(bad);
            }
            Ok(format)
        }
    }
}

enum Token<'a> {
    Literal(String),
    /// `number` counts the placeholders from 1.
    Placeholder {
        number: usize,
        name: &'a str,
        format: Option<&'a str>,
    },
}

/// Cuts a template at each `/` outside placeholders and at each placeholder. A segment's literals are joined: none is
/// empty, and no two follow each other. `content` is the placeholder to suggest where one is missing at the end.
fn parse_segments<'a, P>(
    source: &'a str,
    content: &'static str,
    mut push: impl FnMut(Token<'a>, &mut Vec<P>) -> Result<(), TemplateError>,
) -> Result<Vec<Vec<P>>, TemplateError> {
    if source.starts_with('/') {
        return Err(TemplateError::LeadingSlash);
    }
    if source.ends_with('/') {
        return Err(TemplateError::TrailingSlash(content));
    }
    let mut segments = Vec::new();
    let mut segment = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    let mut number = 0;
    while let Some(at) = rest.find(['{', '}', '/']) {
        literal.push_str(&rest[..at]);
        let found = &rest[at..];
        if found.starts_with("{{") || found.starts_with("}}") {
            literal.push_str(&found[..1]);
            rest = &found[2..];
            continue;
        }
        if !literal.is_empty() {
            push(Token::Literal(std::mem::take(&mut literal)), &mut segment)?;
        }
        if let Some(after) = found.strip_prefix('/') {
            segments.push(std::mem::take(&mut segment));
            rest = after;
        } else if let Some(opened) = found.strip_prefix('{') {
            let (inside, after) = opened.split_once('}').ok_or(TemplateError::Unclosed)?;
            let (name, format) = match inside.split_once(':') {
                Some((name, format)) => (name, Some(format)),
                None => (inside, None),
            };
            number += 1;
            push(Token::Placeholder { number, name, format }, &mut segment)?;
            rest = after;
        } else {
            return Err(TemplateError::Unopened);
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        push(Token::Literal(literal), &mut segment)?;
    }
    segments.push(segment);
    Ok(segments)
}
