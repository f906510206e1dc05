//! The built program as a user runs it: a child process with its environment, what it wrote, how it ended.
//!
//! Whatever a test is about, two promises are checked in every run: stdout is records only, the last of which agrees
//! with the exit status; and no secret value appears in anything that was written.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A run of the program, prepared.
#[derive(Clone)]
pub struct Run {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    /// Values that may appear nowhere.
    secrets: Vec<String>,
    deadline: Duration,
}

impl Run {
    /// With nothing in its environment.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            secrets: Vec::new(),
            deadline: Duration::from_secs(60),
        }
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Starts `program` instead, which starts the program in its turn and ends as it does.
    pub fn through(mut self, program: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        self.program = program.into();
        self.arguments = arguments.into_iter().collect();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Looks for `value` in all that the run writes.
    pub fn secret(mut self, value: &str) -> Self {
        self.secrets.push(value.to_owned());
        self
    }

    /// A run that takes longer has hung: it is killed, and the test fails.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Starts it and waits for its end.
    pub async fn finish(self) -> Finished {
        self.start().finish().await
    }

    pub fn start(self) -> Running {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.program.display()));
        let stdout = drained(child.stdout.take());
        let stderr = drained(child.stderr.take());
        Running {
            child: Some(child),
            stdout,
            stderr,
            secrets: self.secrets,
            started: Instant::now(),
            deadline: self.deadline,
        }
    }
}

/// Everything that comes out of `pipe`, once it is closed; read by a thread, so that the program never waits for us.
fn drained(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth seeing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    receive
}

/// A run under way. Dropping it kills it.
pub struct Running {
    /// Present until it was waited for.
    child: Option<Child>,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
    secrets: Vec<String>,
    started: Instant,
    deadline: Duration,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(pid(child), signal).expect("the program runs until it was waited for");
        }
    }

    /// Follows the process's resident memory until it ends; the thread returns its peak, in bytes.
    pub fn watch_peak_memory(&self) -> thread::JoinHandle<u64> {
        let status = self.child.as_ref().map(|child| format!("/proc/{}/status", child.id())).unwrap_or_default();
        thread::spawn(move || {
            let mut peak = 0;
            // The kernel keeps the peak; the last look before the process ends is short of it by little.
            while let Some(kib) = std::fs::read_to_string(&status).ok().as_deref().and_then(peak_kib) {
                peak = kib << 10;
                thread::sleep(Duration::from_millis(20));
            }
            peak
        })
    }

    pub async fn finish(self) -> Finished {
        // Waiting blocks a thread; the servers in this process need theirs.
        tokio::task::spawn_blocking(move || self.wait()).await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("{error}"),
        })
    }

    fn wait(mut self) -> Finished {
        let (ended, end) = mpsc::channel();
        let mut child = self.child.take().expect("a run is waited for once");
        let pid = pid(&child);
        thread::spawn(move || ended.send(child.wait()));
        let left = self.deadline.saturating_sub(self.started.elapsed());
        let status = match end.recv_timeout(left) {
            Ok(status) => Some(status.expect("a child can be waited for")),
            Err(_) => {
                // It may have ended in this very moment.
                let _ = kill(pid, Signal::SIGKILL);
                None
            }
        };
        let elapsed = self.started.elapsed();
        let stdout = self.stdout.recv().unwrap_or_default();
        let stderr = String::from_utf8_lossy(&self.stderr.recv().unwrap_or_default()).into_owned();
        let Some(status) = status else {
            panic!("the run hung: killed after {elapsed:?}\n{}", excerpt(&stderr));
        };
        let stdout = String::from_utf8(stdout).expect("records are UTF-8");
        for secret in &self.secrets {
            assert_absent(secret, "stdout", &stdout);
            assert_absent(secret, "stderr", &stderr);
        }
        let Some(exit) = status.code() else { panic!("ended by a signal ({status})\n{}", excerpt(&stderr)) };
        let records = records(&stdout, &stderr);
        let finished = Finished { exit, records, stderr, elapsed };
        finished.check_last_record();
        finished
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `VmHWM` of `/proc/PID/status`, proc(5).
fn peak_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// A run that ended.
#[derive(Debug)]
pub struct Finished {
    pub exit: i32,
    /// All but the last.
    records: Vec<Value>,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Finished {
    /// The records of files, entries and skipped files.
    pub fn files(&self) -> &[Value] {
        &self.records[..self.records.len() - 1]
    }

    /// The last record, the run's own.
    pub fn run(&self) -> &Value {
        self.records.last().expect("checked when the run ended")
    }

    /// The records whose `file-path` ends with `suffix`.
    pub fn of(&self, suffix: &str) -> Vec<&Value> {
        let of = |record: &&Value| record["file-path"].as_str().is_some_and(|path| path.ends_with(suffix));
        self.files().iter().filter(of).collect()
    }

    /// The one record whose `file-path` ends with `suffix`.
    pub fn only(&self, suffix: &str) -> &Value {
        match self.of(suffix).as_slice() {
            [one] => one,
            several => panic!("{} records of {suffix}:\n{}", several.len(), self.show()),
        }
    }

    /// Key, bytes and checksum of every object that the records call completed.
    pub fn objects(&self) -> BTreeMap<&str, (u64, &str)> {
        let completed = self.files().iter().filter(|record| record["status-code"] == "COMPLETED");
        completed
            .filter_map(|record| {
                let key = record["local-file-location"]["key"].as_str()?;
                Some((key, (record["bytes"].as_u64()?, record["checksum-crc64nvme"].as_str()?)))
            })
            .collect()
    }

    /// `status-code` and, where there is one, `failure-code` of every file's record, sorted.
    pub fn statuses(&self) -> Vec<String> {
        let mut statuses: Vec<String> = self
            .files()
            .iter()
            .map(|record| {
                let status = record["status-code"].as_str().unwrap_or_default();
                match record["failure-code"].as_str() {
                    Some(code) => format!("{status} {code}"),
                    None => status.to_owned(),
                }
            })
            .collect();
        statuses.sort();
        statuses
    }

    #[track_caller]
    pub fn assert_exit(&self, code: i32, name: &str) -> &Self {
        assert_eq!((self.exit, self.run()["exit-name"].as_str()), (code, Some(name)), "\n{}", self.show());
        self
    }

    /// What a failing assertion shows of the run.
    pub fn show(&self) -> String {
        let records: Vec<String> = self.records.iter().map(Value::to_string).collect();
        format!("exit {} after {:?}\n{}\n{}", self.exit, self.elapsed, records.join("\n"), excerpt(&self.stderr))
    }

    fn check_last_record(&self) {
        let Some(last) = self.records.last() else { panic!("no record on stdout\n{}", excerpt(&self.stderr)) };
        assert!(last.get("exit-code").is_some(), "the last record is the run's\n{}", self.show());
        assert_eq!(last["exit-code"], self.exit, "the last record's exit code is the process's\n{}", self.show());
        assert!(!self.stderr.contains("panicked at"), "a panic\n{}", self.show());
        for record in self.files() {
            assert!(record.get("exit-code").is_none(), "one run record, at the end\n{}", self.show());
            assert_eq!(record["transfer-id"], last["transfer-id"], "one run, one transfer-id\n{}", self.show());
        }
    }
}

fn records(stdout: &str, stderr: &str) -> Vec<Value> {
    let parse = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(record) if record.is_object() => record,
        _ => panic!("stdout holds what is no record: {line:?}\n{}", excerpt(stderr)),
    };
    stdout.lines().map(parse).collect()
}

/// Fails when `secret` is in `text`, as it is or in a form that a log would give it.
pub fn assert_absent(secret: &str, place: &str, text: &str) {
    let bytes = secret.as_bytes();
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let in_json = |text: &str| {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let forms = [
        ("itself", secret.to_owned()),
        ("in JSON", in_json(secret)),
        ("in JSON in JSON", in_json(&in_json(secret))),
        ("in Debug", secret.escape_debug().to_string()),
        ("in base64", BASE64_STANDARD.encode(bytes)),
        ("in base64 without padding", BASE64_STANDARD_NO_PAD.encode(bytes)),
        ("in base64 for URLs", BASE64_URL_SAFE.encode(bytes)),
        ("in hexadecimal", bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        ("as a list of bytes", decimal.join(", ")),
    ];
    for (how, form) in forms {
        // Not the value: a test's log is a log too.
        assert!(!text.contains(&form), "a secret value of {} bytes appears on {place}, {how}", bytes.len());
    }
}

/// The end of a log, which says why.
fn excerpt(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains("\"TRACE\"")).collect();
    let from = lines.len().saturating_sub(60);
    lines[from..].iter().map(|line| line.chars().take(600).collect::<String>() + "\n").collect()
}
