//! Bytes: that any range of any file is what the file holds, with the attributes it has then.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use connector::remote::russh::RusshEngine;
use connector::remote::{Engine, Kind, Remote, RemotePath};
use futures::future::join_all;
use rand::Rng;

use super::harness::sshd::{Sshd, SshdOptions};
use super::{Make, connect, contract, endpoint, noise, start};

contract! {
    any_range_is_what_the_file_holds
    past_the_end_there_is_nothing
    an_empty_file_is_read
    a_read_of_no_bytes_tells_the_attributes
    no_piece_is_empty_and_none_is_too_much
    a_file_that_grows_is_read_to_its_new_end
    a_file_that_shrinks_is_read_to_its_new_end
    a_file_that_is_replaced_is_read_anew
    a_file_that_goes_is_not_found
    parts_side_by_side_make_up_the_file
    three_hundred_files_are_read_side_by_side
    keys_are_exchanged_again_within_a_read
    a_read_that_is_given_up_leaves_the_connection_usable
}

const LEN: usize = 3 * 1024 * 1024 + 77;

async fn check(remote: &dyn Remote, model: &[u8], offset: u64, len: u64) {
    let chunk =
        remote.read(&"file".into(), offset, len).await.unwrap_or_else(|error| panic!("{offset}+{len}: {error}"));
    let from = model.len().min(offset as usize);
    let to = model.len().min(offset.saturating_add(len) as usize);
    // Not assert_eq, which would print megabytes.
    assert!(chunk.data.concat() == model[from..to], "{offset}+{len}: {} bytes, or not these", chunk.len());
    assert_eq!(chunk.attributes.size, Some(model.len() as u64), "{offset}+{len}");
}

async fn any_range_is_what_the_file_holds(make: Make) {
    let sshd = start();
    let model = noise(LEN);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    let end = LEN as u64;

    // Around the sizes that packets, requests and buffers have, and around both ends.
    for edge in [0, 1, 30_000, 32_768, 65_536, 255 * 1024, 256 * 1024, 261_120, 512 * 1024, 1024 * 1024, end] {
        for len in [edge.saturating_sub(1), edge, edge + 1] {
            check(&*remote, &model, 0, len).await;
            check(&*remote, &model, 13, len).await;
            check(&*remote, &model, end.saturating_sub(len), len).await;
        }
    }
    // One after another, as parts come.
    for offset in (0..end).step_by(1_000_000) {
        check(&*remote, &model, offset, 1_000_000).await;
    }
    for _ in 0..60 {
        let (offset, len) = {
            let mut random = rand::rng();
            let most = [100, 70_000, 2 * end][random.random_range(0..3)];
            (random.random_range(0..end + 10), random.random_range(0..most))
        };
        check(&*remote, &model, offset, len).await;
    }
}

async fn past_the_end_there_is_nothing(make: Make) {
    let sshd = start();
    let model = noise(1000);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    for (offset, len) in [(1000, 1), (1001, 1), (999, 2), (5_000_000_000, 100_000), (0, u64::from(u32::MAX))] {
        check(&*remote, &model, offset, len).await;
    }
}

async fn an_empty_file_is_read(make: Make) {
    let sshd = start();
    fs::write(sshd.root().join("file"), b"").expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &[], 0, 0).await;
    check(&*remote, &[], 0, 100_000).await;
}

async fn a_read_of_no_bytes_tells_the_attributes(make: Make) {
    let sshd = start();
    let model = noise(10);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &model, 0, 0).await;
    check(&*remote, &model, 5, 0).await;
}

async fn no_piece_is_empty_and_none_is_too_much(make: Make) {
    let sshd = start();
    fs::write(sshd.root().join("file"), noise(LEN)).expect("a file");
    let remote = connect(make, &sshd).await;
    let chunk = remote.read(&"file".into(), 1, LEN as u64 - 2).await.expect("it is there");
    assert_eq!(chunk.len(), LEN as u64 - 2);
    assert!(chunk.data.iter().all(|piece| !piece.is_empty()));
}

async fn a_file_that_grows_is_read_to_its_new_end(make: Make) {
    let sshd = start();
    let mut model = noise(500_000);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &model, 0, 400_000).await;

    let more = noise(300_000);
    let mut file = fs::File::options().append(true).open(sshd.root().join("file")).expect("the file");
    file.write_all(&more).expect("more of it");
    model.extend_from_slice(&more);
    // Right where the last read ended, and once more from a place that it had reached.
    check(&*remote, &model, 400_000, 1_000_000).await;
    check(&*remote, &model, 500_000, 1_000_000).await;
}

async fn a_file_that_shrinks_is_read_to_its_new_end(make: Make) {
    let sshd = start();
    let mut model = noise(900_000);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &model, 0, 300_000).await;

    fs::File::options().write(true).open(sshd.root().join("file")).expect("the file").set_len(350_000).expect("less");
    model.truncate(350_000);
    check(&*remote, &model, 300_000, 300_000).await;
    check(&*remote, &model, 600_000, 300_000).await;
}

async fn a_file_that_is_replaced_is_read_anew(make: Make) {
    let sshd = start();
    let old = noise(200_000);
    fs::write(sshd.root().join("file"), &old).expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &old, 0, 100_000).await;

    let new: Vec<u8> = old.iter().rev().copied().take(150_000).collect();
    fs::write(sshd.root().join("new"), &new).expect("another");
    fs::rename(sshd.root().join("new"), sshd.root().join("file")).expect("its name");
    check(&*remote, &new, 0, 150_000).await;
}

async fn a_file_that_goes_is_not_found(make: Make) {
    let sshd = start();
    fs::write(sshd.root().join("file"), b"x").expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, b"x", 0, 1).await;
    fs::remove_file(sshd.root().join("file")).expect("it was there");
    assert_eq!(remote.read(&"file".into(), 0, 1).await.expect_err("it is gone").kind, Kind::NotFound);
}

async fn parts_side_by_side_make_up_the_file(make: Make) {
    let sshd = start();
    let model = noise(8 * 1024 * 1024 + 5);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    let path = "file".into();
    let parts = join_all((0..9).map(|part| remote.read(&path, part * 1024 * 1024, 1024 * 1024))).await;
    let read: Vec<u8> = parts.into_iter().flat_map(|part| part.expect("it is there").data.concat()).collect();
    assert!(read == model);
}

async fn three_hundred_files_are_read_side_by_side(make: Make) {
    let sshd = start();
    for at in 0..300 {
        fs::write(sshd.root().join(format!("{at}")), noise(10_000 + at)).expect("a file");
    }
    let remote: Arc<dyn Remote> = Arc::from(connect(make, &sshd).await);
    let reads = (0..300).map(|at| {
        let remote = Arc::clone(&remote);
        tokio::spawn(async move { remote.read(&format!("{at}").as_str().into(), 0, 20_000).await })
    });
    for (at, read) in join_all(reads).await.into_iter().enumerate() {
        let chunk = read.expect("no panic").unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(chunk.data.concat() == noise(10_000 + at), "{at}");
    }
}

async fn keys_are_exchanged_again_within_a_read(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().set("RekeyLimit", "1M"));
    let model = noise(32 * 1024 * 1024);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let remote = connect(make, &sshd).await;
    check(&*remote, &model, 0, model.len() as u64).await;
    let exchanges = sshd.log().matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges > 10, "only {exchanges} key exchanges");
}

async fn a_read_that_is_given_up_leaves_the_connection_usable(make: Make) {
    let sshd = start();
    let model = noise(LEN);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    fs::File::create(sshd.root().join("big")).expect("a file").set_len(1 << 30).expect("its size");
    let remote = connect(make, &sshd).await;
    let big = "big".into();
    for _ in 0..3 {
        let mut read = remote.read(&big, 0, 1 << 30);
        // Polled once, so that it is under way.
        assert!(futures::poll!(&mut read).is_pending());
        drop(read);
    }
    check(&*remote, &model, 7, LEN as u64).await;
}

/// Only `russh` can be told when; libssh2 leaves it to the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_asks_for_new_keys_within_reads_side_by_side() {
    let sshd = start();
    let model = noise(32 * 1024 * 1024);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let engine = RusshEngine::new(endpoint(&sshd)).expect("a password is not read").rekey_after(1024 * 1024);
    let remote = engine.connect().await.expect("the right credentials log in");
    let path = "file".into();
    let quarter = model.len() as u64 / 4;
    let parts = join_all((0..4).map(|part| remote.read(&path, part * quarter, quarter))).await;
    let read: Vec<u8> = parts.into_iter().flat_map(|part| part.expect("it is there").data.concat()).collect();
    assert!(read == model);
    let exchanges = sshd.log().matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges > 10, "only {exchanges} key exchanges");
}

/// OpenSSH numbers its handles from 0, in four bytes: from the 129th that is open on they are not UTF-8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_reads_by_handles_that_are_no_text() {
    let sshd = start();
    let model = noise(LEN);
    fs::write(sshd.root().join("file"), &model).expect("a file");
    let engine = RusshEngine::new(endpoint(&sshd)).expect("a password is not read");
    let remote = engine.connect().await.expect("the right credentials log in");
    assert!(remote.concurrency() > 200, "{}", remote.concurrency());
    let paths: Vec<RemotePath> = (0..200).map(|number| format!("file-{number}").as_str().into()).collect();
    for path in &paths {
        fs::hard_link(sshd.root().join("file"), sshd.root().join(path.to_text())).expect("another name");
    }
    // Polled once, each has sent its open, and goes no further: these handles stay open.
    let mut open: Vec<_> = paths.iter().map(|path| remote.read(path, 0, LEN as u64)).collect();
    for read in &mut open {
        assert!(futures::poll!(read).is_pending());
    }
    check(&*remote, &model, 0, LEN as u64).await;
    for read in join_all(open).await {
        assert!(read.expect("it is there").data.concat() == model);
    }
}
