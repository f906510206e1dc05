//! Zip archives: unpacked in place, entry by entry, and the bad ones refused without harm to the rest.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{AesMode, CompressionMethod, ZipWriter};

use crate::inprocess::run::Finished;
use crate::inprocess::sftp::{Content, Stats, Tree};
use crate::raw_zip::{RawEntry, raw_zip};
use crate::world::{BUCKET, World, engines};

/// Delivers `archive` as `/out/a.zip` beside a text file, which is expected in any case.
async fn unpack(archive: Vec<u8>) -> (World, Finished) {
    let mut tree = Tree::new();
    tree.file("/out/a.zip", archive).file("/out/good.txt", "good");
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out")).await;
    world.assert_object("good.txt", b"good").await;
    (world, finished)
}

fn zip(options: SimpleFileOptions, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data) in entries {
        if name.ends_with('/') {
            zip.add_directory(*name, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(data).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

/// A good archive but for its ZIP64 end record, which has room for extensions of so many bytes.
fn raw_zip_with_end_of(bytes: u64) -> Vec<u8> {
    let mut archive = raw_zip(&[RawEntry::new("x", "x").zip64()]);
    // 56 bytes of it, 20 of its locator, 22 of the end record.
    let at = archive.len() - 98;
    archive[at + 4..at + 12].copy_from_slice(&(44 + bytes).to_le_bytes());
    archive.splice(at + 56..at + 56, std::iter::repeat_n(0, bytes as usize));
    archive
}

/// 400 kB that compress well, and differ everywhere.
fn text() -> Vec<u8> {
    (0..40_000).map(|line| format!("{line:08}\r\n")).collect::<String>().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_become_objects_under_the_archive_s_name() {
    let text = text();
    let noise = Content::synthetic(4, 300_000).to_bytes().unwrap();
    let methods = [
        CompressionMethod::Stored,
        CompressionMethod::Deflated,
        CompressionMethod::Zstd,
        CompressionMethod::Bzip2,
        CompressionMethod::Xz,
        CompressionMethod::Ppmd,
    ];
    for method in methods {
        let options = SimpleFileOptions::default().compression_method(method);
        let entries: [(&str, &[u8]); 6] = [
            ("top.txt", &text),
            ("folder/", b""),
            ("folder/in it.txt", b"inside"),
            ("a/b/c/d/noise.bin", &noise),
            ("empty.txt", b""),
            ("grüße.txt", b"utf-8"),
        ];
        let archive = zip(options, &entries);
        let (world, finished) = unpack(archive.clone()).await;
        finished.assert_exit(0, "OK");
        let keys = [
            "a.zip",
            "a/a/b/c/d/noise.bin",
            "a/empty.txt",
            "a/folder/in it.txt",
            "a/grüße.txt",
            "a/top.txt",
            "good.txt",
        ];
        world.assert_keys(&keys).await;
        world.assert_object("a.zip", &archive).await;
        for (name, data) in entries.into_iter().filter(|(name, _)| !name.ends_with('/')) {
            world.assert_object(&format!("a/{name}"), data).await;
        }
        assert!(finished.files().iter().any(|record| record["archive-path"].is_string()), "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_known_by_its_content() {
    let archive = raw_zip(&[RawEntry::new("x.txt", "x")]);
    let mut tree = Tree::new();
    tree.file("/out/archive.dat", archive).file("/out/text.zip", "no archive at all, whatever it is called");
    let world = World::new(tree).await;
    world.finish(world.run("/out")).await.assert_exit(0, "OK");
    world.assert_keys(&["archive.dat", "archive/x.txt", "text.zip"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_archives_is_configured() {
    let archive = raw_zip(&[RawEntry::new("x/y.txt", "y")]);
    let mut tree = Tree::new();
    tree.file("/out/sub/a.zip", archive);
    let cases: [(&str, &str, &[&str]); 5] = [
        ("KEEP_ARCHIVE", "false", &["sub/a/x/y.txt"]),
        ("UNPACK", "none", &["sub/a.zip"]),
        ("UNPACK_TEMPLATE", "{archive}.zip/{entry}", &["sub/a.zip", "sub/a.zip/x/y.txt"]),
        ("UNPACK_TEMPLATE", "flat/{entry}", &["flat/x/y.txt", "sub/a.zip"]),
        ("KEY_TEMPLATE", "in/{path}", &["in/sub/a.zip", "in/sub/a/x/y.txt"]),
    ];
    for (variable, value, keys) in cases {
        let world = World::new(tree.clone()).await;
        let run = world.run("/out").env("RECURSIVE", "true").env(variable, value);
        world.finish(run).await.assert_exit(0, "OK");
        world.assert_keys(keys).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_archive_makes_no_entries() {
    let (world, finished) = unpack(raw_zip(&[])).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["a.zip", "good.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zip64_archives_are_read() {
    let (world, finished) =
        unpack(raw_zip(&[RawEntry::new("x.txt", "x").zip64(), RawEntry::new("y.txt", "y").zip64()])).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["a.zip", "a/x.txt", "a/y.txt", "good.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_over_the_threshold_is_uploaded_in_parts() {
    let data = Content::synthetic(8, 12_000_000).to_bytes().unwrap();
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1));
    let mut tree = Tree::new();
    tree.file("/out/a.zip", zip(options, &[("large.bin", &data), ("small.txt", b"small")]));
    let world = World::new(tree).await;
    let run =
        world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB").env("KEEP_ARCHIVE", "false");
    world.finish(run).await.assert_exit(0, "OK");
    world.assert_object("a/large.bin", &data).await;
    assert!(world.s3.head(BUCKET, "a/large.bin").await.e_tag().is_some_and(|tag| tag.contains('-')));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_archive_opens_with_its_password() {
    let password = "archive-Password\\5\"";
    let options = SimpleFileOptions::default().with_aes_encryption(AesMode::Aes256, password);
    let archive = zip(options, &[("sealed.txt", b"contents")]);
    let (world, finished) = unpack(archive.clone()).await;
    finished.assert_exit(3, "PARTIAL");
    assert!(finished.statuses().contains(&"FAILED ARCHIVE_PASSWORD".to_owned()), "{}", finished.show());
    assert!(!world.s3.keys(BUCKET).await.contains(&"a/sealed.txt".to_owned()));

    let mut tree = Tree::new();
    tree.file("/out/a.zip", archive);
    let mut world = World::new(tree).await;
    world.add_secret("ArchivePassword", "not-The-archive-Password");
    let finished = world.finish(world.run("/out")).await;
    assert!(finished.statuses().contains(&"FAILED ARCHIVE_PASSWORD".to_owned()), "{}", finished.show());
    assert!(!world.s3.keys(BUCKET).await.contains(&"a/sealed.txt".to_owned()));

    world.add_secret("ArchivePassword", password);
    let again = world.run("/out").env("KEY_TEMPLATE", "again/{path}").env("BUCKET", "again");
    world.s3.client().create_bucket().bucket("again").send().await.unwrap();
    world.finish(again).await.assert_exit(0, "OK");
    assert_eq!(world.s3.read("again", "again/a/sealed.txt").await.unwrap(), b"contents".as_slice());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_would_leave_their_place_are_refused_one_by_one() {
    let names = [
        "../up.txt",
        "in/../../up.txt",
        "/absolute.txt",
        "C:\\drive.txt",
        "c:/drive.txt",
        "back\\slash.txt",
        "..\\up.txt",
        "nul\0.txt",
        "./dot.txt",
        "..",
    ];
    let mut entries: Vec<RawEntry> = names.iter().map(|name| RawEntry::new(name, "hostile")).collect();
    entries.push(RawEntry::new("fine.txt", "fine"));
    let (world, finished) = unpack(raw_zip(&entries)).await;
    finished.assert_exit(3, "PARTIAL");
    let keys = world.s3.keys(BUCKET).await;
    for key in &keys {
        assert!(["a.zip", "a/fine.txt", "a/dot.txt", "good.txt"].contains(&key.as_str()), "{key:?} of {keys:?}");
    }
    world.assert_object("a/fine.txt", b"fine").await;
    let failed = finished.statuses().iter().filter(|status| status.starts_with("FAILED")).count();
    assert!(failed >= names.len() - 1, "{failed} refusals of {}\n{}", names.len(), finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_devices_in_an_archive_are_skipped_with_a_record() {
    let entries = [
        RawEntry::new("link", "/etc/passwd").mode(0o120_777),
        RawEntry::new("device", "").mode(0o020_644),
        RawEntry::new("fine.txt", "fine"),
    ];
    let (world, finished) = unpack(raw_zip(&entries)).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["a.zip", "a/fine.txt", "good.txt"]).await;
    let skipped = finished.files().iter().filter(|record| record["status-code"] == "SKIPPED").count();
    assert_eq!(skipped, 2, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_crc_commits_nothing() {
    let large = Content::synthetic(8, 13_000_000).to_bytes().unwrap();
    for data in [b"small".to_vec(), large.to_vec()] {
        let entries = [RawEntry::new("before.txt", "before"), RawEntry::new("wrong.bin", data).wrong_crc()];
        let mut tree = Tree::new();
        tree.file("/out/a.zip", raw_zip(&entries)).file("/out/good.txt", "good");
        let world = World::new(tree).await;
        let run = world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB").env("UNPACK", "zip");
        let finished = world.finish(run).await;
        finished.assert_exit(3, "PARTIAL");
        assert!(finished.statuses().contains(&"FAILED ARCHIVE_INVALID".to_owned()), "{}", finished.show());
        let keys = world.s3.keys(BUCKET).await;
        assert!(!keys.contains(&"a/wrong.bin".to_owned()) && keys.contains(&"a/before.txt".to_owned()), "{keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_archive_fails_by_name_and_the_run_goes_on() {
    let whole = zip(
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated),
        &[("a.txt", &text()), ("b.txt", &text())],
    );
    let mut no_directory = whole.clone();
    no_directory.truncate(whole.len() / 2);
    let mut overwritten = whole.clone();
    let middle = whole.len() / 3;
    overwritten[middle..middle + 64].fill(0xa5);
    let mut directory_elsewhere = whole.clone();
    let offset = whole.len() - 6;
    directory_elsewhere[offset..offset + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let unknown_method = raw_zip(&[RawEntry::new("x", "x").method(99)]);
    // As writers do that count modulo 65,536: one of four, and none.
    let counted = |count: u16| {
        let mut archive = raw_zip(&["x", "y", "z", "w"].map(|name| RawEntry::new(name, name)));
        let at = archive.len() - 14;
        archive[at..at + 4].copy_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
        archive
    };
    let claims_more = raw_zip(&[RawEntry::new("x", "x").claiming(1 << 50)]);
    let broken = [
        ("cut short", no_directory),
        ("overwritten", overwritten),
        ("a directory beyond the end", directory_elsewhere),
        ("an unknown method", unknown_method),
        ("a size that is a lie", claims_more),
        ("more entries than are counted", counted(1)),
        ("entries where none are counted", counted(0)),
        ("an end record without end", raw_zip_with_end_of(17 << 20)),
        ("a signature and nothing else", [b"PK\x03\x04".as_slice(), &[0; 40]].concat()),
        ("an end and nothing else", [b"PK\x05\x06".as_slice(), &[0xff; 40]].concat()),
    ];
    for (what, archive) in broken {
        let (world, finished) = unpack(archive).await;
        assert_eq!(finished.exit, 3, "{what}\n{}", finished.show());
        let failed: Vec<_> = finished.files().iter().filter(|record| record["status-code"] == "FAILED").collect();
        assert!(!failed.is_empty(), "{what}\n{}", finished.show());
        for record in failed {
            let code = record["failure-code"].as_str().unwrap_or_default();
            assert!(matches!(code, "ARCHIVE_INVALID" | "ARCHIVE_LIMIT"), "{what}: {record}");
            assert!(record.to_string().contains("/out/a.zip"), "{what}: {record}");
        }
        assert!(!world.s3.keys(BUCKET).await.contains(&"a/x".to_owned()), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_one_name_both_fail_or_neither_is_lost_in_silence() {
    let entries = [RawEntry::new("same.txt", "one"), RawEntry::new("same.txt", "two"), RawEntry::new("other.txt", "x")];
    let (world, finished) = unpack(raw_zip(&entries)).await;
    finished.assert_exit(3, "PARTIAL");
    assert!(finished.statuses().iter().any(|status| status == "FAILED KEY_COLLISION"), "{}", finished.show());
    assert!(!world.s3.keys(BUCKET).await.contains(&"a/same.txt".to_owned()));
    world.assert_object("a/other.txt", b"x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_and_a_file_of_one_key_both_fail() {
    let mut tree = Tree::new();
    tree.file("/out/a.zip", raw_zip(&[RawEntry::new("x.csv", "from the archive"), RawEntry::new("y.csv", "y")]))
        .file("/out/a/x.csv", "from the folder")
        .file("/out/a/z.csv", "z");
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("RECURSIVE", "true")).await;
    finished.assert_exit(3, "PARTIAL");
    world.assert_keys(&["a.zip", "a/y.csv", "a/z.csv"]).await;
    let collisions = finished.files().iter().filter(|record| record["failure-code"] == "KEY_COLLISION").count();
    assert_eq!(collisions, 2, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_keeps_its_key_from_an_entry() {
    let mut tree = Tree::new();
    tree.file("/out/a.zip", raw_zip(&[RawEntry::new("x.zip", "from the archive")]))
        .file("/out/a/x.zip", [b"PK\x03\x04".as_slice(), &[0; 40]].concat());
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("RECURSIVE", "true")).await;
    finished.assert_exit(3, "PARTIAL");
    world.assert_keys(&["a.zip"]).await;
    assert!(finished.statuses().contains(&"FAILED ARCHIVE_INVALID".to_owned()), "{}", finished.show());
    assert!(finished.statuses().contains(&"FAILED KEY_COLLISION".to_owned()), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_two_archives_that_share_a_key_both_fail() {
    let archive = |text: &str| raw_zip(&[RawEntry::new("same.txt", text), RawEntry::new(format!("{text}.txt"), text)]);
    // One is far smaller, and would be there first.
    let large = zip(
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
        &[("large.bin", &Content::synthetic(8, 9_000_000).to_bytes().unwrap()), ("same.txt", b"two")],
    );
    let mut tree = Tree::new();
    tree.file("/out/a.zip", archive("one")).file("/out/a.dat", large).file("/out/b.zip", archive("three"));
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(3, "PARTIAL");
    let keys = ["a.dat", "a.zip", "a/large.bin", "a/one.txt", "b.zip", "b/same.txt", "b/three.txt"];
    world.assert_keys(&keys).await;
    let collisions = finished.files().iter().filter(|record| record["failure-code"] == "KEY_COLLISION").count();
    assert_eq!(collisions, 2, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_put_all_in_one_place_let_none_overwrite_another() {
    let mut tree = Tree::new();
    tree.file("/out/a.zip", raw_zip(&[RawEntry::new("in/x.csv", "x"), RawEntry::new("in/b.csv", "of the archive")]))
        .file("/out/c.zip", raw_zip(&[RawEntry::new("c.zip", "its own name")]))
        .file("/out/b.csv", "of the directory")
        .file("/out/d.csv", "d");
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("KEY_TEMPLATE", "in/{name}")).await;
    finished.assert_exit(3, "PARTIAL");
    world.assert_keys(&["in/a.zip", "in/d.csv", "in/x.csv"]).await;
    let failed: Vec<_> = finished
        .files()
        .iter()
        .filter(|record| record["failure-code"] == "KEY_COLLISION")
        .map(|record| record["file-path"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(failed.len(), 3, "{}", finished.show());
    assert!(failed.contains(&"/out/b.csv".to_owned()) && failed.contains(&"/out/c.zip".to_owned()), "{failed:?}");
}

/// "lzma " sixty times, as `xz --format=lzma` packs it with a window of 64 KiB, in the form of a zip's entry (APPNOTE.TXT 5.8.8).
const LZMA: [u8; 28] = [
    9, 4, 5, 0, 0x5d, 0, 0, 1, 0, 0, 0x36, 0x1e, 0x89, 0xdd, 0x7d, 0x4e, 0xbe, 0xb8, 0x81, 0xbf, 0x8e, 0x2d, 0xaf,
    0xff, 0xfe, 0xd1, 0x20, 0,
];

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_packed_with_lzma_is_delivered() {
    let text = "lzma ".repeat(60);
    let (world, finished) = unpack(raw_zip(&[RawEntry::new("x", &text).packed(14, LZMA)])).await;
    finished.assert_exit(0, "OK");
    world.assert_object("a/x", text.as_bytes()).await;
}

/// Of such entries one is decoded at a time, and the store is not kept waiting for the other.
#[tokio::test(flavor = "multi_thread")]
async fn archives_that_wait_for_each_others_decoder_are_both_delivered() {
    let noise = Content::synthetic(4, 7_000_000).to_bytes().unwrap();
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Zstd);
    let archive = zip(options, &[("1", &noise), ("2", b"small"), ("3", &noise)]);
    let mut tree = Tree::new();
    let names: Vec<String> = (0..4).map(|number| format!("{number}.zip")).collect();
    for name in &names {
        tree.file(format!("/out/{name}"), archive.clone());
    }
    let world = World::new(tree).await;
    let run = world.run("/out").env("KEEP_ARCHIVE", "false").env("UPLOAD_CONCURRENCY", 1).env("PART_SIZE", "5MiB");
    world.finish(run).await.assert_exit(0, "OK");
    assert_eq!(world.s3.keys(BUCKET).await.len(), 3 * names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_does_not_make_its_decoder_take_all_memory() {
    // What decodes to 300 MiB could fill a window as large. The first properties of LZMA data state one of 4 GiB.
    let lzma = [&[9, 4, 5, 0, 0x5d, 0xff, 0xff, 0xff, 0xff], &[0; 200_000][..]].concat();
    for (method, data) in [(14, lzma), (95, vec![0; 200_000])] {
        let (world, finished) = unpack(raw_zip(&[RawEntry::new("x", data).method(method).claiming(300 << 20)])).await;
        finished.assert_exit(3, "PARTIAL");
        assert!(finished.statuses().contains(&"FAILED ARCHIVE_LIMIT".to_owned()), "{method}\n{}", finished.show());
        world.assert_keys(&["good.txt"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_limited_in_entries_size_and_ratio() {
    let many: Vec<RawEntry> = (0..50).map(|number| RawEntry::new(format!("{number}.txt"), "x")).collect();
    let zeros = vec![0; 3_000_000];
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let cases =
        [("MAX_ENTRIES", "20", raw_zip(&many)), ("MAX_UNPACKED_SIZE", "1MiB", zip(deflated, &[("zeros", &zeros)]))];
    for (variable, limit, archive) in cases {
        let mut tree = Tree::new();
        tree.file("/out/a.zip", archive).file("/out/good.txt", "good");
        let world = World::new(tree).await;
        let finished = world.finish(world.run("/out").env(variable, limit)).await;
        finished.assert_exit(3, "PARTIAL");
        assert!(finished.statuses().contains(&"FAILED ARCHIVE_LIMIT".to_owned()), "{variable}\n{}", finished.show());
        assert!(!world.s3.keys(BUCKET).await.contains(&"a/zeros".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_archive_is_read_in_place_and_once() {
    let noise = Content::synthetic(4, 8_000_000).to_bytes().unwrap();
    let archive = raw_zip(&[RawEntry::new("noise.bin", &noise)]);
    let size = archive.len() as u64;
    let mut tree = Tree::new();
    tree.file("/out/a.zip", archive);
    for engine in engines() {
        let world = World::new(tree.clone()).await;
        let run = world.run("/out").env("KEEP_ARCHIVE", "false").env("PART_SIZE", "5MiB").env("SFTP_ENGINE", engine);
        world.finish(run).await.assert_exit(0, "OK");
        world.assert_object("a/noise.bin", &noise).await;
        let read = Stats::read(&world.sftp.stats().bytes);
        assert!(read < size * 3 / 2, "{engine}: {read} bytes read of {size}");
    }
}
