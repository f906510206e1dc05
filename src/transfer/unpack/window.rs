//! The memory that an archive makes its decoder take: of four methods, a window whose size the archive states.
//!
//! It is outside of the budget, which is for data between the two networks: one window has its room in the smallest task,
//! one for each open archive has not.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zip::CompressionMethod;
use zip::read::ZipFileEntry;

use super::Entry;
use super::range_reader::source_failure;
use crate::failure::{Failure, FailureCode};

/// Most bytes of a window. PPMd can state no more (APPNOTE.TXT 5.10.5), and Zstandard's decoder takes half as many.
const MOST: u64 = 256 << 20;
/// A local header less its name and its extra field (4.3.7), and where their lengths are.
const LOCAL_HEADER: usize = 30;
const NAME_LEN: usize = 26;
const EXTRA_LEN: usize = 28;
/// What LZMA data begins with (5.8.8): a version, the length of the properties, and of these the first, then the window.
const LZMA_HEADER: usize = 9;

/// Held while an entry is decoded whose decoder has a large window.
pub type Turn = MutexGuard<'static, ()>;

/// Waits until the entry may be decoded, where it has to wait.
///
/// # Errors
///
/// [`FailureCode::ArchiveLimit`] where its window could be too large.
pub fn turn<R: Read + Seek>(
    entry: &ZipFileEntry<'_>,
    content: &mut R,
    header: &Entry,
) -> Result<Option<Turn>, Failure> {
    static TURN: Mutex<()> = Mutex::new(());
    let window = match entry.compression() {
        CompressionMethod::Zstd | CompressionMethod::Ppmd => MOST,
        CompressionMethod::Lzma if !entry.encrypted() && entry.size() > MOST => {
            lzma_window(entry, content).map_err(|error| cannot_tell(header, &error))?
        }
        // No larger than what is decoded.
        CompressionMethod::Lzma => entry.size(),
        // Each block states a window of its own, which grows with what is decoded, by doubling.
        CompressionMethod::Xz => entry.size().saturating_mul(2),
        _ => return Ok(None),
    };
    if window > MOST {
        let message = format!(
            "entry {:?} could take more than {} MiB of memory to decode ({}); UNPACK=none delivers the archive as it is",
            header.text(),
            MOST >> 20,
            entry.compression()
        );
        return Err(Failure::new(FailureCode::ArchiveLimit, message));
    }
    Ok(Some(TURN.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The window that LZMA data states, in bytes.
fn lzma_window<R: Read + Seek>(entry: &ZipFileEntry<'_>, content: &mut R) -> io::Result<u64> {
    let mut local = [0; LOCAL_HEADER];
    content.seek(SeekFrom::Start(entry.header_start()))?;
    content.read_exact(&mut local)?;
    let len = |at: usize| i64::from(u16::from_le_bytes([local[at], local[at + 1]]));
    content.seek(SeekFrom::Current(len(NAME_LEN) + len(EXTRA_LEN)))?;
    let mut data = [0; LZMA_HEADER];
    content.read_exact(&mut data)?;
    let window = data.last_chunk().map_or(u32::MAX, |window| u32::from_le_bytes(*window));
    Ok(window.into())
}

fn cannot_tell(entry: &Entry, error: &io::Error) -> Failure {
    source_failure(error).unwrap_or_else(|| {
        Failure::new(FailureCode::ArchiveInvalid, format!("entry {:?} cannot be decoded: {error}", entry.text()))
    })
}
