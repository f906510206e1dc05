//! The job where it is hard: round trips, cut connections, little memory, a server that allows little.

use std::time::Duration;

use crate::harness::noise;
use crate::harness::proxy::{Proxy, Toward};
use crate::harness::sshd::SshdOptions;
use crate::harness::until;
use crate::site::{Site, zip};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_files_cross_one_connection_with_50_ms_of_round_trip_within_a_minute() {
    let site = Site::new().await;
    let content = noise(10_240 + 10_000, 11);
    for index in 0..10_000 {
        site.put(format!("file-{index:05}.bin"), &content[index..index + 10_240]);
    }
    let proxy = Proxy::to_port(site.sshd.port()).round_trip(Duration::from_millis(50)).start().await;

    let run = site.run().env("PORT", proxy.port()).env("SFTP_CONNECTIONS", 1).env("LOG_LEVEL", "info");
    let finished = run.deadline(Duration::from_secs(60)).finish().await;

    finished.assert_exit(0, "OK");
    assert_eq!(finished.run()["files-completed"], 10_000);
    assert_eq!(proxy.most_open(), 1);
    let contents = site.bucket.contents().await;
    assert_eq!(contents.len(), 10_000);
    for index in 0..10_000 {
        assert!(contents[&format!("file-{index:05}.bin")] == content[index..index + 10_240], "file {index} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2_gib_file_survives_ten_cuts_in_little_memory() {
    let site = Site::new().await;
    // Repeats at a distance that no part size divides: a part that is read from a wrong offset differs.
    let block = noise(1_000_003, 13);
    let size = 2048 * MIB;
    let path = site.put("huge.bin", "");
    {
        use std::io::Write as _;
        let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("the file"));
        let mut left = size;
        while left > 0 {
            let len = left.min(block.len());
            file.write_all(&block[..len]).expect("its bytes");
            left -= len;
        }
        file.flush().expect("its bytes");
    }
    let proxy = Proxy::to_port(site.sshd.port()).cut_every(Toward::Client, 190 << 20, 10).start().await;

    let running = site.run().env("PORT", proxy.port()).env("LOG_LEVEL", "info").deadline(Duration::from_secs(300));
    let running = running.start();
    let peak = running.watch_peak_memory();
    let finished = running.finish().await;

    finished.assert_exit(0, "OK");
    assert_eq!(proxy.faults(), 10);
    let peak = peak.join().expect("the watcher");
    println!("peak memory {} MiB", peak >> 20);
    assert!(peak < 160 << 20, "peak memory {} MiB", peak >> 20);
    let object = site.bucket.client.get_object().bucket(&site.bucket.name).key("huge.bin").send().await;
    let mut body = object.expect("the object").body;
    let mut at = 0;
    while let Some(bytes) = body.try_next().await.expect("its bytes") {
        for piece in bytes.chunks(block.len()) {
            let mut piece = piece;
            while !piece.is_empty() {
                let from = at % block.len();
                let len = piece.len().min(block.len() - from);
                assert!(piece[..len] == block[from..from + len], "differs at {at}");
                at += len;
                piece = &piece[len..];
            }
        }
    }
    assert_eq!(at, size);
    site.assert_nothing_left(&finished).await;
}

/// What the program weighs besides `MEMORY_LIMIT`.
const BESIDE_THE_LIMIT: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_limit_whatever_is_delivered() {
    let site = Site::new().await;
    // In parts, streamed, held whole, small, and an archive with an entry of each.
    for (name, mebibytes) in
        [("parts", 260), ("more-parts", 130), ("streamed", 90), ("streamed-too", 40), ("whole", 15)]
    {
        site.put(format!("{name}.bin"), noise(mebibytes * MIB, 31));
    }
    for index in 0..1500 {
        site.put(format!("small/{index}.bin"), noise(20_000, index));
    }
    let entries = [("parts.bin", 120), ("streamed.bin", 60), ("whole.bin", 10), ("small.bin", 1)];
    let entries = entries.map(|(name, mebibytes)| (name, noise(mebibytes * MIB, 37)));
    site.put("archive.zip", zip(&entries.each_ref().map(|(name, content)| (*name, content.as_slice()))));
    for engine in ["russh", "libssh2"] {
        for mebibytes in [16, 32, 96] {
            let run = site.run().env("MEMORY_LIMIT", format!("{mebibytes}MiB")).env("SFTP_ENGINE", engine);
            let run = run.env("RECURSIVE", true).env("LOG_LEVEL", "info").deadline(Duration::from_secs(180));
            // As the image has it.
            let run = run.env("MALLOC_ARENA_MAX", 1);
            let running = run.start();
            let peak = running.watch_peak_memory();
            running.finish().await.assert_exit(0, "OK");
            let peak = peak.join().expect("the watcher");
            println!("{engine}: a limit of {mebibytes} MiB, a peak of {} MiB", peak >> 20);
            assert!(peak <= (mebibytes << 20) + BESIDE_THE_LIMIT, "{engine}, {mebibytes}: {} MiB", peak >> 20);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_one_connection_gets_one() {
    for engine in ["russh", "libssh2"] {
        let site = Site::new().await;
        for index in 0..40 {
            site.put(format!("{index}.bin"), noise(300_000, index));
        }
        let proxy = Proxy::to_port(site.sshd.port()).at_most(1).start().await;
        let finished = site.run().env("PORT", proxy.port()).env("SFTP_ENGINE", engine).finish().await;
        finished.assert_exit(0, "OK");
        assert_eq!(site.bucket.keys().await.len(), 40);
        assert!(proxy.refused() > 0, "{engine}: a further connection was tried");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_left_and_connected_to_again() {
    for engine in ["russh", "libssh2"] {
        let site = Site::new().await;
        let content = noise(30 * MIB, 17);
        site.put("a.bin", &content);
        let proxy = Proxy::to_port(site.sshd.port()).stall_after(Toward::Client, 5 << 20).start().await;
        let run = site.run().env("PORT", proxy.port()).env("SFTP_ENGINE", engine).env("IDLE_TIMEOUT", "2s");
        let finished = run.env("SFTP_CONNECTIONS", 1).finish().await;
        finished.assert_exit(0, "OK");
        assert!(site.bucket.bytes("a.bin").await == content, "{engine}: the object differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_changed_on_the_way_are_found_out() {
    let site = Site::new().await;
    let content = noise(30 * MIB, 19);
    site.put("a.bin", &content);
    let proxy = Proxy::to_port(site.sshd.port()).corrupt(Toward::Client, 9 << 20).start().await;
    let finished = site.run().env("PORT", proxy.port()).finish().await;
    finished.assert_exit(0, "OK");
    assert_eq!(proxy.faults(), 1);
    assert!(site.bucket.bytes("a.bin").await == content, "the object differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_cut_off_midway_gets_every_object_whole() {
    let site = Site::new().await;
    for index in 0..20 {
        site.put(format!("{index}.bin"), noise(2 * MIB, index));
    }
    let large = noise(130 * MIB, 23);
    site.put("large.bin", &large);
    let s3_port = site.bucket.endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let proxy = Proxy::to_port(s3_port).cut_every(Toward::Server, 30 << 20, 5).start().await;
    let finished = site.run().env("AWS_ENDPOINT_URL_S3", proxy.http_endpoint()).finish().await;
    finished.assert_exit(0, "OK");
    assert!(site.bucket.bytes("large.bin").await == large, "the object differs");
    assert_eq!(site.bucket.keys().await.len(), 21);
    site.assert_nothing_left(&finished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_is_spoken_to_in_its_own_algorithms() {
    let old = SshdOptions::default()
        .set("Ciphers", "aes256-cbc")
        .set("MACs", "hmac-sha1")
        .set("KexAlgorithms", "diffie-hellman-group14-sha1")
        .set("HostKeyAlgorithms", "ssh-rsa");
    let site = Site::with(old).await;
    site.put("a.txt", "a");
    for engine in ["russh", "libssh2"] {
        site.run().env("SFTP_ENGINE", engine).finish().await.assert_exit(0, "OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_and_large_files_share_a_budget_of_one_part() {
    let site = Site::new().await;
    for index in 0..4 {
        site.put(format!("large-{index}.bin"), noise(40 * MIB, index));
        let entries =
            [("a.bin", noise(7 * MIB, index)), ("b.bin", noise(100, index)), ("c.bin", noise(12 * MIB, index))];
        let entries: Vec<_> = entries.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        site.put(format!("archive-{index}.zip"), zip(&entries));
    }
    for (limit, part, threshold) in [("16MiB", "16MiB", "20MiB"), ("5MiB", "5MiB", "6MiB")] {
        let run = site.run().env("MEMORY_LIMIT", limit).env("PART_SIZE", part).env("MULTIPART_THRESHOLD", threshold);
        let running = run.start();
        let peak = running.watch_peak_memory();
        let finished = running.finish().await;
        finished.assert_exit(0, "OK");
        let peak = peak.join().expect("the watcher");
        assert!(peak < 80 << 20, "peak memory {} MiB at MEMORY_LIMIT={limit}", peak >> 20);
        for index in 0..4 {
            let object = site.bucket.bytes(&format!("archive-{index}/c.bin")).await;
            assert!(object == noise(12 * MIB, index), "archive-{index}/c.bin differs");
        }
        site.assert_nothing_left(&finished).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped_in_time_also_where_the_store_says_nothing() {
    let site = Site::new().await;
    for index in 0..30 {
        site.put(format!("{index:02}.bin"), noise(MIB, index));
    }
    let s3_port = site.bucket.endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let silent = Proxy::to_port(s3_port).stall_after(Toward::Server, 10).start().await;
    let run = site.run().env("AWS_ENDPOINT_URL_S3", silent.http_endpoint()).env("STOP_GRACE", "4s");
    let running = run.env("UPLOAD_CONCURRENCY", 1).deadline(Duration::from_secs(25)).start();
    until("the store is silent", Duration::from_secs(20), async || (silent.faults() > 0).then_some(())).await;
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let signalled = std::time::Instant::now();
    running.finish().await.assert_exit(143, "INTERRUPTED");
    // A second is the machine's, which may be busy.
    assert!(signalled.elapsed() < Duration::from_secs(5), "it took {:?}", signalled.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_names_in_one_directory_are_listed_in_little_memory() {
    let site = Site::new().await;
    let directory = site.sshd.root().join(crate::site::DIRECTORY);
    for index in 0..100_000 {
        let name = format!("a name that is long enough to matter, as partners like them, {index:06}.csv");
        std::fs::File::create(directory.join(name)).expect("an empty file");
    }
    for engine in ["russh", "libssh2"] {
        let run = site.run().env("DRY_RUN", true).env("SFTP_ENGINE", engine).env("LOG_LEVEL", "info");
        let running = run.start();
        let peak = running.watch_peak_memory();
        let finished = running.finish().await;
        finished.assert_exit(0, "OK");
        assert_eq!(finished.run()["files-selected"], 100_000);
        let peak = peak.join().expect("the watcher");
        assert!(peak < 128 << 20, "{engine}: peak memory {} MiB", peak >> 20);
    }
}
