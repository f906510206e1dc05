//! An SFTP version 3 server in this process, over russh's server side, serving a [`Tree`].
//!
//! It listens on a free loopback port, counts what clients do, and misbehaves only as its [`Options`] say. Dropping it
//! cuts every connection.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::run_stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

mod content;
mod faults;
mod login;
mod session;
mod stats;
mod tree;
mod wire;

pub use content::Content;
pub use faults::{Fault, Misdeed, Quirks, Refusal, Trigger};
pub use login::{Account, Method};
pub use stats::{Attempt, Stats};
pub use tree::{Node, NodeKind, Tree};

/// What a server is started with.
#[derive(Clone)]
pub struct Options {
    pub tree: Tree,
    pub account: Account,
    /// Where relative paths begin.
    pub home: Vec<u8>,
    /// Text sent before login.
    pub banner: Option<String>,
    /// What its host key is derived from: two servers with one seed have one key.
    pub host_key_seed: u8,
    /// Bytes either way after which the server starts a new key exchange.
    pub rekey_after: Option<usize>,
    pub quirks: Quirks,
}

impl Options {
    /// A server that behaves, with one user who logs in by password.
    pub fn new(tree: Tree, account: Account) -> Self {
        Self {
            tree,
            account,
            home: b"/".to_vec(),
            banner: None,
            host_key_seed: 7,
            rekey_after: None,
            quirks: Quirks::default(),
        }
    }

    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }
}

/// What all connections of a server share.
struct Shared {
    tree: Mutex<Tree>,
    account: Account,
    home: Vec<u8>,
    banner: Option<String>,
    quirks: Quirks,
    stats: Arc<Stats>,
    /// A second handle on every open socket, by connection number: what cuts a connection without a word.
    sockets: Mutex<HashMap<u64, std::net::TcpStream>>,
}

impl Shared {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap()
    }

    fn cut(&self, connection: u64) {
        if let Some(socket) = self.sockets.lock().unwrap().remove(&connection) {
            // An error means that the client closed it first.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A running server.
pub struct SftpServer {
    address: SocketAddr,
    host_key: PrivateKey,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl SftpServer {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let host_key = PrivateKey::from(Ed25519Keypair::from_seed(&[options.host_key_seed; 32]));
        let limits = match options.rekey_after {
            Some(bytes) => russh::Limits::new(bytes, bytes, Duration::from_secs(3600)),
            None => russh::Limits::default(),
        };
        let ssh = Arc::new(russh::server::Config {
            methods: options.account.first_methods(),
            // Nobody attacks a test: a refusal need not take a second.
            auth_rejection_time: Duration::ZERO,
            keys: vec![host_key.clone()],
            limits,
            nodelay: true,
            ..Default::default()
        });
        let shared = Arc::new(Shared {
            tree: Mutex::new(options.tree),
            account: options.account,
            home: options.home,
            banner: options.banner,
            quirks: options.quirks,
            stats: Arc::default(),
            sockets: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, ssh, shared.clone()));
        Ok(Self { address, host_key, shared, accepting })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `ssh-ed25519 AAAA…`, as `TRUSTED_HOST_KEYS` takes it.
    pub fn host_key(&self) -> String {
        let line = self.host_key.public_key().to_openssh().expect("an Ed25519 key has an OpenSSH form");
        line.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        self.host_key.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string()
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What is served: read it, or change it while clients read.
    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.shared.tree()
    }
}

impl Drop for SftpServer {
    fn drop(&mut self) {
        self.accepting.abort();
        let open: Vec<u64> = self.shared.sockets.lock().unwrap().keys().copied().collect();
        for connection in open {
            self.shared.cut(connection);
        }
    }
}

async fn accept(listener: TcpListener, ssh: Arc<russh::server::Config>, shared: Arc<Shared>) {
    let mut number = 0;
    // Sockets that are held open without a word, for as long as the server lives.
    let mut silent = Vec::new();
    while let Ok((socket, _)) = listener.accept().await {
        number += 1;
        let open = shared.sockets.lock().unwrap().len();
        match shared.quirks.refusal(number, open) {
            Some(Refusal::Close) => {
                shared.stats.refused.fetch_add(1, Ordering::SeqCst);
            }
            Some(Refusal::Silence) => {
                shared.stats.refused.fetch_add(1, Ordering::SeqCst);
                silent.push(socket);
            }
            None => {
                tokio::spawn(converse(socket, number, ssh.clone(), shared.clone()));
            }
        }
    }
}

async fn converse(socket: TcpStream, number: u64, ssh: Arc<russh::server::Config>, shared: Arc<Shared>) {
    let Some((socket, second)) = twice(socket) else { return };
    shared.sockets.lock().unwrap().insert(number, second);
    shared.stats.connected();
    // How the connection ended is the client's business: what the server thinks of it is in no test.
    if let Ok(running) = run_stream(ssh, socket, login::Login::new(number, shared.clone())).await {
        let _ = running.await;
    }
    shared.cut(number);
    shared.stats.disconnected();
}

/// The socket, and a second handle on it.
fn twice(socket: TcpStream) -> Option<(TcpStream, std::net::TcpStream)> {
    socket.set_nodelay(true).ok()?;
    let socket = socket.into_std().ok()?;
    let second = socket.try_clone().ok()?;
    Some((TcpStream::from_std(socket).ok()?, second))
}
