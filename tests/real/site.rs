//! One test's servers, and the program's environment that joins them: the five variables of the AWS sample, its secret's
//! three keys, and `TRUSTED_HOST_KEYS`.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::json;
use zip::write::SimpleFileOptions;

use crate::harness::moto::Moto;
use crate::harness::seaweed::{ADMIN, Bucket, Seaweed, User};
use crate::harness::sshd::{Sshd, SshdOptions};
use crate::run::{Finished, Run};

/// Where the partner's files lie, below the login directory.
pub const DIRECTORY: &str = "outgoing";

pub struct Site {
    pub sshd: Sshd,
    pub bucket: Bucket,
    pub moto: &'static Moto,
    secret_name: String,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(SshdOptions::default()).await
    }

    pub async fn with(options: SshdOptions) -> Self {
        let sshd = Sshd::start(options);
        fs::create_dir(sshd.root().join(DIRECTORY)).expect("the partner's directory");
        let bucket = Seaweed::shared().await.bucket().await;
        let moto = Moto::shared().await;
        let secret_name = format!("partner/{}", bucket.name);
        let secret = json!({
            "SFTP_TEST_SERVER_HOST": "127.0.0.1",
            "SFTP_TEST_SERVER_USERNAME": sshd.username(),
            "SFTP_TEST_SERVER_PASSWORD": sshd.password(),
        });
        moto.create_secret(&secret_name, &secret.to_string()).await;
        Self { sshd, bucket, moto, secret_name }
    }

    /// Puts a file there, folders and all. The name may be any bytes.
    pub fn put(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.sshd.root().join(DIRECTORY).join(std::ffi::OsStr::from_bytes(name.as_ref()));
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder");
        fs::write(&path, content).expect("the file");
        path
    }

    /// The program with the sample's environment.
    pub fn run(&self) -> Run {
        self.run_as(ADMIN)
    }

    pub fn run_as(&self, user: User) -> Run {
        Run::new(env!("CARGO_BIN_EXE_sftp-s3-connector"))
            .env("BUCKET", &self.bucket.name)
            .env("SECRET_NAME", &self.secret_name)
            .env("SFTP_DIRECTORY_PATH", DIRECTORY)
            .env("PORT", self.sshd.port())
            .env("REGION", "us-east-1")
            .env("TRUSTED_HOST_KEYS", self.sshd.host_key_lines().join(","))
            .env("AWS_ACCESS_KEY_ID", user.access_key)
            .env("AWS_SECRET_ACCESS_KEY", user.secret_key)
            .env("AWS_ENDPOINT_URL_S3", &self.bucket.endpoint)
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.moto.endpoint())
            .env("LOG_LEVEL", "trace")
            .secret(self.sshd.password())
            .secret(user.secret_key)
    }

    /// No upload is left open, and every object has a record that calls it completed.
    pub async fn assert_nothing_left(&self, finished: &Finished) {
        assert_eq!(self.bucket.open_uploads().await, [""; 0], "uploads left open\n{}", finished.show());
        let completed = |record: &&serde_json::Value| record["status-code"] == "COMPLETED";
        let recorded: Vec<_> =
            finished.files().iter().filter(completed).map(|record| &record["local-file-location"]["key"]).collect();
        for key in self.bucket.keys().await {
            assert!(recorded.iter().any(|recorded| **recorded == key), "{key:?} has no record\n{}", finished.show());
        }
    }
}

/// A zip archive of these entries.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        archive.start_file(*name, SimpleFileOptions::default()).expect("an entry");
        archive.write_all(content).expect("its content");
    }
    archive.finish().expect("the archive").into_inner()
}
