//! The contract of `Store`, held by the S3 adapter against two stores: `s3s-fs` in this process, and SeaweedFS where
//! the feature `real-servers` says that it is installed. What passes on one only is not the contract.

#[cfg(feature = "real-servers")]
mod harness;
#[path = "harness/inprocess/mod.rs"]
mod inprocess;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use bytes::Bytes;
use connector::checksum::Crc64Nvme;
use connector::config::{ObjectAttributes, UploadSettings};
use connector::store::s3::S3Store;
use connector::store::{Body, Kind, NewObject, SourceBroke, Store, Upload, streamed as streamed_body};
use connector::template::ObjectKey;
use connector::units::ByteSize;

use inprocess::s3::S3Server;

const MIB: usize = 1 << 20;

/// A bucket, and what looks into it.
struct Target {
    endpoint: String,
    access_key: String,
    secret_key: String,
    bucket: String,
    client: Client,
    /// Kept for the folder and the listener that it holds.
    _server: Option<S3Server>,
}

impl Target {
    async fn in_process() -> Self {
        let server = S3Server::start(&["store"]).await.expect("s3s-fs");
        let environment: std::collections::HashMap<_, _> = server.environment().into_iter().collect();
        Self {
            endpoint: server.url(),
            access_key: environment["AWS_ACCESS_KEY_ID"].clone(),
            secret_key: environment["AWS_SECRET_ACCESS_KEY"].clone(),
            bucket: "store".to_owned(),
            client: server.client().clone(),
            _server: Some(server),
        }
    }

    #[cfg(feature = "real-servers")]
    async fn seaweed(user: harness::seaweed::User) -> Self {
        let server = harness::seaweed::Seaweed::shared().await;
        let bucket = server.bucket().await;
        Self {
            endpoint: server.endpoint(),
            access_key: user.access_key.to_owned(),
            secret_key: user.secret_key.to_owned(),
            bucket: bucket.name,
            client: server.client(harness::seaweed::ADMIN),
            _server: None,
        }
    }

    fn store(&self) -> S3Store {
        self.store_of(&self.bucket, ObjectAttributes::default())
    }

    fn store_of(&self, bucket: &str, attributes: ObjectAttributes) -> S3Store {
        let credentials = Credentials::new(&self.access_key, &self.secret_key, None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let settings = UploadSettings {
            multipart_threshold: ByteSize(100 << 20),
            part_size: ByteSize(16 << 20),
            concurrency: 4.try_into().expect("not zero"),
            path_style: None,
            attributes,
        };
        S3Store::new(&sdk, bucket.to_owned(), &settings, 2)
    }

    async fn keys(&self) -> Vec<String> {
        let listed = self.client.list_objects_v2().bucket(&self.bucket).send().await.expect("a listing");
        listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }

    async fn read(&self, key: &str) -> Bytes {
        let object = self.client.get_object().bucket(&self.bucket).key(key).send().await.expect("the object");
        object.body.collect().await.expect("its bytes").into_bytes()
    }
}

fn object(key: &str) -> NewObject {
    NewObject {
        key: ObjectKey::new(key.to_owned()).expect("a key"),
        content_type: "text/csv".to_owned(),
        metadata: vec![("mtime", "1700000000".to_owned()), ("sftp-path", "/out/a%20b.csv".to_owned())],
    }
}

/// Bytes that differ from place to place, cut into pieces.
fn pieces(len: usize) -> Vec<Bytes> {
    let whole: Bytes = (0..len).map(|index| (index * 31 % 251) as u8).collect();
    whole.chunks(100_000).map(|piece| whole.slice_ref(piece)).collect()
}

/// A body that is fed these pieces, and then ends, if they are all.
fn streamed(len: usize, pieces: Vec<Result<Bytes, SourceBroke>>) -> Body {
    let (mut feeder, body) = streamed_body(len as u64);
    let ends = pieces.iter().flatten().map(Bytes::len).sum::<usize>() == len;
    tokio::spawn(async move {
        for piece in pieces {
            let Ok(piece) = piece else { return feeder.break_off().await };
            if !feeder.send(piece).await {
                return;
            }
        }
        if ends {
            feeder.finish();
        }
    });
    Body::Streamed(body)
}

async fn a_buffered_object_is_stored_with_type_metadata_and_checksum(target: Target) {
    let pieces = pieces(300_000);
    let checksum = Crc64Nvme::of(&pieces);
    target.store().put(&object("a/b c.csv"), Body::buffered(pieces.clone())).await.expect("stored");
    assert_eq!(target.read("a/b c.csv").await, pieces.concat());
    let head = target
        .client
        .head_object()
        .bucket(&target.bucket)
        .key("a/b c.csv")
        .checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled)
        .send()
        .await
        .expect("its head");
    assert_eq!(head.content_type(), Some("text/csv"));
    assert_eq!(head.metadata().and_then(|metadata| metadata.get("mtime")).map(String::as_str), Some("1700000000"));
    assert_eq!(head.checksum_crc64_nvme(), Some(checksum.to_base64().as_str()));
}

async fn an_empty_object_is_stored(target: Target) {
    target.store().put(&object("empty"), Body::buffered(Vec::new())).await.expect("stored");
    assert_eq!(target.read("empty").await, Bytes::new());
}

async fn bytes_that_are_not_those_of_the_checksum_are_refused(target: Target) {
    let body = Body::Buffered { pieces: vec![Bytes::from_static(b"other")], checksum: Crc64Nvme::of(&pieces(5)) };
    let error = target.store().put(&object("a"), body).await.expect_err("the checksum differs");
    assert!(matches!(error.kind, Kind::Unavailable | Kind::Rejected), "{error}");
    assert_eq!(target.keys().await, [""; 0]);
}

async fn a_streamed_object_is_stored(target: Target) {
    let pieces = pieces(3 * MIB);
    let body = streamed(3 * MIB, pieces.iter().cloned().map(Ok).collect());
    target.store().put(&object("streamed"), body).await.expect("stored");
    assert_eq!(target.read("streamed").await, pieces.concat());
}

async fn a_streamed_object_that_breaks_off_leaves_nothing(target: Target) {
    for end in [Some(Err(SourceBroke)), None] {
        let all = pieces(3 * MIB);
        let half = all.iter().take(all.len() / 2).cloned().map(Ok).chain(end).collect();
        let error = target.store().put(&object("broken"), streamed(3 * MIB, half)).await.expect_err("it broke off");
        assert_eq!(error.kind, Kind::SourceBroke, "{error}");
        assert_eq!(target.keys().await, [""; 0]);
    }
}

async fn parts_become_one_object_whatever_order_they_came_in(target: Target) {
    let store = target.store();
    let object = object("large");
    let all = pieces(11 * MIB);
    let whole = Bytes::from(all.concat());
    let id = store.begin(&object).await.expect("begun");
    let upload = Upload { object: &object, id: &id };
    let mut parts = Vec::new();
    for (number, range) in [(3, 10 * MIB..11 * MIB), (1, 0..5 * MIB), (2, 5 * MIB..10 * MIB)] {
        let body = Body::buffered(vec![whole.slice(range)]);
        parts.push(store.upload_part(&upload, number, body).await.expect("a part"));
    }
    parts.sort_by_key(|part| part.number);
    store.complete(&upload, &parts, Crc64Nvme::of(&all)).await.expect("completed");
    assert_eq!(target.read("large").await, whole);
}

async fn a_streamed_part_is_as_good_as_a_buffered_one(target: Target) {
    let store = target.store();
    let object = object("large");
    let all = pieces(6 * MIB);
    let id = store.begin(&object).await.expect("begun");
    let upload = Upload { object: &object, id: &id };
    let body = streamed(6 * MIB, all.iter().cloned().map(Ok).collect());
    let parts = [store.upload_part(&upload, 1, body).await.expect("a part")];
    store.complete(&upload, &parts, Crc64Nvme::of(&all)).await.expect("completed");
    assert_eq!(target.read("large").await, all.concat());
}

async fn an_aborted_upload_leaves_nothing_and_is_aborted_only_once(target: Target) {
    let store = target.store();
    let object = object("aborted");
    let id = store.begin(&object).await.expect("begun");
    let upload = Upload { object: &object, id: &id };
    let part = store.upload_part(&upload, 1, Body::buffered(pieces(6 * MIB))).await.expect("a part");
    store.abort(&upload).await.expect("aborted");
    store.abort(&upload).await.expect("what is gone is aborted");
    let completed = store.complete(&upload, &[part], Crc64Nvme::of(&pieces(6 * MIB))).await;
    assert_eq!(completed.expect_err("it is gone").kind, Kind::NoUpload);
    assert_eq!(target.keys().await, [""; 0]);
}

async fn a_bucket_that_is_missing_is_told_as_such(target: Target) {
    let store = target.store_of("no-such-bucket-anywhere", ObjectAttributes::default());
    let error = store.put(&object("a"), Body::buffered(pieces(5))).await.expect_err("there is no bucket");
    assert_eq!(error.kind, Kind::NoBucket, "{error}");
    assert!(error.to_string().contains("no-such-bucket-anywhere"), "{error}");
    let error = store.begin(&object("a")).await.expect_err("there is no bucket");
    assert_eq!(error.kind, Kind::NoBucket, "{error}");
}

macro_rules! on_both_stores {
    ($($check:ident),* $(,)?) => {
        mod s3s_fs {
            $(#[tokio::test]
            async fn $check() {
                super::$check(super::Target::in_process().await).await;
            })*
        }
        #[cfg(feature = "real-servers")]
        mod seaweed {
            $(#[tokio::test]
            async fn $check() {
                super::$check(super::Target::seaweed(crate::harness::seaweed::ADMIN).await).await;
            })*
        }
    };
}

on_both_stores!(
    a_buffered_object_is_stored_with_type_metadata_and_checksum,
    an_empty_object_is_stored,
    bytes_that_are_not_those_of_the_checksum_are_refused,
    a_streamed_object_is_stored,
    a_streamed_object_that_breaks_off_leaves_nothing,
    parts_become_one_object_whatever_order_they_came_in,
    a_streamed_part_is_as_good_as_a_buffered_one,
    an_aborted_upload_leaves_nothing_and_is_aborted_only_once,
    a_bucket_that_is_missing_is_told_as_such,
);

#[cfg(feature = "real-servers")]
#[tokio::test]
async fn a_user_who_may_only_read_is_denied() {
    let target = Target::seaweed(harness::seaweed::READER).await;
    let error = target.store().put(&object("a"), Body::buffered(pieces(5))).await.expect_err("only reading is allowed");
    assert_eq!(error.kind, Kind::Denied, "{error}");
    let error = target.store().begin(&object("a")).await.expect_err("only reading is allowed");
    assert_eq!(error.kind, Kind::Denied, "{error}");
}
