//! What both engines promise (`remote::Engine`, `remote::Remote`), held against a real `sshd`: one suite, run for each.
//!
//! A check is a function that is given an engine's constructor. [`contract`] makes two tests of it.

#[path = "../harness/mod.rs"]
mod harness;

mod expiry;
mod faults;
mod listing;
mod login;
mod reading;

use std::time::Duration;

use connector::remote::libssh2::Libssh2Engine;
use connector::remote::russh::RusshEngine;
use connector::remote::{
    Credentials, DirEntry, Endpoint, Engine, Error, HostKeyPolicy, Remote, RemotePath, TrustedHostKey,
};
use harness::sshd::{Sshd, SshdOptions};

/// Makes an engine for an endpoint.
type Make = fn(Endpoint) -> Result<Box<dyn Engine>, Error>;

fn russh(endpoint: Endpoint) -> Result<Box<dyn Engine>, Error> {
    Ok(Box::new(RusshEngine::new(endpoint)?))
}

fn libssh2(endpoint: Endpoint) -> Result<Box<dyn Engine>, Error> {
    Ok(Box::new(Libssh2Engine::new(endpoint)?))
}

/// Makes a test of each check, for each engine: `login::libssh2::a_password_logs_in`.
macro_rules! contract {
    ($($check:ident)*) => {
        contract! { @engine russh $($check)* }
        contract! { @engine libssh2 $($check)* }
    };
    (@engine $engine:ident $($check:ident)*) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    super::$check(crate::$engine).await;
                }
            )*
        }
    };
}
use contract;

fn start() -> Sshd {
    Sshd::start(SshdOptions::default())
}

/// Everything right: password, and all of the server's host keys.
fn endpoint(sshd: &Sshd) -> Endpoint {
    let trusted = sshd.host_key_lines().iter().map(|line| line.parse().expect("sshd's own key")).collect();
    Endpoint {
        host: "127.0.0.1".into(),
        port: sshd.port(),
        credentials: Credentials {
            username: sshd.username().into(),
            password: Some(sshd.password().into()),
            private_key: None,
        },
        host_keys: HostKeyPolicy::Strict(trusted),
        connect_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
    }
}

async fn open(make: Make, endpoint: Endpoint) -> Result<Box<dyn Remote>, Error> {
    make(endpoint)?.connect().await
}

async fn connect(make: Make, sshd: &Sshd) -> Box<dyn Remote> {
    open(make, endpoint(sshd)).await.expect("the right credentials log in")
}

/// The error of a connection that must fail.
async fn refused(make: Make, endpoint: Endpoint) -> Error {
    match open(make, endpoint).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

fn pinned(line: &str) -> HostKeyPolicy {
    HostKeyPolicy::Strict(vec![line.parse::<TrustedHostKey>().expect("a key to pin")])
}

async fn list(remote: &dyn Remote, dir: &str) -> Result<Vec<DirEntry>, Error> {
    let mut entries = Vec::new();
    remote
        .list(&RemotePath::from(dir), &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .await?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Bytes that no two places of a file share.
fn noise(len: usize) -> Vec<u8> {
    harness::noise(len, 0x9e37_79b9_7f4a_7c15)
}
