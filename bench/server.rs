//! A server of the bench's own: this program again, in a process of its own, which says in a file what port it has.

use std::fs;
use std::path::Path;

use crate::harness::process::{START_DEADLINE, Server};
use crate::harness::until;

/// Starts this program as the server that `mode` names, with the file for its port as its first argument. It ends when
/// the [`Server`] is dropped.
pub async fn start(name: &'static str, mode: &str, arguments: &[String], folder: &Path) -> (u16, Server) {
    let this = std::env::current_exe().expect("this program's path");
    let port_file = folder.join(format!("{mode}.port"));
    let all = [mode.to_owned(), port_file.display().to_string()].into_iter().chain(arguments.iter().cloned());
    let process = Server::spawn(name, &this, all, folder, folder.join(format!("{mode}.log")));
    let read = async || fs::read_to_string(&port_file).ok()?.strip_suffix('\n')?.parse().ok();
    (until(name, START_DEADLINE, read).await, process)
}

/// Says that the server listens on `port`.
pub fn announce(port_file: &str, port: u16) {
    fs::write(port_file, format!("{port}\n")).expect("the file for the port");
}
