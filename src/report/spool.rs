//! The records of a run's files, kept for its report: compressed as they come, since there may be a million of them.

use std::io::{Read, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Between two records of the list.
const SEPARATOR: &[u8] = b",\n";

/// So much is packed at a time: the packer takes its time over each call, whatever is in it.
const BATCH: usize = 64 * 1024;

/// Takes records. A hundred thousand of them take about 4 MB.
#[derive(Debug)]
pub struct Spool {
    batch: Vec<u8>,
    packed: DeflateEncoder<Vec<u8>>,
    size: u64,
}

impl Default for Spool {
    fn default() -> Self {
        let packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        Self { batch: Vec::new(), packed, size: 0 }
    }
}

impl Spool {
    pub fn add(&mut self, record: &str) {
        if self.size > 0 || !self.batch.is_empty() {
            self.batch.extend_from_slice(SEPARATOR);
        }
        self.batch.extend_from_slice(record.as_bytes());
        if self.batch.len() >= BATCH {
            self.pack();
        }
    }

    fn pack(&mut self) {
        self.packed.write_all(&self.batch).expect("a vector takes what is written");
        self.size += self.batch.len() as u64;
        self.batch.clear();
    }

    pub fn finish(mut self) -> Kept {
        self.pack();
        Kept { packed: self.packed.finish().expect("a vector takes what is written"), size: self.size }
    }
}

/// All records of a run's files: the items of a JSON array.
#[derive(Debug, Default)]
pub struct Kept {
    packed: Vec<u8>,
    size: u64,
}

impl Kept {
    /// Bytes of text.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The text.
    pub fn read(&self) -> impl Read {
        // Nothing at all is no stream that a decoder knows.
        DeflateDecoder::new(&*self.packed).take(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(kept: &Kept) -> String {
        let mut text = String::new();
        kept.read().read_to_string(&mut text).expect("text");
        assert_eq!(kept.size(), text.len() as u64);
        text
    }

    #[test]
    fn records_come_back_in_order_as_the_items_of_an_array() {
        // Of one batch, and of several.
        for count in [1, 3, 50_000] {
            let mut spool = Spool::default();
            (0..count).for_each(|n| spool.add(&format!("{{\"n\":{n}}}")));
            let text = format!("[{}]", text_of(&spool.finish()));
            let items: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
            assert!(items.iter().map(|item| item["n"].as_u64()).eq((0..count).map(Some)));
        }
    }

    #[test]
    fn no_record_is_no_text() {
        assert_eq!(text_of(&Spool::default().finish()), "");
        assert_eq!(text_of(&Kept::default()), "");
    }
}
