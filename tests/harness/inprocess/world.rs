//! A server, a store and the program between them, with the environment that joins the three.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::inprocess::run::Run;
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
        self.more_secrets.push(value.to_owned().into());
    }

    /// The program, about to retrieve `directory` with every log line there is.
    pub fn run(&self, directory: &str) -> Run {
        let mut run = Run::new(env!("CARGO_BIN_EXE_sftp-s3-connector"))
            .env("SECRET_JSON", &self.secret)
            .env("SFTP_DIRECTORY_PATH", directory)
            .env("BUCKET", BUCKET)
            .env("LOG_LEVEL", "trace");
        for (name, value) in self.s3.environment() {
            run = run.env(name, value);
        }
        for secret in &self.more_secrets {
            run = run.secret(secret.expose_secret());
        }
        run.secret(PASSWORD).secret(s3::SECRET_KEY)
    }

    /// Fails unless the bucket holds exactly these keys, and no upload is left open.
    #[track_caller]
    pub fn assert_keys(&self, expected: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let keys = self.s3.keys(BUCKET).await;
            assert_eq!(keys, expected, "at {caller}");
            assert_eq!(self.s3.open_uploads(BUCKET).await, [""; 0], "uploads left open, at {caller}");
        }
    }
}

pub fn account() -> Account {
    Account::password(USER, PASSWORD)
}
