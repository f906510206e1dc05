//! A remote file as `Read + Seek`, for decoders: blocks of it, fetched as they are needed and one ahead.
//!
//! Lives on a thread that may block. Jumping about costs small reads; reading on makes the blocks grow and the next one
//! be fetched while this one is decoded, so that a decoder never waits for a round trip it could have foreseen.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use crate::failure::{Failure, FailureCode};
use crate::plan::PlannedFile;
use crate::transfer::Transfer;
use crate::transfer::fetch::Background;

/// The first block after a jump: a local header, or the end of a central directory.
const FIRST_BLOCK: u64 = 64 << 10;
/// Blocks double up to this while reading goes on.
const LARGEST_BLOCK: u64 = 1 << 20;
/// Bytes held at most: the block being read, and the one ahead.
pub const WINDOW: u64 = 2 * LARGEST_BLOCK;

/// Reads a planned file through the transfer's connections, verified as every range is.
pub struct RangeReader {
    transfer: Arc<Transfer>,
    file: Arc<PlannedFile>,
    runtime: Handle,
    position: u64,
    block: Block,
    ahead: Option<Ahead>,
}

/// A fetched part of the file; what was read of it is gone from `pieces`.
#[derive(Default, Clone)]
struct Block {
    start: u64,
    len: u64,
    /// All of it, so that a decoder may step back within.
    pieces: Vec<Bytes>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The bytes from `position` to the end of the piece that it lies in.
    fn at(&self, position: u64) -> Option<Bytes> {
        let mut skip = usize::try_from(position.checked_sub(self.start)?).ok()?;
        for piece in &self.pieces {
            if skip < piece.len() {
                return Some(piece.slice(skip..));
            }
            skip -= piece.len();
        }
        None
    }
}

struct Ahead {
    start: u64,
    len: u64,
    fetch: Background<Result<Vec<Bytes>, Failure>>,
}

impl RangeReader {
    /// To be called within a runtime; to be read outside its async tasks.
    pub fn new(transfer: Arc<Transfer>, file: Arc<PlannedFile>) -> Self {
        Self { transfer, file, runtime: Handle::current(), position: 0, block: Block::default(), ahead: None }
    }

    fn fetch(&self, start: u64, len: u64) -> Ahead {
        let (transfer, file) = (self.transfer.clone(), self.file.clone());
        let fetch = async move { transfer.range(&file, start, len, &transfer.stop.soon).await };
        Ahead { start, len, fetch: Background::spawn(fetch) }
    }

    /// Makes `block` one that holds `position`, which is before the end of the file.
    fn load(&mut self) -> Result<(), Failure> {
        let reads_on = self.block.len > 0 && self.position == self.block.end();
        let mut ahead = match self.ahead.take() {
            Some(ahead) if (ahead.start..ahead.start + ahead.len).contains(&self.position) => ahead,
            _ if self.file.size <= LARGEST_BLOCK => self.fetch(0, self.file.size),
            _ => {
                let len = if reads_on { self.next_len() } else { FIRST_BLOCK };
                // A jump close to the end looks for the end: the block reaches back from it.
                let start = self.position.min(self.file.size.saturating_sub(len));
                self.fetch(start, len.min(self.file.size - start))
            }
        };
        let fetched = self.runtime.block_on(&mut ahead.fetch);
        let pieces = fetched.map_err(|lost| Failure::new(FailureCode::InternalError, lost))??;
        self.block = Block { start: ahead.start, len: ahead.len, pieces };
        let next = self.block.end();
        if reads_on && next < self.file.size {
            self.ahead = Some(self.fetch(next, self.next_len().min(self.file.size - next)));
        }
        Ok(())
    }

    fn next_len(&self) -> u64 {
        (self.block.len * 2).clamp(FIRST_BLOCK, LARGEST_BLOCK)
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.file.size {
            return Ok(0);
        }
        if !(self.block.start..self.block.end()).contains(&self.position) {
            self.load().map_err(io::Error::other)?;
        }
        let mut bytes =
            self.block.at(self.position).ok_or_else(|| io::Error::other("a block is not what was asked"))?;
        let len = bytes.len().min(buffer.len());
        bytes.copy_to_slice(&mut buffer[..len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.file.size.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// The failure of the source that made a decoder fail, if that is what did.
pub fn source_failure(error: &io::Error) -> Option<Failure> {
    error.get_ref()?.downcast_ref::<Failure>().cloned()
}
