//! SFTP servers that break the protocol, and servers that keep it in their own ways.

use futures::StreamExt;

use crate::inprocess::run::Finished;
use crate::inprocess::sftp::{Content, Fault, Misdeed, Quirks, Stats, Tree, Trigger};
use crate::world::{BUCKET, World, engines};

const MISDEEDS: [Misdeed; 11] = [
    Misdeed::Stall,
    Misdeed::Cut,
    Misdeed::CloseChannel,
    Misdeed::WrongId,
    Misdeed::Length(0),
    Misdeed::Length(5),
    Misdeed::Length(1 << 30),
    Misdeed::Length(u32::MAX),
    Misdeed::Truncated,
    Misdeed::WrongType,
    Misdeed::TooMuchData,
];

/// One file of several reads, and twenty small ones.
fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(11, 2_500_000));
    for number in 0..20 {
        tree.file(format!("/out/{number:02}.txt"), format!("file {number}\n").repeat(number * 10));
    }
    tree
}

/// Runs each of `faults` against a server and store of its own, two at a time.
async fn each(engine: &str, faults: impl IntoIterator<Item = Fault>, judge: impl AsyncFn(&World, &Finished, &Fault)) {
    let judge = &judge;
    futures::stream::iter(faults)
        .map(|fault| async move {
            let world = World::quirky(tree(), Quirks::fault(fault.clone())).await;
            let run = world.run("/out").env("IDLE_TIMEOUT", "1s").env("SFTP_CONNECTIONS", 1).env("SFTP_ENGINE", engine);
            let finished = world.finish(run).await;
            assert!(Stats::read(&world.sftp.stats().faults) > 0, "{fault:?} did not come to pass\n{}", finished.show());
            judge(&world, &finished, &fault).await;
        })
        .buffer_unordered(2)
        .collect::<Vec<()>>()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_connection_breaks_another_mends() {
    // The first reply, one in the middle of listing and opening, and two in the middle of reading.
    let triggers = [Trigger::Replies(0), Trigger::Replies(6), Trigger::Reads(1), Trigger::Bytes(600_000)];
    let faults = MISDEEDS
        .into_iter()
        .flat_map(|misdeed| triggers.into_iter().map(move |trigger| Fault::on_connections(1..=1, trigger, misdeed)));
    each("russh", faults, async |world, finished, fault| {
        assert_eq!(finished.exit, 0, "{fault:?}\n{}", finished.show());
        world.assert_mirrors("/out", BUCKET).await;
    })
    .await;
}

#[cfg(feature = "libssh2")]
#[tokio::test(flavor = "multi_thread")]
async fn the_second_engine_mends_what_breaks_too() {
    let triggers = [Trigger::Replies(6), Trigger::Bytes(600_000)];
    let faults = MISDEEDS
        .into_iter()
        .flat_map(|misdeed| triggers.into_iter().map(move |trigger| Fault::on_connections(1..=1, trigger, misdeed)));
    each("libssh2", faults, async |world, finished, fault| {
        assert_eq!(finished.exit, 0, "{fault:?}\n{}", finished.show());
        world.assert_mirrors("/out", BUCKET).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_data_is_not_taken_for_a_whole_file() {
    // Some servers say the end of a file like this; in the middle of one it is the end of too little.
    let faults = [1, 2, 3, 4].map(|reads| Fault::on_connections(1..=1, Trigger::Reads(reads), Misdeed::EmptyData));
    each("russh", faults, async |_, finished, fault| {
        // That no object is less than its file, `finish` saw: its size and checksum are the recorded ones.
        let failed: Vec<_> = finished.statuses().into_iter().filter(|status| status != "COMPLETED").collect();
        match finished.exit {
            0 => assert_eq!(failed, [""; 0]),
            _ => assert_eq!(failed, ["FAILED SOURCE_CHANGED"], "{fault:?}\n{}", finished.show()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_starts_is_unreachable() {
    let misdeeds = [Misdeed::Stall, Misdeed::Cut, Misdeed::Length(u32::MAX), Misdeed::WrongType];
    let faults = misdeeds.map(|misdeed| Fault::on_every_connection(Trigger::Replies(0), misdeed));
    each("russh", faults, async |world, finished, _| {
        finished.assert_exit(7, "UNREACHABLE");
        assert!(!finished.run()["failure-message"].is_null(), "{}", finished.show());
        world.assert_keys(&[]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_never_come_right_fail_their_files_by_name() {
    let misdeeds = [Misdeed::Stall, Misdeed::Cut, Misdeed::WrongId, Misdeed::Truncated, Misdeed::TooMuchData];
    // Listing goes well on every connection, and so do the first bytes of a read.
    let faults = misdeeds.map(|misdeed| Fault::on_every_connection(Trigger::Bytes(300_000), misdeed));
    each("russh", faults, async |world, finished, fault| {
        assert!(matches!(finished.exit, 3 | 7), "{fault:?}\n{}", finished.show());
        let large = finished.only("/large.bin");
        let code = large["failure-code"].as_str().unwrap_or_default();
        assert!(matches!(code, "CONNECTION_ERROR" | "TIMEOUT_ERROR"), "{fault:?}: {large}");
        assert!(!world.s3.keys(BUCKET).await.contains(&"large.bin".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_other_habits_is_read_exactly() {
    let quirks = [
        Quirks { limits: false, ..Quirks::default() },
        Quirks { max_read: 32 * 1024, limits: false, random_handles: true, ..Quirks::default() },
        Quirks { reversed_replies: true, ..Quirks::default() },
        Quirks { max_handles: Some(1), ..Quirks::default() },
        Quirks { max_handles: Some(1), limits: false, ..Quirks::default() },
        Quirks { max_handles: Some(3), limits: false, reversed_replies: true, ..Quirks::default() },
        Quirks { omit_permissions: true, ..Quirks::default() },
    ];
    for (quirk, engine) in quirks.iter().flat_map(|quirk| engines().iter().map(move |engine| (quirk, engine))) {
        let world = World::quirky(tree(), quirk.clone()).await;
        let finished = world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await;
        assert_eq!(finished.exit, 0, "{engine}: {quirk:?}\n{}", finished.show());
        world.assert_mirrors("/out", BUCKET).await;
        if let Some(most) = quirk.max_handles {
            assert!(Stats::read(&world.sftp.stats().most_handles) <= most as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tells_no_sizes_is_told_off_by_name() {
    let world = World::quirky(tree(), Quirks { omit_sizes: true, ..Quirks::default() }).await;
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(3, "PARTIAL");
    let large = finished.only("/large.bin");
    assert!(large["failure-message"].as_str().unwrap().contains("size"), "{}", finished.show());
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_reads_are_asked_for_again() {
    for limits in [true, false] {
        let world = World::quirky(tree(), Quirks { max_read: 1000, limits, ..Quirks::default() }).await;
        world.finish(world.run("/out")).await.assert_exit(0, "OK");
        world.assert_mirrors("/out", BUCKET).await;
    }
}

/// libssh2 has many requests under way and wants each answered in full. Where a server answers less, it ends with an
/// error: the file may fail, and what is delivered is exact.
#[cfg(feature = "libssh2")]
#[tokio::test(flavor = "multi_thread")]
async fn short_reads_cost_the_second_engine_no_byte_in_silence() {
    let world = World::quirky(tree(), Quirks { max_read: 1000, ..Quirks::default() }).await;
    let finished = world.finish(world.run("/out").env("SFTP_ENGINE", "libssh2")).await;
    let large = finished.only("/large.bin");
    if large["status-code"] == "COMPLETED" {
        world.assert_mirrors("/out", BUCKET).await;
    } else {
        finished.assert_exit(3, "PARTIAL");
        assert_eq!(large["failure-code"], "READ_FILE_ERROR", "{}", finished.show());
        let message = large["failure-message"].as_str().expect("words");
        assert!(message.contains("SFTP_ENGINE=russh"), "says what to do: {message}");
    }
}

/// libssh2 is not told how many handles a server allows, and needs one: files that take turns on a connection close it first.
#[cfg(feature = "libssh2")]
#[tokio::test(flavor = "multi_thread")]
async fn the_second_engine_has_one_file_open_at_a_time() {
    let mut tree = tree();
    tree.file("/out/larger.bin", Content::synthetic(12, 30_000_000));
    let world = World::quirky(tree, Quirks { max_handles: Some(1), ..Quirks::default() }).await;
    let run = world.run("/out").env("SFTP_ENGINE", "libssh2").env("SFTP_CONNECTIONS", 1);
    let run = run.env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB");
    world.finish(run).await.assert_exit(0, "OK");
    assert_eq!(Stats::read(&world.sftp.stats().refused_opens), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_handles_that_is_told_is_kept() {
    let world = World::quirky(tree(), Quirks { max_handles: Some(2), ..Quirks::default() }).await;
    world.finish(world.run("/out")).await.assert_exit(0, "OK");
    assert_eq!(Stats::read(&world.sftp.stats().refused_opens), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_directory_can_hold_do_not_leave_it() {
    let mut tree = Tree::new();
    tree.file("/out/good.txt", "good").file("/secret.txt", "not for sale");
    for name in ["../secret.txt", "/secret.txt", "sub/../../secret.txt", ""] {
        tree.put_name("/out", name, crate::inprocess::sftp::Node::file("hostile"));
    }
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out")).await;
    for key in world.s3.keys(BUCKET).await {
        assert_eq!(key, "good.txt", "{}", finished.show());
    }
}
