//! The sample files that the demo's server has, and the objects that they should become.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use anyhow::{Context, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::inprocess::sftp::{Content, Tree};

/// Over the default `MULTIPART_THRESHOLD` of 100 MiB, and no whole number of parts.
const BIG: u64 = 120 * 1024 * 1024 + 4321;

/// Text, CSV, names that are not ASCII or not UTF-8, an empty file, a zip with folders, and a file uploaded in parts.
pub fn tree(directory: &str) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.file(format!("{directory}/hello.txt"), "Hello from the partner's server.\n")
        .file(format!("{directory}/empty.flag"), "")
        .file(format!("{directory}/orders/2026-11-19.csv"), orders(5_000))
        .file(format!("{directory}/orders/2026-11-20.csv"), orders(20_000))
        .file(format!("{directory}/reports/Zürich, 3. Quartal.txt"), "Umsatz: 1'234'567.80 CHF\n")
        .file([directory.as_bytes(), b"/reports/r\xe9sum\xe9.txt"].concat(), "A name in Latin-1.\n")
        .file(format!("{directory}/invoices.zip"), invoices()?)
        .file(format!("{directory}/backup.img"), Content::synthetic(2026, BIG));
    Ok(tree)
}

fn orders(count: usize) -> String {
    let mut csv = String::from("order,customer,amount,currency\n");
    for order in 0..count {
        csv.push_str(&format!("{order},C{:04},{}.{:02},EUR\n", order * 7919 % 1000, order * 31 % 900, order % 100));
    }
    csv
}

fn invoices() -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("index.txt", stored)?;
    zip.write_all(b"paid/ and open/\n")?;
    for (folder, numbers) in [("paid", 1..=3), ("open", 4..=5)] {
        zip.add_directory(folder, deflated)?;
        for number in numbers {
            zip.start_file(format!("{folder}/2026/invoice-{number:03}.csv"), deflated)?;
            zip.write_all(orders(number * 400).as_bytes())?;
        }
    }
    Ok(zip.finish()?.into_inner())
}

/// What the bucket should hold, by key: every file under its path, and a zip's entries under the zip's name.
pub fn expected(source: &Tree, directory: &str) -> Result<BTreeMap<String, Content>> {
    let mut objects = BTreeMap::new();
    for (path, content) in source.files(directory) {
        let key = key(&path);
        if let Some(folder) = key.strip_suffix(".zip") {
            let mut archive = ZipArchive::new(Cursor::new(content.to_bytes()?)).context("the sample zip")?;
            for index in 0..archive.len() {
                let mut entry = archive.by_index(index)?;
                if entry.is_file() {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    objects.insert(format!("{folder}/{}", entry.name()?), bytes.into());
                }
            }
        }
        objects.insert(key, content.clone());
    }
    Ok(objects)
}

/// A name that is not UTF-8 becomes a key with each invalid byte as `%XX`.
fn key(path: &[u8]) -> String {
    let mut key = String::new();
    for chunk in path.utf8_chunks() {
        key.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| key.push_str(&format!("%{byte:02X}")));
    }
    key
}
