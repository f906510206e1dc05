//! What becomes of each entry of an archive: its key, or why it has none. Pure once the headers were seen.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::claims::Claims;
use super::{Entry, EntryKind};
use crate::config::UnpackSettings;
use crate::failure::{Failure, FailureCode};
use crate::plan::{self, PlannedFile, RunContext};
use crate::select::SkipReason;
use crate::template::{KeyTemplate, ObjectKey};
use crate::transfer::Transfer;

/// An archive may expand by any ratio up to this many bytes.
const RATIO_FROM: u64 = 100 << 20;

/// What becomes of an entry.
#[derive(Debug, Clone)]
pub enum Verdict {
    Deliver(ObjectKey),
    Skip(SkipReason),
    Refuse(Failure),
    /// A directory: it makes no object and no record.
    Nothing,
}

/// Judges the entries of one archive.
pub struct Judge {
    unpack: UnpackSettings,
    keys: KeyTemplate,
    run_id: String,
    run_start: DateTime<Utc>,
    /// The archive's path relative to the directory, as text.
    archive: String,
    archive_size: u64,
    archive_mtime: Option<u32>,
    unpacked: u64,
    /// The keys of this archive's entries.
    claims: Claims,
    /// Keys that sources of the run share.
    contested: Arc<Claims>,
}

impl Judge {
    /// `contested` are the keys that sources of the run share.
    pub fn new(transfer: &Transfer, archive: &PlannedFile, contested: Arc<Claims>) -> Self {
        let identity = transfer.reporter.identity();
        Self {
            unpack: transfer.settings.unpack.clone(),
            keys: transfer.settings.keys.clone(),
            run_id: identity.transfer_id.clone(),
            run_start: identity.start,
            archive: archive.relative.clone(),
            archive_size: archive.size,
            archive_mtime: archive.mtime,
            unpacked: 0,
            claims: Claims::new(&transfer.hasher),
            contested,
        }
    }

    /// Bytes that all entries seen have when they are decoded, as declared.
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Takes note of a header. Every one is seen before the first is judged.
    ///
    /// # Errors
    ///
    /// [`FailureCode::ArchiveLimit`] where the archive declares that it expands further than it may.
    pub fn see(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.unpacked = self.unpacked.saturating_add(entry.size);
        let limit = self.unpack.max_size;
        if self.unpacked > limit.0 {
            let message = format!("the archive expands to more than {limit} (MAX_UNPACKED_SIZE)");
            return Err(Failure::new(FailureCode::ArchiveLimit, message));
        }
        let ratio = self.unpack.max_ratio;
        if self.unpacked > RATIO_FROM && self.unpacked > self.archive_size.max(1).saturating_mul(ratio) {
            let message = format!("the archive expands to more than {ratio} times its size (MAX_UNPACK_RATIO)");
            return Err(Failure::new(FailureCode::ArchiveLimit, message));
        }
        if entry.kind == EntryKind::File
            && danger(&entry.name).is_none()
            && let Ok(key) = self.key(entry)
        {
            self.claims.claim(&key);
        }
        Ok(())
    }

    /// What becomes of the entry. A name that could lead outside the archive's prefix is refused whatever it names.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        if let Some(danger) = danger(&entry.name) {
            let message = format!("the entry's name {danger}; it is not unpacked");
            return Verdict::Refuse(Failure::new(FailureCode::EntryRefused, message));
        }
        match entry.kind {
            EntryKind::Directory => return Verdict::Nothing,
            EntryKind::Link | EntryKind::Special => return Verdict::Skip(SkipReason::NotRegular),
            EntryKind::File => {}
        }
        match self.key(entry) {
            Err(failure) => Verdict::Refuse(failure),
            Ok(key) if self.claims.is_contested(&key) || self.contested.is_contested(&key) => {
                Verdict::Refuse(collision(&key))
            }
            Ok(key) => Verdict::Deliver(key),
        }
    }

    /// Every header was seen: forgets the keys that one entry alone has.
    pub fn all_seen(self) -> Self {
        Self { claims: self.claims.only_contested(), ..self }
    }

    /// The keys of all entries that were seen.
    pub fn into_claims(self) -> Claims {
        self.claims
    }

    /// The entry's modification time, or the archive's.
    pub fn mtime(&self, entry: &Entry) -> Option<u32> {
        entry.mtime.or(self.archive_mtime)
    }

    fn key(&self, entry: &Entry) -> Result<ObjectKey, Failure> {
        let path = self.unpack.template.render(&self.archive, &entry.text());
        let run = RunContext { id: &self.run_id, start: self.run_start };
        plan::key_of(&self.keys, run, &path, self.mtime(entry))
    }
}

/// The failure of a file or an entry whose key is not its own.
pub fn collision(key: &ObjectKey) -> Failure {
    let message = format!(
        "another file of this run, or another entry of an archive, has the key {:?} too; none of them is delivered. Make \
         UNPACK_TEMPLATE or KEY_TEMPLATE tell them apart, leave one of them out with EXCLUDE, or set UNPACK=none",
        key.as_str()
    );
    Failure::new(FailureCode::KeyCollision, message)
}

/// What is dangerous about an entry's name, if anything.
fn danger(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.contains(&0) {
        return Some("holds a NUL byte");
    }
    if name.contains(&b'\\') {
        return Some("holds a backslash, which some systems take for a separator");
    }
    if name.first() == Some(&b'/') {
        return Some("is an absolute path");
    }
    if name.len() >= 2 && name[0].is_ascii_alphabetic() && name[1] == b':' {
        return Some("begins with a drive letter");
    }
    name.split(|byte| *byte == b'/').any(|segment| segment == b"..").then_some("has a `..` segment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_dangerous() {
        for name in [&b"../x"[..], b"a/../../x", b"a/..", b"/etc/passwd", b"C:/x", b"c:x", b"a\\b", b"..\\x", b"a\0b"] {
            assert!(danger(name).is_some(), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn odd_names_are_not() {
        for name in [&b"a/b.txt"[..], b"..a", b"a..", b"a/...b", b"1:2", b"caf\xe9", b"dir/", b"-", b"ab:c"] {
            assert!(danger(name).is_none(), "{}", String::from_utf8_lossy(name));
        }
    }
}
