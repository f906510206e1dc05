//! Servers that refuse connections, close them, or re-key them.

use std::time::Duration;

use crate::inprocess::sftp::{Content, Fault, Misdeed, Options, Quirks, Refusal, Stats, Tree, Trigger};
use crate::world::{BUCKET, World, account, engines};

fn tree() -> Tree {
    let mut tree = Tree::new();
    for number in 0..40 {
        tree.file(format!("/out/{number:02}.bin"), Content::synthetic(number, 200_000));
    }
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_when_the_server_allows_no_more() {
    for quirks in [
        Quirks { max_connections: Some(1), ..Quirks::default() },
        Quirks { refusals: vec![(2..=u64::MAX, Refusal::Close)], ..Quirks::default() },
        Quirks { refusals: vec![(2..=u64::MAX, Refusal::Silence)], ..Quirks::default() },
    ] {
        let world = World::quirky(tree(), quirks.clone()).await;
        let finished = world.finish(world.run("/out").env("SFTP_CONNECTIONS", 4)).await;
        assert_eq!(finished.exit, 0, "{quirks:?}\n{}", finished.show());
        world.assert_mirrors("/out", BUCKET).await;
        assert_eq!(Stats::read(&world.sftp.stats().connections), 1, "{quirks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_first_connection_is_tried_again() {
    for refusal in [Refusal::Close, Refusal::Silence] {
        let quirks = Quirks { refusals: vec![(1..=1, refusal)], ..Quirks::default() };
        let world = World::quirky(tree(), quirks).await;
        world.finish(world.run("/out").env("CONNECT_TIMEOUT", "1s")).await.assert_exit(0, "OK");
        world.assert_mirrors("/out", BUCKET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_says_nothing_is_unreachable_within_the_connect_timeout() {
    let quirks = Quirks { refusals: vec![(1..=u64::MAX, Refusal::Silence)], ..Quirks::default() };
    let world = World::quirky(tree(), quirks).await;
    let run = world.run("/out").env("CONNECT_TIMEOUT", "1s").env("MAX_ATTEMPTS", 1);
    let finished = world.finish(run).await;
    finished.assert_exit(7, "UNREACHABLE");
    assert!(finished.elapsed < Duration::from_secs(10), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_unreachable() {
    let world = World::new(tree()).await;
    // Bound and not listened on: nobody else gets it, and it refuses.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let finished = world.finish(world.run("/out").env("PORT", port).env("MAX_ATTEMPTS", 2)).await;
    finished.assert_exit(7, "UNREACHABLE");
    assert!(finished.run()["failure-message"].as_str().unwrap().contains(&port.to_string()), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_one_after_another_cost_nothing_but_time() {
    // Each of the first eight breaks off after some 700 kB.
    let fault = Fault::on_connections(1..=8, Trigger::Bytes(700_000), Misdeed::Cut);
    let world = World::quirky(tree(), Quirks::fault(fault)).await;
    let run = world.run("/out").env("MAX_ATTEMPTS", 10).env("SFTP_CONNECTIONS", 2);
    world.finish(run).await.assert_exit(0, "OK");
    world.assert_mirrors("/out", BUCKET).await;
    assert_eq!(Stats::read(&world.sftp.stats().faults), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_exchange_in_the_middle_of_a_file_goes_unnoticed() {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(5, 12_000_000));
    for engine in engines() {
        let options = Options { rekey_after: Some(1 << 20), ..Options::new(tree.clone(), account()) };
        let world = World::with(options).await;
        world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
        world.assert_mirrors("/out", BUCKET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_are_opened_than_asked_for_and_only_sftp_is_spoken() {
    for engine in engines() {
        for connections in [1, 3] {
            let world = World::new(tree()).await;
            let run = world.run("/out").env("SFTP_ENGINE", engine).env("SFTP_CONNECTIONS", connections);
            world.finish(run).await.assert_exit(0, "OK");
            let stats = world.sftp.stats();
            assert!(Stats::read(&stats.connections) <= connections, "{engine}: {stats:?}");
            assert_eq!(Stats::read(&stats.other_requests), 0, "{engine}: a shell, or a command");
        }
    }
}
