//! Files that change, lie, refuse, or are odd: what arrives is what the server had, or nothing.

use crate::inprocess::run::Finished;
use crate::inprocess::sftp::{Content, Node, Quirks, Tree};
use crate::world::{BUCKET, World, engines};

/// Delivers `odd` beside a file that is well, and expects the well one in any case.
async fn beside_a_good_one(odd: Node, quirks: Quirks) -> (World, Finished) {
    let mut tree = Tree::new();
    tree.file("/out/good.txt", "good").put("/out/odd.bin", odd);
    let world = World::quirky(tree, quirks).await;
    let run = world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB");
    let finished = world.finish(run).await;
    world.assert_object("good.txt", b"good").await;
    (world, finished)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_while_it_is_read_leaves_nothing() {
    // One object of one request, and one of several parts.
    for size in [2_000_000, 14_000_000] {
        let half = size / 2;
        let other = |seed, len| Node::file(Content::synthetic(seed, len));
        let changes = [
            ("grew", other(1, size + 10_000)),
            ("shrank", other(1, size - 10_000)),
            ("was written again", other(2, size).mtime(Node::MTIME + 1)),
            ("shrank to nothing", other(1, 0)),
        ];
        for (change, after) in changes {
            let (world, finished) = beside_a_good_one(other(1, size).becoming(half, after), Quirks::default()).await;
            finished.assert_exit(3, "PARTIAL");
            let odd = finished.only("/odd.bin");
            assert_eq!(odd["failure-code"], "SOURCE_CHANGED", "{size} bytes, {change}\n{}", finished.show());
            world.assert_keys(&["good.txt"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_promises_too_much_is_found_out() {
    let cases = [(1_000_000_u64, 1_000_001), (0, 5), (5, 13_000_000), (13_000_000, 14_000_000)];
    for (size, claimed) in cases {
        let odd = Node::file(Content::synthetic(1, size)).claiming(claimed);
        let (world, finished) = beside_a_good_one(odd, Quirks::default()).await;
        finished.assert_exit(3, "PARTIAL");
        assert_eq!(finished.only("/odd.bin")["failure-code"], "SOURCE_CHANGED", "{size}, said to be {claimed}");
        world.assert_keys(&["good.txt"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_beyond_all_reason_cost_no_memory() {
    for claimed in [1 << 45, i64::MAX as u64, u64::MAX] {
        let odd = Node::file("small").claiming(claimed);
        let (world, finished) = beside_a_good_one(odd, Quirks::default()).await;
        finished.assert_exit(3, "PARTIAL");
        assert_eq!(finished.only("/odd.bin")["status-code"], "FAILED", "{claimed}");
        world.assert_keys(&["good.txt"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_be_read_fails_alone() {
    let (_, finished) = beside_a_good_one(Node::file("closed").denied(), Quirks::default()).await;
    finished.assert_exit(3, "PARTIAL");
    assert_eq!(finished.only("/odd.bin")["failure-code"], "READ_FILE_ERROR", "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_when_its_turn_comes_fails_alone() {
    let (_, finished) = beside_a_good_one(Node::file("gone").vanishing(), Quirks::default()).await;
    finished.assert_exit(3, "PARTIAL");
    assert_eq!(finished.only("/odd.bin")["failure-code"], "RETRIEVE_FILE_NOT_FOUND", "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tells_no_times_is_believed_for_its_sizes() {
    let odd = Node::file(Content::synthetic(1, 7_000_000));
    let (world, finished) = beside_a_good_one(odd, Quirks { omit_times: true, ..Quirks::default() }).await;
    finished.assert_exit(0, "OK");
    world.assert_mirrors("/out", BUCKET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_around_a_read_a_part_and_the_threshold_arrive_exactly() {
    const MIB: u64 = 1 << 20;
    let sizes =
        [0, 1, 32_767, 32_768, 261_120, 261_121, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 6 * MIB, 6 * MIB + 1, 11 * MIB];
    let mut tree = Tree::new();
    for size in sizes {
        tree.file(format!("/out/{size}"), Content::synthetic(size, size));
    }
    for engine in engines() {
        let world = World::new(tree.clone()).await;
        let run = world.run("/out").env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB");
        world.finish(run.env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
        world.assert_mirrors("/out", BUCKET).await;
        for size in sizes {
            let head = world.s3.head(BUCKET, &size.to_string()).await;
            let in_parts = head.e_tag().is_some_and(|tag| tag.contains('-'));
            assert_eq!(in_parts, size > 6 * MIB, "{engine}: {size} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_carries_its_time_its_path_and_its_type() {
    let mut tree = Tree::new();
    tree.put(b"/out/r\xe9sum\xe9 100%.csv", Node::file("a,b\n").mtime(1_700_000_000));
    let world = World::new(tree).await;
    world.finish(world.run("/out")).await.assert_exit(0, "OK");
    let head = world.s3.head(BUCKET, "r%E9sum%E9 100%.csv").await;
    let metadata = head.metadata().unwrap();
    assert!(metadata["mtime"].parse::<f64>().is_ok_and(|mtime| mtime == 1_700_000_000.0), "{metadata:?}");
    assert_eq!(metadata["sftp-path"], "/out/r%E9sum%E9%20100%25.csv");
    assert_eq!(head.content_type(), Some("text/csv"));
}
