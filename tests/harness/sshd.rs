//! A real OpenSSH server, `/usr/sbin/sshd`, for one test: free port, own host keys, own configuration, and a directory
//! that the test fills and sessions start in. Servers that run side by side share a system user with a random password.
//!
//! Runs as root, or through `sudo -n`. Servers and users that a killed run left behind are removed by the next.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::poll;
use super::process::is_left_over;

const SSHD: &str = "/usr/sbin/sshd";
/// Folders and users are named by this, the process that made them, and a number.
const PREFIX: &str = "sftpconn-";
/// `tests/keys` has one of each; all of them log in.
const AUTHORIZED: [&str; 3] = ["ed25519.openssh.pub", "ecdsa.openssh.pub", "rsa.openssh.pub"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyType {
    Ed25519,
    Ecdsa,
    Rsa,
}

impl HostKeyType {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// What differs from a server that takes a password or a key and has all three host keys.
#[derive(Debug, Clone)]
pub struct SshdOptions {
    host_keys: Vec<HostKeyType>,
    ipv6: bool,
    settings: Vec<(String, String)>,
}

impl Default for SshdOptions {
    fn default() -> Self {
        let host_keys = vec![HostKeyType::Ed25519, HostKeyType::Ecdsa, HostKeyType::Rsa];
        Self { host_keys, ipv6: false, settings: Vec::new() }
    }
}

impl SshdOptions {
    pub fn host_keys(mut self, types: &[HostKeyType]) -> Self {
        self.host_keys = types.to_vec();
        self
    }

    /// Listens on `::1` as well, on the same port.
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// A line of `sshd_config`; it wins over what the harness sets.
    pub fn set(mut self, keyword: &str, value: &str) -> Self {
        self.settings.push((keyword.into(), value.into()));
        self
    }

    /// Asks for the password by keyboard-interactive, and by nothing else.
    pub fn keyboard_interactive(self) -> Self {
        self.set("UsePAM", "yes")
            .set("KbdInteractiveAuthentication", "yes")
            .set("PasswordAuthentication", "no")
            .set("PubkeyAuthentication", "no")
    }
}

/// A running server.
pub struct Sshd {
    folder: PathBuf,
    user: Arc<User>,
    port: u16,
    server: Child,
    /// The server's own, which is not `server`'s under sudo.
    pid: i32,
}

impl Sshd {
    pub fn start(options: SshdOptions) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install openssh-server");
        remove_leftovers();
        let user = User::shared();
        let folder = tempfile::env::temp_dir().join(new_name());
        for inner in ["", "files", "etc"] {
            fs::create_dir(folder.join(inner)).expect("a folder for the server");
        }
        // The user has to get there, and to write.
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("folder's mode");
        fs::set_permissions(folder.join("files"), Permissions::from_mode(0o777)).expect("files' mode");
        make_keys(&folder, &options.host_keys);
        as_root("mkdir").args(["-p", "-m", "755", "/run/sshd"]).run();

        // Another process may take the port between its choice and its use.
        for _ in 0..5 {
            let port = free_port(options.ipv6);
            fs::write(folder.join("etc/sshd_config"), config(&folder, port, &options)).expect("sshd_config");
            File::create(folder.join("log")).expect("the log");
            let mut server = as_root(SSHD)
                .arg("-D")
                .args([Path::new("-f"), &folder.join("etc/sshd_config"), Path::new("-E"), &folder.join("log")])
                .stdin(Stdio::null())
                .process_group(0)
                .spawn()
                .expect("sshd starts");
            if let Some(pid) = wait_until_listening(&mut server, &folder) {
                return Self { folder, user, port, server, pid };
            }
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "sshd ended at once:\n{log}");
        }
        panic!("five ports were taken by others before sshd had them");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn username(&self) -> &str {
        &self.user.name
    }

    pub fn password(&self) -> &str {
        &self.user.password
    }

    /// A private key that logs in, made for this server.
    pub fn client_key_pem(&self) -> String {
        fs::read_to_string(self.folder.join("etc/client")).expect("the client's key")
    }

    /// `type base64 comment`, one for each host key.
    pub fn host_key_lines(&self) -> Vec<String> {
        [HostKeyType::Ed25519, HostKeyType::Ecdsa, HostKeyType::Rsa]
            .iter()
            .filter_map(|kind| fs::read_to_string(self.folder.join(format!("etc/host_{}.pub", kind.name()))).ok())
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// What an SFTP session starts in.
    pub fn root(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// All that the server logged so far, at `DEBUG3`.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).expect("the server's log")).into_owned()
    }

    /// Waits for the log to say `text`: the server writes after it acts.
    pub fn wait_for_log(&self, text: &str) {
        poll(&format!("{text:?} in sshd's log"), Duration::from_secs(10), || self.log().contains(text).then_some(()));
    }

    /// Kills the processes that serve connections; the server goes on listening. Returns how many there were.
    pub fn cut_connections(&self) -> usize {
        let serving = descendants(self.pid);
        signal("KILL", &serving);
        poll("connections' end", Duration::from_secs(10), || serving.iter().all(|pid| !is_alive(*pid)).then_some(()));
        serving.len()
    }

    /// Stops the processes that serve connections where they are: the connections stay open and say nothing.
    pub fn stall_connections(&self) -> usize {
        let serving = descendants(self.pid);
        signal("STOP", &serving);
        serving.len()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let mut all = descendants(self.pid);
        all.push(self.pid);
        signal("KILL", &all);
        let _ = self.server.wait();
        poll("sshd's end", Duration::from_secs(10), || all.iter().all(|pid| !is_alive(*pid)).then_some(()));
        // Tests make files and folders that only root may remove.
        as_root("rm").arg("-rf").arg(&self.folder).run();
    }
}

fn config(folder: &Path, port: u16, options: &SshdOptions) -> String {
    let etc = folder.join("etc");
    let etc = etc.display();
    // Of two lines with one keyword sshd takes the first.
    let mut lines: Vec<String> = options.settings.iter().map(|(keyword, value)| format!("{keyword} {value}")).collect();
    lines.push(format!("ListenAddress 127.0.0.1:{port}"));
    if options.ipv6 {
        lines.push(format!("ListenAddress [::1]:{port}"));
    }
    lines.extend(options.host_keys.iter().map(|kind| format!("HostKey {etc}/host_{}", kind.name())));
    lines.push(format!("AuthorizedKeysFile {etc}/authorized_keys"));
    lines.push(format!("PidFile {}/sshd.pid", folder.display()));
    lines.extend(
        [
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication yes",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 200",
            "MaxAuthTries 20",
            "LogLevel DEBUG3",
        ]
        .map(String::from),
    );
    lines.push(format!("Subsystem sftp internal-sftp -d {}", folder.join("files").display()));
    // From 9.8 on a failed login keeps the address out for a while. Older servers refuse a keyword they do not know.
    let binary = fs::read(SSHD).expect("sshd is readable");
    if binary.windows(18).any(|bytes| bytes.eq_ignore_ascii_case(b"persourcepenalties")) {
        lines.push("PerSourcePenalties no".into());
    }
    lines.join("\n") + "\n"
}

/// `None` if the server ended instead.
fn wait_until_listening(server: &mut Child, folder: &Path) -> Option<i32> {
    poll("sshd's start", Duration::from_secs(20), || {
        if server.try_wait().expect("sshd's status").is_some() {
            return Some(None);
        }
        let log = fs::read_to_string(folder.join("log")).ok()?;
        let pid = fs::read_to_string(folder.join("sshd.pid")).ok()?.trim().parse().ok()?;
        log.contains("Server listening on").then_some(Some(pid))
    })
}

fn free_port(ipv6: bool) -> u16 {
    poll("a free port", Duration::from_secs(10), || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback");
        let port = listener.local_addr().expect("its address").port();
        (!ipv6 || TcpListener::bind(("::1", port)).is_ok()).then_some(port)
    })
}

/// Making an RSA key takes longer than all else together, so that one is the tests' own.
fn make_keys(folder: &Path, host_keys: &[HostKeyType]) {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let etc = folder.join("etc");
    for kind in host_keys {
        let file = etc.join(format!("host_{}", kind.name()));
        if *kind == HostKeyType::Rsa {
            fs::copy(keys.join("rsa.openssh"), &file).expect("a host key");
            fs::copy(keys.join("rsa.openssh.pub"), file.with_extension("pub")).expect("a host key's public half");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("the host key's mode");
        } else {
            generate_key(kind.name(), &file);
        }
    }
    generate_key("ed25519", &etc.join("client"));
    let mut authorized = fs::read_to_string(etc.join("client.pub")).expect("the client's public key");
    for name in AUTHORIZED {
        authorized += &fs::read_to_string(keys.join(name)).expect("a test key");
    }
    fs::write(etc.join("authorized_keys"), authorized).expect("authorized_keys");
}

fn generate_key(kind: &str, file: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(file).status();
    assert!(made.expect("ssh-keygen is installed with sshd").success(), "ssh-keygen made no {kind} key");
}

/// `PREFIX`, this process, and a number.
fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A system user without a shell; goes when the last server that knows it does.
struct User {
    name: String,
    password: String,
}

impl User {
    fn shared() -> Arc<Self> {
        static LAST: Mutex<Weak<User>> = Mutex::new(Weak::new());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        last.upgrade().unwrap_or_else(|| {
            let user = Arc::new(Self::add());
            *last = Arc::downgrade(&user);
            user
        })
    }

    fn add() -> Self {
        let user = Self { name: new_name(), password: format!("pw-{:032x}", rand::random::<u128>()) };
        let _alone = lock_users();
        as_root("useradd").args(["--no-create-home", "--home-dir", "/", "--shell", "/bin/false", &user.name]).run();
        let mut chpasswd = as_root("chpasswd").stdin(Stdio::piped()).spawn().expect("chpasswd starts");
        let mut input = chpasswd.stdin.take().expect("chpasswd's input");
        writeln!(input, "{}:{}", user.name, user.password).expect("chpasswd reads");
        drop(input);
        assert!(chpasswd.wait().expect("chpasswd's status").success(), "chpasswd set no password");
        user
    }
}

impl Drop for User {
    fn drop(&mut self) {
        remove_user(&self.name);
    }
}

fn remove_user(name: &str) {
    let _alone = lock_users();
    as_root("userdel").arg("-f").arg(name).stdout(Stdio::null()).stderr(Stdio::null()).run();
}

/// `useradd` gives up where another one is at work, so all tests of this machine take turns.
fn lock_users() -> File {
    let lock =
        File::options().create(true).append(true).open(tempfile::env::temp_dir().join(format!("{PREFIX}users.lock")));
    let lock = lock.expect("the lock file");
    lock.lock().expect("the lock");
    lock
}

/// Once for each test process: what is named after a process that is no more.
fn remove_leftovers() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let folders = fs::read_dir(tempfile::env::temp_dir()).expect("the folder for temporary files");
        for folder in folders.filter_map(|entry| Some(entry.ok()?.path())) {
            if !folder.file_name().is_some_and(|name| is_left_over(&name.to_string_lossy(), PREFIX)) {
                continue;
            }
            let pid = fs::read_to_string(folder.join("sshd.pid")).ok().and_then(|pid| pid.trim().parse::<i32>().ok());
            if let Some(pid) = pid {
                // The number may be another process's by now; sshd shows its configuration's path.
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if String::from_utf8_lossy(&command).contains(&*folder.to_string_lossy()) {
                    let mut all = descendants(pid);
                    all.push(pid);
                    signal("KILL", &all);
                }
            }
            as_root("rm").arg("-rf").arg(&folder).run();
        }
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        users
            .lines()
            .filter_map(|line| line.split(':').next())
            .filter(|user| is_left_over(user, PREFIX))
            .for_each(remove_user);
    });
}

/// A command as root: as it is, or through `sudo -n`.
fn as_root(program: &str) -> Command {
    if nix::unistd::Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", program]);
    sudo
}

trait Run {
    /// To its end, which must be a good one.
    fn run(&mut self);
}

impl Run for Command {
    fn run(&mut self) {
        let done = self.status();
        let good = done.as_ref().is_ok_and(std::process::ExitStatus::success);
        assert!(good, "{self:?} failed ({done:?}). The tests of real servers need root, or sudo without a password.");
    }
}

/// `signal` to those of `pids` that are still there.
fn signal(signal: &str, pids: &[i32]) {
    if pids.is_empty() {
        return;
    }
    // One that ended in the meantime makes kill fail, and the rest are signalled all the same.
    let _ = as_root("kill")
        .arg(format!("-{signal}"))
        .arg("--")
        .args(pids.iter().map(ToString::to_string))
        .stderr(Stdio::null())
        .status();
}

/// Children, their children, and so on, by the parents that `/proc` shows.
fn descendants(of: i32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent_and_state(pid)?.0)))
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Neither gone nor a zombie, which only waits to be counted.
fn is_alive(pid: i32) -> bool {
    parent_and_state(pid).is_some_and(|(_, state)| state != 'Z')
}

/// From `/proc/PID/stat`, whose second field, the name, may hold anything, parentheses and spaces included.
fn parent_and_state(pid: i32) -> Option<(i32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
