//! An S3 store in this process: `s3s-fs` behind [`gate::Gate`], over HTTP on a free loopback port, with credentials and
//! a temporary folder; and a client of it, to see what a bucket holds.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumMode, EncodingType};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use percent_encoding::percent_decode_str;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

mod gate;

pub use gate::{Operation, Refusals};

pub const ACCESS_KEY: &str = "AKIAINPROCESSTEST";
pub const SECRET_KEY: &str = "in-process-store-secret-access-key";
pub const REGION: &str = "eu-central-1";

/// A running store with its buckets. Dropping it stops it and removes what it held.
pub struct S3Server {
    address: SocketAddr,
    gate: gate::Gate,
    client: Client,
    _folder: TempDir,
    /// Aborts what it accepted and served, when it is dropped.
    _serving: JoinSet<()>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
    /// In base64, as S3 writes it.
    pub crc64nvme: String,
}

impl S3Server {
    pub async fn start(buckets: &[&str]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let folder = tempfile::tempdir()?;
        let gate = gate::Gate::new(folder.path()).map_err(|error| format!("the store's folder: {error:?}"))?;
        let mut builder = S3ServiceBuilder::new(gate.clone());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            let http = Arc::new(Builder::new(TokioExecutor::new()));
            while let Ok((socket, _)) = listener.accept().await {
                let (http, service) = (http.clone(), service.clone());
                connections.spawn(async move {
                    // A client that leaves in the middle of a request is no news.
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });

        let client = Client::from_conf(
            aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(format!("http://{address}"))
                .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
                .region(Region::new(REGION))
                .force_path_style(true)
                .build(),
        );
        for bucket in buckets {
            client.create_bucket().bucket(*bucket).send().await?;
        }
        Ok(Self { address, gate, client, _folder: folder, _serving: serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:…`, for `AWS_ENDPOINT_URL_S3`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What leads the AWS SDK to this store, and nowhere else.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL_S3", self.url()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            // Nobody asks a metadata service that is not there.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// A client of this store.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Requests that the store refuses: change them while it runs.
    pub fn refusals(&self) -> Refusals {
        self.gate.refusals()
    }

    /// Requests of this kind that came so far.
    pub fn count(&self, operation: Operation) -> u64 {
        self.gate.count(operation)
    }

    /// Every object of the bucket, in the order of keys, but for what the program keeps there for itself.
    pub async fn list(&self, bucket: &str) -> Vec<Listed> {
        let is_delivered = |object: &Listed| !object.key.starts_with(".sftp-s3-connector/");
        self.list_all(bucket).await.into_iter().filter(is_delivered).collect()
    }

    /// Every object of the bucket, in the order of keys.
    pub async fn list_all(&self, bucket: &str) -> Vec<Listed> {
        let mut pages =
            self.client.list_objects_v2().bucket(bucket).encoding_type(EncodingType::Url).into_paginator().send();
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.expect("the store lists its objects").contents() {
                let key = percent_decode_str(object.key().unwrap_or_default()).decode_utf8_lossy().into_owned();
                let crc64nvme = self.gate.checksum(bucket, &key).unwrap_or_default();
                listed.push(Listed { key, size: object.size().unwrap_or_default() as u64, crc64nvme });
            }
        }
        listed
    }

    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        self.list(bucket).await.into_iter().map(|object| object.key).collect()
    }

    /// The object's bytes; `None` where there is no such object.
    pub async fn read(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let got = self.client.get_object().bucket(bucket).key(key).send().await.ok()?;
        Some(got.body.collect().await.expect("the store sends what it announced").into_bytes())
    }

    /// What the store says of the object: metadata, content type, checksum.
    pub async fn head(&self, bucket: &str, key: &str) -> HeadObjectOutput {
        let head = self.client.head_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        head.send().await.unwrap_or_else(|error| panic!("{key}: {error:?}"))
    }

    /// Keys of multipart uploads that were begun and neither completed nor aborted.
    pub async fn open_uploads(&self, bucket: &str) -> Vec<String> {
        let uploads =
            self.client.list_multipart_uploads().bucket(bucket).send().await.expect("the store lists uploads");
        uploads.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect()
    }
}
