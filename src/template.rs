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

use std::fmt::{self, Write as _};
use std::str::FromStr;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Utc};

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

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a `{{` without its `}}`; a brace that is meant literally is written twice")]
    Unclosed,
    #[error("a `}}` without its `{{`; a brace that is meant literally is written twice")]
    Unopened,
    #[error("no placeholder `{{{given}}}`; there are {known}")]
    Unknown { given: String, known: &'static str },
    #[error("`{{{0}}}` needs a format, such as `{{{0}:%Y/%m/%d}}`")]
    NeedsFormat(String),
    #[error("`{{{0}}}` takes no format")]
    TakesNoFormat(String),
    #[error("`{format}` in `{{{placeholder}:{format}}}` is not a strftime format")]
    BadFormat { placeholder: String, format: String },
    #[error("begins with `/`, which would make every key's first folder a nameless one; leave it out")]
    LeadingSlash,
    #[error("ends with `/`, which no object's key should; to put files below it append `{0}`")]
    TrailingSlash(&'static str),
    #[error("lacks `{{entry}}`, so that all entries of an archive would have one path")]
    LacksEntry,
}

impl KeyTemplate {
    /// The key of a file. [`KeyError::NoModificationTime`] where `{mtime:…}` is asked for and there is none.
    pub fn render(&self, file: &FileContext<'_>) -> Result<ObjectKey, KeyError> {
        let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
        let (stem, ext) = split_extension(name);
        let key = render_segments(&self.segments, |piece, key| {
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
        ObjectKey::new(key)
    }
}

impl UnpackTemplate {
    /// The path of an entry, for `KEY_TEMPLATE` to work on. `archive` is the archive's own path; its suffix is taken off
    /// here. `entry` is the path inside, as it is: what is unsafe is refused before it gets here.
    pub fn render(&self, archive: &str, entry: &str) -> String {
        let archive = without_archive_suffix(archive);
        let push = |piece: &UnpackPiece, path: &mut String| {
            path.push_str(match piece {
                UnpackPiece::Literal(text) => text,
                UnpackPiece::Archive => archive,
                UnpackPiece::Entry => entry,
            });
            Ok::<(), std::convert::Infallible>(())
        };
        match render_segments(&self.segments, push) {
            Ok(path) => path,
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

/// Joins the segments with `/`, leaving out those that hold a placeholder and come out empty.
fn render_segments<P: Piece, E>(
    segments: &[Vec<P>],
    mut push: impl FnMut(&P, &mut String) -> Result<(), E>,
) -> Result<String, E> {
    let mut rendered = String::new();
    let mut first = true;
    for segment in segments {
        let before = rendered.len();
        if !first {
            rendered.push('/');
        }
        let start = rendered.len();
        for piece in segment {
            push(piece, &mut rendered)?;
        }
        if rendered.len() == start && segment.iter().any(|piece| !piece.is_literal()) {
            rendered.truncate(before);
        } else {
            first = false;
        }
    }
    Ok(rendered)
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

/// The suffixes that an archive's name commonly bears; a format that is added brings its own.
const ARCHIVE_SUFFIXES: [&str; 1] = [".zip"];

/// The path without its archive suffix, in either case. An archive is known by its content: one that has no such suffix,
/// or nothing before it, keeps its name whole.
fn without_archive_suffix(path: &str) -> &str {
    let stripped = ARCHIVE_SUFFIXES.iter().find_map(|suffix| {
        let (stem, end) = path.split_at_checked(path.len().checked_sub(suffix.len())?)?;
        end.eq_ignore_ascii_case(suffix).then_some(stem)
    });
    stripped.filter(|stem| !stem.is_empty() && !stem.ends_with('/')).unwrap_or(path)
}

impl FromStr for KeyTemplate {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        let segments = parse_segments(source, "{path}", |token, segment: &mut Vec<KeyPiece>| {
            let (name, format) = match token {
                Token::Literal(text) => {
                    segment.push(KeyPiece::Literal(text));
                    return Ok(());
                }
                Token::Placeholder { name, format } => (name, format),
            };
            let time = |format: Option<&str>| {
                let format = format.ok_or_else(|| TemplateError::NeedsFormat(name.to_owned()))?;
                parse_time_format(name, format)
            };
            let piece = match name {
                "mtime" => KeyPiece::ModificationTime(time(format)?),
                "run_start" => KeyPiece::RunStart(time(format)?),
                "path" | "dir" | "name" | "stem" | "ext" | "run_id" if format.is_some() => {
                    return Err(TemplateError::TakesNoFormat(name.to_owned()));
                }
                "path" => KeyPiece::Path,
                "dir" => KeyPiece::Dir,
                "name" => KeyPiece::Name,
                "stem" => KeyPiece::Stem,
                "ext" => KeyPiece::Ext { after_dot: take_final_dot(segment) },
                "run_id" => KeyPiece::RunId,
                _ => {
                    return Err(TemplateError::Unknown {
                        given: name.to_owned(),
                        known: "{path}, {dir}, {name}, {stem}, {ext}, {mtime:%Y/%m/%d}, {run_start:%Y-%m-%d}, {run_id}",
                    });
                }
            };
            segment.push(piece);
            Ok(())
        })?;
        Ok(Self { source: source.to_owned(), segments })
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
                Token::Placeholder { name: name @ ("archive" | "entry"), format: Some(_) } => {
                    return Err(TemplateError::TakesNoFormat(name.to_owned()));
                }
                Token::Placeholder { name: "archive", .. } => UnpackPiece::Archive,
                Token::Placeholder { name: "entry", .. } => UnpackPiece::Entry,
                Token::Placeholder { name, .. } => {
                    return Err(TemplateError::Unknown { given: name.to_owned(), known: "{archive}, {entry}" });
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

fn parse_time_format(placeholder: &str, format: &str) -> Result<TimeFormat, TemplateError> {
    let bad = || TemplateError::BadFormat { placeholder: placeholder.to_owned(), format: format.to_owned() };
    if format.is_empty() {
        return Err(bad());
    }
    StrftimeItems::new(format).parse_to_owned().map_err(|_| bad())
}

enum Token<'a> {
    Literal(String),
    Placeholder { name: &'a str, format: Option<&'a str> },
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
            push(Token::Placeholder { name, format }, &mut segment)?;
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

impl Default for KeyTemplate {
    /// `{path}`
    fn default() -> Self {
        Self { source: String::from("{path}"), segments: vec![vec![KeyPiece::Path]] }
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

/// Bytes of UTF-8 that S3 allows a key.
const KEY_LIMIT: usize = 1024;

/// A key that S3 takes and every client can address: 1 to 1,024 bytes, no `.` or `..` between its slashes (clients and
/// proxies resolve those as paths).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// Why a file has no key. Its record says `KEY_INVALID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key comes out empty; see KEY_TEMPLATE")]
    Empty,
    #[error("the key is {0} bytes long, and S3 allows 1024; shorten it with KEY_TEMPLATE")]
    TooLong(usize),
    #[error("the key has a `.` or `..` segment, which clients would resolve away; see KEY_TEMPLATE")]
    DotSegment,
    #[error("KEY_TEMPLATE asks for {{mtime}}, and the server tells no modification time")]
    NoModificationTime,
}

impl ObjectKey {
    pub fn new(key: String) -> Result<Self, KeyError> {
        if key.is_empty() {
            Err(KeyError::Empty)
        } else if key.len() > KEY_LIMIT {
            Err(KeyError::TooLong(key.len()))
        } else if key.split('/').any(|segment| segment == "." || segment == "..") {
            Err(KeyError::DotSegment)
        } else {
            Ok(Self(key))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn context(path: &str) -> FileContext<'_> {
        FileContext {
            path,
            mtime: Utc.timestamp_opt(1_709_164_800, 0).single(),
            run_start: Utc.timestamp_opt(1_735_689_599, 0).single().expect("a time"),
            run_id: "0193-run",
        }
    }

    fn key(template: &str, path: &str) -> String {
        let template: KeyTemplate = template.parse().expect(template);
        template.render(&context(path)).expect(path).into_string()
    }

    #[test]
    fn each_placeholder_is_what_it_says() {
        for (template, rendered) in [
            ("{path}", "in/b/data.tar.gz"),
            ("{dir}", "in/b"),
            ("{name}", "data.tar.gz"),
            ("{stem}", "data.tar"),
            ("{ext}", "gz"),
            ("{run_id}", "0193-run"),
            ("{mtime:%Y/%m/%d}/{name}", "2024/02/29/data.tar.gz"),
            ("{run_start:%Y-%m-%d}", "2024-12-31"),
            ("raw/dt={run_start:%Y%m%dT%H:%M:%SZ}/{path}", "raw/dt=20241231T23:59:59Z/in/b/data.tar.gz"),
            ("latest.csv", "latest.csv"),
        ] {
            assert_eq!(key(template, "in/b/data.tar.gz"), rendered, "{template}");
        }
    }

    #[test]
    fn a_file_at_the_top_leaves_no_nameless_folder() {
        for (template, rendered) in [
            ("{dir}/{name}", "a.csv"),
            ("in/{dir}/{name}", "in/a.csv"),
            ("in/{dir}{run_id}/{name}", "in/0193-run/a.csv"),
            ("in/x{dir}/{name}", "in/x/a.csv"),
            ("{name}/{dir}", "a.csv"),
            ("{dir}-{name}", "-a.csv"),
        ] {
            assert_eq!(key(template, "a.csv"), rendered, "{template}");
        }
        assert_eq!(key("in//{name}", "a.csv"), "in//a.csv", "what is written is kept");
    }

    #[test]
    fn a_name_without_an_extension_leaves_no_dot() {
        for (template, path, rendered) in [
            ("{stem}.{ext}", "README", "README"),
            ("{stem}_{run_id}.{ext}", "README", "README_0193-run"),
            ("{stem}_{run_id}.{ext}", "a.csv", "a_0193-run.csv"),
            ("{stem}.{ext}", ".bashrc", ".bashrc"),
            ("{stem}.{ext}", "odd.", "odd."),
            ("by/{ext}/{name}", "README", "by/README"),
            ("x.{ext}/{name}", "README", "x/README"),
        ] {
            assert_eq!(key(template, path), rendered, "{template} of {path}");
        }
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(key("{{{name}}}", "a"), "{a}");
        assert_eq!(key("{{path}}", "a"), "{path}");
    }

    #[test]
    fn what_cannot_be_a_template_is_refused_with_its_reason() {
        let error = |template: &str| template.parse::<KeyTemplate>().expect_err(template);
        assert_eq!(error("in/{path"), TemplateError::Unclosed);
        assert_eq!(error("in/path}"), TemplateError::Unopened);
        assert_eq!(error("{mtime}"), TemplateError::NeedsFormat(String::from("mtime")));
        assert_eq!(error("{name:%Y}"), TemplateError::TakesNoFormat(String::from("name")));
        assert_eq!(error("/{path}"), TemplateError::LeadingSlash);
        assert_eq!(error("in/"), TemplateError::TrailingSlash("{path}"));
        for template in ["{paht}", "{}", "{Path}", "{ path }", "{entry}", "{ext_}"] {
            assert!(matches!(error(template), TemplateError::Unknown { .. }), "{template}");
        }
        for format in ["%Q", "%", "%Y-%", "%!", ""] {
            let template = format!("{{mtime:{format}}}");
            assert!(matches!(error(&template), TemplateError::BadFormat { .. }), "{template}");
        }
        assert_eq!(
            error("{mtime}").to_string(),
            "`{mtime}` needs a format, such as `{mtime:%Y/%m/%d}`",
            "braces come out once"
        );
    }

    #[test]
    fn a_file_without_a_time_fails_only_where_the_time_is_asked_for() {
        let file = FileContext { mtime: None, ..context("a") };
        let render = |template: &str| template.parse::<KeyTemplate>().expect(template).render(&file);
        assert_eq!(render("{mtime:%Y}/{path}"), Err(KeyError::NoModificationTime));
        assert!(render("{run_start:%Y}/{path}").is_ok());
    }

    #[test]
    fn keys_that_s3_or_clients_choke_on_are_refused() {
        let key = |text: &str| ObjectKey::new(text.to_owned()).map(ObjectKey::into_string);
        assert_eq!(key(""), Err(KeyError::Empty));
        for text in [".", "..", "a/../b", "./a", "a/.", "a/.."] {
            assert_eq!(key(text), Err(KeyError::DotSegment), "{text}");
        }
        for text in ["...", "a/.b", "a..", " ", "a//b", "a b/é"] {
            assert!(key(text).is_ok(), "{text}");
        }
        assert!(key(&"é".repeat(512)).is_ok());
        assert_eq!(key(&format!("{}a", "é".repeat(512))), Err(KeyError::TooLong(1025)));
    }

    #[test]
    fn an_entry_lies_below_its_archive_without_the_suffix() {
        let default = UnpackTemplate::default();
        for (archive, rendered) in [
            ("in/data.zip", "in/data/x/y.csv"),
            ("DATA.ZIP", "DATA/x/y.csv"),
            ("data.zip.zip", "data.zip/x/y.csv"),
            ("data.bin", "data.bin/x/y.csv"),
            ("in/.zip", "in/.zip/x/y.csv"),
            ("ü", "ü/x/y.csv"),
        ] {
            assert_eq!(default.render(archive, "x/y.csv"), rendered, "{archive}");
        }
        let flat: UnpackTemplate = "all/{entry}".parse().expect("a template");
        assert_eq!(flat.render("in/data.zip", "y.csv"), "all/y.csv");
    }

    #[test]
    fn an_unpack_template_needs_the_entry() {
        let error = |template: &str| template.parse::<UnpackTemplate>().expect_err(template);
        assert_eq!(error("{archive}"), TemplateError::LacksEntry);
        assert_eq!(error("{{entry}}"), TemplateError::LacksEntry);
        assert_eq!(error("{entry:%Y}"), TemplateError::TakesNoFormat(String::from("entry")));
        assert!(matches!(error("{path}/{entry}"), TemplateError::Unknown { .. }));
        assert_eq!(error("/{archive}/{entry}"), TemplateError::LeadingSlash);
    }

    #[test]
    fn defaults_are_what_they_are_shown_as() {
        assert_eq!(KeyTemplate::default().to_string().parse(), Ok(KeyTemplate::default()));
        assert_eq!(UnpackTemplate::default().to_string().parse(), Ok(UnpackTemplate::default()));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_template_panic(template in any::<String>(), path in "[^/]{1,9}(/[^/]{1,9}){0,3}") {
            if let Ok(template) = template.parse::<KeyTemplate>() {
                let _ = template.render(&context(&path));
            }
            let _ = template.parse::<UnpackTemplate>();
        }

        #[test]
        fn any_format_is_refused_or_renders(format in "(%[-_0]?[a-zA-Z+:#.369]{1,3}|[ -/]){0,4}") {
            if let Ok(template) = format!("x{{mtime:{format}}}").parse::<KeyTemplate>() {
                let rendered = template.render(&context("a"));
                prop_assert!(!matches!(rendered, Err(KeyError::NoModificationTime)), "{:?}", rendered);
            }
        }

        #[test]
        fn the_parts_of_a_path_make_it_up_again(path in "[a-z.]{1,5}(/[a-z.]{1,5}){0,3}") {
            let render = |template: &str| {
                template.parse::<KeyTemplate>().expect("a template").render(&context(&path))
            };
            prop_assert_eq!(render("{dir}/{name}"), ObjectKey::new(path.clone()));
            prop_assert_eq!(render("{dir}/{stem}.{ext}"), ObjectKey::new(path.clone()));
            prop_assert_eq!(render("in/{path}"), ObjectKey::new(format!("in/{path}")));
        }

        #[test]
        fn text_without_placeholders_is_itself(text in "[^/]{1,12}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            let rendered = escaped.parse::<KeyTemplate>().expect("literal").render(&context("a"));
            prop_assert_eq!(rendered, ObjectKey::new(text));
        }
    }
}
