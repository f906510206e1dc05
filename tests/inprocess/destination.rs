//! The store refuses, fails or is not there, and the program is told to stop: nothing half is left.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::inprocess::s3::Operation;
use crate::inprocess::sftp::{Content, Fault, Misdeed, Quirks, Stats, Tree, Trigger};
use crate::proxy::{Proxy, Toward};
use crate::raw_zip::{RawEntry, raw_zip};
use crate::world::{BUCKET, World};

/// A file of three parts and a small one.
fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(1, 15_000_000)).file("/out/small.txt", "small");
    tree
}

const SMALL_ENTRIES: usize = 400;

/// An archive that is read whole before any of its entries is stored.
fn small_entries() -> Tree {
    let entries: Vec<_> = (0..SMALL_ENTRIES).map(|number| RawEntry::new(format!("{number}.txt"), "x")).collect();
    let mut tree = Tree::new();
    tree.file("/out/a.zip", raw_zip(&entries));
    tree
}

fn run(world: &World) -> crate::inprocess::run::Run {
    world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_code_9() {
    let world = World::new(tree()).await;
    let finished = run(&world).env("BUCKET", "no-such-bucket").finish().await;
    finished.assert_exit(9, "DESTINATION");
    assert!(finished.show().contains("no-such-bucket"), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_not_be_written_is_code_9() {
    let world = World::new(tree()).await;
    for operation in [Operation::PutObject, Operation::CreateMultipartUpload] {
        world.s3.refusals().deny(operation);
    }
    let finished = world.finish(run(&world)).await;
    finished.assert_exit(9, "DESTINATION");
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_not_read_on_for_a_bucket_that_may_not_be_written() {
    let world = World::new(small_entries()).await;
    world.s3.refusals().deny(Operation::PutObject);
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(9, "DESTINATION");
    assert!(finished.files().len() < SMALL_ENTRIES / 2, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_store_that_passes_is_got_over() {
    use Operation::{CompleteMultipartUpload, CreateMultipartUpload, PutObject, UploadPart};
    for operation in [PutObject, CreateMultipartUpload, UploadPart, CompleteMultipartUpload] {
        let world = World::new(tree()).await;
        world.s3.refusals().fail(operation, 0, 1);
        let finished = world.finish(run(&world)).await;
        assert_eq!(finished.exit, 0, "{operation:?}\n{}", finished.show());
        world.assert_mirrors("/out", BUCKET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_reached_is_code_7_and_named() {
    let world = World::new(tree()).await;
    // Nothing listens on the discard port.
    let finished = run(&world).env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9").env("MAX_ATTEMPTS", 2).finish().await;
    finished.assert_exit(7, "UNREACHABLE");
    assert!(finished.show().contains("the endpoint is http://127.0.0.1:9"), "{}", finished.show());
}

/// An object above `PART_SIZE`, and not above the threshold, is sent as it is read.
fn streaming(world: &World) -> crate::inprocess::run::Run {
    world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "20MiB")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_object_that_fails_once_is_read_and_sent_again() {
    let world = World::new(tree()).await;
    world.s3.refusals().fail(Operation::PutObject, 0, 1);
    world.finish(streaming(&world).env("INCLUDE", "large.bin")).await.assert_exit(0, "OK");
    world.assert_keys(&["large.bin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_object_that_is_refused_says_why() {
    let world = World::new(tree()).await;
    world.s3.refusals().deny(Operation::PutObject);
    let finished = world.finish(streaming(&world).env("INCLUDE", "large.bin")).await;
    finished.assert_exit(9, "DESTINATION");
    assert!(finished.show().contains("AccessDenied"), "{}", finished.show());
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_object_whose_connection_breaks_on_either_side_is_whole_or_not_there() {
    for toward in [Toward::Server, Toward::Client] {
        let world = World::new(tree()).await;
        let s3 = Proxy::to(world.s3.address()).cut_every(Toward::Server, 4_000_000, 2).start().await;
        let sftp = Proxy::to_port(world.sftp.port()).cut_every(Toward::Client, 4_000_000, 2).start().await;
        let run = match toward {
            Toward::Server => streaming(&world).env("AWS_ENDPOINT_URL_S3", s3.http_endpoint()),
            Toward::Client => streaming(&world).env("PORT", sftp.port()),
        };
        world.finish(run).await.assert_exit(0, "OK");
        assert_eq!(s3.faults() + sftp.faults(), 2);
        world.assert_mirrors("/out", BUCKET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_request_is_refused_for_good_no_half_object_and_no_open_upload_is_left() {
    use Operation::{CompleteMultipartUpload, CreateMultipartUpload, UploadPart};
    let refused =
        [(CreateMultipartUpload, 0), (UploadPart, 0), (UploadPart, 1), (UploadPart, 2), (CompleteMultipartUpload, 0)];
    for (operation, after) in refused {
        let world = World::new(tree()).await;
        world.s3.refusals().fail(operation, after, u64::MAX);
        // `finish` holds the bucket and its open uploads against the records.
        let finished = world.finish(run(&world)).await;
        finished.assert_exit(3, "PARTIAL");
        assert_eq!(finished.only("/large.bin")["failure-code"], "WRITE_FILE_ERROR", "{}", finished.show());
        world.assert_keys(&["small.txt"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_aborted_is_named_beside_the_failure() {
    let world = World::new(tree()).await;
    world.s3.refusals().fail(Operation::UploadPart, 1, u64::MAX);
    world.s3.refusals().deny(Operation::AbortMultipartUpload);
    let finished = run(&world).finish().await;
    finished.assert_exit(3, "PARTIAL");
    let record = finished.only("/large.bin");
    assert_eq!(record["failure-code"], "WRITE_FILE_ERROR", "{record}");
    assert!(record["failure-message"].as_str().unwrap().contains("UploadPart"), "{record}");
    assert_eq!(world.s3.open_uploads(BUCKET).await, ["large.bin"]);
    let told = finished.stderr.lines().find(|line| line.contains("an upload could not be aborted"));
    let told = told.unwrap_or_else(|| panic!("{}", finished.show()));
    assert!(told.contains("large.bin") && told.contains("upload_id"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_in_the_middle_stops_in_good_order() {
    for (signal, exit) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        // It stands still in the middle of the large file, so that the signal always comes in time.
        let quirks = Quirks::fault(Fault::on_every_connection(Trigger::Bytes(8_000_000), Misdeed::Stall));
        let world = World::quirky(tree(), quirks).await;
        let running = run(&world).env("IDLE_TIMEOUT", "60s").env("SFTP_CONNECTIONS", 1).start();
        poll("the stall", || Stats::read(&world.sftp.stats().faults) > 0).await;
        poll("an upload under way", || world.s3.count(Operation::CreateMultipartUpload) > 0).await;
        running.signal(signal);
        let finished = running.finish().await;
        finished.assert_exit(exit, "INTERRUPTED");
        world.check(&finished, BUCKET).await;
        assert!(finished.elapsed < Duration::from_secs(30), "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_store_owes_an_answer_leaves_no_word_that_is_not_true() {
    let mut tree = Tree::new();
    tree.file("/out/small.txt", "small");
    let world = World::new(tree).await;
    let proxy = Proxy::to(world.s3.address()).stall_after(Toward::Client, 0).start().await;
    let run = world.run("/out").env("AWS_ENDPOINT_URL_S3", proxy.http_endpoint()).env("STOP_GRACE", "4s");
    let running = run.start();
    poll("the object", || world.s3.count(Operation::PutObject) > 0).await;
    running.signal(Signal::SIGTERM);
    let finished = running.finish().await;
    finished.assert_exit(143, "INTERRUPTED");
    world.assert_object("small.txt", b"small").await;
    let record = finished.only("/small.txt");
    assert_eq!(record["failure-code"], "INTERRUPTED", "{}", finished.show());
    assert!(record["failure-message"].as_str().unwrap().contains("may be there"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_store_owes_an_answer_for_a_part_does_not_say_that_the_entry_may_be_there() {
    let mut tree = Tree::new();
    tree.file("/out/a.zip", raw_zip(&[RawEntry::new("large.bin", vec![7; 8_000_000])]));
    let world = World::new(tree).await;
    // While the second of two parts is sent: the decoder has nothing left to do.
    let proxy = Proxy::to(world.s3.address()).stall_after(Toward::Server, 6_500_000).start().await;
    let run = run(&world).env("AWS_ENDPOINT_URL_S3", proxy.http_endpoint()).env("STOP_GRACE", "4s");
    let running = run.start();
    poll("the stall", || proxy.faults() > 0).await;
    running.signal(Signal::SIGTERM);
    let finished = running.finish().await;
    finished.assert_exit(143, "INTERRUPTED");
    world.check(&finished, BUCKET).await;
    let record = finished.only("large.bin");
    assert_eq!(record["failure-code"], "INTERRUPTED", "{}", finished.show());
    assert!(!record["failure-message"].as_str().unwrap().contains("may be there"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_all_of_a_body_was_sent_does_not_say_that_the_object_may_be_there() {
    // More than all sockets on the way take up.
    const SIZE: u64 = 60_000_000;
    let (mut file, mut archive) = (Tree::new(), Tree::new());
    file.file("/out/large.bin", Content::synthetic(1, SIZE));
    archive.file("/out/a.zip", raw_zip(&[RawEntry::new("large.bin", vec![7; SIZE as usize])]));
    for tree in [file, archive] {
        let world = World::new(tree).await;
        let proxy = Proxy::to(world.s3.address()).stall_after(Toward::Server, 1_000_000).start().await;
        let run = world.run("/out").env("MULTIPART_THRESHOLD", "64MiB");
        let running = run.env("AWS_ENDPOINT_URL_S3", proxy.http_endpoint()).env("STOP_GRACE", "4s").start();
        poll("the stall", || proxy.faults() > 0).await;
        let read = settled(&world.sftp.stats().bytes).await;
        assert!(read < SIZE, "all {read} bytes were read, and sent");
        running.signal(Signal::SIGTERM);
        let finished = running.finish().await;
        finished.assert_exit(143, "INTERRUPTED");
        world.check(&finished, BUCKET).await;
        for record in finished.files() {
            assert_eq!(record["failure-code"], "INTERRUPTED", "{}", finished.show());
            assert!(!record["failure-message"].as_str().unwrap().contains("may be there"), "{record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_an_upload_is_begun_or_completed_leaves_a_record_and_no_upload() {
    let mut archive = Tree::new();
    archive.file("/out/large.zip", raw_zip(&[RawEntry::new("large.bin", vec![7; 8_000_000])]));
    for (tree, path) in [(tree(), "/large.bin"), (archive, "large.bin")] {
        for operation in [Operation::CreateMultipartUpload, Operation::CompleteMultipartUpload] {
            let world = World::new(tree.clone()).await;
            world.s3.refusals().fail(operation, 0, u64::MAX);
            let running =
                run(&world).env("INCLUDE", "large.*").env("MAX_ATTEMPTS", 20).env("STOP_GRACE", "10s").start();
            poll("the request", || world.s3.count(operation) > 3).await;
            running.signal(Signal::SIGTERM);
            let finished = running.finish().await;
            finished.assert_exit(143, "INTERRUPTED");
            world.check(&finished, BUCKET).await;
            let record = finished.only(path);
            assert_eq!(record["failure-code"], "INTERRUPTED", "{}", finished.show());
            let may_be_there = operation == Operation::CompleteMultipartUpload;
            assert_eq!(record["failure-message"].as_str().unwrap().contains("may be there"), may_be_there, "{record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_an_archive_whose_data_is_at_hand() {
    let world = World::new(small_entries()).await;
    let proxy = Proxy::to(world.s3.address()).stall_after(Toward::Client, 0).start().await;
    let running = world.run("/out").env("AWS_ENDPOINT_URL_S3", proxy.http_endpoint()).env("STOP_GRACE", "4s").start();
    poll("an entry", || world.s3.count(Operation::PutObject) > 0).await;
    running.signal(Signal::SIGTERM);
    let finished = running.finish().await;
    finished.assert_exit(143, "INTERRUPTED");
    assert_eq!(finished.only("/a.zip")["failure-code"], "INTERRUPTED", "{}", finished.show());
    assert!(finished.files().len() < SMALL_ENTRIES / 2, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_connecting_stops_at_once() {
    let quirks = Quirks::fault(Fault::on_every_connection(Trigger::Replies(0), Misdeed::Stall));
    let world = World::quirky(tree(), quirks).await;
    let running = run(&world).env("CONNECT_TIMEOUT", "60s").env("IDLE_TIMEOUT", "60s").start();
    poll("the stall", || Stats::read(&world.sftp.stats().faults) > 0).await;
    running.signal(Signal::SIGTERM);
    let finished = running.finish().await;
    finished.assert_exit(143, "INTERRUPTED");
    assert!(finished.elapsed < Duration::from_secs(30), "{}", finished.show());
}

/// What a counter stands at once it has not moved for a second.
async fn settled(counter: &AtomicU64) -> u64 {
    loop {
        let before = Stats::read(counter);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if Stats::read(counter) == before {
            return before;
        }
    }
}

async fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
