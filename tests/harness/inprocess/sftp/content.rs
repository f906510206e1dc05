//! What is in a file: bytes, a file on disk, or bytes computed from their offset, which need no memory at any size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

/// The bytes of a file.
#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Bytes),
    /// Every aligned eight bytes are a hash of seed and position: no two stretches of a file are alike, so that a
    /// part which lands at the wrong offset shows.
    Synthetic {
        seed: u64,
        len: u64,
    },
    Disk {
        path: PathBuf,
        len: u64,
    },
}

impl Content {
    pub fn synthetic(seed: u64, len: u64) -> Self {
        Self::Synthetic { seed, len }
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Synthetic { len, .. } | Self::Disk { len, .. } => *len,
        }
    }

    /// Up to `len` bytes at `offset`; fewer only where the content ends.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = offset.min(self.len());
        let len = (self.len() - start).min(len as u64) as usize;
        match self {
            Self::Bytes(bytes) => Ok(bytes.slice(start as usize..start as usize + len)),
            Self::Synthetic { seed, .. } => Ok(synthesize(*seed, start, len)),
            Self::Disk { path, .. } => {
                let mut data = vec![0; len];
                File::open(path)?.read_exact_at(&mut data, start)?;
                Ok(data.into())
            }
        }
    }

    /// All of it. For contents that fit in memory.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        self.read(0, self.len() as usize)
    }
}

impl<T: Into<Vec<u8>>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(Bytes::from(bytes.into()))
    }
}

fn synthesize(seed: u64, offset: u64, len: usize) -> Bytes {
    let skip = (offset % 8) as usize;
    let mut data = Vec::with_capacity(skip + len + 8);
    let mut word = offset / 8;
    while data.len() < skip + len {
        data.extend_from_slice(&mix(seed.wrapping_add(word)).to_le_bytes());
        word += 1;
    }
    data.truncate(skip + len);
    Bytes::from(data).slice(skip..)
}

/// The SplitMix64 finaliser over a Weyl sequence: cheap, and without visible pattern.
fn mix(position: u64) -> u64 {
    let mut x = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
