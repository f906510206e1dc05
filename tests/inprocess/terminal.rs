//! What a person sees: on a terminal, text and a progress bar.

use std::process::{Command, Stdio};

use crate::inprocess::sftp::{Content, Tree};
use crate::world::{PASSWORD, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_text_and_a_bar_and_a_pipe_neither() {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(1, 60 << 20));
    let world = World::new(tree).await;
    let run = world.run("/out").env("LOG_LEVEL", "info").env("TERM", "xterm");
    // `script` (util-linux) gives the program a terminal for its stderr; records go elsewhere.
    let mut on_terminal = Command::new("script");
    on_terminal
        .args(["-qec", concat!(env!("CARGO_BIN_EXE_sftp-s3-connector"), " >/dev/null"), "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(run.environment())
        .stdin(Stdio::null());
    let shown = tokio::task::spawn_blocking(move || on_terminal.output()).await.expect("waited").expect("script runs");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stdout));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("INFO") && !shown.contains("{\"timestamp\""), "text: {shown:?}");
    assert!(shown.contains("/1 files") && shown.contains("60.00 MiB"), "a bar: {shown:?}");
    assert!(!shown.contains(PASSWORD));

    let piped = run.finish().await;
    assert!(!piped.stderr.contains("/1 files") && piped.stderr.starts_with('{'), "{}", piped.show());
}
