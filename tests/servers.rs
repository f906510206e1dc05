//! The harness's servers are what the tests take them for: the permissions, the missing buckets, the moving stages.

mod harness;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;

use harness::moto::Moto;
use harness::process::{START_DEADLINE, Server, free_ports};
use harness::seaweed::{ADMIN, READER, Seaweed};
use harness::until;

#[tokio::test]
async fn the_store_keeps_objects_their_metadata_and_checksum() {
    let bucket = Seaweed::shared().await.bucket().await;
    let request = bucket.client.put_object().bucket(&bucket.name).key("a/b.txt").metadata("mtime", "1.5");
    let request = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).body(ByteStream::from_static(b"hello"));
    request.send().await.expect("an object with a CRC64NVME checksum");
    bucket.put("empty", b"").await;

    assert_eq!(bucket.keys().await, ["a/b.txt", "empty"]);
    assert_eq!(bucket.bytes("a/b.txt").await, b"hello");
    let head = bucket.head("a/b.txt").await;
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.metadata().unwrap()["mtime"], "1.5");
    assert_eq!(head.checksum_crc64_nvme(), Some("M3eFcAZSQlc="));
    assert!(!bucket.is_multipart("a/b.txt").await);
}

#[tokio::test]
async fn the_store_shows_uploads_left_open() {
    let bucket = Seaweed::shared().await.bucket().await;
    assert_eq!(bucket.open_uploads().await, Vec::<String>::new());
    let begun = bucket.client.create_multipart_upload().bucket(&bucket.name).key("big").send().await.unwrap();
    assert_eq!(bucket.open_uploads().await, ["big"]);
    let abort = bucket.client.abort_multipart_upload().bucket(&bucket.name).key("big");
    abort.set_upload_id(begun.upload_id).send().await.unwrap();
    assert_eq!(bucket.open_uploads().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_reader_may_not_write() {
    let seaweed = Seaweed::shared().await;
    let bucket = seaweed.bucket().await;
    let reader = seaweed.client(READER);
    reader.list_objects_v2().bucket(&bucket.name).send().await.expect("the reader lists");
    let put = reader.put_object().bucket(&bucket.name).key("x").send().await.unwrap_err();
    assert_eq!(put.code(), Some("AccessDenied"));
    let upload = reader.create_multipart_upload().bucket(&bucket.name).key("x").send().await.unwrap_err();
    assert_eq!(upload.code(), Some("AccessDenied"));
}

#[tokio::test]
async fn a_bucket_that_nobody_made_is_missing() {
    let client = Seaweed::shared().await.client(ADMIN);
    let put = client.put_object().bucket("never-made").key("x").send().await.unwrap_err();
    assert_eq!(put.code(), Some("NoSuchBucket"));
    let upload = client.create_multipart_upload().bucket("never-made").key("x").send().await.unwrap_err();
    assert_eq!(upload.code(), Some("NoSuchBucket"));
}

#[tokio::test]
async fn a_secret_has_versions_whose_stages_move() {
    let moto = Moto::shared().await;
    let arn = moto.create_secret("rotated", "one").await;
    moto.put_secret_version("rotated", "two", &["AWSCURRENT"]).await;
    let client = moto.client();
    for (stage, value) in [("AWSCURRENT", "two"), ("AWSPREVIOUS", "one")] {
        let secret = client.get_secret_value().secret_id(&arn).version_stage(stage).send().await.unwrap();
        assert_eq!(secret.secret_string(), Some(value), "{stage}");
    }
    let missing = client.get_secret_value().secret_id("no-such-secret").send().await.unwrap_err();
    assert_eq!(missing.code(), Some("ResourceNotFoundException"));
}

#[tokio::test]
async fn a_server_dropped_is_gone_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $!; wait".to_owned();
    let arguments = ["-c".to_owned(), script];
    let server = Server::spawn("a shell", "/bin/sh".as_ref(), arguments, folder.path(), folder.path().join("log"));
    let child: u32 = until("the child is started", START_DEADLINE, async || server.log().trim().parse().ok()).await;
    let processes = [server.id(), child].map(|id| format!("/proc/{id}/cmdline"));
    for process in &processes {
        assert!(std::fs::exists(process).unwrap());
    }
    drop(server);
    // A killed child of a killed parent stays a zombie, without a command line, until init has looked after it.
    for process in processes {
        let ended = async || std::fs::read(&process).unwrap_or_default().is_empty().then_some(());
        until("the process ends", START_DEADLINE, ended).await;
    }
}

#[test]
fn ports_are_free_and_not_given_out_twice() {
    let mut ports: Vec<u16> = (0..20).flat_map(|_| free_ports::<10>()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 200);
}
