//! The main job: what the AWS sample delivers is delivered, and more exactly.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::harness::noise;
use crate::harness::sshd::SshdOptions;
use crate::site::{DIRECTORY, Site, zip};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_own_environment_delivers_text_zips_and_a_large_file() {
    let site = Site::new().await;
    let large = noise(150 * MIB, 7);
    let report = zip(&[("report.csv", b"a,b\n1,2\n"), ("2026/11/part.bin", &noise(3 * MIB, 9)), ("empty", b"")]);
    site.put("hello.txt", "hello\n");
    site.put("data.csv", "x;y\n1;2\n");
    site.put("empty.txt", "");
    site.put("report.zip", &report);
    // A zip by its content, whatever its name.
    let unnamed = zip(&[("inside.txt", b"inside")]);
    site.put("delivery.dat", &unnamed);
    site.put("large.bin", &large);
    site.put("sub/not-taken.txt", "subdirectories are not descended into");

    let finished = site.run().finish().await;

    finished.assert_exit(0, "OK");
    let contents = site.bucket.contents().await;
    let mut keys: Vec<_> = contents.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "data.csv",
            "delivery.dat",
            "delivery/inside.txt",
            "empty.txt",
            "hello.txt",
            "large.bin",
            "report.zip",
            "report/2026/11/part.bin",
            "report/empty",
            "report/report.csv",
        ]
    );
    assert_eq!(contents["hello.txt"], b"hello\n");
    assert_eq!(contents["empty.txt"], b"");
    assert_eq!(contents["report.zip"], report);
    assert_eq!(contents["report/report.csv"], b"a,b\n1,2\n");
    assert_eq!(contents["report/2026/11/part.bin"], noise(3 * MIB, 9));
    assert_eq!(contents["delivery/inside.txt"], b"inside");
    assert!(contents["large.bin"] == large, "large.bin differs");
    assert!(site.bucket.is_multipart("large.bin").await);
    assert!(!site.bucket.is_multipart("report.zip").await);
    site.assert_nothing_left(&finished).await;

    let run = finished.run();
    assert_eq!((&run["files-selected"], &run["files-completed"], &run["objects"]), (&6.into(), &6.into(), &10.into()));
    let record = finished.only("/large.bin");
    let head = site.bucket.head("large.bin").await;
    assert_eq!(record["checksum-crc64nvme"].as_str(), head.checksum_crc64_nvme(), "{record}");
    assert_eq!(record["bytes"], 150 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mid_sized_file_is_one_put_and_has_its_checksum_and_metadata() {
    let site = Site::new().await;
    // Over PART_SIZE and under MULTIPART_THRESHOLD: read while it is sent.
    let content = noise(40 * MIB + 1, 3);
    let path = site.put("mid size.bin", &content);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::open(&path).and_then(|file| file.set_modified(time)).expect("its time");

    let finished = site.run().finish().await;

    finished.assert_exit(0, "OK");
    assert!(site.bucket.bytes("mid size.bin").await == content, "the object differs");
    assert!(!site.bucket.is_multipart("mid size.bin").await);
    let head = site.bucket.head("mid size.bin").await;
    let metadata = head.metadata().expect("metadata");
    assert_eq!(metadata["mtime"], "1700000000");
    assert!(metadata["sftp-path"].ends_with("/outgoing/mid%20size.bin"), "{}", metadata["sftp-path"]);
    assert_eq!(head.checksum_crc64_nvme(), finished.only("mid size.bin")["checksum-crc64nvme"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_deliver_a_tree_with_links_and_odd_names() {
    for engine in ["russh", "libssh2"] {
        let site = Site::new().await;
        site.put("a b/c'd\"e.txt", "quotes");
        site.put("new\nline/100%.txt", "newline");
        site.put(b"latin/caf\xe9.txt", "latin-1");
        site.put("deep/er/file.csv", "deep");
        let root = site.sshd.root().join(DIRECTORY);
        symlink("deep/er/file.csv", root.join("link.csv")).expect("a link to a file");
        symlink("deep", root.join("link-dir")).expect("a link to a directory");
        symlink("../..", root.join("deep/up")).expect("a link that loops");
        symlink("nowhere", root.join("dangling")).expect("a link to nothing");

        let finished = site.run().env("RECURSIVE", true).env("SFTP_ENGINE", engine).finish().await;

        finished.assert_exit(0, "OK");
        let contents = site.bucket.contents().await;
        let mut keys: Vec<_> = contents.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "a b/c'd\"e.txt",
                "deep/er/file.csv",
                "latin/caf%E9.txt",
                "link-dir/er/file.csv",
                "link.csv",
                "new\nline/100%.txt"
            ],
            "{engine}"
        );
        assert_eq!(contents["latin/caf%E9.txt"], b"latin-1");
        assert_eq!(finished.only("/dangling")["skip-reason"], "LINK_DANGLING");
        assert_eq!(finished.only("deep/up")["skip-reason"], "LINK_LOOP");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_archive_fails_by_name_and_the_others_go_on() {
    let site = Site::new().await;
    let mut bad = zip(&[("first.txt", b"first"), ("second.txt", &noise(100_000, 1))]);
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    site.put("bad.zip", &bad);
    site.put("cut.zip", &zip(&[("x", b"x")])[..60]);
    site.put("good.zip", zip(&[("good.txt", b"good")]));
    site.put("plain.txt", "plain");

    let finished = site.run().finish().await;

    finished.assert_exit(3, "PARTIAL");
    let mut keys = site.bucket.keys().await;
    keys.sort_unstable();
    assert_eq!(keys, ["bad/first.txt", "good.zip", "good/good.txt", "plain.txt"], "\n{}", finished.show());
    let record = finished.only("/bad.zip");
    assert_eq!((&record["status-code"], &record["failure-code"]), (&"FAILED".into(), &"ARCHIVE_INVALID".into()));
    assert_eq!(record["entries-delivered"], serde_json::json!(["bad/first.txt"]));
    assert_eq!(finished.only("/cut.zip")["failure-code"], "ARCHIVE_INVALID");
    site.assert_nothing_left(&finished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_rekeys_all_the_time_delivers_a_large_file() {
    for engine in ["russh", "libssh2"] {
        let site = Site::with(SshdOptions::default().set("RekeyLimit", "4M")).await;
        let content = noise(60 * MIB, 5);
        site.put("large.bin", &content);
        let finished = site.run().env("SFTP_ENGINE", engine).finish().await;
        finished.assert_exit(0, "OK");
        assert!(site.bucket.bytes("large.bin").await == content, "{engine}: the object differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn test_tells_what_it_found_and_leaves_nothing() {
    let site = Site::new().await;
    site.put("a.txt", "a");
    let finished = site.run().env("OPERATION", "TEST").finish().await;
    finished.assert_exit(0, "OK");
    let steps = finished.run()["steps"].as_array().expect("steps").clone();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["secret", "connect", "list", "bucket"]);
    let server = &steps[1]["server"];
    assert!(server["identification"].as_str().is_some_and(|text| text.starts_with("SSH-2.0-OpenSSH")), "{server}");
    assert!(server["host-key"].as_str().is_some_and(|key| key.starts_with("ssh-ed25519 ")), "{server}");
    assert!(server["sftp-extensions"].to_string().contains("limits@openssh.com"), "{server}");
    assert!(server["algorithms"].to_string().contains("gcm"), "{server}");
    assert_eq!(site.bucket.keys().await, [""; 0]);
    assert_eq!(site.bucket.open_uploads().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let site = Site::new().await;
    site.put("a.csv", "a");
    site.put("b.txt", "b");
    let run = site.run().env("DRY_RUN", true).env("INCLUDE", "*.csv").env("KEY_TEMPLATE", "in/{name}");
    let finished = run.finish().await;
    finished.assert_exit(0, "OK");
    let record = finished.only("/a.csv");
    assert_eq!(
        (&record["skip-reason"], &record["local-file-location"]["key"]),
        (&"DRY_RUN".into(), &"in/a.csv".into())
    );
    assert_eq!(finished.only("/b.txt")["skip-reason"], "NOT_INCLUDED");
    assert_eq!(site.bucket.keys().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_fails_by_name_and_the_others_go_on() {
    let site = Site::new().await;
    site.put("a.txt", "a");
    let closed = site.put("closed.txt", "closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("closed");
    site.put("folder/b.txt", "b");
    let folder = site.sshd.root().join(DIRECTORY).join("folder");
    symlink("folder/b.txt", site.sshd.root().join(DIRECTORY).join("link.txt")).expect("a link");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o000)).expect("closed");

    let finished = site.run().env("RECURSIVE", true).finish().await;

    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("open again");
    finished.assert_exit(3, "PARTIAL");
    assert_eq!(finished.only("/closed.txt")["failure-code"], "READ_FILE_ERROR");
    assert_eq!(finished.only("/folder")["failure-code"], "LIST_DIRECTORY_ERROR");
    assert_eq!(finished.only("/link.txt")["failure-code"], "READ_FILE_ERROR");
    assert_eq!(site.bucket.keys().await, ["a.txt"]);
}
