//! A server that is far away: a proxy before it that adds the round trip, the same for all clients.

use std::process::ExitCode;
use std::time::Duration;

use crate::harness::proxy::Proxy;
use crate::server::announce;

/// The argument that makes this program the proxy.
pub const MODE: &str = "far";

/// Between Frankfurt and New York, half of it each way.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Forwards to `server`, a port of 127.0.0.1, until the process is killed.
pub fn main(port_file: &str, server: &str) -> ExitCode {
    let server: u16 = server.parse().expect("the server's port");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let proxy = Proxy::to_port(server).round_trip(ROUND_TRIP).start().await;
        announce(port_file, proxy.port());
        std::future::pending::<ExitCode>().await
    })
}
