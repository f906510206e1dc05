//! Every exit code that there is, each with its cause made real.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::noise;
use crate::harness::proxy::{Proxy, Toward};
use crate::harness::seaweed::READER;
use crate::harness::sshd::{HostKeyType, Sshd, SshdOptions};
use crate::harness::until;
use crate::site::{DIRECTORY, Site};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_auth() {
    let site = Site::new().await;
    let run = site.run().without("SECRET_NAME").env(
        "SECRET_JSON",
        json!({"Host": "127.0.0.1", "Username": site.sshd.username(), "Password": "not-the-password-7f3a"}),
    );
    let finished = run.secret("not-the-password-7f3a").finish().await;
    finished.assert_exit(5, "AUTH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_auth_and_the_right_one_logs_in() {
    let (site, other) = (Site::new().await, Sshd::start(SshdOptions::default()));
    site.put("a.txt", "a");
    for (key, code, name) in [(other.client_key_pem(), 5, "AUTH"), (site.sshd.client_key_pem(), 0, "OK")] {
        let secret = json!({"Host": "127.0.0.1", "Username": site.sshd.username(), "PrivateKey": key});
        let run = site.run().without("SECRET_NAME").env("SECRET_JSON", secret);
        // A line from the middle of it: no output wraps where the file does.
        run.secret(key.lines().nth(2).expect("a key has lines")).finish().await.assert_exit(code, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_version_of_the_secret_logs_in_where_the_current_one_does_not() {
    let site = Site::new().await;
    let name = format!("rotated/{}", site.bucket.name);
    let secret = |password: &str| {
        json!({"Host": "127.0.0.1", "Username": site.sshd.username(), "Password": password}).to_string()
    };
    site.moto.create_secret(&name, &secret(site.sshd.password())).await;
    site.moto.put_secret_version(&name, &secret("rotated-too-early-19c2"), &["AWSCURRENT"]).await;
    let run = site.run().env("SECRET_NAME", &name).secret("rotated-too-early-19c2");
    run.clone().finish().await.assert_exit(5, "AUTH");
    run.env("SECRET_VERSION_STAGES", "AWSCURRENT,AWSPREVIOUS").finish().await.assert_exit(0, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_host_key_is_host_key_and_no_credential_is_sent() {
    let site = Site::new().await;
    let other = Sshd::start(SshdOptions::default().host_keys(&[HostKeyType::Ed25519]));
    for engine in ["russh", "libssh2"] {
        let run = site.run().env("TRUSTED_HOST_KEYS", &other.host_key_lines()[0]).env("SFTP_ENGINE", engine);
        run.finish().await.assert_exit(6, "HOST_KEY");
    }
    let log = site.sshd.log();
    for attempt in ["userauth-request", "Failed password", "Accepted", "Postponed"] {
        assert!(!log.contains(attempt), "the server saw {attempt:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trusted_host_key_is_host_key_and_shows_what_to_pin() {
    let site = Site::new().await;
    for operation in ["RETRIEVE", "TEST"] {
        let finished = site.run().without("TRUSTED_HOST_KEYS").env("OPERATION", operation).finish().await;
        finished.assert_exit(6, "HOST_KEY");
        let message = finished.run()["failure-message"].as_str().expect("a message").to_owned();
        let presented = site.sshd.host_key_lines().iter().any(|line| {
            let key: Vec<_> = line.split(' ').take(2).collect();
            message.contains(&key.join(" "))
        });
        assert!(presented && message.contains("TRUSTED_HOST_KEYS") && message.contains("SHA256:"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_unreadable_directory_is_directory() {
    let site = Site::new().await;
    for engine in ["russh", "libssh2"] {
        let run = site.run().env("SFTP_ENGINE", engine);
        run.clone().env("SFTP_DIRECTORY_PATH", "no/such").finish().await.assert_exit(8, "DIRECTORY");
        run.clone().env("SFTP_DIRECTORY_PATH", "/no/such").finish().await.assert_exit(8, "DIRECTORY");
        site.put("file", "not a directory");
        run.clone().env("SFTP_DIRECTORY_PATH", "outgoing/file").finish().await.assert_exit(8, "DIRECTORY");
        let closed = site.sshd.root().join(DIRECTORY);
        let open = std::fs::metadata(&closed).expect("its mode").permissions();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("closed");
        run.finish().await.assert_exit(8, "DIRECTORY");
        std::fs::set_permissions(&closed, open).expect("open again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_or_one_without_permission_is_destination() {
    let site = Site::new().await;
    site.put("a.txt", "a");
    site.put("b.txt", "b");
    site.put("large.bin", noise(20 * MIB, 1));
    let missing = site.run().env("BUCKET", "no-such-bucket-here").env("MULTIPART_THRESHOLD", "5MiB");
    missing.finish().await.assert_exit(9, "DESTINATION");
    let denied = site.run_as(READER).env("MULTIPART_THRESHOLD", "5MiB").finish().await;
    denied.assert_exit(9, "DESTINATION");
    site.assert_nothing_left(&denied).await;
    let tested = site.run_as(READER).env("OPERATION", "TEST").finish().await;
    tested.assert_exit(9, "DESTINATION");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_aws_credentials_is_destination_and_a_store_that_is_not_there_unreachable() {
    let site = Site::new().await;
    for index in 0..40 {
        site.put(format!("{index}.txt"), "text");
    }
    let secret = json!({"Host": "127.0.0.1", "Username": site.sshd.username(), "Password": site.sshd.password()});
    let run = site.run().without("SECRET_NAME").env("SECRET_JSON", secret).env("AWS_EC2_METADATA_DISABLED", true);
    let nameless = run.clone().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY").finish().await;
    nameless.assert_exit(9, "DESTINATION");
    assert!(nameless.run()["failure-message"].to_string().contains("credentials"), "{}", nameless.show());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let dead = run.env("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{free}")).env("MAX_ATTEMPTS", 2);
    dead.finish().await.assert_exit(7, "UNREACHABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_used_is_secret_and_names_the_field() {
    let site = Site::new().await;
    let finished = site.run().env("SECRET_NAME", "no/such/secret").finish().await;
    finished.assert_exit(4, "SECRET");
    assert!(finished.run()["failure-message"].to_string().contains("no/such/secret"));
    for (secret, named) in [
        ("not json", "JSON"),
        (r#"{"Username":"u","Password":"p"}"#, "Host"),
        (r#"{"Host":"h","Password":"p"}"#, "Username"),
        (r#"{"Host":"h","Username":"u"}"#, "Password"),
        (r#"{"Host":"h","Username":"u","PrivateKey":"-----BEGIN NONSENSE-----"}"#, "PrivateKey"),
    ] {
        let finished = site.run().without("SECRET_NAME").env("SECRET_JSON", secret).finish().await;
        finished.assert_exit(4, "SECRET");
        let message = finished.run()["failure-message"].to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_host_a_refused_port_and_a_name_that_is_none_are_unreachable() {
    let site = Site::new().await;
    let run = site.run().env("MAX_ATTEMPTS", 2).env("CONNECT_TIMEOUT", "2s");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    // Accepts, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().map(|address| (address.port(), silent)).expect("its address");
    for engine in ["russh", "libssh2"] {
        let run = run.clone().env("SFTP_ENGINE", engine);
        run.clone().env("PORT", free).finish().await.assert_exit(7, "UNREACHABLE");
        run.clone().env("PORT", silent.0).finish().await.assert_exit(7, "UNREACHABLE");
        run.env("SFTP_HOST", "no-such-host.invalid").finish().await.assert_exit(7, "UNREACHABLE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_had_again_is_unreachable_and_leaves_nothing() {
    let site = Site::new().await;
    site.put("large.bin", noise(120 * MIB, 1));
    let proxy = Proxy::to_port(site.sshd.port()).cut_every(Toward::Client, 4 << 20, 1000).start().await;
    let run = site.run().env("PORT", proxy.port()).env("MAX_ATTEMPTS", 2).env("SFTP_CONNECTIONS", 1);
    let finished = run.finish().await;
    finished.assert_exit(7, "UNREACHABLE");
    site.assert_nothing_left(&finished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_variables_are_config_and_all_told_at_once() {
    let site = Site::new().await;
    let run = site.run().env("PORT", "seventy").env("PART_SIZE", "1MiB").env("RECURSIVE", "maybe").without("BUCKET");
    let finished = run.finish().await;
    finished.assert_exit(2, "CONFIG");
    let message = finished.run()["failure-message"].as_str().expect("a message").to_owned();
    for variable in ["PORT", "PART_SIZE", "RECURSIVE", "BUCKET"] {
        assert!(message.contains(variable), "{variable} in {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_stop_a_run_in_good_order() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let site = Site::new().await;
        site.put("a-small.txt", "small");
        site.put("large.bin", noise(130 * MIB, 1));
        site.put("mid.bin", noise(40 * MIB, 2));
        let slow = Proxy::to_port(site.sshd.port()).rate(8 << 20).start().await;
        let running = site.run().env("PORT", slow.port()).env("SFTP_CONNECTIONS", 2).start();
        until("an upload in parts is open", Duration::from_secs(40), async || {
            (!site.bucket.open_uploads().await.is_empty()).then_some(())
        })
        .await;
        running.signal(signal);
        let finished = running.finish().await;
        finished.assert_exit(code, "INTERRUPTED");
        assert_eq!(finished.only("/large.bin")["failure-code"], "INTERRUPTED");
        site.assert_nothing_left(&finished).await;
    }
}
