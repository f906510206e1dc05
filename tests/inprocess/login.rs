//! Logging in: what the server asks for, what it is given, and what it is never given.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{Cipher, Kdf, LineEnding};

use crate::inprocess::sftp::{Account, Method, Options, Tree};
use crate::world::{PASSWORD, USER, World, account, engines};

use Method::{KeyboardInteractive, Password, PublicKey};

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file("/out/a.txt", "a");
    tree
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

async fn world(account: Account) -> World {
    World::with(Options::new(tree(), account)).await
}

/// What the server counted, questions for the methods left out.
fn credentials_offered(world: &World) -> Vec<(Method, bool)> {
    let attempts = world.sftp.stats().attempts().into_iter();
    attempts.filter(|attempt| attempt.method != Method::None).map(|attempt| (attempt.method, attempt.right)).collect()
}

/// Gives the world's secret the private key.
fn add_key(world: &mut World, key: &PrivateKey) {
    let pem = key.to_openssh(LineEnding::LF).unwrap();
    world.add_secret("PrivateKey", &pem);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_given_as_the_server_asks_for_it() {
    for way in [Password, KeyboardInteractive] {
        for engine in engines() {
            let world = world(account().ways(&[&[way]])).await;
            world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
            world.assert_keys(&["a.txt"]).await;
            assert_eq!(credentials_offered(&world).last(), Some(&(way, true)), "{engine}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_alone_logs_in() {
    for engine in engines() {
        let mut world = world(account().key(key(1).public_key().clone()).ways(&[&[PublicKey]])).await;
        add_key(&mut world, &key(1));
        world.secret.as_object_mut().unwrap().remove("Password");
        world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
        assert_eq!(credentials_offered(&world), [(PublicKey, true)], "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_both_gets_both() {
    for second in [Password, KeyboardInteractive] {
        for engine in engines() {
            let mut world = world(account().key(key(1).public_key().clone()).ways(&[&[PublicKey, second]])).await;
            add_key(&mut world, &key(1));
            world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
            assert_eq!(credentials_offered(&world), [(PublicKey, true), (second, true)], "{engine}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_leaves_the_password() {
    let mut world = world(account().ways(&[&[PublicKey], &[Password]])).await;
    add_key(&mut world, &key(2));
    world.finish(world.run("/out")).await.assert_exit(0, "OK");
    assert_eq!(credentials_offered(&world), [(PublicKey, false), (Password, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_key_is_opened_with_its_passphrase() {
    let passphrase = "open-Sesame/\"42\"";
    let kdf = Kdf::Bcrypt { salt: vec![9; 16], rounds: 8 };
    let sealed = key(1).encrypt_with(Cipher::Aes256Ctr, kdf, 1, passphrase).unwrap();
    let mut world = world(account().key(key(1).public_key().clone()).ways(&[&[PublicKey]])).await;
    add_key(&mut world, &sealed);
    world.add_secret("PrivateKeyPassphrase", passphrase);
    world.finish(world.run("/out")).await.assert_exit(0, "OK");

    world.add_secret("PrivateKeyPassphrase", "another-Passphrase-0");
    let finished = world.run("/out").finish().await;
    finished.assert_exit(4, "SECRET");
    assert!(
        finished.run()["failure-message"].as_str().unwrap().contains("PrivateKeyPassphrase"),
        "{}",
        finished.show()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_code_5_and_tried_once_a_method() {
    for engine in engines() {
        let mut world = world(account()).await;
        world.add_secret("Password", "not-The-Password-1");
        let finished = world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await;
        finished.assert_exit(5, "AUTH");
        // Tried again and again, a wrong password locks the account.
        assert_eq!(credentials_offered(&world), [(Password, false)], "{engine}");
        assert!(finished.run()["failure-message"].as_str().unwrap().contains(USER), "{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_host_key_is_code_6_before_any_credential_is_sent() {
    for engine in engines() {
        let mut world = world(account()).await;
        let other = key(99).public_key().to_openssh().unwrap();
        world.secret["TrustedHostKeys"] = other.into();
        let finished = world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await;
        finished.assert_exit(6, "HOST_KEY");
        assert_eq!(world.sftp.stats().attempts(), [], "{engine}");
        let message = finished.run()["failure-message"].as_str().unwrap();
        assert!(message.contains(&world.sftp.fingerprint()), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpinned_host_key_is_code_6_with_the_line_to_pin() {
    let mut world = world(account()).await;
    world.secret.as_object_mut().unwrap().remove("TrustedHostKeys");
    let finished = world.finish(world.run("/out")).await;
    finished.assert_exit(6, "HOST_KEY");
    let message = finished.run()["failure-message"].as_str().unwrap();
    assert!(message.contains(&world.sftp.host_key()), "{message}");
    assert_eq!(world.sftp.stats().attempts(), []);

    // What the message shows is what pins it.
    let pinned = world.run("/out").env("TRUSTED_HOST_KEYS", world.sftp.host_key());
    world.finish(pinned).await.assert_exit(0, "OK");
    let by_fingerprint = world.run("/out").env("TRUSTED_HOST_KEYS", world.sftp.fingerprint());
    world.finish(by_fingerprint).await.assert_exit(0, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchecked_host_key_is_warned_about_on_every_run() {
    let mut world = world(account()).await;
    world.secret.as_object_mut().unwrap().remove("TrustedHostKeys");
    let finished = world.finish(world.run("/out").env("HOST_KEY_CHECK", "off")).await;
    finished.assert_exit(0, "OK");
    let warned = finished.stderr.lines().any(|line| line.contains("\"WARN\"") && line.contains("HOST_KEY_CHECK"));
    assert!(warned, "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_before_login_is_no_hindrance() {
    let options = Options { banner: Some("Authorised use only.\r\n".into()), ..Options::new(tree(), account()) };
    for engine in engines() {
        let world = World::with(options.clone()).await;
        world.finish(world.run("/out").env("SFTP_ENGINE", engine)).await.assert_exit(0, "OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_run_says_what_it_found_and_leaves_nothing() {
    let options = Options { banner: Some("Welcome, partner.\r\n".into()), ..Options::new(tree(), account()) };
    let world = World::with(options).await;
    let finished = world.finish(world.run("/out").env("OPERATION", "TEST")).await;
    finished.assert_exit(0, "OK");
    assert_eq!(finished.run()["operation"], "TEST");
    let output = finished.show();
    for found in [&world.sftp.host_key(), "Welcome, partner.", "SSH-2.0-", "limits@openssh.com"] {
        assert!(output.contains(found), "{found:?} is not in\n{output}");
    }
    world.assert_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_run_ends_with_the_code_that_a_run_would() {
    let mut world = world(Account::password(USER, PASSWORD)).await;
    let nowhere = world.run("/nowhere").env("OPERATION", "TEST");
    world.finish(nowhere).await.assert_exit(8, "DIRECTORY");
    let no_bucket = world.run("/out").env("OPERATION", "TEST").env("BUCKET", "no-such-bucket");
    no_bucket.finish().await.assert_exit(9, "DESTINATION");
    world.add_secret("Password", "not-The-Password-2");
    world.finish(world.run("/out").env("OPERATION", "TEST")).await.assert_exit(5, "AUTH");
}
