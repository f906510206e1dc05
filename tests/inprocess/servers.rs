//! The in-process servers themselves, against clients that are not ours: libssh2 and the AWS SDK.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::inprocess::s3::{ACCESS_KEY, Operation, REGION, S3Server, SECRET_KEY};
use crate::inprocess::secrets::{SecretsServer, arn};

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_keys_that_no_file_system_would() {
    let store = S3Server::start(&["bucket"]).await.unwrap();
    let long = "%FF".repeat(340);
    let mut keys = vec!["a", "a/b", "line\nbreak \"quoted\"", "100%/ü", &long];
    for key in &keys {
        let put = store.client().put_object().bucket("bucket").key(*key);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).metadata("mtime", "1.5");
        put.body(ByteStream::from(key.as_bytes().to_vec())).send().await.unwrap();
    }
    keys.sort();
    assert_eq!(store.keys("bucket").await, keys);
    for key in keys {
        assert_eq!(store.read("bucket", key).await.unwrap(), key.as_bytes());
        let head = store.head("bucket", key).await;
        assert_eq!(head.metadata().unwrap()["mtime"], "1.5");
        assert_eq!(head.checksum_crc64_nvme().unwrap(), crc64nvme(key.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_lists_more_than_a_page() {
    let store = S3Server::start(&["bucket"]).await.unwrap();
    let keys: Vec<String> = (0..1100).map(|number| format!("{number:04}")).collect();
    for key in &keys {
        store.client().put_object().bucket("bucket").key(key).send().await.unwrap();
    }
    assert_eq!(store.keys("bucket").await, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_object_with_a_wrong_checksum_does_not_appear() {
    let store = S3Server::start(&["bucket"]).await.unwrap();
    let data = vec![7; 6 << 20];
    let wrong = upload(&store, "wrong", &data, "AAAAAAAAAAA=").await;
    assert!(wrong.unwrap_err().contains("BadDigest"));
    upload(&store, "right", &data, &crc64nvme(&data)).await.unwrap();
    assert_eq!(store.keys("bucket").await, ["right"]);
    assert_eq!(store.read("bucket", "right").await.unwrap(), data);
    assert_eq!(store.open_uploads("bucket").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_shows_open_uploads_and_refuses_what_it_is_told_to() {
    let store = S3Server::start(&["bucket"]).await.unwrap();
    let create = || store.client().create_multipart_upload().bucket("bucket").key("big").send();
    let upload = create().await.unwrap();
    assert_eq!(store.open_uploads("bucket").await, ["big"]);
    let id = upload.upload_id().unwrap();
    store.client().abort_multipart_upload().bucket("bucket").key("big").upload_id(id).send().await.unwrap();
    assert_eq!(store.open_uploads("bucket").await, [""; 0]);

    store.refusals().deny(Operation::CreateMultipartUpload);
    let refused = create().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("AccessDenied"));
    let nowhere = store.client().put_object().bucket("nowhere").key("a").send().await.unwrap_err();
    assert_eq!(nowhere.into_service_error().meta().code(), Some("NoSuchBucket"));
}

/// Uploads `data` in two parts and commits them as the object whose checksum is `checksum`.
async fn upload(store: &S3Server, key: &str, data: &[u8], checksum: &str) -> Result<(), String> {
    let client = store.client();
    let begin = client.create_multipart_upload().bucket("bucket").key(key);
    let begin = begin.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
    let id = begin.send().await.map_err(|error| format!("{error:?}"))?.upload_id.unwrap_or_default();
    let mut parts = CompletedMultipartUpload::builder();
    for (number, part) in (1..).zip(data.chunks(5 << 20)) {
        let put = client.upload_part().bucket("bucket").key(key).upload_id(&id).part_number(number);
        let put = put.body(ByteStream::from(part.to_vec())).send().await.map_err(|error| format!("{error:?}"))?;
        parts = parts.parts(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build());
    }
    let complete = client.complete_multipart_upload().bucket("bucket").key(key).upload_id(&id);
    let complete = complete.multipart_upload(parts.build()).checksum_crc64_nvme(checksum);
    complete.send().await.map(drop).map_err(|error| format!("{error:?}"))
}

fn crc64nvme(data: &[u8]) -> String {
    BASE64_STANDARD.encode(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, data).to_be_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_endpoint_answers_as_secrets_manager() {
    let secrets = SecretsServer::start().await.unwrap();
    secrets.put("partner", "{\"Username\":\"now\"}");
    secrets.put_stage("partner", "AWSPREVIOUS", "{\"Username\":\"before\"}");
    secrets.put("private", "{}");
    secrets.deny("private");
    let client = aws_sdk_secretsmanager::Client::from_conf(
        aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(secrets.url())
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .region(Region::new(REGION))
            .build(),
    );
    let get = |id: &str, stage: &str| client.get_secret_value().secret_id(id).version_stage(stage).send();

    let current = get("partner", "AWSCURRENT").await.unwrap();
    assert_eq!(current.secret_string(), Some("{\"Username\":\"now\"}"));
    assert_eq!(current.arn(), Some(arn("partner").as_str()));
    let previous = get(&arn("partner"), "AWSPREVIOUS").await.unwrap();
    assert_eq!(previous.secret_string(), Some("{\"Username\":\"before\"}"));

    for (id, stage) in [("nobody", "AWSCURRENT"), ("partner", "AWSPENDING")] {
        let missing = get(id, stage).await.unwrap_err().into_service_error();
        assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    }
    let denied = get("private", "AWSCURRENT").await.unwrap_err().into_service_error();
    assert_eq!(denied.meta().code(), Some("AccessDeniedException"));
    assert_eq!(secrets.asked().len(), 5);
}

#[cfg(feature = "libssh2")]
mod sftp {
    //! The SFTP server, as libssh2 sees it.

    use std::collections::HashSet;
    use std::io::{Read, Seek, SeekFrom};
    use std::net::TcpStream;
    use std::path::Path;

    use ssh2::{ErrorCode, Session};

    use crate::inprocess::sftp::{Account, Content, Method, Node, Options, Quirks, SftpServer, Stats, Tree};

    const FX_PERMISSION_DENIED: ErrorCode = ErrorCode::SFTP(3);
    const FX_FAILURE: ErrorCode = ErrorCode::SFTP(4);

    fn connect(port: u16) -> Session {
        let mut session = Session::new().unwrap();
        session.set_tcp_stream(TcpStream::connect(("127.0.0.1", port)).unwrap());
        session.set_timeout(20_000);
        session.handshake().unwrap();
        session
    }

    fn log_in(port: u16) -> Session {
        let session = connect(port);
        session.userauth_password("partner", "right").unwrap();
        session
    }

    async fn start(tree: Tree, quirks: Quirks) -> SftpServer {
        let options = Options::new(tree, Account::password("partner", "right")).quirks(quirks);
        SftpServer::start(options).await.unwrap()
    }

    /// Runs what blocks on a thread of its own: the server shares the test's runtime.
    async fn blocking(client: impl FnOnce() + Send + 'static) {
        tokio::task::spawn_blocking(client).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_arrive_whatever_the_lawful_habits_of_the_server() {
        let content = Content::synthetic(3, 3_000_001);
        let whole = content.to_bytes().unwrap();
        for quirks in [
            Quirks::default(),
            // No shorter reads: libssh2 itself gives up on a file whose reads come back short.
            Quirks { max_read: 30_000, limits: false, ..Quirks::default() },
            Quirks { random_handles: true, reversed_replies: true, ..Quirks::default() },
        ] {
            let mut tree = Tree::new();
            tree.file("/out/data.bin", content.clone()).link("/out/link", "data.bin");
            let server = start(tree, quirks).await;
            let (port, whole) = (server.port(), whole.clone());
            blocking(move || {
                let sftp = log_in(port).sftp().unwrap();
                let mut data = Vec::new();
                let mut file = sftp.open(Path::new("out/link")).unwrap();
                file.read_to_end(&mut data).unwrap();
                assert!(data == whole, "{} bytes", data.len());
                file.seek(SeekFrom::Start(2_999_999)).unwrap();
                data.clear();
                file.read_to_end(&mut data).unwrap();
                assert_eq!(data, whole[2_999_999..]);
                let stat = sftp.stat(Path::new("/out/link")).unwrap();
                assert_eq!((stat.size, stat.mtime), (Some(3_000_001), Some(u64::from(Node::MTIME))));
                assert!(sftp.lstat(Path::new("/out/link")).unwrap().file_type().is_symlink());
                assert_eq!(sftp.realpath(Path::new(".")).unwrap(), Path::new("/"));
            })
            .await;
            assert_eq!(Stats::read(&server.stats().opens), 1);
            assert_eq!(server.stats().attempts().len(), 1);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_lists_every_name_once() {
        let mut tree = Tree::new();
        for number in 0..1001 {
            tree.file(format!("/many/{number}"), "");
        }
        tree.put("/closed", Node::directory().denied()).put("/many/closed", Node::file("x").denied());
        let server = start(tree, Quirks { max_handles: Some(1), ..Quirks::default() }).await;
        let port = server.port();
        blocking(move || {
            let sftp = log_in(port).sftp().unwrap();
            let listed = sftp.readdir(Path::new("/many")).unwrap();
            assert_eq!(listed.len(), 1002);
            let names: HashSet<_> = listed.into_iter().map(|(path, _)| path).collect();
            assert_eq!(names.len(), 1002);
            assert_eq!(sftp.readdir(Path::new("/closed")).unwrap_err().code(), FX_PERMISSION_DENIED);
            assert_eq!(sftp.open(Path::new("/many/closed")).err().unwrap().code(), FX_PERMISSION_DENIED);
            let _first = sftp.open(Path::new("/many/1")).unwrap();
            assert_eq!(sftp.open(Path::new("/many/2")).err().unwrap().code(), FX_FAILURE);
        })
        .await;
        assert_eq!(Stats::read(&server.stats().refused_opens), 1);
        assert_eq!(Stats::read(&server.stats().most_handles), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_factor_is_asked_for_after_the_first() {
        struct Answer;
        impl ssh2::KeyboardInteractivePrompt for Answer {
            fn prompt(&mut self, _: &str, _: &str, prompts: &[ssh2::Prompt<'_>]) -> Vec<String> {
                prompts.iter().map(|_| "right".to_owned()).collect()
            }
        }
        let account = Account::password("partner", "right").ways(&[&[Method::Password, Method::KeyboardInteractive]]);
        let server = SftpServer::start(Options::new(Tree::new(), account)).await.unwrap();
        let port = server.port();
        blocking(move || {
            let session = connect(port);
            assert!(session.userauth_password("partner", "wrong").is_err());
            assert!(session.userauth_password("partner", "right").is_err(), "half of a login");
            assert!(!session.authenticated());
            session.userauth_keyboard_interactive("partner", &mut Answer).unwrap();
            assert!(session.authenticated());
        })
        .await;
        let right: Vec<_> =
            server.stats().attempts().into_iter().map(|attempt| (attempt.method, attempt.right)).collect();
        assert_eq!(right, [(Method::Password, false), (Method::Password, true), (Method::KeyboardInteractive, true)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_changes_under_its_reader_when_it_is_told_to() {
        let mut tree = Tree::new();
        tree.put("/a", Node::file("before").becoming(3, Node::file("after!").mtime(9)));
        let server = start(tree, Quirks { max_read: 3, ..Quirks::default() }).await;
        let port = server.port();
        blocking(move || {
            let sftp = log_in(port).sftp().unwrap();
            let mut data = String::new();
            sftp.open(Path::new("/a")).unwrap().read_to_string(&mut data).unwrap();
            assert_eq!(data, "befer!");
            assert_eq!(sftp.stat(Path::new("/a")).unwrap().mtime, Some(9));
        })
        .await;
    }
}
