//! From what was selected to what will be done: the S3 key of each file, and which of them cannot have one. Pure.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::failure::{Failure, FailureCode};
use crate::list::Entry;
use crate::remote::RemotePath;
use crate::store::NewObject;
use crate::template::{FileContext, KeyTemplate, ObjectKey, UnpackTemplate};

mod sharing;

pub use sharing::SMALLEST_ARCHIVE;

/// S3 takes no more parts than this (Amazon S3 multipart upload limits).
pub const MOST_PARTS: u64 = 10_000;
/// The smallest part but the last.
pub const LEAST_PART: u64 = 5 << 20;
/// The largest object.
pub const LARGEST_OBJECT: u64 = 5 << 40;
/// Part sizes that grow are rounded up to this, so that parts of one run look alike.
const PART_STEP: u64 = 1 << 20;

/// A file that will be transferred.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// As it is asked for: the listed directory and the path in it.
    pub remote: RemotePath,
    /// Relative to the listed directory, as text: what templates see.
    pub relative: String,
    pub size: u64,
    /// Seconds since the epoch, where the server tells.
    pub mtime: Option<u32>,
    pub key: ObjectKey,
    /// Whether an archive's entry may map to this key, or an entry of this file, should it be an archive, to another's.
    pub may_share_key: bool,
}

impl PlannedFile {
    /// The object that this file becomes.
    pub fn object(&self) -> NewObject {
        new_object(self.key.clone(), self.mtime, &self.remote, &self.relative)
    }
}

/// An object with the metadata that every object has: `mtime` as rclone writes it, and where it came from.
/// `name` tells the type.
pub fn new_object(key: ObjectKey, mtime: Option<u32>, source: &RemotePath, name: &str) -> NewObject {
    let content_type = mime_guess::from_path(name).first_or_octet_stream().to_string();
    let mtime = mtime.map(|mtime| ("mtime", mtime.to_string()));
    let metadata = mtime.into_iter().chain([("sftp-path", source.percent_encoded())]).collect();
    let mut object = NewObject { key, content_type, metadata };
    fit_metadata(&mut object);
    object
}

/// S3 takes 2 KB of user metadata, names and values together, and refuses the object otherwise: what does not fit is left
/// out. Only paths can be that long, and the key tells them too.
pub fn fit_metadata(object: &mut NewObject) {
    const MOST: usize = 2048;
    let mut bytes = 0;
    object.metadata.retain(|(name, value)| {
        let fits = bytes + name.len() + value.len() <= MOST;
        bytes += if fits { name.len() + value.len() } else { 0 };
        fits
    });
}

/// Decisions for a run.
#[derive(Debug, Default)]
pub struct Plan {
    pub files: Vec<PlannedFile>,
    /// Selected files that cannot be transferred, and why.
    pub failed: Vec<(RemotePath, Failure)>,
    /// Keys that several files map to: nothing may be stored there.
    pub contested: HashSet<ObjectKey>,
}

/// The run's part of what a key template sees.
#[derive(Debug, Clone, Copy)]
pub struct RunContext<'a> {
    pub id: &'a str,
    pub start: DateTime<Utc>,
}

/// The key of something at `path` (relative, as text), last modified at `mtime`.
///
/// # Errors
///
/// [`FailureCode::KeyInvalid`], with the template's or S3's reason.
pub fn key_of(
    template: &KeyTemplate,
    run: RunContext<'_>,
    path: &str,
    mtime: Option<u32>,
) -> Result<ObjectKey, Failure> {
    let mtime = mtime.and_then(|seconds| DateTime::from_timestamp(i64::from(seconds), 0));
    let context = FileContext { path, mtime, run_start: run.start, run_id: run.id };
    template.render(&context).map_err(|error| Failure::new(FailureCode::KeyInvalid, error.to_string()))
}

/// Plans every selected entry of `directory`, in the order given. `unpack` is where the entries of archives go, if they do.
pub fn plan(
    entries: Vec<Entry>,
    directory: &RemotePath,
    template: &KeyTemplate,
    unpack: Option<&UnpackTemplate>,
    run: RunContext<'_>,
) -> Plan {
    let mut plan = Plan::default();
    for entry in entries {
        let remote = directory.join(entry.path.as_bytes());
        match plan_file(&entry, &remote, template, run) {
            Ok(file) => plan.files.push(file),
            Err(failure) => plan.failed.push((remote, failure)),
        }
    }
    sharing::fail_collisions(&mut plan);
    if let Some(unpack) = unpack {
        sharing::mark_possible(&mut plan, template, unpack, run);
    }
    plan
}

fn plan_file(
    entry: &Entry,
    remote: &RemotePath,
    template: &KeyTemplate,
    run: RunContext<'_>,
) -> Result<PlannedFile, Failure> {
    let Some(size) = entry.attributes.size else {
        return Err(Failure::new(FailureCode::ReadFileError, "the server does not tell the size of this file"));
    };
    if size > LARGEST_OBJECT {
        let message = format!("the file has {size} bytes; the largest S3 object has {LARGEST_OBJECT}");
        return Err(Failure::new(FailureCode::WriteFileError, message));
    }
    let relative = entry.path.to_text();
    let mtime = entry.attributes.mtime;
    let key = key_of(template, run, &relative, mtime)?;
    Ok(PlannedFile { remote: remote.clone(), relative, size, mtime, key, may_share_key: false })
}

/// The size of each part but the last, for an object of `size` bytes: `wished`, or as much more as [`MOST_PARTS`] needs.
pub fn part_size(size: u64, wished: u64) -> u64 {
    let needed = size.div_ceil(MOST_PARTS).next_multiple_of(PART_STEP);
    wished.max(needed).max(LEAST_PART)
}

/// Offsets and lengths of the parts of an object, in order. An empty object has no part.
pub fn parts(size: u64, part_size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(part_size)).map(move |index| {
        let offset = index * part_size;
        (offset, part_size.min(size - offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Attributes, FileKind};
    use proptest::prelude::*;

    fn entry(path: &[u8]) -> Entry {
        let attributes = Attributes { size: Some(300), mtime: Some(1_700_000_000), kind: FileKind::File };
        Entry { path: RemotePath::new(path), attributes }
    }

    pub fn run() -> RunContext<'static> {
        RunContext { id: "run", start: DateTime::UNIX_EPOCH }
    }

    pub fn planned(paths: &[&[u8]], template: &str, unpack: Option<&str>) -> Plan {
        let entries = paths.iter().map(|path| entry(path)).collect();
        let unpack = unpack.map(|unpack| unpack.parse().unwrap());
        plan(entries, &"/out".into(), &template.parse().unwrap(), unpack.as_ref(), run())
    }

    #[test]
    fn a_file_is_asked_for_by_its_bytes_and_stored_by_its_text() {
        let plan = planned(&[b"caf\xe9.txt"], "{path}", None);
        assert_eq!(plan.files[0].remote.as_bytes(), b"/out/caf\xe9.txt");
        assert_eq!(plan.files[0].key.as_str(), "caf%E9.txt");
    }

    #[test]
    fn files_that_share_a_key_all_fail_and_the_others_go_on() {
        let plan = planned(&[b"a/x.csv", b"b/x.csv", b"c/y.csv"], "in/{name}", None);
        let failed: Vec<_> = plan.failed.iter().map(|(path, failure)| (path.to_text(), failure.code)).collect();
        assert_eq!(
            failed,
            [
                ("/out/a/x.csv".to_owned(), FailureCode::KeyCollision),
                ("/out/b/x.csv".to_owned(), FailureCode::KeyCollision)
            ]
        );
        assert_eq!(plan.files.iter().map(|file| file.key.as_str()).collect::<Vec<_>>(), ["in/y.csv"]);
        let told: Vec<_> = plan.failed.iter().map(|(_, failure)| failure.message.as_str()).collect();
        assert!(told[0].contains("\"b/x.csv\" among them") && told[1].contains("\"a/x.csv\" among them"), "{told:?}");
    }

    #[test]
    fn an_encoded_byte_and_the_text_that_looks_like_it_collide() {
        assert_eq!(planned(&[b"\xff", b"%FF"], "{path}", None).failed.len(), 2);
    }

    #[test]
    fn metadata_is_what_rclone_reads() {
        let object = planned(&[b"a b.csv"], "{path}", None).files[0].object();
        assert_eq!(object.metadata, [("mtime", "1700000000".to_owned()), ("sftp-path", "/out/a%20b.csv".to_owned())]);
        assert_eq!(object.content_type, "text/csv");
    }

    proptest! {
        #[test]
        fn parts_cover_the_object_exactly_and_are_few_enough(
            size in 0..=LARGEST_OBJECT,
            wished in LEAST_PART..=(5_u64 << 30),
        ) {
            let part_size = part_size(size, wished);
            let mut next = 0;
            let mut count = 0;
            for (offset, len) in parts(size, part_size) {
                prop_assert_eq!(offset, next);
                prop_assert!(len > 0 && len <= part_size);
                next += len;
                count += 1;
            }
            prop_assert_eq!(next, size);
            prop_assert!(count <= MOST_PARTS);
        }
    }
}
