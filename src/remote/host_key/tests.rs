use proptest::prelude::*;

use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
// Published by GitHub for the key above.
const ED25519_FINGERPRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

fn key(algorithm: &str, fields: &[&[u8]]) -> HostKey {
    let mut blob = Vec::new();
    for field in [algorithm.as_bytes()].iter().chain(fields) {
        blob.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        blob.extend_from_slice(field);
    }
    HostKey { algorithm: algorithm.to_owned(), blob }
}

fn ed25519(byte: u8) -> HostKey {
    key("ssh-ed25519", &[&[byte; 32]])
}

fn parse(text: &str) -> Result<TrustedHostKey, TrustedHostKeyError> {
    text.parse()
}

#[test]
fn a_published_key_has_its_published_fingerprint() {
    let trusted = parse(ED25519).unwrap();
    assert_eq!(trusted.fingerprint(), ED25519_FINGERPRINT);
    assert_eq!(trusted.to_string(), ED25519);
}

#[test]
fn a_leading_host_and_a_trailing_comment_change_nothing() {
    let trusted = parse(ED25519).unwrap();
    for text in [
        format!("{ED25519} root@sftp"),
        format!("sftp.example.com {ED25519}"),
        format!("[sftp.example.com]:2222 {ED25519} a comment of words"),
        format!("[::1]:2222 {ED25519}"),
        format!("sftp.example.com,192.0.2.1 {ED25519}"),
        format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {ED25519}"),
        format!("  \t{ED25519}\r\n"),
    ] {
        assert_eq!(parse(&text).as_ref(), Ok(&trusted), "{text}");
    }
}

#[test]
fn a_fingerprint_is_read_with_or_without_its_padding_and_as_ssh_keygen_prints_it() {
    let TrustedHostKey::Key(key) = parse(ED25519).unwrap() else { panic!("a key") };
    for text in [
        ED25519_FINGERPRINT.to_owned(),
        format!("{ED25519_FINGERPRINT}="),
        format!("256 {ED25519_FINGERPRINT} sftp (ED25519)"),
    ] {
        assert!(parse(&text).unwrap().matches(&key), "{text}");
    }
}

#[test]
fn what_is_no_key_says_what_it_is() {
    use TrustedHostKeyError as E;
    let (kind, base64) = ED25519.split_once(' ').unwrap();
    let cases = [
        ("", E::Empty),
        ("sftp.example.com", E::Unrecognised),
        (base64, E::Unrecognised),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", E::PrivateKey),
        ("MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", E::Md5),
        ("SHA256:abc", E::Fingerprint),
        ("SHA256:", E::Fingerprint),
    ];
    for (text, error) in cases {
        assert_eq!(parse(text), Err(error), "{text}");
    }
    assert_eq!(parse(&format!("@cert-authority *.example.com {ED25519}")), Err(E::Marker("@cert-authority".into())));
    assert_eq!(parse(&format!("{kind} AAAA*")), Err(E::Base64(kind.into())));
    assert_eq!(parse(&ED25519[..ED25519.len() - 4]), Err(E::Malformed(kind.into())));
    assert_eq!(
        parse(&format!("ssh-rsa {base64}")),
        Err(E::TypeMismatch { outer: "ssh-rsa".into(), inner: "ssh-ed25519".into() })
    );
}

#[test]
fn a_list_is_cut_at_commas_and_lines_but_not_inside_a_host() {
    let (one, two) = (ed25519(1).to_line(), ed25519(2).to_line());
    let text = format!(
        "# sftp.example.com:22 SSH-2.0-OpenSSH_9.2\nsftp.example.com,192.0.2.1 {one}, {two} comment\n\n{ED25519_FINGERPRINT},\n"
    );
    let keys = TrustedHostKey::parse_list(&text).unwrap();
    assert_eq!(keys, [parse(&one).unwrap(), parse(&two).unwrap(), parse(ED25519_FINGERPRINT).unwrap()]);
    assert_eq!(TrustedHostKey::parse_list(" ,\n"), Ok(vec![]));
    assert_eq!(
        TrustedHostKey::parse_list("what\nSHA256:x"),
        Err(vec![TrustedHostKeyError::Unrecognised, TrustedHostKeyError::Fingerprint])
    );
}

#[test]
fn with_nothing_pinned_the_error_shows_the_key_and_how_to_pin_it() {
    let presented = ed25519(7);
    let error = HostKeyPolicy::Strict(vec![]).check(&presented, "sftp.example.com", 2222).unwrap_err();
    assert_eq!(error.kind, Kind::HostKey);
    let message = error.to_string();
    assert!(message.contains(&format!("TRUSTED_HOST_KEYS=\"{}\"", presented.to_line())), "{message}");
    for part in [presented.fingerprint().as_str(), "sftp.example.com port 2222", "TrustedHostKeys"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn a_key_that_is_not_pinned_is_refused_with_both_fingerprints_and_not_offered_for_pinning() {
    let (presented, pinned) = (ed25519(1), ed25519(2));
    let policy = HostKeyPolicy::Strict(vec![TrustedHostKey::Key(pinned.clone())]);
    let message = policy.check(&presented, "h", 22).unwrap_err().to_string();
    assert!(message.contains(&presented.fingerprint()) && message.contains(&pinned.fingerprint()), "{message}");
    assert!(!message.contains("TRUSTED_HOST_KEYS"), "{message}");
    assert!(policy.check(&pinned, "h", 22).is_ok());
    assert!(HostKeyPolicy::Off.check(&presented, "h", 22).is_ok());
}

#[test]
fn pinned_types_are_preferred_and_rsa_by_every_name_of_its_signatures() {
    let rsa = TrustedHostKey::Key(key("ssh-rsa", &[&[1, 0, 1], &[0x7f; 256]]));
    let pinned = vec![rsa.clone(), TrustedHostKey::Key(ed25519(1)), rsa, TrustedHostKey::Fingerprint([0; 32])];
    assert_eq!(
        HostKeyPolicy::Strict(pinned).preferred_algorithms(),
        ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ssh-ed25519"]
    );
    assert!(HostKeyPolicy::Strict(vec![TrustedHostKey::Fingerprint([0; 32])]).preferred_algorithms().is_empty());
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse(&text);
        let _ = TrustedHostKey::parse_list(&text);
    }

    #[test]
    fn no_text_that_resembles_a_key_panics(
        words in proptest::collection::vec("(ssh-rsa|SHA256:[A-Za-z0-9+/]{0,44}=?|AAAA[A-Za-z0-9+/]{0,60}|@[a-z]*|,|\\PC{0,5})", 0..5),
    ) {
        let text = words.join(" ");
        let _ = parse(&text);
        let _ = TrustedHostKey::parse_list(&text);
    }

    #[test]
    fn no_blob_panics(blob in any::<Vec<u8>>()) {
        let _ = HostKey::from_blob(blob);
    }

    #[test]
    fn a_key_survives_being_written_and_read(bytes in any::<[u8; 32]>(), point in proptest::collection::vec(any::<u8>(), 1..140)) {
        for key in [key("ssh-ed25519", &[&bytes]), key("ecdsa-sha2-nistp256", &[b"nistp256", &point])] {
            prop_assert_eq!(HostKey::from_blob(key.blob.clone()), Ok(key.clone()));
            let trusted = parse(&key.to_line()).unwrap();
            prop_assert!(trusted.matches(&key));
            prop_assert!(parse(&key.fingerprint()).unwrap().matches(&key));
            prop_assert_eq!(trusted, TrustedHostKey::Key(key));
        }
    }

    #[test]
    fn a_key_with_any_byte_changed_is_another_key(bytes in any::<[u8; 32]>(), at in 0usize..51, flip in 1u8..) {
        let trusted = ed25519_of(bytes);
        let mut other = trusted.clone();
        other.blob[at] ^= flip;
        for trusted in [TrustedHostKey::Key(trusted.clone()), parse(&trusted.fingerprint()).unwrap()] {
            prop_assert!(HostKeyPolicy::Strict(vec![trusted]).check(&other, "h", 22).is_err());
        }
    }
}

fn ed25519_of(bytes: [u8; 32]) -> HostKey {
    key("ssh-ed25519", &[&bytes])
}
