//! The partner's files of each workload, and what is to be in the bucket for them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use connector::checksum::Crc64Nvme;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::harness::noise;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// By key, the checksum of what the object holds; it knows its length.
pub type Expected = BTreeMap<String, Crc64Nvme>;

pub fn fingerprint(pieces: impl IntoIterator<Item = Bytes>) -> Crc64Nvme {
    Crc64Nvme::of(&pieces.into_iter().collect::<Vec<_>>())
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    Empty,
    /// One file of so many bytes.
    One(u64),
    /// So many files of so many bytes in one directory.
    Many(u64, u64),
    /// So many files in a tree, sizes log-uniform between the two.
    Tree(u64, u64, u64),
    /// A zip archive of about so many bytes in so many entries, half of them text that is deflated, half of them stored.
    Zip(u64, u64),
}

impl Data {
    /// The name of its directory.
    pub fn name(self) -> String {
        match self {
            Data::Empty => "empty".to_owned(),
            Data::One(bytes) => format!("one-{bytes}"),
            Data::Many(files, bytes) => format!("many-{files}-{bytes}"),
            Data::Tree(files, ..) => format!("tree-{files}"),
            Data::Zip(bytes, _) => format!("zip-{bytes}"),
        }
    }

    /// Writes the files below `root` and says what their objects are.
    pub fn make(self, root: &Path) -> Expected {
        let folder = root.join(self.name());
        fs::create_dir_all(&folder).expect("the data's folder");
        let mut expected = Expected::new();
        let mut put = |name: String, bytes: u64, seed: u64| {
            let checksum = write_noise(&folder.join(&name), bytes, seed);
            expected.insert(name, checksum);
        };
        match self {
            Data::Empty => {}
            Data::One(bytes) => put("large.bin".to_owned(), bytes, 1),
            Data::Many(files, bytes) => (0..files).for_each(|n| put(format!("file-{n:06}.csv"), bytes, n)),
            Data::Tree(files, least, most) => {
                for n in 0..files {
                    // Spread evenly over the logarithm, in an order that mixes large and small.
                    let place = (n * 7919 % files) as f64 / (files - 1).max(1) as f64;
                    let bytes = (least as f64 * (most as f64 / least as f64).powf(place)) as u64;
                    put(format!("region-{}/day-{}/file-{n:04}.bin", n % 7, n % 13), bytes, n);
                }
            }
            Data::Zip(bytes, entries) => expected = make_zip(&folder.join("archive.zip"), bytes, entries),
        }
        expected
    }

    pub fn is_tree(self) -> bool {
        matches!(self, Data::Tree(..))
    }
}

fn write_noise(path: &Path, bytes: u64, seed: u64) -> Crc64Nvme {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the file's folder");
    let mut file = fs::File::create(path).expect("a file");
    let mut checksum = fingerprint([]);
    let mut left = bytes;
    while left > 0 {
        let piece = Bytes::from(noise(left.min(8 * MIB) as usize, seed ^ (left << 8)));
        file.write_all(&piece).expect("the file's bytes");
        left -= piece.len() as u64;
        checksum = checksum.then(fingerprint([piece]));
    }
    checksum
}

fn make_zip(path: &Path, bytes: u64, entries: u64) -> Expected {
    let mut zip = ZipWriter::new(BufWriter::new(fs::File::create(path).expect("the archive")));
    let mut expected = Expected::new();
    for n in 0..entries {
        let method = if n % 2 == 0 { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        // Text shrinks to about a third: it is written that much longer, so that the archive has the size.
        let len = bytes / entries * if n % 2 == 0 { 3 } else { 1 };
        let content = Bytes::from(if n % 2 == 0 { text(len, n) } else { noise(len as usize, n) });
        let name = format!("folder-{}/entry-{n:03}.{}", n % 10, if n % 2 == 0 { "csv" } else { "bin" });
        zip.start_file(&name, SimpleFileOptions::default().compression_method(method)).expect("an entry");
        zip.write_all(&content).expect("the entry's bytes");
        expected.insert(format!("archive/{name}"), fingerprint([content]));
    }
    zip.finish().expect("the archive").flush().expect("the archive");
    expected
}

/// Lines as a partner's export has them.
fn text(len: u64, seed: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(len as usize + 100);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while (text.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (id, amount, day) = (state >> 44, (state >> 20) & 0xfff_ffff, state % 28 + 1);
        writeln!(text, "{id:07};2026-11-{day:02};DE{amount:018};EUR;{}.{:02};SETTLED", amount % 9999, id % 100)
            .expect("a Vec takes it");
    }
    text.truncate(len as usize);
    text
}
