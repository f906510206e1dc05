//! Which files are taken and what their keys are.

use crate::inprocess::sftp::{Node, Options, Stats, Tree};
use crate::world::{BUCKET, World, account, engines};

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file("/out/a.csv", "a")
        .file("/out/b.txt", "b")
        .file("/out/sub/c.csv", "c")
        .file("/out/sub/deep/d.txt", "d")
        .directory("/out/empty");
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_descended_into_only_when_asked() {
    let world = World::new(tree()).await;
    world.finish(world.run("/out")).await.assert_exit(0, "OK");
    world.assert_keys(&["a.csv", "b.txt"]).await;

    let world = World::new(tree()).await;
    world.finish(world.run("/out").env("RECURSIVE", "true")).await.assert_exit(0, "OK");
    world.assert_mirrors("/out", BUCKET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn globs_select_and_exclude_wins() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("*.csv", "", &["a.csv"]),
        ("**/*.csv", "", &["a.csv", "sub/c.csv"]),
        ("", "sub/**", &["a.csv", "b.txt"]),
        ("**/*.csv,**/*.txt", "**/deep/*", &["a.csv", "b.txt", "sub/c.csv"]),
        ("*.nothing", "", &[]),
    ];
    for (include, exclude, keys) in cases {
        let world = World::new(tree()).await;
        let run = world.run("/out").env("RECURSIVE", "true").env("INCLUDE", include).env("EXCLUDE", exclude);
        let finished = world.finish(run).await;
        finished.assert_exit(0, "OK");
        world.assert_keys(keys).await;
        // It ends well, as the contract has it, and may still be a slip in a glob.
        assert_eq!(finished.show().contains("nothing is selected"), keys.is_empty(), "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_files_are_followed_and_links_to_directories_with_recursive() {
    let mut tree = tree();
    tree.file("/elsewhere/e.txt", "e")
        .link("/out/to-file", "/elsewhere/e.txt")
        .link("/out/to-link", "to-file")
        .link("/out/to-directory", "../elsewhere")
        .link("/out/dangling", "nowhere")
        .put("/out/pipe", Node::pipe());
    let world = World::new(tree.clone()).await;
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["a.csv", "b.txt", "to-file", "to-link"]).await;
    world.assert_object("to-link", b"e").await;
    for skipped in ["/dangling", "/pipe"] {
        assert_eq!(finished.only(skipped)["status-code"], "SKIPPED", "{}", finished.show());
    }

    let world = World::new(tree).await;
    world.finish(world.run("/out").env("RECURSIVE", "true")).await.assert_exit(0, "OK");
    let keys = ["a.csv", "b.txt", "sub/c.csv", "sub/deep/d.txt", "to-directory/e.txt", "to-file", "to-link"];
    world.assert_keys(&keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_of_links_are_cut() {
    let mut tree = tree();
    tree.link("/out/self", "self")
        .link("/out/sub/up", "..")
        .link("/out/sub/deep/top", "/out")
        .link("/out/this", ".")
        .link("/out/below", "below/it")
        .link("/out/ping", "pong")
        .link("/out/pong", "ping");
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("RECURSIVE", "true")).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["a.csv", "b.txt", "sub/c.csv", "sub/deep/d.txt"]).await;
    for link in ["/out/self", "/out/below", "/out/ping", "/out/sub/up"] {
        assert_eq!(finished.only(link)["skip-reason"], "LINK_LOOP", "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_what_cannot_be_looked_up_is_not_taken_for_a_loop() {
    let mut tree = tree();
    tree.put("/elsewhere/broken.txt", Node::file("x").broken())
        .link("/out/link", "to-link")
        .link("/out/to-link", "/elsewhere/broken.txt");
    for engine in engines() {
        let world = World::new(tree.clone()).await;
        let finished = world.finish(world.run("/out").env("SFTP_ENGINE", engine).env("MAX_ATTEMPTS", 2)).await;
        finished.assert_exit(3, "PARTIAL");
        for link in ["/out/link", "/out/to-link"] {
            assert_eq!(finished.only(link)["failure-code"], "READ_FILE_ERROR", "{engine}\n{}", finished.show());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_is_a_good_run() {
    let world = World::new(tree()).await;
    let finished = world.finish(world.run("/out/empty")).await;
    finished.assert_exit(0, "OK");
    assert_eq!(finished.run()["files-selected"], 0);
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_missing_or_closed_or_none_is_code_8() {
    let mut tree = tree();
    tree.put("/closed", Node::directory().denied());
    let world = World::new(tree).await;
    for directory in ["/nowhere", "/closed", "/out/a.csv"] {
        let finished = world.finish(world.run(directory)).await;
        finished.assert_exit(8, "DIRECTORY");
        assert!(finished.run()["failure-message"].as_str().unwrap().contains(directory), "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_directory_begins_at_the_login_directory() {
    let options = Options { home: b"/out".to_vec(), ..Options::new(tree(), account()) };
    let world = World::with(options.clone()).await;
    world.finish(world.run("sub")).await.assert_exit(0, "OK");
    world.assert_keys(&["c.csv"]).await;
    let world = World::with(options).await;
    world.finish(world.run(".")).await.assert_exit(0, "OK");
    world.assert_keys(&["a.csv", "b.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subdirectory_that_may_not_be_read_fails_by_name_and_the_rest_is_delivered() {
    let mut tree = tree();
    tree.put("/out/closed", Node::directory().denied());
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("RECURSIVE", "true")).await;
    finished.assert_exit(3, "PARTIAL");
    assert_eq!(finished.only("/closed")["failure-code"], "LIST_DIRECTORY_ERROR", "{}", finished.show());
    world.assert_keys(&["a.csv", "b.txt", "sub/c.csv", "sub/deep/d.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reads_no_byte_and_writes_none() {
    let world = World::new(tree()).await;
    let finished = world.finish(world.run("/out").env("DRY_RUN", "true").env("RECURSIVE", "true")).await;
    finished.assert_exit(0, "OK");
    assert_eq!(finished.run()["files-selected"], 4, "{}", finished.show());
    assert!(finished.show().contains("sub/deep/d.txt"), "{}", finished.show());
    assert_eq!(Stats::read(&world.sftp.stats().bytes), 0);
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_one_key_both_fail() {
    let mut tree = tree();
    // A name that is not UTF-8, and one that is what the first becomes.
    tree.file(b"/out/\xff", "bytes").file("/out/%FF", "text").file("/out/sub/a.csv", "another a");
    let world = World::new(tree.clone()).await;
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(3, "PARTIAL");
    assert_eq!(finished.statuses(), ["COMPLETED", "COMPLETED", "FAILED KEY_COLLISION", "FAILED KEY_COLLISION"]);
    world.assert_keys(&["a.csv", "b.txt"]).await;

    let world = World::new(tree).await;
    let run = world.run("/out").env("RECURSIVE", "true").env("KEY_TEMPLATE", "in/{name}").env("EXCLUDE", "*");
    let finished = world.finish(run).await;
    finished.assert_exit(0, "OK");
    world.assert_keys(&["in/a.csv", "in/c.csv", "in/d.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_valid_key_fails_alone() {
    let mut tree = tree();
    tree.file(format!("/out/{}", "long/".repeat(250)), "too long for a key");
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").env("RECURSIVE", "true")).await;
    finished.assert_exit(3, "PARTIAL");
    let failed: Vec<_> = finished.statuses().into_iter().filter(|status| status.starts_with("FAILED")).collect();
    assert_eq!(failed, ["FAILED KEY_INVALID"], "{}", finished.show());
    world.assert_keys(&["a.csv", "b.txt", "sub/c.csv", "sub/deep/d.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_their_template() {
    let mut tree = Tree::new();
    // 2024-02-29T12:00:00Z
    tree.put("/out/sub/report.tar.gz", Node::file("x").mtime(1_709_208_000));
    let cases = [
        ("{path}", "sub/report.tar.gz"),
        ("landing/{mtime:%Y/%m/%d}/{name}", "landing/2024/02/29/report.tar.gz"),
        ("{dir}/{stem}-copy.{ext}", "sub/report.tar-copy.gz"),
    ];
    for (template, key) in cases {
        let world = World::new(tree.clone()).await;
        let run = world.run("/out").env("RECURSIVE", "true").env("KEY_TEMPLATE", template);
        world.finish(run).await.assert_exit(0, "OK");
        world.assert_keys(&[key]).await;
    }
}
