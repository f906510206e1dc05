//! The container image: built from the real Dockerfile, looked into, and run as a cluster would run it, on a read-only
//! root file system, as nobody, with a quarter of a CPU, against real servers.
//!
//! It is built on `scratch`, in a base made from Debian's packages, so that no image registry is needed.

mod harness;
#[allow(dead_code, reason = "each test target uses a part of it")]
#[path = "harness/inprocess/run.rs"]
mod run;
#[allow(dead_code, reason = "each test target uses a part of it")]
#[path = "real/site.rs"]
mod site;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use harness::noise;
use harness::process::{START_DEADLINE, Server, free_ports, server_folder};
use harness::proxy::{Proxy, Toward};
use harness::until;
use run::Run;
use site::Site;

/// What the image may weigh, as it is downloaded.
const MOST_COMPRESSED_BYTES: u64 = 25_000_000;
const PROGRAM: &str = "usr/local/bin/sftp-s3-connector";
/// A quarter of a CPU is slow, and the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(180);
/// `STOP_GRACE` by default.
const GRACE: Duration = Duration::from_secs(25);

/// The image's name. Built once for this test process; layers that are there already are used again.
fn image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    const IMAGE: &str = "sftp-s3-connector:test";
    BUILT.get_or_init(|| {
        let base = stdout(&mut Command::new("scripts/test-build-image"));
        let base = format!("BUILD_IMAGE={}", base.trim());
        let image = format!("IMAGE={IMAGE}");
        stdout(Command::new("make").args(["--no-print-directory", "image", &image, &base, "RUNTIME_IMAGE=scratch"]));
    });
    IMAGE
}

/// Runs a command of the repository's root to its good end.
fn stdout(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{}", String::from_utf8_lossy(&stderr));
    stdout
}

fn docker<const N: usize>(arguments: [&str; N]) -> String {
    stdout(Command::new("docker").args(arguments))
}

/// A container of the image, made or running. Dropping it removes it.
struct Container(String);

impl Container {
    fn named() -> Self {
        Self(format!("sftp-s3-connector-test-{}", uuid::Uuid::now_v7()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Fails where the container is gone, as it should be.
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

#[test]
fn it_weighs_little() {
    let mut save =
        Command::new("docker").args(["save", image()]).stdout(Stdio::piped()).spawn().expect("docker starts");
    let layers = save.stdout.take().expect("docker's output");
    let mut gzip = Command::new("gzip").stdin(layers).stdout(Stdio::piped()).spawn().expect("gzip starts");
    let compressed = std::io::copy(&mut gzip.stdout.take().expect("gzip's output"), &mut std::io::sink());
    let compressed = compressed.expect("gzip's output can be read");
    assert!(save.wait().expect("docker's status").success() && gzip.wait().expect("gzip's status").success());
    println!("compressed image: {compressed} bytes");
    assert!(compressed <= MOST_COMPRESSED_BYTES, "{compressed} bytes, over {MOST_COMPRESSED_BYTES}");
    assert!(compressed > 1_000_000, "{compressed} bytes: there is no program in it");
}

#[test]
fn nothing_in_it_can_be_run_but_the_program() {
    let container = Container::named();
    docker(["create", "--name", &container.0, image()]);
    let mut export = Command::new("docker").args(["export", &container.0]).stdout(Stdio::piped()).spawn().unwrap();
    let tar = Command::new("tar").args(["-tv"]).stdin(export.stdout.take().unwrap()).output().expect("tar starts");
    assert!(export.wait().unwrap().success() && tar.status.success());

    // -rwxr-xr-x root/root 301184 2026-11-20 23:11 usr/local/bin/sftp-s3-connector
    let listing = String::from_utf8(tar.stdout).expect("names are UTF-8");
    let programs: Vec<&str> = listing
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let (mode, size, name) = (columns.next()?, columns.nth(1)?, columns.nth(2)?);
            let is_library = name.starts_with("lib") && name.contains(".so");
            // Docker puts empty files into every container, to mount its own on.
            (mode.starts_with('-') && mode.contains('x') && size != "0" && !is_library).then_some(name)
        })
        .collect();
    assert_eq!(programs, [PROGRAM], "in\n{listing}");
    assert!(listing.contains("etc/ssl/certs/ca-certificates.crt"), "no CA certificates in\n{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn make_push_puts_it_into_a_registry() {
    let folder = server_folder("registry");
    let [port] = free_ports();
    let config = json!({
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
        "http": {"addr": format!("127.0.0.1:{port}")},
    });
    let file = folder.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, config.to_string()).expect("the registry's configuration");
    let arguments = ["serve".to_owned(), file.display().to_string()];
    let log = folder.path().join("log");
    let registry = Path::new("/usr/bin/docker-registry");
    let mut server = Server::spawn("docker-registry", registry, arguments, folder.path(), log);
    until("the registry listens", START_DEADLINE, async || {
        server.check_alive();
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .await;

    image();
    let repository = format!("127.0.0.1:{port}/team/connector");
    let base = format!("BUILD_IMAGE={}", stdout(&mut Command::new("scripts/test-build-image")).trim());
    let push = [
        "--no-print-directory",
        "push",
        &format!("REPOSITORY={repository}"),
        "TAG=1.2",
        &base,
        "RUNTIME_IMAGE=scratch",
    ];
    let platform = docker(["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"]);
    let platform = platform.trim();
    let told = stdout(Command::new("make").args(push).env("PLATFORM", platform));
    let pulled = format!("{repository}:1.2");
    assert!(told.contains(&format!("pushed {pulled} ({platform})")), "{told}");
    docker(["image", "rm", &pulled]);
    docker(["pull", "--quiet", &pulled]);
    assert!(docker(["run", "--rm", &pulled, "--version"]).contains(env!("CARGO_PKG_VERSION")));
    docker(["image", "rm", &pulled]);
}

#[test]
fn it_says_what_it_is_and_is_nobody() {
    let inspected: Value = serde_json::from_str(&docker(["image", "inspect", image()])).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!([format!("/{PROGRAM}")]));
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(label("title"), env!("CARGO_PKG_NAME"));
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert!(label("created").as_str().is_some_and(|time| time.starts_with("20")), "{config}");

    let version = docker(["run", "--rm", "--read-only", "--network", "none", image(), "--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

/// What holds the container of the stack's task definition, as Docker's flags.
fn task_settings() -> Vec<String> {
    let template = harness::aws::template("cloudformation/connector.yaml");
    let number = |parameter: &str| -> f64 {
        let default = template["Parameters"][parameter]["Default"].to_string();
        default.trim_matches('"').parse().expect("a number")
    };
    let task = &template["Resources"]["TaskDefinition"]["Properties"];
    let container = &task["ContainerDefinitions"][0];
    assert_eq!((&task["Cpu"], &task["Memory"]), (&json!({"Ref": "Cpu"}), &json!({"Ref": "Memory"})));
    assert_eq!(container["ReadonlyRootFilesystem"], true);
    let dropped = container["LinuxParameters"]["Capabilities"]["Drop"].as_array().expect("capabilities");
    let mut settings = vec![
        "--read-only".to_owned(),
        format!("--user={}", container["User"].as_str().expect("a user")),
        // 1,024 units are one vCPU.
        format!("--cpus={}", number("Cpu") / 1024.0),
        format!("--memory={}m", number("Memory")),
        format!("--stop-timeout={}", container["StopTimeout"]),
    ];
    settings.extend(dropped.iter().map(|capability| format!("--cap-drop={}", capability.as_str().expect("text"))));
    settings
}

/// `run`, in a container that is held as the task definition has it.
fn contained(run: Run, container: &Container) -> Run {
    let more = "run --rm --security-opt no-new-privileges --network host --name";
    let mut arguments: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
    arguments.push(container.0.clone());
    arguments.extend(task_settings());
    // Named only: the values come from the environment of `docker`, and stand on no command line.
    for name in run.environment().keys() {
        arguments.extend(["--env".to_owned(), name.clone()]);
    }
    arguments.push(image().to_owned());
    let mut run = run.deadline(DEADLINE).through("docker", arguments);
    for name in ["PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT"] {
        #[allow(clippy::disallowed_methods, reason = "`docker` is to find its engine as it does outside of the test")]
        if let Ok(value) = std::env::var(name) {
            run = run.env(name, value);
        }
    }
    run
}

fn zip_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_delivers_with_a_quarter_of_a_cpu_and_nothing_to_write_to() {
    let site = Site::new().await;
    let archive = zip_of("inner/b.csv", b"1;2\n");
    let big = noise(20 << 20, 1);
    site.put("a.txt", "hello");
    site.put("big.bin", &big);
    site.put("z.zip", &archive);

    let container = Container::named();
    let run = site.run().env("LOG_LEVEL", "info").env("MULTIPART_THRESHOLD", "8MiB");
    let finished = contained(run, &container).finish().await;
    finished.assert_exit(0, "OK");
    let expected =
        [("a.txt", b"hello".to_vec()), ("big.bin", big), ("z.zip", archive), ("z/inner/b.csv", b"1;2\n".to_vec())];
    let delivered = site.bucket.contents().await;
    assert_eq!(delivered.len(), expected.len(), "{:?}", delivered.keys());
    for (key, bytes) in expected {
        assert!(delivered[key] == bytes, "{key} holds other bytes than the file");
    }
    assert!(site.bucket.is_multipart("big.bin").await);
    site.assert_nothing_left(&finished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_stop_ends_it_in_good_order_within_the_grace() {
    let site = Site::new().await;
    site.put("slow.bin", noise(64 << 20, 2));
    let proxy = Proxy::to_port(site.sshd.port()).rate(500_000).start().await;
    let run = site.run().env("LOG_LEVEL", "info").env("PORT", proxy.port());
    let run = run.env("MULTIPART_THRESHOLD", "8MiB").env("PART_SIZE", "5MiB").env("SFTP_CONNECTIONS", 2);

    let container = Container::named();
    let running = contained(run, &container).start();
    // An upload is under way, and has to be aborted.
    until("the upload is begun and bytes arrive", DEADLINE, async || {
        let begun = proxy.bytes(Toward::Client) > 1_000_000 && !site.bucket.open_uploads().await.is_empty();
        begun.then_some(())
    })
    .await;

    let asked = Instant::now();
    let name = container.0.clone();
    tokio::task::spawn_blocking(move || docker(["stop", "--time", "30", &name])).await.expect("docker stop");
    let took = asked.elapsed();
    let finished = running.finish().await;
    finished.assert_exit(143, "INTERRUPTED");
    assert!(took < GRACE, "it took {took:?} to stop");
    site.assert_nothing_left(&finished).await;
    assert_eq!(site.bucket.keys().await, [""; 0]);
}
