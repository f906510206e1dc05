//! SeaweedFS as the S3 store of the tests: one process for a test binary, one bucket for a test.
//!
//! It knows two users, so that "a bucket without permission" is real: one may do everything, one may only read. A bucket
//! that nobody created does not exist (no creation on first write), as in S3.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::process::{START_DEADLINE, Server, free_ports, installed, server_folder};
use super::until;

/// Region in which requests are signed; the server takes any.
pub const REGION: &str = "us-east-1";

/// A user of the store. Throw-away: it exists only in the test's own server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub access_key: &'static str,
    pub secret_key: &'static str,
}

/// May do everything.
pub const ADMIN: User = User { access_key: "TESTADMIN", secret_key: "test-admin-secret" };
/// May list and read, and write nothing.
pub const READER: User = User { access_key: "TESTREADER", secret_key: "test-reader-secret" };

/// A running SeaweedFS. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct Seaweed {
    port: u16,
    server: std::sync::Mutex<Server>,
    _folder: TempDir,
}

impl Seaweed {
    /// The one that all tests of this process share; it ends with the process.
    pub async fn shared() -> &'static Seaweed {
        static SHARED: OnceCell<Seaweed> = OnceCell::const_new();
        SHARED.get_or_init(Seaweed::start).await
    }

    /// One of the caller's own. Returns when an object can be written.
    pub async fn start() -> Seaweed {
        let folder = server_folder("seaweed");
        let users = folder.path().join("s3.json");
        std::fs::write(&users, users_file()).expect("the file of S3 users");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder for SeaweedFS's data");

        let path = |name: &str| folder.path().join(name).display().to_string();
        let [s3, ports @ ..] = free_ports::<10>();
        let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc, admin, admin_grpc] = ports;
        let arguments = [
            "-logtostderr=true".to_owned(),
            "mini".to_owned(),
            format!("-dir={}", data.display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-s3.port={s3}"),
            format!("-s3.port.grpc={s3_grpc}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            format!("-s3.config={}", users.display()),
            format!("-s3.localSocket={}", path("s3.sock")),
            "-s3.autoCreateBucket=false".to_owned(),
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_grpc}"),
            "-master.telemetry=false".to_owned(),
            // A bucket takes a volume. Left to itself the server allows as many as the disk would hold full ones, which may be fewer than there are tests.
            "-volume.max=5000".to_owned(),
            "-master.volumeSizeLimitMB=1024".to_owned(),
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_grpc}"),
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_grpc}"),
            format!("-filer.localSocket={}", path("filer.sock")),
            format!("-admin.port={admin}"),
            format!("-admin.port.grpc={admin_grpc}"),
            "-admin.ui=false".to_owned(),
            "-webdav=false".to_owned(),
        ];
        let server = Server::spawn("SeaweedFS", &installed("weed"), arguments, folder.path(), path("log").into());
        let seaweed = Seaweed { port: s3, server: server.into(), _folder: folder };

        let client = seaweed.client(ADMIN);
        until("SeaweedFS takes an object", START_DEADLINE, async || {
            seaweed.server.lock().expect("no thread panics holding it").check_alive();
            client.create_bucket().bucket("started").send().await.ok();
            client.put_object().bucket("started").key("started").send().await.ok()
        })
        .await;
        seaweed
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `AWS_ENDPOINT_URL_S3`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The SDK's own client: what the tests look at the store with. It belongs to the runtime that first uses it.
    pub fn client(&self, user: User) -> Client {
        client(&self.endpoint(), user)
    }

    /// A new, empty bucket with a name of its own.
    pub async fn bucket(&self) -> Bucket {
        Bucket::create(self.endpoint()).await
    }
}

/// A client for any S3 endpoint on loopback. It does not retry: a test that needs a second try has found something.
pub fn client(endpoint: &str, user: User) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(user.access_key, user.secret_key, None, None, "test"))
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// One bucket and what tests ask of it. Every method panics when the store refuses.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub name: String,
    pub endpoint: String,
    pub client: Client,
}

impl Bucket {
    /// A new, empty one with a name of its own, in the store at this endpoint.
    pub async fn create(endpoint: String) -> Bucket {
        let name = format!("test-{}", uuid::Uuid::now_v7());
        let client = client(&endpoint, ADMIN);
        client.create_bucket().bucket(&name).send().await.expect("the store makes a bucket");
        Bucket { name, endpoint, client }
    }

    /// All keys, in the store's order (by bytes), but for what the program keeps there for itself.
    pub async fn keys(&self) -> Vec<String> {
        let is_delivered = |key: &String| !key.starts_with(".sftp-s3-connector/");
        self.all_keys().await.into_iter().filter(is_delivered).collect()
    }

    /// All keys, in the store's order.
    pub async fn all_keys(&self) -> Vec<String> {
        let mut pages = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.expect("the store lists the bucket");
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        keys
    }

    /// The whole object.
    pub async fn bytes(&self, key: &str) -> Vec<u8> {
        let object = self.client.get_object().bucket(&self.name).key(key).send().await;
        let object = object.unwrap_or_else(|error| panic!("no object {key:?}: {error:?}"));
        object.body.collect().await.expect("the store sends the whole object").to_vec()
    }

    /// Every object with its bytes: what a run has delivered, to hold against what it should have.
    pub async fn contents(&self) -> HashMap<String, Vec<u8>> {
        let mut contents = HashMap::new();
        for key in self.keys().await {
            let bytes = self.bytes(&key).await;
            contents.insert(key, bytes);
        }
        contents
    }

    /// Size, metadata, type and checksum of an object.
    pub async fn head(&self, key: &str) -> HeadObjectOutput {
        let request = self.client.head_object().bucket(&self.name).key(key).checksum_mode(ChecksumMode::Enabled);
        request.send().await.unwrap_or_else(|error| panic!("no object {key:?}: {error:?}"))
    }

    /// Whether the object was uploaded in parts: its ETag then ends in their number.
    pub async fn is_multipart(&self, key: &str) -> bool {
        self.head(key).await.e_tag().is_some_and(|tag| tag.contains('-'))
    }

    /// Keys of the multipart uploads that were begun and neither completed nor aborted.
    pub async fn open_uploads(&self) -> Vec<String> {
        let uploads = self.client.list_multipart_uploads().bucket(&self.name).send().await;
        let uploads = uploads.expect("the store lists open uploads");
        assert_ne!(uploads.is_truncated(), Some(true), "over a thousand open uploads");
        uploads.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect()
    }

    /// Puts an object there beforehand.
    pub async fn put(&self, key: &str, bytes: &[u8]) {
        let body = ByteStream::from(bytes.to_vec());
        let request = self.client.put_object().bucket(&self.name).key(key).body(body);
        request.send().await.expect("the store takes an object");
    }
}

fn users_file() -> String {
    let user = |name: &str, user: User, actions: &[&str]| {
        let credentials = [json!({ "accessKey": user.access_key, "secretKey": user.secret_key })];
        json!({ "name": name, "credentials": credentials, "actions": actions })
    };
    let identities = [
        user("admin", ADMIN, &["Admin", "Read", "List", "Tagging", "Write"]),
        user("reader", READER, &["Read", "List"]),
    ];
    json!({ "identities": identities }).to_string()
}
