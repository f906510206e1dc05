//! The S3 store of the comparison, made to cost less than its clients do: one that costs more makes all of them wait for it
//! alike. What arrives is written once; nothing is moved, joined or read again until a client asks for it.

use std::path::PathBuf;
use std::process::ExitCode;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use crate::harness::seaweed::ADMIN;
use crate::server::announce;

mod checksum;
mod content;
mod index;
mod operations;

/// The argument that makes this program the store.
pub const MODE: &str = "store";

/// Keeps what its buckets hold in `folder`, until the process is killed.
pub fn main(port_file: &str, folder: &str) -> ExitCode {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let mut builder = S3ServiceBuilder::new(operations::Store::new(PathBuf::from(folder)));
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
