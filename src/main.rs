//! Wires the process to the library: arguments, environment, signals, stdout, exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use connector::config::{self, Config, LogSettings};
use connector::exit::Exit;
use connector::progress::Terminal;
use connector::report::Records;
use connector::{logging, shutdown};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first().map(|argument| argument.to_string_lossy()).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{}", config::help());
            return ExitCode::SUCCESS;
        }
        Some("--version" | "-V") => {
            println!("sftp-s3-connector {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("unknown argument {other:?}: the program is configured by environment variables; see --help");
            return Exit::Config.code().into();
        }
    }
    match start() {
        Ok(exit) => exit.code().into(),
        Err(error) => {
            eprintln!("{error:#}");
            Exit::Internal.code().into()
        }
    }
}

/// Most threads that requests and replies are worked on by.
const MOST_WORKERS: usize = 4;

/// Half as many threads as there are processors, at most four: a job is bound by the network, which one thread or two keep
/// busy, and tasks that wander between threads cost a tenth to a fifth of the processor time. Archives are decoded on
/// further threads.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, MOST_WORKERS)
}

fn start() -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .context("cannot start the threads that the program runs on")?;
    let exit = runtime.block_on(run());
    // A decoder or a connection that blocks a thread does not hold up the exit.
    runtime.shutdown_background();
    exit
}

async fn run() -> anyhow::Result<Exit> {
    let config = Config::from_env();
    let terminal = Terminal::default();
    logging::init(&LogSettings::from_env(), {
        let terminal = terminal.clone();
        move |write| terminal.around(write)
    });
    let keeps_records = config.as_ref().is_ok_and(|config| config.notify.of_a_run(config.delivers()).report.is_some());
    let records = Records::start(std::io::stdout(), keeps_records);
    let records = records.context("cannot start the thread that writes records")?;
    let shutdown = shutdown::on_signals().context("cannot handle SIGTERM and SIGINT")?;
    Ok(match config {
        Ok(config) => connector::run(config, records, terminal, shutdown).await,
        Err(faults) => connector::refuse(&faults, records, shutdown).await,
    })
}
