//! A server, a store and the program between them, with the environment that joins the three.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::inprocess::run::{Finished, Run};
use crate::inprocess::s3::{self, S3Server};
use crate::inprocess::sftp::{Account, Options, Quirks, SftpServer, Tree};

pub const BUCKET: &str = "inbox";
pub const USER: &str = "partner";
/// Nothing else in this repository looks like it: found in an output, it leaked.
pub const PASSWORD: &str = "correct-Horse\"7/battery\\staple";

/// One test's servers.
pub struct World {
    pub sftp: SftpServer,
    pub s3: S3Server,
    /// The secret's JSON. A test that wants another changes it, or gives its own `SECRET_JSON`.
    pub secret: Value,
    more_secrets: Vec<SecretString>,
}

impl World {
    /// A well-behaved server of `tree`, logged in to by password.
    pub async fn new(tree: Tree) -> Self {
        Self::with(Options::new(tree, account())).await
    }

    pub async fn quirky(tree: Tree, quirks: Quirks) -> Self {
        Self::with(Options::new(tree, account()).quirks(quirks)).await
    }

    pub async fn with(options: Options) -> Self {
        let sftp = SftpServer::start(options).await.expect("a loopback port is free");
        let s3 = S3Server::start(&[BUCKET]).await.expect("the store starts");
        let secret = json!({
            "Host": "127.0.0.1",
            "Port": sftp.port(),
            "Username": USER,
            "Password": PASSWORD,
            "TrustedHostKeys": [sftp.host_key()],
        });
        Self { sftp, s3, secret, more_secrets: Vec::new() }
    }

    /// Adds a field to the secret, whose value may then appear in no output.
    pub fn add_secret(&mut self, field: &str, value: &str) {
        self.secret[field] = value.into();
        // Of a key each line is secret: a log may break it where it likes.
        let lines = value.lines().filter(|line| !line.starts_with("-----") && line.len() >= 8);
        self.more_secrets.extend(lines.map(|line| line.to_owned().into()));
    }

    /// The program, about to retrieve `directory` with every log line there is.
    pub fn run(&self, directory: &str) -> Run {
        let mut run = Run::new(env!("CARGO_BIN_EXE_sftp-s3-connector"))
            .env("SECRET_JSON", &self.secret)
            .env("SFTP_DIRECTORY_PATH", directory)
            .env("BUCKET", BUCKET)
            .env("LOG_LEVEL", "trace")
            // A server that says nothing is given up soon; a step that fails is tried a second time, and a third.
            .env("CONNECT_TIMEOUT", "4s")
            .env("IDLE_TIMEOUT", "2s")
            .env("MAX_ATTEMPTS", "3");
        for (name, value) in self.s3.environment() {
            run = run.env(name, value);
        }
        for secret in &self.more_secrets {
            run = run.secret(secret.expose_secret());
        }
        run.secret(PASSWORD).secret(s3::SECRET_KEY)
    }

    /// Runs to the end, and holds the bucket against the records: whatever happened, every object in it is one that
    /// the records call completed, of that size and checksum, and no upload is left open.
    pub async fn finish(&self, run: Run) -> Finished {
        let bucket = run.environment().get("BUCKET").cloned().unwrap_or_default();
        let finished = run.finish().await;
        self.check(&finished, &bucket).await;
        finished
    }

    pub async fn check(&self, finished: &Finished, bucket: &str) {
        let stored: BTreeMap<_, _> = self
            .s3
            .list(bucket)
            .await
            .into_iter()
            .map(|object| (object.key, (object.size, object.crc64nvme)))
            .collect();
        let recorded: BTreeMap<_, _> = finished
            .objects()
            .into_iter()
            .map(|(key, (size, checksum))| (key.to_owned(), (size, checksum.to_owned())))
            .collect();
        assert_eq!(stored, recorded, "the bucket, and what the records call completed\n{}", finished.show());
        assert_eq!(finished.run()["objects"], stored.len(), "`objects`\n{}", finished.show());
        assert_eq!(self.s3.open_uploads(bucket).await, [""; 0], "uploads left open\n{}", finished.show());
    }

    /// Fails unless the bucket holds exactly these keys.
    pub async fn assert_keys(&self, expected: &[&str]) {
        assert_eq!(self.s3.keys(BUCKET).await, expected);
    }

    /// Fails unless the object at `key` has exactly these bytes.
    pub async fn assert_object(&self, key: &str, expected: &[u8]) {
        let Some(object) = self.s3.read(BUCKET, key).await else {
            panic!("no object at {key:?}; there are {:?}", self.s3.keys(BUCKET).await);
        };
        assert!(object == expected, "{key:?}: {} bytes, expected other {}", object.len(), expected.len());
    }

    /// Fails unless the bucket holds the files below `directory`, byte for byte, and nothing else.
    pub async fn assert_mirrors(&self, directory: &str, bucket: &str) {
        let model: BTreeMap<String, _> = {
            let tree = self.sftp.tree();
            tree.files(directory).into_iter().map(|(path, content)| (key_of(&path), content.clone())).collect()
        };
        let keys = self.s3.keys(bucket).await;
        assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>(), "the keys in {bucket}");
        for (key, content) in model {
            let object = self.s3.read(bucket, &key).await.expect("it was listed");
            let source = content.to_bytes().expect("the model is in memory");
            assert!(object == source, "{key:?}: {} bytes, expected other {}", object.len(), source.len());
        }
    }
}

/// A path as a key: each byte that is not UTF-8 as `%XX`.
pub fn key_of(path: &[u8]) -> String {
    let mut key = String::new();
    for chunk in path.utf8_chunks() {
        key.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| key.push_str(&format!("%{byte:02X}")));
    }
    key
}

pub fn account() -> Account {
    Account::password(USER, PASSWORD)
}

/// The engines that are built.
pub fn engines() -> &'static [&'static str] {
    if cfg!(feature = "libssh2") { &["russh", "libssh2"] } else { &["russh"] }
}
