//! Connections that end, hang or are given up.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector::remote::{Kind, Remote};
use futures::future::join_all;

use super::harness::poll;
use super::harness::sshd::{Sshd, SshdOptions};
use super::{Make, connect, contract, endpoint, list, open, start};

contract! {
    a_connection_that_is_cut_is_lost_to_all_who_wait
    a_connection_that_is_cut_while_idle_is_lost_at_the_next_call
    a_server_that_stalls_is_lost_after_the_idle_timeout
    letting_go_of_a_stalled_connection_takes_no_time
    a_connection_that_is_let_go_of_ends_at_the_server
    an_idle_connection_outlives_the_idle_timeout
    connections_do_not_disturb_each_other
}

fn big_file(sshd: &Sshd) {
    // A hole: it takes no room and no time to make.
    fs::File::create(sshd.root().join("big")).expect("a file").set_len(1 << 30).expect("its size");
}

async fn a_connection_that_is_cut_is_lost_to_all_who_wait(make: Make) {
    let sshd = start();
    big_file(&sshd);
    let remote: Arc<dyn Remote> = Arc::from(connect(make, &sshd).await);
    let reads: Vec<_> = (0..20)
        .map(|part| {
            let remote = Arc::clone(&remote);
            tokio::spawn(async move { remote.read(&"big".into(), part << 25, 1 << 25).await.map(|chunk| chunk.len()) })
        })
        .collect();
    sshd.wait_for_log("Starting session");
    assert!(sshd.cut_connections() > 0);

    let mut lost = 0;
    for read in join_all(reads).await {
        match read.expect("no panic") {
            Ok(len) => assert_eq!(len, 1 << 25),
            Err(error) => {
                assert_eq!(error.kind, Kind::Lost, "{error}");
                lost += 1;
            }
        }
    }
    assert!(lost > 0);
    assert!(remote.is_lost());
    assert_eq!(remote.stat(&"big".into()).await.expect_err("it is gone").kind, Kind::Lost);
    assert!(connect(make, &sshd).await.stat(&"big".into()).await.is_ok(), "another connection can be had");
}

async fn a_connection_that_is_cut_while_idle_is_lost_at_the_next_call(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    assert!(sshd.cut_connections() > 0);
    assert_eq!(remote.stat(&".".into()).await.expect_err("it is gone").kind, Kind::Lost);
    assert!(remote.is_lost());
    assert_eq!(list(&*remote, ".").await.expect_err("it is gone").kind, Kind::Lost);
}

async fn a_server_that_stalls_is_lost_after_the_idle_timeout(make: Make) {
    let sshd = start();
    big_file(&sshd);
    let mut endpoint = endpoint(&sshd);
    endpoint.idle_timeout = Duration::from_secs(1);
    let remote = open(make, endpoint).await.expect("the right credentials log in");
    assert!(sshd.stall_connections() > 0);

    let started = Instant::now();
    let error = remote.read(&"big".into(), 0, 1 << 20).await.expect_err("no byte comes");
    assert_eq!(error.kind, Kind::Lost, "{error}");
    assert!(remote.is_lost());
    let took = started.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "took {took:?}");
}

async fn letting_go_of_a_stalled_connection_takes_no_time(make: Make) {
    let sshd = start();
    big_file(&sshd);
    let remote = connect(make, &sshd).await;
    assert!(sshd.stall_connections() > 0);
    let path = "big".into();
    let mut read = remote.read(&path, 0, 1 << 20);
    assert!(futures::poll!(&mut read).is_pending());
    drop(read);
    let started = Instant::now();
    drop(remote);
    assert!(started.elapsed() < Duration::from_millis(200), "took {:?}", started.elapsed());
}

async fn a_connection_that_is_let_go_of_ends_at_the_server(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    assert_eq!(remote.stat(&"missing".into()).await.expect_err("no such file").kind, Kind::NotFound);
    drop(remote);
    poll("the session's end", Duration::from_secs(5), || {
        let log = sshd.log();
        (log.contains("Received disconnect")
            || log.contains("Connection closed by")
            || log.contains("Disconnected from"))
        .then_some(())
    });
}

async fn an_idle_connection_outlives_the_idle_timeout(make: Make) {
    let sshd = Sshd::start(SshdOptions::default());
    let mut endpoint = endpoint(&sshd);
    endpoint.idle_timeout = Duration::from_millis(300);
    let remote = open(make, endpoint).await.expect("the right credentials log in");
    // The time that passes is what is tested: with nothing asked for, the server owes no byte.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!remote.is_lost());
    assert!(remote.stat(&".".into()).await.is_ok());
}

async fn connections_do_not_disturb_each_other(make: Make) {
    let sshd = start();
    big_file(&sshd);
    let engine = make(endpoint(&sshd)).expect("there is no key to read");
    let remotes = join_all((0..8).map(|_| engine.connect())).await;
    let remotes: Vec<_> = remotes.into_iter().map(|remote| remote.expect("the right credentials log in")).collect();
    let path = "big".into();
    let reads = join_all(remotes.iter().map(|remote| remote.read(&path, 0, 1 << 22))).await;
    assert!(reads.into_iter().all(|read| read.expect("it is there").len() == 1 << 22));
}
