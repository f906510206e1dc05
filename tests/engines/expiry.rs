//! A password that has expired: some servers then ask for a new one (RFC 4252 §8), which `russh` leaves unanswered and
//! untold, so that nothing but silence is seen.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use connector::remote::{Credentials, Endpoint, HostKeyPolicy, Kind};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, Config, Handler, run_stream};
use tokio::net::TcpListener;

use super::refused;

struct SilentAtPassword;

impl Handler for SilentAtPassword {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, Self::Error> {
        pending().await
    }
}

/// libssh2 answers such a demand with a refusal of its own; silence is no more than silence to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_takes_silence_after_the_password_for_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let config = Arc::new(Config { keys: vec![key], auth_rejection_time: Duration::ZERO, ..Config::default() });
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        run_stream(config, socket, SilentAtPassword).await.expect("an SSH client").await
    });

    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port,
        credentials: Credentials { username: "user".into(), password: Some("password".into()), private_key: None },
        host_keys: HostKeyPolicy::Off,
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(2),
    };
    let error = refused(super::russh, endpoint).await;
    assert_eq!(error.kind, Kind::Auth, "{error}");
    assert!(!error.may_pass() && error.to_string().contains("expired"), "{error}");
    serving.abort();
}
