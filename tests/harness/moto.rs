//! moto as the AWS of the tests, but for S3: one process for a test binary, names chosen by each test.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::process::{START_DEADLINE, Server, free_ports, installed, server_folder};
use super::seaweed::{ADMIN, REGION};
use super::until;

/// A running moto. Dropping it stops it.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    _server: Server,
    _folder: TempDir,
}

impl Moto {
    /// The one that all tests of this process share; it ends with the process.
    pub async fn shared() -> &'static Moto {
        static SHARED: OnceCell<Moto> = OnceCell::const_new();
        SHARED.get_or_init(Moto::start).await
    }

    /// One of the caller's own. Returns when it answers.
    pub async fn start() -> Moto {
        Self::start_program("moto_server", None).await
    }

    /// One of the caller's own that can run state machines which call other services (`tests/stacks/moto_server.py`).
    pub async fn start_with_workflows() -> Moto {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/moto_server.py");
        Self::start_program("python", Some(script.to_owned())).await
    }

    async fn start_program(program: &str, script: Option<String>) -> Moto {
        let folder = server_folder("moto");
        let [port] = free_ports();
        let address = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
        let log = folder.path().join("log");
        let arguments = script.into_iter().chain(address);
        let mut server = Server::spawn("moto", &installed(program), arguments, folder.path(), log);

        let client = client(port);
        until("moto answers", START_DEADLINE, async || {
            server.check_alive();
            client.list_secrets().send().await.ok()
        })
        .await;
        Moto { port, _server: server, _folder: folder }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The SDK's own client. It belongs to the runtime that first uses it.
    pub fn client(&self) -> Client {
        client(self.port)
    }

    /// Creates a secret; its first version has the stage `AWSCURRENT`. Returns its ARN.
    pub async fn create_secret(&self, name: &str, value: &str) -> String {
        let created = self.client().create_secret().name(name).secret_string(value).send().await;
        created.expect("moto creates a secret").arn.expect("a secret has an ARN")
    }

    /// Creates a secret that holds bytes instead of text.
    pub async fn create_binary_secret(&self, name: &str, value: &[u8]) -> String {
        let blob = aws_sdk_secretsmanager::primitives::Blob::new(value);
        let created = self.client().create_secret().name(name).secret_binary(blob).send().await;
        created.expect("moto creates a secret").arn.expect("a secret has an ARN")
    }

    /// Adds a version with these stages. As in AWS, `AWSCURRENT` moves the version that had it to `AWSPREVIOUS`.
    pub async fn put_secret_version(&self, name: &str, value: &str, stages: &[&str]) {
        let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
        let request = self.client().put_secret_value().secret_id(name).secret_string(value);
        request.set_version_stages(Some(stages)).send().await.expect("moto takes a version");
    }
}

fn client(port: u16) -> Client {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(ADMIN.access_key, ADMIN.secret_key, None, None, "test"))
        .build();
    Client::from_conf(config)
}
