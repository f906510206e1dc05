//! The records of a run's files, kept for its report: compressed as they come, since there may be a million of them.

use std::io::{Read, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Between two records of the list.
const SEPARATOR: &[u8] = b",\n";

/// Takes records. A hundred thousand of them take about 4 MB.
#[derive(Debug)]
pub struct Spool {
    packed: DeflateEncoder<Vec<u8>>,
    len: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { packed: DeflateEncoder::new(Vec::new(), Compression::fast()), len: 0 }
    }
}

impl Spool {
    pub fn add(&mut self, record: &str) {
        if self.len > 0 {
            self.write(SEPARATOR);
        }
        self.write(record.as_bytes());
    }

    fn write(&mut self, text: &[u8]) {
        self.packed.write_all(text).expect("a vector takes what is written");
        self.len += text.len() as u64;
    }

    pub fn finish(self) -> Kept {
        Kept { packed: self.packed.finish().expect("a vector takes what is written"), len: self.len }
    }
}

/// All records of a run's files: the items of a JSON array.
#[derive(Debug, Default)]
pub struct Kept {
    packed: Vec<u8>,
    len: u64,
}

impl Kept {
    /// Bytes of text.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The text.
    pub fn read(&self) -> impl Read {
        // Nothing at all is no stream that a decoder knows.
        DeflateDecoder::new(&*self.packed).take(self.len)
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
        let mut spool = Spool::default();
        (0..3).for_each(|n| spool.add(&format!("{{\"n\":{n}}}")));
        let items: serde_json::Value = serde_json::from_str(&format!("[{}]", text_of(&spool.finish()))).expect("JSON");
        assert_eq!(items, serde_json::json!([{"n": 0}, {"n": 1}, {"n": 2}]));
    }

    #[test]
    fn no_record_is_no_text() {
        assert_eq!(text_of(&Spool::default().finish()), "");
        assert_eq!(text_of(&Kept::default()), "");
    }
}
