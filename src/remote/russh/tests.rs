//! The client against a server made of memory.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use futures::future::join_all;
use proptest::prelude::*;

use super::*;
use crate::remote::FileKind;
use server::{EXTENDED, FSTAT, OPEN, READ, READDIR, REALPATH, Server, framed, reply, status, string};

mod server;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn path() -> RemotePath {
    RemotePath::from("/f")
}

/// So many files, each with its path.
fn files(count: usize, content: &[u8]) -> (Vec<RemotePath>, Server) {
    let names: Vec<&'static [u8]> = (0..count).map(|at| &*format!("/{at}").into_bytes().leak()).collect();
    let paths = names.iter().map(|name| RemotePath::new(*name)).collect();
    (paths, Server { files: names.into_iter().map(|name| (name, content.to_vec())).collect(), ..Server::default() })
}

/// Yields to the server and the session's tasks until something is so; all of them are in this thread.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never so: {what}");
}

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_range_is_what_the_file_has_of_it(
        size in 0usize..300_000,
        offset in 0u64..320_000,
        len in 0u64..320_000,
        max_data in prop_oneof![Just(None), (1usize..70_000).prop_map(Some).prop_filter("not too slow", |max| max.unwrap() > 100)],
        limits in prop_oneof![Just(None), Just(Some((0, 0))), Just(Some((5000, 2))), Just(Some((261_120, 1000)))],
        empty_at_end: bool,
        is_openssh: bool,
    ) {
        on_one_thread(async {
            let file = content(size);
            let expected = file.get(offset as usize..).unwrap_or_default();
            let expected = expected[..expected.len().min(len as usize)].to_vec();
            let server = Server { max_data, limits, empty_at_end, is_openssh, ..Server::with_file(b"/f", file) };
            let (connection, seen) = server.serve().await.unwrap();
            let chunk = connection.read(&path(), offset, len).await.unwrap();
            assert_eq!(chunk.len(), expected.len() as u64);
            assert!(chunk.data.concat() == expected);
            assert!(chunk.data.iter().all(|piece| !piece.is_empty()));
            assert_eq!(chunk.attributes, Attributes { size: Some(size as u64), mtime: None, kind: FileKind::File });
            // Kept where there is more to read.
            let kept = usize::from(offset.saturating_add(len) < size as u64);
            until("closed", || seen.open.load(Relaxed) == kept).await;
            // The attributes that count are those of after the last byte; a server that works in order is asked for them
            // before that byte has come, and again where it answers short.
            let kinds = seen.kinds.lock().unwrap();
            assert!(kinds.iter().rposition(|kind| *kind == READ) < kinds.iter().rposition(|kind| *kind == FSTAT));
            let asked = kinds.iter().filter(|kind| **kind == FSTAT).count();
            assert!(asked == 1 || is_openssh, "{asked} times");
        });
    }
}

#[tokio::test]
async fn replies_of_a_few_bytes_each_do_not_cost_many_times_what_they_hold() {
    for max_data in [1, 3, 100] {
        let file = content(200_000);
        let server = Server { max_data: Some(max_data), ..Server::with_file(b"/f", file.clone()) };
        let (connection, _) = server.serve().await.unwrap();
        let chunk = connection.read(&path(), 0, 200_000).await.unwrap();
        assert!(chunk.data.concat() == file);
        assert!(chunk.data.len() < 20, "{} pieces of {max_data}", chunk.data.len());
    }
}

#[tokio::test]
async fn a_server_that_allows_one_handle_serves_many_reads() {
    for max_open in [1, 3, 20] {
        let (paths, server) = files(200, &content(1000));
        let (connection, seen) = Server { max_open: Some(max_open), ..server }.serve().await.unwrap();
        let reads = paths.iter().map(|path| connection.read(path, 0, 1000));
        for chunk in join_all(reads).await {
            assert_eq!(chunk.unwrap().data.concat(), content(1000));
        }
        assert_eq!(connection.concurrency(), max_open);
        assert_eq!(seen.most_open.load(Relaxed), max_open);
        assert!(seen.refused.load(Relaxed) < 200 / 64 + 64, "refused {:?} times", seen.refused);
    }
}

#[tokio::test]
async fn a_stated_number_of_handles_is_kept_to_and_a_refusal_is_the_files_own() {
    let (paths, server) = files(50, &content(10));
    let (connection, seen) = Server { limits: Some((0, 5)), ..server }.serve().await.unwrap();
    assert_eq!(connection.concurrency(), 5);
    assert!(join_all(paths.iter().map(|path| connection.read(path, 0, 10))).await.iter().all(Result::is_ok));
    assert_eq!(seen.most_open.load(Relaxed), 5);

    let server = Server { limits: Some((0, 5)), max_open: Some(0), ..Server::with_file(b"/f", content(10)) };
    let (connection, seen) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap_err().kind, Kind::Failed);
    assert_eq!((connection.concurrency(), seen.refused.load(Relaxed)), (5, 1));
}

#[tokio::test]
async fn limits_that_cannot_be_read_are_as_good_as_none() {
    let answers = Some((EXTENDED, reply(201, 0, &[0; 31])));
    let server = Server { answers, limits: Some((0, 5)), ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.concurrency(), 64);
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap().data.concat(), content(10));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_costs_no_handles() {
    let server = Server { answers: None, max_open: Some(0), ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap_err().kind, Kind::Failed);
    assert_eq!(connection.concurrency(), 64);
    assert!(!connection.is_lost());
}

#[tokio::test]
async fn a_missing_file_is_told_by_name() {
    let (connection, _) = Server::default().serve().await.unwrap();
    let error = connection.read(&RemotePath::new(b"/caf\xe9".to_vec()), 0, 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(error.to_string(), "cannot open /caf%E9: so it is (SSH_FX_NO_SUCH_FILE)");
}

#[tokio::test]
async fn a_read_that_is_dropped_at_any_point_leaves_nothing_open_and_the_connection_good() {
    let server = Server { max_data: Some(1000), ..Server::with_file(b"/f", content(50_000)) };
    let (connection, seen) = server.serve().await.unwrap();
    let path = path();
    for polls in 0..60 {
        let mut read = Box::pin(connection.read(&path, 0, 50_000));
        for _ in 0..polls {
            if futures::poll!(&mut read).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(read);
        until("all closed", || seen.open.load(Relaxed) == 0).await;
        let chunk = connection.read(&path, 49_990, 10).await.unwrap();
        assert_eq!(chunk.data.concat(), content(50_000)[49_990..]);
    }
    assert_eq!(connection.concurrency(), 64);
}

#[tokio::test]
async fn ranges_of_a_file_share_a_handle_side_by_side_and_one_after_the_other() {
    let (connection, seen) = Server::with_file(b"/f", content(10_000)).serve().await.unwrap();
    let path = path();
    let opened = || seen.kinds.lock().unwrap().iter().filter(|kind| **kind == OPEN).count();
    let reads = join_all((0..9).map(|range| connection.read(&path, range * 1000, 1000))).await;
    for (range, chunk) in reads.into_iter().enumerate() {
        assert_eq!(chunk.unwrap().data.concat(), content(10_000)[range * 1000..][..1000]);
    }
    assert_eq!((opened(), seen.open.load(Relaxed)), (1, 1), "one handle, and it is kept for the rest");
    connection.read(&path, 9000, 1000).await.unwrap();
    until("closed at the end", || seen.open.load(Relaxed) == 0).await;
    assert_eq!(opened(), 1);
    connection.read(&path, 0, 1).await.unwrap();
    assert_eq!(opened(), 2, "opened anew");
}

#[tokio::test]
async fn a_handle_that_is_kept_stands_in_nobodys_way() {
    let mut server = Server { max_open: Some(1), ..Server::with_file(b"/f", content(1000)) };
    server.files.insert(b"/g", content(1000));
    server.names = vec![vec![b"f", b"g"]];
    let (connection, seen) = server.serve().await.unwrap();
    let (f, g, d) = (path(), RemotePath::from("/g"), RemotePath::from("/d"));
    for _ in 0..3 {
        connection.read(&f, 0, 10).await.unwrap();
        assert_eq!(seen.open.load(Relaxed), 1);
        connection.read(&g, 0, 10).await.unwrap();
        connection.list(&d, &mut |_| Ok(())).await.unwrap();
    }
    // Nor where both are read side by side, and each has more to come.
    let reads = (0..100).map(|at| connection.read(if at % 2 == 0 { &f } else { &g }, at, 10));
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(seen.most_open.load(Relaxed), 1);
}

#[tokio::test]
async fn a_handle_that_failed_is_not_used_again() {
    // A handle that the server has forgotten: what is read of it fails.
    let server = Server { forgets_after: Some(1), ..Server::with_file(b"/f", content(1000)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap().data.concat(), content(10));
    assert_eq!(connection.read(&path(), 10, 10).await.unwrap_err().kind, Kind::Failed);
    assert_eq!(connection.read(&path(), 10, 10).await.unwrap().data.concat(), content(20)[10..]);
}

#[tokio::test]
async fn no_data_in_the_middle_of_a_file_is_not_its_end() {
    let server = Server { answers: Some((READ, reply(103, 2, &string(b"")))), ..Server::with_file(b"/f", content(10)) };
    let (connection, seen) = server.serve().await.unwrap();
    let error = connection.read(&path(), 0, 10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert_eq!(error.to_string(), "cannot read /f at byte 0 of 10: the server answered with no data");
    until("closed", || seen.open.load(Relaxed) == 0).await;
    assert!(!connection.is_lost());
}

#[tokio::test]
async fn attributes_are_asked_for_by_path_where_the_server_knows_no_other_way() {
    let server = Server { no_fstat: true, ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve().await.unwrap();
    assert_eq!(connection.read(&path(), 0, 10).await.unwrap().attributes.size, Some(10));
}

#[tokio::test]
async fn a_directory_is_listed_name_by_name_without_what_is_no_name() {
    let names: Vec<Vec<&[u8]>> = vec![vec![b".", b"..", b"a"], vec![b"", b"x/y", b"z\0", b"caf\xe9"], vec![b"b"]];
    let (connection, seen) = Server { names, ..Server::default() }.serve().await.unwrap();
    let mut listed = Vec::new();
    connection
        .list(&RemotePath::from("/d"), &mut |entry| {
            listed.push(entry.name);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(listed, [&b"a"[..], b"caf\xe9", b"b"]);
    until("closed", || seen.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_directory_without_end_ends() {
    let (connection, _) = Server { names: vec![vec![b"a"], vec![]], ..Server::default() }.serve().await.unwrap();
    let mut listed = 0;
    connection
        .list(&RemotePath::from("/d"), &mut |_| {
            listed += 1;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(listed, 1);
}

#[tokio::test]
async fn a_file_is_not_a_missing_directory() {
    let (connection, _) = Server::with_file(b"/f", vec![]).serve().await.unwrap();
    let error = connection.list(&path(), &mut |_| Ok(())).await.unwrap_err();
    assert_eq!((error.kind, error.to_string().as_str()), (Kind::Failed, "cannot list /f: it is not a directory"));
    let error = connection.list(&RemotePath::from("/x"), &mut |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
}

#[tokio::test]
async fn the_login_directory_is_resolved() {
    let (connection, _) = Server::default().serve().await.unwrap();
    assert_eq!(connection.canonicalize(&RemotePath::from(".")).await.unwrap(), RemotePath::from("/home"));
}

#[tokio::test]
async fn what_no_server_should_send_ends_the_connection_and_nothing_else() {
    let too_much = reply(103, 2, &string(&content(70_000)));
    for (kind, answer) in [
        (READ, b"This account is currently not available.".to_vec()),
        (READ, status(99, 4)),
        (READ, too_much),
        (READ, reply(102, 2, &string(b"h"))),
        (READ, framed(2, &[0, 0, 0, 3])),
        (FSTAT, reply(103, 3, &string(b""))),
        (OPEN, reply(103, 1, &string(b""))),
        (OPEN, reply(101, 1, &[0; 4])),
        (REALPATH, reply(104, 1, &[0; 4])),
        (READDIR, reply(104, 2, &[0, 0, 0, 9])),
    ] {
        let server = Server { answers: Some((kind, answer)), ..Server::with_file(b"/f", content(10)) };
        let (connection, _) = server.serve().await.unwrap();
        let (path, dir) = (path(), RemotePath::from("/d"));
        let error = match kind {
            REALPATH => connection.canonicalize(&path).await.unwrap_err(),
            READDIR => connection.list(&dir, &mut |_| Ok(())).await.unwrap_err(),
            _ => connection.read(&path, 0, 10).await.unwrap_err(),
        };
        assert_eq!(error.kind, Kind::Lost, "{kind}: {error}");
        assert!(connection.is_lost());
        assert_eq!(connection.stat(&path).await.unwrap_err().kind, Kind::Lost);
        assert_eq!(connection.read(&path, 0, 10).await.unwrap_err().kind, Kind::Lost);
    }
}

#[tokio::test]
async fn what_is_no_sftp_server_is_told_before_anything_is_asked() {
    for answer in [b"Welcome!".to_vec(), framed(2, &[0, 0, 0, 2]), status(0, 0)] {
        let server = Server { answers: Some((1, answer)), ..Server::default() };
        assert_eq!(server.serve().await.err().map(|error| error.kind), Some(Kind::Lost));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection_while_a_request_is_outstanding_and_every_call_with_it() {
    let idle = Duration::from_secs(60);
    let server = Server { ignores: Some(READ), ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve_with(idle).await.unwrap();
    let path = path();
    let reads = join_all((0..100).map(|_| connection.read(&path, 0, 10))).await;
    let kinds: BTreeSet<String> = reads.into_iter().map(|read| format!("{:?}", read.unwrap_err().kind)).collect();
    assert_eq!(kinds, BTreeSet::from(["Lost".to_owned()]));
    assert!(connection.is_lost());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_arrive_as_the_time_ends_are_no_silence() {
    let idle = Duration::from_secs(60);
    let server = Server { delay: idle, ..Server::with_file(b"/f", content(10)) };
    let (connection, _) = server.serve_with(idle).await.unwrap();
    for _ in 0..20 {
        connection.stat(&path()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_fine_while_nothing_is_asked() {
    let (connection, _) = Server::with_file(b"/f", content(10)).serve_with(Duration::from_secs(60)).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(1000), connection.session.lost()).await;
    assert!(lost.is_err(), "lost while idle");
    assert!(connection.stat(&path()).await.is_ok());
}

#[tokio::test]
async fn dropping_a_connection_ends_its_session() {
    let (connection, _) = Server::default().serve().await.unwrap();
    let session = connection.session.clone();
    drop(connection);
    session.lost().await;
    assert!(session.lost_error().to_string().contains("it was closed"));
}
