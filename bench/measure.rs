//! What a process and all that it starts cost: processor time, wall time, peak memory.
//!
//! The kernel adds up the processor time of children that were waited for. So each command is run by a process of its own,
//! this program again, which has no other children.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The argument that makes this program the measuring process.
pub const MODE: &str = "measure";

/// What is run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
    /// Files that take a process id: the control groups that the command runs in.
    pub groups: Vec<PathBuf>,
    /// What the command says goes to this file, standard output and error together.
    pub log: PathBuf,
    /// How long it may take, if there is a limit.
    pub limit: Option<Duration>,
}

/// How it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum End {
    Success,
    /// Says how.
    Failure(String),
    /// Killed, and all that it had started: it took longer than this.
    OverLimit(Duration),
}

/// What it cost.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time of the process and all that it started.
    pub cpu_seconds: f64,
    pub wall_seconds: f64,
    /// Of the largest process among them.
    pub peak_mib: f64,
}

impl Cost {
    /// One after the other.
    pub fn then(self, next: Cost) -> Cost {
        Cost {
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            wall_seconds: self.wall_seconds + next.wall_seconds,
            peak_mib: self.peak_mib.max(next.peak_mib),
        }
    }
}

/// Runs the order to its end, in a measuring process. The cost is that of a delivery where it ended in success only.
pub fn measure(order: &Order, folder: &Path) -> (End, Cost) {
    let (order_file, cost_file) = (folder.join("order.json"), folder.join("cost.json"));
    fs::write(&order_file, serde_json::to_vec(order).expect("an order is JSON")).expect("the order's file");
    let this = std::env::current_exe().expect("this program's path");
    let status = Command::new(this).arg(MODE).args([&order_file, &cost_file]).status().expect("this program starts");
    assert!(status.success(), "the measuring process failed");
    serde_json::from_slice(&fs::read(&cost_file).expect("the cost's file")).expect("an end and a cost")
}

/// The measuring process.
pub fn main(order_file: &str, cost_file: &str) -> ExitCode {
    let order: Order = serde_json::from_slice(&fs::read(order_file).expect("the order's file")).expect("an order");
    for group in &order.groups {
        fs::write(group, std::process::id().to_string()).expect("the control group takes this process");
    }
    let log = fs::File::create(&order.log).expect("the log");
    let errors = log.try_clone().expect("a second handle on the log");
    let mut command = Command::new(&order.program);
    command
        .args(&order.arguments)
        .env_clear()
        .envs(&order.environment)
        .current_dir(&order.directory)
        .stdin(std::process::Stdio::null())
        .stdout(log)
        .stderr(errors);
    if order.limit.is_some() {
        // To be killed as one. The others stay in the terminal's group, and end when a developer interrupts the bench.
        command.process_group(0);
    }
    let start = Instant::now();
    let end = match command.spawn() {
        Ok(child) => wait(child, order.limit),
        Err(error) => End::Failure(format!("{} does not start: {error}", order.program.display())),
    };
    let wall_seconds = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cost = Cost {
        cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()),
        wall_seconds,
        // In KiB on Linux.
        peak_mib: usage.max_rss() as f64 / 1024.0,
    };
    fs::write(cost_file, serde_json::to_vec(&(end, cost)).expect("they are JSON")).expect("the cost's file");
    ExitCode::SUCCESS
}

/// Waits for the child. Where there is a limit, the child leads a process group, which is killed when the time is over.
fn wait(mut child: Child, limit: Option<Duration>) -> End {
    let group = Pid::from_raw(child.id().try_into().expect("a process id"));
    let (ended, told) = mpsc::channel::<()>();
    let watch = limit.map(|limit| {
        thread::spawn(move || {
            let over = told.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            // An error means that it ended this very moment.
            over.then(|| killpg(group, Signal::SIGKILL).ok()).map(|_| limit)
        })
    });
    let status = child.wait().expect("the child is this process's");
    drop(ended);
    match watch.and_then(|watch| watch.join().expect("the watch does not panic")) {
        Some(limit) => End::OverLimit(limit),
        None if status.success() => End::Success,
        None => End::Failure(status.to_string()),
    }
}
