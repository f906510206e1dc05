//! Paths, attributes and directories.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use connector::remote::{DirEntry, FileKind, Kind, RemotePath};

use super::{Make, connect, contract, list, start};

contract! {
    a_relative_path_starts_at_the_login_directory
    attributes_are_the_files_own
    links_are_followed_by_stat_and_shown_by_list
    odd_names_are_listed_byte_for_byte_and_can_be_read
    a_directory_of_five_thousand_is_listed_whole
    an_empty_directory_has_no_entries
    what_is_missing_is_not_found
    what_may_not_be_read_is_denied
    a_file_is_no_directory
    a_path_with_a_nul_is_not_found_and_the_connection_goes_on
    a_listing_that_is_given_up_leaves_the_connection_usable
}

async fn a_relative_path_starts_at_the_login_directory(make: Make) {
    let sshd = start();
    fs::create_dir_all(sshd.root().join("in/2024")).expect("folders");
    let root = fs::canonicalize(sshd.root()).expect("the root");
    let remote = connect(make, &sshd).await;
    for (path, absolute) in
        [(".", root.clone()), ("", root.clone()), ("in/../in/2024", root.join("in/2024")), ("/", "/".into())]
    {
        let found = remote.canonicalize(&RemotePath::from(path)).await.expect("it is there");
        assert_eq!(found.as_bytes(), absolute.as_os_str().as_bytes(), "{path:?}");
    }
}

async fn attributes_are_the_files_own(make: Make) {
    let sshd = start();
    let file = fs::File::create(sshd.root().join("data.csv")).expect("a file");
    // Past what 32 bits hold; nothing is stored for the hole.
    file.set_len(5_000_000_000).expect("its size");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).expect("its time");
    fs::create_dir(sshd.root().join("dir")).expect("a folder");
    let remote = connect(make, &sshd).await;

    let attributes = remote.stat(&"data.csv".into()).await.expect("it is there");
    assert_eq!(attributes.size, Some(5_000_000_000));
    assert_eq!(attributes.mtime, Some(1_700_000_000));
    assert_eq!(attributes.kind, FileKind::File);
    assert_eq!(remote.stat(&"dir".into()).await.expect("it is there").kind, FileKind::Directory);
    assert_eq!(remote.stat(&"/dev/null".into()).await.expect("it is there").kind, FileKind::Special);
    let listed = list(&*remote, ".").await.expect("the login directory");
    assert_eq!(listed[0], DirEntry { name: b"data.csv".to_vec(), attributes });
}

async fn links_are_followed_by_stat_and_shown_by_list(make: Make) {
    let sshd = start();
    fs::write(sshd.root().join("target"), b"four").expect("a file");
    symlink("target", sshd.root().join("link")).expect("a link");
    symlink("nowhere", sshd.root().join("broken")).expect("a link");
    let remote = connect(make, &sshd).await;

    let kinds: Vec<_> =
        list(&*remote, ".").await.expect("it is there").into_iter().map(|e| e.attributes.kind).collect();
    assert_eq!(kinds, [FileKind::Symlink, FileKind::Symlink, FileKind::File]);
    assert_eq!(remote.read_link(&"link".into()).await.expect("a link"), "target".into());
    assert_eq!(remote.read_link(&"target".into()).await.expect_err("no link").kind, Kind::Failed);
    let followed = remote.stat(&"link".into()).await.expect("it leads somewhere");
    assert_eq!((followed.kind, followed.size), (FileKind::File, Some(4)));
    assert_eq!(remote.stat(&"broken".into()).await.expect_err("it leads nowhere").kind, Kind::NotFound);
}

async fn odd_names_are_listed_byte_for_byte_and_can_be_read(make: Make) {
    let sshd = start();
    let mut names: Vec<Vec<u8>> = [
        &b"with space"[..],
        b" leading and trailing ",
        b"quote\"and'apostrophe",
        b"line\nbreak\r\n",
        b"100%25.txt",
        b"back\\slash",
        b"*?[a-z]{x}",
        b"$HOME`id`;&|",
        b"-rf",
        b"...",
        "grüße-日本語-🚀".as_bytes(),
        b"latin1-caf\xe9",
        b"\xff\xfe\x80",
        b"\x83V\x83t\x83g.txt",
        b"tab\tand\x01control\x7f",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push(vec![0xe9; 255]);
    names.sort();
    for (at, name) in names.iter().enumerate() {
        fs::write(sshd.root().join(OsStr::from_bytes(name)), format!("{at}")).expect("a file");
    }
    let remote = connect(make, &sshd).await;

    let listed: Vec<_> = list(&*remote, ".").await.expect("it is there").into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, names);
    for (at, name) in names.iter().enumerate() {
        let path = RemotePath::from("").join(name);
        let chunk = remote.read(&path, 0, 100).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(chunk.data.concat(), format!("{at}").into_bytes(), "{path:?}");
    }
    let absolute = remote.canonicalize(&RemotePath::new(b"\xff\xfe\x80".to_vec())).await.expect("it is there");
    assert_eq!(absolute.name(), b"\xff\xfe\x80");
}

async fn a_directory_of_five_thousand_is_listed_whole(make: Make) {
    let sshd = start();
    let folder = sshd.root().join("many");
    fs::create_dir(&folder).expect("a folder");
    // Long names, so that the listing takes many packets.
    let names: Vec<String> = (0..5000).map(|at| format!("{at:0200}")).collect();
    for name in &names {
        fs::File::create(folder.join(name)).expect("a file");
    }
    let remote = connect(make, &sshd).await;
    let listed = list(&*remote, "many").await.expect("it is there");
    assert_eq!(listed.len(), names.len());
    assert!(listed.iter().zip(&names).all(|(entry, name)| entry.name == name.as_bytes()));
}

async fn an_empty_directory_has_no_entries(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    assert_eq!(list(&*remote, "").await.expect("the login directory"), []);
}

async fn what_is_missing_is_not_found(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    let missing = RemotePath::from("missing/file");
    assert_eq!(list(&*remote, "missing").await.expect_err("no such directory").kind, Kind::NotFound);
    assert_eq!(remote.stat(&missing).await.expect_err("no such file").kind, Kind::NotFound);
    assert_eq!(remote.read(&missing, 0, 1).await.expect_err("no such file").kind, Kind::NotFound);
    assert!(!remote.is_lost());
}

async fn what_may_not_be_read_is_denied(make: Make) {
    let sshd = start();
    let (dir, file) = (sshd.root().join("dir"), sshd.root().join("file"));
    fs::create_dir(&dir).expect("a folder");
    fs::write(&file, b"secret").expect("a file");
    for path in [&dir, &file] {
        fs::set_permissions(path, Permissions::from_mode(0o000)).expect("its mode");
    }
    let remote = connect(make, &sshd).await;
    assert_eq!(list(&*remote, "dir").await.expect_err("it is closed").kind, Kind::Denied);
    assert_eq!(remote.read(&"file".into(), 0, 1).await.expect_err("it is closed").kind, Kind::Denied);
    assert_eq!(remote.stat(&"dir/inside".into()).await.expect_err("it is closed").kind, Kind::Denied);
    assert!(remote.stat(&"file".into()).await.is_ok());
}

async fn a_file_is_no_directory(make: Make) {
    let sshd = start();
    fs::write(sshd.root().join("file"), b"x").expect("a file");
    fs::create_dir(sshd.root().join("dir")).expect("a folder");
    let remote = connect(make, &sshd).await;
    let error = list(&*remote, "file").await.expect_err("a file has no entries");
    // OpenSSH's word for it is that of a missing path.
    assert!(matches!(error.kind, Kind::Failed | Kind::NotFound), "{error}");
    let error = remote.read(&"dir".into(), 0, 10).await.expect_err("a directory has no bytes");
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(!remote.is_lost());
}

async fn a_path_with_a_nul_is_not_found_and_the_connection_goes_on(make: Make) {
    let sshd = start();
    let remote = connect(make, &sshd).await;
    let error = remote.stat(&RemotePath::new(b"a\0b".to_vec())).await.expect_err("no file has such a name");
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert!(!error.may_pass(), "asking again does not help");
    assert!(remote.stat(&".".into()).await.is_ok());
}

async fn a_listing_that_is_given_up_leaves_the_connection_usable(make: Make) {
    let sshd = start();
    for at in 0..2000 {
        fs::File::create(sshd.root().join(format!("{at:0200}"))).expect("a file");
    }
    let remote = connect(make, &sshd).await;
    let path = RemotePath::from(".");
    let (first, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let mut each = move |entry: DirEntry| {
        let _ = first.send(entry);
        Ok(())
    };
    tokio::select! {
        biased;
        _ = begun.recv() => {}
        done = remote.list(&path, &mut each) => done.expect("it is there"),
    }
    assert_eq!(list(&*remote, ".").await.expect("it is there").len(), 2000);
}
