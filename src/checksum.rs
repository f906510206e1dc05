//! CRC64NVME as S3 wants it: computed as bytes pass, combined from parts, shown in base64.
//!
//! S3's full-object checksum of a multipart upload is the CRC of the whole object; CRCs are linear, so it follows from
//! the parts' own CRCs and lengths without reading anything twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

/// The CRC64NVME of a run of bytes, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc64Nvme {
    crc: u64,
    len: u64,
}

impl Crc64Nvme {
    /// Of no bytes.
    pub const EMPTY: Self = Self { crc: 0, len: 0 };

    /// Of all pieces, one after the other.
    pub fn of(pieces: &[Bytes]) -> Self {
        let mut hasher = Hasher::new();
        for piece in pieces {
            hasher.update(piece);
        }
        hasher.finish()
    }

    /// Of these bytes followed by `next`'s.
    pub fn then(self, next: Self) -> Self {
        let crc = checksum_combine(CrcAlgorithm::Crc64Nvme, self.crc, next.crc, next.len);
        Self { crc, len: self.len + next.len }
    }

    /// Bytes covered.
    pub fn len(self) -> u64 {
        self.len
    }

    /// Whether no byte is covered.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Base64 of the eight bytes, most significant first: the form of `x-amz-checksum-crc64nvme`.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.crc.to_be_bytes())
    }
}

/// Computes a [`Crc64Nvme`] piece by piece.
#[derive(Debug)]
pub struct Hasher {
    digest: Digest,
    len: u64,
}

impl Hasher {
    #[allow(clippy::new_without_default, reason = "a hasher is always begun on purpose")]
    pub fn new() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc64Nvme), len: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
    }

    pub fn finish(&self) -> Crc64Nvme {
        Crc64Nvme { crc: self.digest.finalize(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_algorithm_holds() {
        // "123456789", the catalogue's check input for CRC-64/NVME.
        let crc = Crc64Nvme::of(&[Bytes::from_static(b"123456789")]);
        assert_eq!(crc.to_base64(), STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()));
    }

    #[test]
    fn no_bytes_have_the_empty_checksum() {
        assert_eq!(Crc64Nvme::of(&[]), Crc64Nvme::EMPTY);
    }

    proptest! {
        #[test]
        fn parts_combine_to_the_checksum_of_the_whole(bytes: Vec<u8>, cut in 0_usize..4096) {
            let whole = Bytes::from(bytes);
            let cut = cut.min(whole.len());
            let (head, tail) = (whole.slice(..cut), whole.slice(cut..));
            let combined = Crc64Nvme::of(&[head]).then(Crc64Nvme::of(&[tail]));
            prop_assert_eq!(combined, Crc64Nvme::of(&[whole]));
        }
    }
}
