//! The S3 store of the comparison: `s3s-fs`, which costs less than its clients do. A store that costs more makes all of
//! them wait for it alike.

use std::process::ExitCode;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use crate::harness::seaweed::ADMIN;
use crate::server::announce;

/// The argument that makes this program the store.
pub const MODE: &str = "store";

/// Keeps its buckets in `folder`, until the process is killed.
pub fn main(port_file: &str, folder: &str) -> ExitCode {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder).expect("the store's folder"));
        builder.set_auth(SimpleAuth::from_single(ADMIN.access_key, ADMIN.secret_key));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        announce(port_file, listener.local_addr().expect("a bound listener has an address").port());
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            socket.set_nodelay(true).expect("the socket takes the option");
            let service = service.clone();
            tokio::spawn(async move {
                // A client that leaves in the middle of a request is no news.
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    })
}
