//! A server that is far away: a process that forwards to it and adds the round trip, the same for all clients.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::harness::process::{START_DEADLINE, Server};
use crate::harness::proxy::Proxy;
use crate::harness::until;

/// The argument that makes this program the proxy.
pub const MODE: &str = "far";

/// Between Frankfurt and New York, half of it each way.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A running proxy. It ends when dropped.
pub struct Far {
    port: u16,
    _process: Server,
}

impl Far {
    /// In front of the server on this port of 127.0.0.1. `folder` takes its log and its address.
    pub async fn start(server: u16, folder: &Path) -> Self {
        let this = std::env::current_exe().expect("this program's path");
        let address = folder.join("far.port");
        let arguments = [MODE.to_owned(), server.to_string(), address.display().to_string()];
        let process = Server::spawn("the proxy", &this, arguments, folder, folder.join("far.log"));
        let read = async || std::fs::read_to_string(&address).ok()?.strip_suffix('\n')?.parse().ok();
        let port = until("the proxy listens", START_DEADLINE, read).await;
        Self { port, _process: process }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The proxy's process: forwards until it is killed.
pub fn main(server: &str, address: &str) -> ExitCode {
    let server: u16 = server.parse().expect("the server's port");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], server))).round_trip(ROUND_TRIP).start().await;
        std::fs::write(address, format!("{}\n", proxy.port())).expect("the file for the port");
        std::future::pending::<ExitCode>().await
    })
}
