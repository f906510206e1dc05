//! The servers of the comparison, on loopback and the same for all: OpenSSH's sshd, an S3 store, moto for the secret, and a
//! proxy that adds a round trip.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use futures::StreamExt as _;
use serde_json::json;
use tempfile::TempDir;

use crate::data::{Expected, fingerprint};
use crate::far;
use crate::harness::moto::Moto;
use crate::harness::process::Server;
use crate::harness::seaweed::{ADMIN, Bucket, REGION};
use crate::harness::sshd::{HostKeyType, Sshd, SshdOptions};
use crate::{server, store};

/// The program's secret.
pub const SECRET: &str = "partner/bench";
/// Objects read back at once.
const READ_AT_ONCE: usize = 16;

pub struct Site {
    pub sshd: Sshd,
    pub moto: &'static Moto,
    /// The store's.
    endpoint: String,
    /// Where the SFTP server is far away.
    pub far_port: u16,
    /// Where logs, keys and results of runs go.
    pub folder: TempDir,
    _servers: [Server; 2],
}

impl Site {
    pub async fn start() -> Self {
        // At the level of a server in use: a line for each login, none for each file.
        let sshd = Sshd::start(SshdOptions::default().host_keys(&[HostKeyType::Ed25519]).set("LogLevel", "INFO"));
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().expect("a folder for the bench");
        let (far_port, far) = server::start("the proxy", far::MODE, &[sshd.port().to_string()], folder.path()).await;
        let buckets = folder.path().join("buckets");
        fs::create_dir(&buckets).expect("a folder for the store");
        let (store_port, store) =
            server::start("the store", store::MODE, &[buckets.display().to_string()], folder.path()).await;
        let endpoint = format!("http://127.0.0.1:{store_port}");
        let site = Self { sshd, moto: Moto::shared().await, endpoint, far_port, folder, _servers: [far, store] };
        let secret = json!({
            "SFTP_TEST_SERVER_HOST": "127.0.0.1",
            "SFTP_TEST_SERVER_USERNAME": site.sshd.username(),
            "PrivateKey": site.sshd.client_key_pem(),
            "TrustedHostKeys": site.sshd.host_key_lines(),
        });
        site.moto.create_secret(SECRET, &secret.to_string()).await;
        fs::write(site.key_file(), site.sshd.client_key_pem()).expect("the client's key");
        fs::set_permissions(site.key_file(), fs::Permissions::from_mode(0o600)).expect("the key's mode");
        site
    }

    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("client-key")
    }

    /// AWS credentials for the store, as every SDK reads them.
    pub fn credentials(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", ADMIN.access_key),
            ("AWS_SECRET_ACCESS_KEY", ADMIN.secret_key),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_REGION", REGION),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// A new, empty bucket with a name of its own.
    pub async fn bucket(&self) -> Bucket {
        Bucket::create(self.endpoint.clone()).await
    }

    /// Says what is wrong with the bucket's content, if anything: every object is read to its last byte.
    pub async fn verify(&self, bucket: &Bucket, expected: &Expected) -> Result<(), String> {
        let keys = bucket.keys().await;
        if keys.len() != expected.len() {
            return Err(format!("{} objects, {} expected", keys.len(), expected.len()));
        }
        let mut checks = futures::stream::iter(keys)
            .map(|key| async move {
                let Some(expected) = expected.get(&key) else { return Err(format!("nobody sent {key:?}")) };
                let object = bucket.client.get_object().bucket(&bucket.name).key(&key).send().await;
                let mut body = object.map_err(|error| format!("{key:?}: {error:?}"))?.body;
                let mut found = fingerprint(None);
                while let Some(piece) = body.next().await {
                    found = found.then(fingerprint(Some(piece.map_err(|error| format!("{key:?}: {error}"))?)));
                }
                if found == *expected { Ok(()) } else { Err(format!("{key:?} holds other bytes")) }
            })
            .buffer_unordered(READ_AT_ONCE);
        while let Some(check) = checks.next().await {
            check?;
        }
        Ok(())
    }

    /// Removes the bucket and what is in it: a gigabyte a run fills a disk.
    pub async fn remove(&self, bucket: &Bucket) {
        let keys = bucket.keys().await;
        let mut removals = futures::stream::iter(keys)
            .map(|key| bucket.client.delete_object().bucket(&bucket.name).key(key).send())
            .buffer_unordered(READ_AT_ONCE);
        while removals.next().await.is_some() {}
        // What is left behind, the store's own end removes.
        let _ = bucket.client.delete_bucket().bucket(&bucket.name).send().await;
    }
}
