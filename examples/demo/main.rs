//! `make demo`: the main job end to end, with nothing installed.
//!
//! Starts an SFTP server with sample files, an S3 store and a Secrets Manager endpoint in this process, runs the built
//! program against them by its environment variables, as a container would, and lays the bucket beside the source,
//! byte for byte. Ends with an error when anything differs.

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use inprocess::run::Run;
use inprocess::s3::{self, S3Server};
use inprocess::secrets::SecretsServer;
use inprocess::sftp::{Account, Options, SftpServer};

#[path = "../../tests/harness/inprocess/mod.rs"]
mod inprocess;
mod samples;
mod show;

const BUCKET: &str = "demo-inbox";
const SECRET_NAME: &str = "demo/partner";
const USER: &str = "partner";
const PASSWORD: &str = "demo-password-8f3a";
const DIRECTORY: &str = "/outbox";

#[tokio::main]
async fn main() -> Result<()> {
    let program = program()?;

    show::heading("Three servers on loopback");
    let source = samples::tree(DIRECTORY)?;
    let sftp = SftpServer::start(Options::new(source.clone(), Account::password(USER, PASSWORD))).await?;
    let store = S3Server::start(&[BUCKET]).await.map_err(|error| anyhow!(error))?;
    let secrets = SecretsServer::start().await?;
    secrets.put(
        SECRET_NAME,
        json!({
            "Host": "127.0.0.1",
            "Username": USER,
            "Password": PASSWORD,
            "TrustedHostKeys": sftp.host_key(),
        }),
    );
    show::pair("SFTP", &format!("sftp://{USER}@127.0.0.1:{}{DIRECTORY}", sftp.port()));
    show::pair("S3", &format!("{}/{BUCKET}", store.url()));
    show::pair("Secrets Manager", &format!("{}/ ({SECRET_NAME})", secrets.url()));

    let mut run = Run::new(&program)
        .env("BUCKET", BUCKET)
        .env("SECRET_NAME", SECRET_NAME)
        .env("SFTP_DIRECTORY_PATH", DIRECTORY)
        .env("PORT", sftp.port())
        .env("RECURSIVE", "true")
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.url())
        .secret(PASSWORD)
        .secret(s3::SECRET_KEY)
        .deadline(Duration::from_secs(120));
    for (name, value) in store.environment() {
        run = run.env(name, value);
    }

    show::heading("The run");
    show::environment(run.environment());
    println!("\n  $ {}\n", program.display());
    let started = Instant::now();
    let finished = run.finish().await;
    show::records(&finished);
    if finished.exit != 0 {
        eprintln!("{}", finished.stderr);
    }

    show::heading("The bucket beside the source");
    let expected = samples::expected(&source, DIRECTORY)?;
    let same = show::comparison(&expected, &store, BUCKET).await;

    ensure!(finished.exit == 0, "the program ended with exit status {}", finished.exit);
    ensure!(same, "the bucket differs from the source");
    println!("\nEvery object is what the server had, byte for byte ({:.1} s).", started.elapsed().as_secs_f64());
    Ok(())
}

/// The built program: the first argument, or where cargo puts it, beside the folder of this example.
fn program() -> Result<PathBuf> {
    if let Some(path) = env::args_os().nth(1) {
        return Ok(path.into());
    }
    let this = env::current_exe().context("cannot tell where this example is")?;
    let built = this.ancestors().nth(2).map(|folder| folder.join("sftp-s3-connector"));
    built
        .filter(|path| path.is_file())
        .context("the program is not built: run `make demo`, or `cargo build` before `cargo run --example demo`")
}
