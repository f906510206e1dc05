//! The CRC64NVME of what arrived. Not by the program's own type: `crc-fast` is compiled into its callers, and what is of this
//! package is not optimised here, so that a checksum would cost more than all else the store does. `s3s` is a dependency, and
//! optimised as all of them are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use s3s::crypto::{Checksum as _, Crc64Nvme};

/// Of a run of bytes, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    crc: u64,
    len: u64,
}

impl Checksum {
    /// Of these bytes followed by `next`'s.
    pub fn then(self, next: Self) -> Self {
        let crc = checksum_combine(CrcAlgorithm::Crc64Nvme, self.crc, next.crc, next.len);
        Self { crc, len: self.len + next.len }
    }

    /// Bytes covered.
    pub fn len(self) -> u64 {
        self.len
    }

    /// As `x-amz-checksum-crc64nvme` has it.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.crc.to_be_bytes())
    }
}

/// Computes a [`Checksum`] piece by piece.
pub struct Hasher {
    hash: Crc64Nvme,
    len: u64,
}

impl Hasher {
    pub fn new() -> Self {
        Self { hash: Crc64Nvme::new(), len: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    pub fn finish(self) -> Checksum {
        Checksum { crc: u64::from_be_bytes(self.hash.finalize()), len: self.len }
    }
}
