//! Random directory trees, delivered by both engines and held against the model they were made from: names of every
//! kind, sizes around each boundary. A tree is made from its seed alone, and a failure names the paths, which begin with it.

#[path = "harness/inprocess/mod.rs"]
mod inprocess;
#[path = "harness/inprocess/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use inprocess::sftp::{Content, Node, Tree};
use world::{World, engines, key_of};

const TREES: u64 = 200;
/// Trees in one run of the program, each in a directory of its own.
const BATCH: u64 = 10;

const MIB: u64 = 1 << 20;
const PART_SIZE: u64 = 5 * MIB;
const MULTIPART_THRESHOLD: u64 = 7 * MIB;

/// What is around a boundary: parts, the threshold, and reads of 32 KiB and of OpenSSH's 255 KiB.
const BOUNDARIES: [u64; 4] = [PART_SIZE, MULTIPART_THRESHOLD, 32 * 1024, 255 * 1024];

/// S3's limit on keys. A longer one is refused by name.
const KEY_LIMIT: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn every_tree_arrives_as_it_is() {
    let seeds: Vec<u64> = (0..TREES).collect();
    let mut tree = Tree::new();
    let batches: Vec<Vec<u64>> = seeds.chunks(BATCH as usize).map(<[u64]>::to_vec).collect();
    for (number, batch) in batches.iter().enumerate() {
        for seed in batch {
            grow(&mut tree, &root(number, *seed), *seed);
        }
    }
    let world = World::new(tree).await;
    let runs = engines().iter().flat_map(|engine| (0..batches.len()).map(move |number| (*engine, number)));
    // Two at a time: as many as the smallest machine has processors.
    let delivered =
        futures::stream::iter(runs).map(|(engine, number)| deliver(&world, engine, number)).buffer_unordered(2);
    delivered.collect::<Vec<()>>().await;
}

fn root(batch: usize, seed: u64) -> String {
    format!("/batch-{batch:02}/tree-{seed:03}")
}

/// Delivers a batch with `engine` into a bucket of its own, and compares.
async fn deliver(world: &World, engine: &str, number: usize) {
    let bucket = format!("{engine}-{number:02}");
    world.s3.client().create_bucket().bucket(&bucket).send().await.expect("a new bucket");
    let directory = format!("/batch-{number:02}");
    let run = world
        .run(&directory)
        .env("BUCKET", &bucket)
        .env("SFTP_ENGINE", engine)
        .env("RECURSIVE", "true")
        .env("PART_SIZE", PART_SIZE)
        .env("MULTIPART_THRESHOLD", MULTIPART_THRESHOLD)
        // Two runs, two servers and a debug build share the processors.
        .env("IDLE_TIMEOUT", "60s")
        .env("CONNECT_TIMEOUT", "60s")
        .deadline(Duration::from_secs(120));
    let finished = world.finish(run).await;

    let mut model: BTreeMap<String, Content> = BTreeMap::new();
    let mut too_long = 0;
    for (path, content) in world.sftp.tree().files(&directory) {
        let key = key_of(&path);
        if key.len() > KEY_LIMIT {
            too_long += 1;
        } else {
            let other = model.insert(key.clone(), content.clone());
            assert!(other.is_none(), "two files of the model have one key: {key:?}");
        }
    }
    let context = || format!("{engine}, batch {number}\n{}", finished.show());
    assert_eq!(finished.exit, if too_long == 0 { 0 } else { 3 }, "{}", context());
    assert_eq!(finished.run()["files-failed"], too_long, "{}", context());
    assert_eq!(finished.run()["files-completed"], model.len(), "{}", context());
    let keys = world.s3.keys(&bucket).await;
    let expected: Vec<&String> = model.keys().collect();
    assert!(keys.iter().eq(expected.iter().copied()), "keys of {}\nexpected {expected:?}\nbut got {keys:?}", context());
    for (key, content) in &model {
        let object = world.s3.read(&bucket, key).await.expect("it was listed");
        let source = content.to_bytes().expect("the model is in memory");
        assert!(object == source, "{key:?}: {} bytes, expected other {}; {}", object.len(), source.len(), context());
    }
}

/// Puts the tree of `seed` at `root`.
fn grow(tree: &mut Tree, root: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut directories = vec![root.as_bytes().to_vec()];
    tree.directory(root);
    for _ in 0..random.random_range(0..14) {
        let parent = directories.choose(&mut random).expect("the root at least").clone();
        let path = [parent.as_slice(), b"/", &name(&mut random)].concat();
        // A name that came twice is the file or directory that it was first.
        if tree.get(&path).is_some() {
            continue;
        }
        if random.random_ratio(1, 4) && directories.len() < 8 {
            tree.directory(&path);
            directories.push(path);
        } else {
            let content = Content::synthetic(random.random(), size(&mut random, seed));
            tree.put(&path, Node::file(content).mtime(random.random_range(0..=u32::MAX)));
        }
    }
}

fn size(random: &mut StdRng, seed: u64) -> u64 {
    // One tree in ten has files of megabytes; all have small ones.
    let boundaries: &[u64] = if seed.is_multiple_of(10) { &BOUNDARIES } else { &BOUNDARIES[2..] };
    match random.random_range(0..10) {
        0 => 0,
        1 => 1,
        2..4 => {
            let boundary = boundaries.choose(random).expect("there are boundaries");
            boundary + random.random_range(0..3) - 1
        }
        _ => random.random_range(2..3000),
    }
}

/// A file name: any bytes but `/` and NUL, 255 at most, not `.` or `..`.
fn name(random: &mut StdRng) -> Vec<u8> {
    const PIECES: [&[u8]; 24] = [
        b"report",
        b"2026-11-20",
        b" ",
        b"  ",
        b"'",
        b"\"",
        b"`",
        b"\n",
        b"\t",
        b"%",
        b"%41",
        b"%2F",
        b"\\",
        b"*",
        b"?",
        b"[a]",
        b"{x}",
        b"&<>",
        b"+",
        b"#",
        "ü".as_bytes(),
        "日本".as_bytes(),
        b"\xe9",
        b"\xff\xfe",
    ];
    let mut name = Vec::new();
    for _ in 0..random.random_range(1..5) {
        name.extend_from_slice(PIECES.choose(random).expect("there are pieces"));
    }
    name.extend_from_slice(random.random_range(0..1000_u32).to_string().as_bytes());
    match random.random_range(0..20) {
        // The longest that file systems allow.
        0 => name.resize(255, b'n'),
        1 => name.resize(255, 0x80),
        2 => name.insert(0, b'.'),
        3 => name.extend_from_slice(b"."),
        _ => {}
    }
    name
}
