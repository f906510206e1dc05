//! The zip format: headers out of the central directory, entries decoded one after the other. Names `zip`.
//!
//! Blocks; runs on a thread of its own. The central directory is walked, not loaded: memory does not grow with the
//! number of entries. The `zip` crate checks each entry's CRC-32 (or AES authentication code) at its end.

use std::io::{self, Read, Seek};

use bytes::{Bytes, BytesMut};
use secrecy::{ExposeSecret as _, SecretString};
use zip::ZipReadOptions;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::range_reader::source_failure;
use super::window;
use super::{Entry, EntryKind};
use crate::failure::{Failure, FailureCode};

/// Signatures that a zip file begins with: a local header, the end record of an empty archive, the marker of an archive
/// that was to be split (APPNOTE.TXT 4.3.7, 4.3.16, 8.5.4).
const SIGNATURES: [&[u8; 4]; 3] = [b"PK\x03\x04", b"PK\x05\x06", b"PK00"];
/// What a directory's header begins with (4.3.12), a ZIP64 end record (4.3.14), and all there is of an empty archive.
const HEADER: [u8; 4] = *b"PK\x01\x02";
const ZIP64_END: [u8; 4] = *b"PK\x06\x06";
const END: [u8; 4] = *b"PK\x05\x06";
/// Most bytes that are read to find the directory: a comment has 64 KiB, and what an end record may be extended by is for
/// its maker to say.
const MOST_OF_END: u64 = 16 << 20;
/// Decoded bytes handed on at once.
pub const PIECE: usize = 256 << 10;

/// Whether these first bytes are a zip file's.
pub fn is_zip(start: &[u8]) -> bool {
    start.len() >= 4 && SIGNATURES.iter().any(|signature| start.starts_with(*signature))
}

/// What a decoded entry is handed to. `false` ends the decoding.
pub trait Sink {
    /// An entry begins; whether its data is wanted.
    fn entry(&mut self, entry: Entry) -> Want;
    fn data(&mut self, piece: Bytes) -> bool;
    /// The entry is complete, and its checksum held.
    fn end(&mut self) -> bool;
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Data,
    Next,
    NoMore,
}

/// Calls `each` with every header of the archive, in the central directory's order. Stops at its first error.
pub fn headers<R: Read + Seek>(
    reader: R,
    max_entries: u64,
    mut each: impl FnMut(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut archive = open(reader, max_entries)?;
    let count = archive.len();
    let files = archive.files().map_err(|error| invalid(&error))?;
    for entry in files.by_ref() {
        each(header(&entry.map_err(|error| invalid(&error))?))?;
    }
    if has_more(files.reader_mut(), count).map_err(|error| invalid(&error.into()))? {
        let message = format!(
            "the archive has more entries than it says ({count}; without ZIP64 it can count to 65,535); UNPACK=none delivers it as it is"
        );
        return Err(Failure::new(FailureCode::ArchiveInvalid, message));
    }
    Ok(())
}

/// Whether an archive that says it has `count` entries has another. `reader` stands behind the header of the last.
///
/// Writers that do not know ZIP64 count modulo 65,536.
fn has_more<R: Read + Seek>(reader: &mut R, count: usize) -> io::Result<bool> {
    let mut next = [0; 4];
    if count > 0 {
        read_full(reader, &mut next)?;
        return Ok(next == HEADER);
    }
    // With none, the directory is taken to begin where it ends.
    reader.rewind()?;
    read_full(reader, &mut next)?;
    Ok(next != END)
}

/// Decodes the entries after the first `skip`, in the central directory's order, into `sink`.
pub fn decode<R: Read + Seek + Send>(
    reader: R,
    content: &mut R,
    max_entries: u64,
    skip: usize,
    password: Option<&SecretString>,
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    let mut archive = open(reader, max_entries)?;
    for entry in archive.files().map_err(|error| invalid(&error))?.skip(skip) {
        let entry = entry.map_err(|error| invalid(&error))?;
        let header = header(&entry);
        // Before the entry is begun: who takes it would have a request to the store wait for its first byte.
        let _turn = window::turn(&entry, content, &header)?;
        match sink.entry(header.clone()) {
            Want::Data => {}
            Want::Next => continue,
            Want::NoMore => return Ok(()),
        }
        let password = password.filter(|_| entry.encrypted()).map(|password| password.expose_secret().as_bytes());
        let mut data = entry
            .with_reader(content, ZipReadOptions::new().password(password))
            .map_err(|error| entry_failure(&header, password.is_some(), error))?;
        let more = decode_entry(&mut data, &header, sink)
            .map_err(|error| entry_failure(&header, password.is_some(), error.into()))?;
        if !more {
            return Ok(());
        }
    }
    Ok(())
}

fn open<R: Read + Seek>(reader: R, max_entries: u64) -> Result<ZipIterable<Bounded<R>>, Failure> {
    let bounded = Bounded { reader, left: Some(MOST_OF_END) };
    let mut archive = ZipIterable::try_new(bounded, Config::default()).map_err(|error| invalid(&error))?;
    archive.files().map_err(|error| invalid(&error))?.reader_mut().left = None;
    if archive.len() as u64 > max_entries {
        let message = format!("the archive has {} entries; MAX_ENTRIES is {max_entries}", archive.len());
        return Err(Failure::new(FailureCode::ArchiveLimit, message));
    }
    Ok(archive)
}

/// A reader of which only so much is read. `zip` takes memory for a ZIP64 end record of whatever size it states, so that
/// is refused before it is seen.
struct Bounded<R> {
    reader: R,
    /// `None` once the directory is found.
    left: Option<u64>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = &mut self.left else { return self.reader.read(buffer) };
        let len = read_full(&mut self.reader, buffer)?;
        let stated = buffer[..len].strip_prefix(&ZIP64_END).and_then(|rest| rest.first_chunk()).copied();
        let too_large = stated.map(u64::from_le_bytes).is_some_and(|size| size > MOST_OF_END);
        *left = left.saturating_sub(len as u64);
        if too_large || *left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its end record is too large"));
        }
        Ok(len)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

/// `Ok(false)` where the sink wants no more.
fn decode_entry(data: &mut impl Read, header: &Entry, sink: &mut impl Sink) -> io::Result<bool> {
    let mut left = header.size;
    loop {
        // One byte more than declared is asked for, so that an entry that is longer is found out.
        let wanted = usize::try_from(left.saturating_add(1)).unwrap_or(PIECE).min(PIECE);
        let mut piece = BytesMut::zeroed(wanted);
        let len = read_full(data, &mut piece)?;
        if len as u64 > left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than the archive says"));
        }
        left -= len as u64;
        piece.truncate(len);
        if len > 0 && !sink.data(piece.freeze()) {
            return Ok(false);
        }
        if len < wanted {
            break;
        }
    }
    if left > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is shorter than the archive says"));
    }
    Ok(sink.end())
}

/// Fills the buffer, or reads to the end, where the decoder has checked the entry's checksum.
fn read_full(data: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn header(entry: &zip::read::ZipFileEntry<'_>) -> Entry {
    const S_IFMT: u32 = 0o170_000;
    const S_IFREG: u32 = 0o100_000;
    const S_IFDIR: u32 = 0o040_000;
    let kind = match entry.unix_mode().map(|mode| mode & S_IFMT) {
        _ if entry.is_dir() => EntryKind::Directory,
        None | Some(0 | S_IFREG) => EntryKind::File,
        Some(S_IFDIR) => EntryKind::Directory,
        Some(_) if entry.is_symlink() => EntryKind::Link,
        Some(_) => EntryKind::Special,
    };
    let mtime = entry.last_modified().and_then(|time| {
        let date = chrono::NaiveDate::from_ymd_opt(time.year().into(), time.month().into(), time.day().into())?;
        let time = date.and_hms_opt(time.hour().into(), time.minute().into(), time.second().into())?;
        u32::try_from(time.and_utc().timestamp()).ok()
    });
    Entry { name: entry.name_raw().to_vec(), kind, size: entry.size(), mtime }
}

/// A failure of the archive as a whole.
fn invalid(error: &ZipError) -> Failure {
    if let ZipError::Io(error) = error
        && let Some(failure) = source_failure(error)
    {
        return failure;
    }
    Failure::new(
        FailureCode::ArchiveInvalid,
        format!("damaged, cut short, or no zip archive after all ({error}); UNPACK=none delivers it as it is"),
    )
}

/// A failure in one entry, which fails the archive.
fn entry_failure(entry: &Entry, decrypting: bool, error: ZipError) -> Failure {
    let name = entry.text();
    match error {
        ZipError::Io(error) => match source_failure(&error) {
            Some(failure) => failure,
            // The check byte of old zip encryption lets one wrong password in 256 pass.
            None if decrypting => Failure::new(
                FailureCode::ArchivePassword,
                format!(
                    "entry {name:?} cannot be decoded ({error}): ArchivePassword is wrong, or the archive is damaged"
                ),
            ),
            None => Failure::new(FailureCode::ArchiveInvalid, format!("entry {name:?} cannot be decoded: {error}")),
        },
        ZipError::InvalidPassword => Failure::new(
            FailureCode::ArchivePassword,
            format!("entry {name:?} is encrypted, and the secret's ArchivePassword does not open it"),
        ),
        ZipError::UnsupportedArchive(what) if what == ZipError::PASSWORD_REQUIRED => Failure::new(
            FailureCode::ArchivePassword,
            format!("entry {name:?} is encrypted; put the password into the secret as ArchivePassword"),
        ),
        other => Failure::new(FailureCode::ArchiveInvalid, format!("entry {name:?} cannot be decoded: {other}")),
    }
}
