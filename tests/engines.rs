//! What both engines promise (`remote::Engine`, `remote::Remote`), held against a real `sshd`.

mod harness;

use harness::sshd::{Sshd, SshdOptions};

#[test]
fn a_server_leaves_nothing_behind() {
    let sshd = Sshd::start(SshdOptions::default());
    let (port, root) = (sshd.port(), sshd.root());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(sshd.host_key_lines().len(), 3);
    let user = sshd.username().to_owned();
    drop(sshd);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!root.exists());
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains(&user));
}
