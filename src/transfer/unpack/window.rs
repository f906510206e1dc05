//! The memory that an archive makes its decoder take: of four methods, a window whose size the archive states; of bzip2, a
//! block.
//!
//! It is outside of the budget, which is for data between the two networks: one window, or bzip2's blocks, have their room
//! in the smallest task, a window for each open archive has not.

use std::io::{self, Read, Seek, SeekFrom};

use futures::executor::block_on;
use tokio::sync::{Semaphore, SemaphorePermit};
use zip::CompressionMethod;
use zip::read::ZipFileEntry;

use super::Entry;
use super::range_reader::source_failure;
use crate::failure::{Failure, FailureCode};

/// Most bytes of a window. PPMd can state no more (APPNOTE.TXT 5.10.5), and Zstandard's decoder takes half as many.
const MOST: u64 = 256 << 20;
/// What all decoders together may take, a permit each MiB.
static ROOM: Semaphore = Semaphore::const_new(ALL_MIB as usize);
const ALL_MIB: u32 = (MOST >> 20) as u32;
/// MiB of a decoder of bzip2: 100 kB, and four times the largest block, of 900 kB (the bzip2 manual, 2.5).
const BZIP2_MIB: u32 = 4;
/// A local header less its name and its extra field (4.3.7), and where their lengths are.
const LOCAL_HEADER: usize = 30;
const NAME_LEN: usize = 26;
const EXTRA_LEN: usize = 28;
/// What LZMA data begins with (5.8.8): a version, the length of the properties, and of these the first, then the window.
const LZMA_HEADER: usize = 9;

/// Held while an entry is decoded whose decoder takes more than a little.
pub type Turn = SemaphorePermit<'static>;

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
    Ok(match room(entry, content, header)? {
        0 => None,
        // It is never closed.
        mib => block_on(ROOM.acquire_many(mib)).ok(),
    })
}

/// What is set aside for the entry's decoder, in MiB.
fn room<R: Read + Seek>(entry: &ZipFileEntry<'_>, content: &mut R, header: &Entry) -> Result<u32, Failure> {
    let window = match entry.compression() {
        CompressionMethod::Zstd | CompressionMethod::Ppmd => MOST,
        CompressionMethod::Lzma if !entry.encrypted() && entry.size() > MOST => {
            lzma_window(entry, content).map_err(|error| cannot_tell(header, &error))?
        }
        // No larger than what is decoded.
        CompressionMethod::Lzma => entry.size(),
        // Each block states a window of its own, which grows with what is decoded, by doubling.
        CompressionMethod::Xz => entry.size().saturating_mul(2),
        CompressionMethod::Bzip2 => return Ok(BZIP2_MIB),
        _ => return Ok(0),
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
    Ok(ALL_MIB)
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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::ZipWriter;
    use zip::unstable::read::ZipIterable;
    use zip::write::SimpleFileOptions;

    use super::super::EntryKind;
    use super::*;

    #[test]
    fn a_large_window_is_decoded_alone_and_blocks_side_by_side() {
        for (method, mib) in [
            (CompressionMethod::Stored, 0),
            (CompressionMethod::Deflated, 0),
            (CompressionMethod::Bzip2, 4),
            (CompressionMethod::Zstd, 256),
            (CompressionMethod::Xz, 256),
        ] {
            let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
            writer.start_file("f", SimpleFileOptions::default().compression_method(method)).expect("an entry");
            writer.write_all(b"data").expect("its data");
            let mut content = writer.finish().expect("an archive");
            let mut archive = ZipIterable::try_new(content.clone(), Default::default()).expect("an archive");
            let entry = archive.files().expect("entries").next().expect("one").expect("a good one");
            let header = Entry { name: b"f".to_vec(), kind: EntryKind::File, size: 4, mtime: None };
            let turn = turn(&entry, &mut content, &header).expect("it is small");
            assert_eq!(turn.map_or(0, |turn| turn.num_permits()), mib, "{method}");
            assert_eq!(ROOM.available_permits(), 256, "{method} gives it back");
        }
    }
}
