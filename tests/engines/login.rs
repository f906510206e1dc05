//! Connecting: what logs in, what does not, and that a server that is not trusted is told nothing.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use connector::remote::{Endpoint, HostKeyPolicy, Kind, PrivateKey, TrustedHostKey};

use super::harness::poll;
use super::harness::sshd::{HostKeyType, Sshd, SshdOptions};
use super::{Make, connect, contract, endpoint, list, noise, open, pinned, refused, start};

contract! {
    a_password_logs_in
    every_kind_of_key_logs_in
    a_wrong_password_is_refused
    a_server_that_hangs_up_on_wrong_logins_has_refused_them
    an_unknown_key_falls_back_to_the_password
    an_unknown_key_alone_is_refused
    a_key_that_cannot_be_read_is_an_error_that_names_the_field
    a_server_that_asks_for_key_and_password_gets_both
    a_server_that_asks_for_password_and_key_gets_both
    keyboard_interactive_gets_the_password
    a_server_that_takes_nothing_that_is_given_says_what_it_takes
    a_host_key_that_is_not_pinned_ends_it_before_any_login
    with_nothing_pinned_the_error_shows_the_line_to_pin
    any_one_of_the_servers_keys_may_be_pinned
    a_fingerprint_may_be_pinned
    the_fingerprint_of_any_of_the_servers_keys_may_be_pinned
    with_the_check_off_any_key_will_do
    what_the_server_says_of_itself_is_told
    aes_gcm_is_chosen_where_there_is_a_choice
    ipv6_is_spoken
    a_server_of_old_algorithms_is_understood
    a_server_of_only_unknown_algorithms_is_unreachable
    a_refused_port_is_unreachable
    an_address_that_does_not_answer_is_unreachable_in_time
    a_name_that_does_not_resolve_is_unreachable
    a_server_that_says_nothing_is_given_up_in_time
    a_server_that_closes_at_once_is_lost
}

fn test_key(name: &str) -> PrivateKey {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name);
    PrivateKey {
        pem: std::fs::read_to_string(file).expect("a test key").into(),
        passphrase: name.ends_with(".encrypted").then(|| "correct horse".into()),
    }
}

fn with_key(sshd: &Sshd, key: PrivateKey) -> Endpoint {
    let mut endpoint = endpoint(sshd);
    endpoint.credentials.password = None;
    endpoint.credentials.private_key = Some(key);
    endpoint
}

async fn a_password_logs_in(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    assert_eq!(remote.server().login_method, "password");
    assert!(!remote.is_lost());
    assert!(remote.concurrency() >= 1);
}

async fn every_kind_of_key_logs_in(make: Make) {
    let sshd = start();
    for name in [
        "ed25519.openssh",
        "ed25519.openssh.encrypted",
        "ecdsa.openssh",
        "ecdsa.openssh.encrypted",
        "ecdsa.pkcs8",
        "ecdsa.pkcs8.encrypted",
        "ecdsa.pem",
        "ecdsa.pem.aes128.encrypted",
        "rsa.openssh",
        "rsa.openssh.encrypted",
        "rsa.pkcs8",
        "rsa.pkcs8.encrypted",
        "rsa.pem",
        "rsa.pem.aes256.encrypted",
    ] {
        let remote = open(make, with_key(&sshd, test_key(name))).await;
        let remote = remote.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(remote.server().login_method, "publickey", "{name}");
    }
    let own = PrivateKey { pem: sshd.client_key_pem().into(), passphrase: None };
    assert!(open(make, with_key(&sshd, own)).await.is_ok());
}

async fn a_wrong_password_is_refused(make: Make) {
    let sshd = start();
    let mut endpoint = endpoint(&sshd);
    endpoint.credentials.password = Some("not-the-password".into());
    let error = refused(make, endpoint).await;
    assert_eq!(error.kind, Kind::Auth, "{error}");
    assert!(error.to_string().contains("password") && !error.to_string().contains("not-the-password"), "{error}");
}

async fn a_server_that_hangs_up_on_wrong_logins_has_refused_them(make: Make) {
    // 4 allows for what is tried, 2 ends it after the last try, 1 after the first.
    for tries in ["4", "2", "1"] {
        let options = SshdOptions::default().set("MaxAuthTries", tries).set("PubkeyAuthentication", "no");
        let sshd = Sshd::start(options.set("UsePAM", "yes").set("KbdInteractiveAuthentication", "yes"));
        let mut wrong = endpoint(&sshd);
        wrong.credentials.password = Some("not-the-password".into());
        let error = refused(make, wrong).await;
        assert_eq!(error.kind, Kind::Auth, "MaxAuthTries {tries}: {error}");
        assert!(error.to_string().contains("password"), "MaxAuthTries {tries}: {error}");
    }
}

async fn an_unknown_key_falls_back_to_the_password(make: Make) {
    let sshd = start();
    let mut endpoint = endpoint(&sshd);
    endpoint.credentials.private_key = Some(test_key("ed25519.pkcs8"));
    let remote = open(make, endpoint).await.expect("the password is right");
    assert_eq!(remote.server().login_method, "password");
}

async fn an_unknown_key_alone_is_refused(make: Make) {
    let sshd = start();
    let error = refused(make, with_key(&sshd, test_key("ed25519.pkcs8"))).await;
    assert_eq!(error.kind, Kind::Auth, "{error}");
    assert!(error.to_string().contains("publickey"), "{error}");
}

async fn a_key_that_cannot_be_read_is_an_error_that_names_the_field(make: Make) {
    let sshd = start();
    let encrypted = PrivateKey { passphrase: None, ..test_key("rsa.openssh.encrypted") };
    let error = refused(make, with_key(&sshd, encrypted)).await;
    assert_eq!(error.kind, Kind::Auth, "{error}");
    assert!(error.to_string().contains("PrivateKeyPassphrase"), "{error}");
}

async fn a_server_that_asks_for_key_and_password_gets_both(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().set("AuthenticationMethods", "publickey,password"));
    let mut both = endpoint(&sshd);
    both.credentials.private_key = Some(test_key("rsa.openssh"));
    let remote = open(make, both.clone()).await.expect("key, then password");
    assert_eq!(remote.server().login_method, "password");

    both.credentials.password = Some("wrong".into());
    assert_eq!(refused(make, both).await.kind, Kind::Auth);
}

async fn a_server_that_asks_for_password_and_key_gets_both(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().set("AuthenticationMethods", "password,publickey"));
    let mut endpoint = endpoint(&sshd);
    endpoint.credentials.private_key = Some(test_key("ed25519.openssh"));
    let remote = open(make, endpoint).await.expect("password, then key");
    assert_eq!(remote.server().login_method, "publickey");
}

async fn keyboard_interactive_gets_the_password(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().keyboard_interactive());
    let remote = connect(make, &sshd).await;
    assert_eq!(remote.server().login_method, "keyboard-interactive");

    let mut wrong = endpoint(&sshd);
    wrong.credentials.password = Some("wrong".into());
    assert_eq!(refused(make, wrong).await.kind, Kind::Auth);
}

async fn a_server_that_takes_nothing_that_is_given_says_what_it_takes(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().set("PasswordAuthentication", "no"));
    let error = refused(make, endpoint(&sshd)).await;
    assert_eq!(error.kind, Kind::Auth, "{error}");
    assert!(error.to_string().contains("publickey"), "{error}");
}

async fn a_host_key_that_is_not_pinned_ends_it_before_any_login(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().host_keys(&[HostKeyType::Ed25519]));
    let mut endpoint = endpoint(&sshd);
    endpoint.credentials.private_key = Some(test_key("rsa.openssh"));
    endpoint.host_keys = pinned(include_str!("../keys/ed25519.openssh.pub"));
    let error = refused(make, endpoint).await;
    assert_eq!(error.kind, Kind::HostKey, "{error}");

    sshd.wait_for_log("Connection closed by");
    let log = sshd.log();
    assert!(log.contains("kex: algorithm:"), "it came to the key exchange:\n{log}");
    assert!(!log.contains("userauth-request"), "a login was tried:\n{log}");
    assert!(!log.contains(sshd.username()), "the user's name was sent:\n{log}");
}

async fn with_nothing_pinned_the_error_shows_the_line_to_pin(make: Make) {
    let sshd = start();
    let mut unpinned = endpoint(&sshd);
    unpinned.host_keys = HostKeyPolicy::Strict(vec![]);
    let error = refused(make, unpinned).await;
    assert_eq!(error.kind, Kind::HostKey, "{error}");

    let message = error.to_string();
    let (_, line) = message.split_once("TRUSTED_HOST_KEYS=\"").expect("the line to pin");
    let (line, _) = line.split_once('"').expect("its end");
    let mut endpoint = endpoint(&sshd);
    endpoint.host_keys = pinned(line);
    assert!(open(make, endpoint).await.is_ok(), "what the error said to pin is trusted: {line}");
}

async fn any_one_of_the_servers_keys_may_be_pinned(make: Make) {
    let sshd = start();
    for line in sshd.host_key_lines() {
        let mut endpoint = endpoint(&sshd);
        endpoint.host_keys = pinned(&line);
        let remote = open(make, endpoint).await.unwrap_or_else(|error| panic!("{line}: {error}"));
        let presented = remote.server().host_key.clone().expect("the server has a key");
        assert_eq!(line.parse(), Ok(TrustedHostKey::Key(presented)));
    }
}

async fn a_fingerprint_may_be_pinned(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().host_keys(&[HostKeyType::Ecdsa]));
    let key: TrustedHostKey = sshd.host_key_lines()[0].parse().expect("sshd's own key");
    let mut endpoint = endpoint(&sshd);
    endpoint.host_keys = pinned(&key.fingerprint());
    assert!(open(make, endpoint.clone()).await.is_ok());

    endpoint.host_keys = pinned("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(refused(make, endpoint).await.kind, Kind::HostKey);
}

async fn the_fingerprint_of_any_of_the_servers_keys_may_be_pinned(make: Make) {
    let sshd = start();
    let keys: Vec<TrustedHostKey> =
        sshd.host_key_lines().iter().map(|line| line.parse().expect("sshd's own key")).collect();
    assert_eq!(keys.len(), 3);
    for key in &keys {
        let mut endpoint = endpoint(&sshd);
        endpoint.host_keys = pinned(&key.fingerprint());
        let engine = make(endpoint).expect("there is no key to read");
        for _ in 0..2 {
            let remote = engine.connect().await.unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(remote.server().host_key.clone().map(TrustedHostKey::Key).as_ref(), Some(key));
        }
    }
    // The search is made once for an engine: the second connection asks for what the first one found.
    let connections = || sshd.log().matches("SSH2_MSG_KEXINIT received").count();
    let logins = sshd.log().matches("userauth-request").count();
    let before = connections();
    assert!(before <= (1 + 2 + 3) + 3, "{before} connections");

    let mut endpoint = endpoint(&sshd);
    endpoint.host_keys = pinned("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let error = refused(make, endpoint).await;
    assert_eq!(error.kind, Kind::HostKey, "{error}");
    assert!(keys.iter().all(|key| error.to_string().contains(&key.fingerprint())), "{error}");
    // Each key, and the first again: there is no other.
    poll("four connections", Duration::from_secs(10), || (connections() == before + 4).then_some(()));
    assert_eq!(sshd.log().matches("userauth-request").count(), logins, "a login was tried");
}

async fn with_the_check_off_any_key_will_do(make: Make) {
    let sshd = start();
    let mut endpoint = endpoint(&sshd);
    endpoint.host_keys = HostKeyPolicy::Off;
    assert!(open(make, endpoint).await.is_ok());
}

async fn what_the_server_says_of_itself_is_told(make: Make) {
    let banner = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/README.md");
    let options = SshdOptions::default()
        .host_keys(&[HostKeyType::Ed25519])
        .set("KexAlgorithms", "curve25519-sha256")
        .set("Ciphers", "aes256-ctr")
        .set("MACs", "hmac-sha2-512")
        .set("Banner", banner);
    let sshd = Sshd::start(options);
    let remote = connect(make, &sshd).await;
    let server = remote.server();
    assert!(server.identification.starts_with("SSH-2.0-OpenSSH"), "{}", server.identification);
    let banner = std::fs::read_to_string(banner).expect("what sshd shows");
    assert_eq!(server.banner.as_deref().map(str::trim), Some(banner.trim()));
    assert_eq!(server.host_key.as_ref().expect("a host key").algorithm, "ssh-ed25519");
    assert_eq!(server.sftp_version, 3);
    for (name, algorithm) in
        [("kex", "curve25519-sha256"), ("host-key", "ssh-ed25519"), ("cipher", "aes256-ctr"), ("mac", "hmac-sha2-512")]
    {
        let found = server.algorithms.iter().find(|(found, _)| *found == name).map(|(_, algorithm)| algorithm.as_str());
        assert_eq!(found, Some(algorithm), "{name}");
    }
}

async fn aes_gcm_is_chosen_where_there_is_a_choice(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    assert!(remote.server().algorithms.contains(&("cipher", "aes128-gcm@openssh.com".into())));
}

async fn ipv6_is_spoken(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().ipv6());
    let mut endpoint = endpoint(&sshd);
    endpoint.host = "::1".into();
    assert!(endpoint.url().contains("[::1]"));
    let remote = open(make, endpoint).await.expect("the server listens there");
    assert!(list(&*remote, ".").await.expect("the login directory").is_empty());
}

async fn a_server_of_old_algorithms_is_understood(make: Make) {
    let options = SshdOptions::default()
        .host_keys(&[HostKeyType::Rsa])
        .set("HostKeyAlgorithms", "ssh-rsa")
        .set("KexAlgorithms", "diffie-hellman-group14-sha1")
        .set("Ciphers", "aes256-cbc")
        .set("MACs", "hmac-sha1");
    let sshd = Sshd::start(options);
    let bytes = noise(300_000);
    std::fs::write(sshd.root().join("old"), &bytes).expect("a file");
    let remote = open(make, with_key(&sshd, test_key("rsa.pem"))).await.expect("what the server has is enough");
    let chunk = remote.read(&"old".into(), 0, 300_000).await.expect("the file is there");
    assert_eq!(chunk.data.concat(), bytes);
}

async fn a_server_of_only_unknown_algorithms_is_unreachable(make: Make) {
    let sshd = Sshd::start(SshdOptions::default().set("MACs", "umac-64@openssh.com").set("Ciphers", "aes128-ctr"));
    let error = refused(make, endpoint(&sshd)).await;
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
}

/// Where nobody is.
fn endpoint_at(host: &str, port: u16) -> Endpoint {
    Endpoint {
        host: host.into(),
        port,
        credentials: connector::remote::Credentials {
            username: "user".into(),
            password: Some("password".into()),
            private_key: None,
        },
        host_keys: HostKeyPolicy::Off,
        connect_timeout: Duration::from_millis(700),
        idle_timeout: Duration::from_secs(5),
    }
}

async fn a_refused_port_is_unreachable(make: Make) {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").port()
    };
    let error = refused(make, endpoint_at("127.0.0.1", port)).await;
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("127.0.0.1") && error.to_string().contains(&port.to_string()), "{error}");
}

async fn an_address_that_does_not_answer_is_unreachable_in_time(make: Make) {
    let started = Instant::now();
    // Set aside for documentation (RFC 5737): no route leads there.
    let error = refused(make, endpoint_at("192.0.2.1", 22)).await;
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

async fn a_name_that_does_not_resolve_is_unreachable(make: Make) {
    let error = refused(make, endpoint_at("sftp.invalid", 22)).await;
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("sftp.invalid"), "{error}");
}

async fn a_server_that_says_nothing_is_given_up_in_time(make: Make) {
    // Connections wait in the listener's queue, where nobody takes them.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let started = Instant::now();
    let error = refused(make, endpoint_at("127.0.0.1", listener.local_addr().expect("its address").port())).await;
    // There is a connection, and no server to speak of: either word will do.
    assert!(matches!(error.kind, Kind::Unreachable | Kind::Lost), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

async fn a_server_that_closes_at_once_is_lost(make: Make) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let closing = std::thread::spawn(move || drop(listener.accept()));
    let error = refused(make, endpoint_at("127.0.0.1", port)).await;
    assert_eq!(error.kind, Kind::Lost, "{error}");
    closing.join().expect("it accepted one connection");
}
