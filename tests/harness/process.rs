//! Server processes of the tests: free ports for them, and an end for each of them, however the test process ends.
//!
//! A server dropped is killed with its process group. A server held in a `static` is never dropped, and a test process
//! may be killed itself; so each one is also started under `setpriv --pdeathsig KILL` and dies with its parent.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Long enough for a server on a loaded machine of two cores, short enough to see a hang.
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it and all that it started.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with its output going to the file `log`. The caller polls until it answers.
    pub fn spawn(
        name: &'static str,
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
        directory: &Path,
        log: PathBuf,
    ) -> Server {
        let output = File::create(&log).expect("a log file in the server's folder");
        let errors = output.try_clone().expect("a second handle on the log file");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = spawn_from_the_lasting_thread(command)
            .unwrap_or_else(|error| panic!("{name} does not start ({}): {error}; `make setup`?", program.display()));
        Server { name, child, log }
    }

    /// Panics, showing the log, where the server has ended by itself.
    pub fn check_alive(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("{} ended with {status}:\n{}", self.name, self.log());
        }
    }

    /// What it has written so far, standard output and error together.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // An error means that the group is gone already.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// The kernel sends the parent-death signal when the *thread* that forked ends, and each test has a thread of its own:
/// a server shared by tests must be started from a thread that lasts as long as the process.
fn spawn_from_the_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Nobody waits for the reply any more: then the child is dropped, and dies with this process.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    orders.lock().expect("no thread panics holding it").send((command, reply)).expect("the thread lasts");
    answer.recv().expect("the thread answers every order")
}

/// `N` ports of 127.0.0.1 that nothing listens on, not given out before by this process.
///
/// They lie below the range from which the kernel takes ports for outgoing connections, so that none of those takes a
/// port between now and the server's start; each process begins its search elsewhere, so that two rarely meet.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const RANGE: std::ops::Range<u16> = 10_000..32_000;
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().expect("no thread panics holding it");
    let taken = taken.get_or_insert_default();
    std::array::from_fn(|_| {
        (0..1_000)
            .map(|_| rand::random_range(RANGE))
            .find(|port| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .inspect(|port| {
                taken.insert(*port);
            })
            .expect("a free port among twenty thousand")
    })
}

/// A folder for a server. Where nothing drops it (the server is held in a `static`), a later process removes it: a store's
/// holds gigabytes.
pub fn server_folder(server: &str) -> TempDir {
    let prefix = format!("sftpconn-{server}-");
    let folders = std::fs::read_dir(tempfile::env::temp_dir()).expect("the folder for temporary files");
    for folder in folders.filter_map(|entry| Some(entry.ok()?.path())) {
        if folder.file_name().is_some_and(|name| is_left_over(&name.to_string_lossy(), &prefix)) {
            // Another process may be at it too.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
    let prefix = format!("{prefix}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a folder for a server")
}

/// Whether this is `prefix` and the number of a process that is no more: what that process made and nobody removed.
pub fn is_left_over(name: &str, prefix: &str) -> bool {
    let maker = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
    maker.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists())
}

/// A program of the virtual environment that `make test` fills.
pub fn installed(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(program);
    assert!(path.exists(), "{} is not installed: run `make setup` (or `make test`, which does)", path.display());
    path
}
