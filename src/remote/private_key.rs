//! Private keys: text of any kind that partners and tools hand out, turned into a key. Both engines log in with what
//! comes out of here, and nothing else decodes one.
//!
//! Read are OpenSSH, PKCS#8 and PEM (PKCS#1 and SEC1), RSA, ECDSA and Ed25519, encrypted or not. An error names the
//! field of the secret that is wrong and never shows a value.

mod cipher;
mod pem;

use pkcs8::EncryptedPrivateKeyInfoRef;
use russh::keys::ssh_key;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, PrivateKey};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use super::credentials;
use cipher::CipherError;
use pem::{Pem, PemError};

/// Why a private key is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "PrivateKey is not a private key in a known format: give it whole, from its -----BEGIN line to its -----END \
         line, as OpenSSH, PKCS#8 or PEM"
    )]
    UnknownFormat,
    #[error("PrivateKey is damaged or cut short: its {format} form begins well and cannot be read to the end")]
    Damaged { format: &'static str },
    #[error("PrivateKey is a public key: give the private one, usually the file of the same name without .pub")]
    PublicKey,
    #[error("PrivateKey is in PuTTY's format: convert it with `puttygen key.ppk -O private-openssh -o key`")]
    Putty,
    #[error("PrivateKey is of type {algorithm}, which is not supported: use an Ed25519, ECDSA or RSA key")]
    UnsupportedType { algorithm: String },
    #[error(
        "PrivateKey is encrypted by a method that is not supported: convert it with `openssl pkcs8 -topk8 -v2 \
         aes-256-cbc -in key -out key.new`"
    )]
    UnsupportedEncryption,
    #[error("PrivateKeyPassphrase is missing: PrivateKey is encrypted")]
    PassphraseMissing,
    #[error("PrivateKeyPassphrase does not decrypt PrivateKey")]
    PassphraseWrong,
}

impl KeyError {
    /// The secret's field that is to be mended.
    pub fn field(&self) -> &'static str {
        match self {
            Self::PassphraseMissing | Self::PassphraseWrong => "PrivateKeyPassphrase",
            _ => "PrivateKey",
        }
    }
}

/// Decodes a private key, and decrypts it where it is encrypted; a passphrase that is not needed is ignored.
pub fn load(key: &credentials::PrivateKey) -> Result<PrivateKey, KeyError> {
    let text = key.pem.expose_secret();
    let passphrase = key.passphrase.as_ref().map(|passphrase| passphrase.expose_secret());
    let pem = pem::read(text).map_err(|error| match error {
        PemError::NotFound => what_it_is_instead(text),
        PemError::Damaged => KeyError::Damaged { format: "PEM" },
        PemError::UnsupportedEncryption => KeyError::UnsupportedEncryption,
    })?;
    let key = match pem.label.as_str() {
        "OPENSSH" => openssh(&pem.der, passphrase)?,
        "ENCRYPTED" => pkcs8_encrypted(&pem.der, passphrase)?,
        "RSA" | "EC" | "" => plain_or_legacy(&pem, passphrase)?,
        other => return Err(KeyError::UnsupportedType { algorithm: other.to_owned() }),
    };
    match key.key_data() {
        KeypairData::Rsa(_) | KeypairData::Ecdsa(_) | KeypairData::Ed25519(_) => Ok(key),
        other => Err(unsupported(other.algorithm().ok())),
    }
}

/// The key as unencrypted OpenSSH text, the form that libssh2 reads every type in.
pub fn to_openssh(key: &PrivateKey) -> Result<SecretString, KeyError> {
    let text = key.to_openssh(ssh_key::LineEnding::LF).map_err(|_| KeyError::Damaged { format: "decoded" })?;
    Ok(SecretString::from(text.as_str()))
}

/// The commonest mistakes, by the marks that those texts begin with.
fn what_it_is_instead(text: &str) -> KeyError {
    let text = text.trim_start();
    if text.starts_with("PuTTY-User-Key-File-") {
        return KeyError::Putty;
    }
    let first_word = text.split_whitespace().next().unwrap_or_default();
    let openssh_public = ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|mark| first_word.starts_with(mark));
    let pem_public = ["PUBLIC KEY-----", "CERTIFICATE-----", "SSH2 PUBLIC KEY"].iter().any(|mark| text.contains(mark));
    if openssh_public || pem_public { KeyError::PublicKey } else { KeyError::UnknownFormat }
}

fn openssh(der: &[u8], passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
    let key = PrivateKey::from_bytes(der).map_err(|error| match error {
        ssh_key::Error::AlgorithmUnknown => unsupported(None),
        ssh_key::Error::AlgorithmUnsupported { algorithm } => unsupported(Some(algorithm)),
        _ => KeyError::Damaged { format: "OpenSSH" },
    })?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    key.decrypt(passphrase.ok_or(KeyError::PassphraseMissing)?).map_err(|_| KeyError::PassphraseWrong)
}

fn pkcs8_encrypted(der: &[u8], passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
    // What is encrypted by a scheme of no known name does not parse: PBES2 with DES among them.
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::UnsupportedEncryption)?;
    let passphrase = passphrase.ok_or(KeyError::PassphraseMissing)?;
    let plain = match cipher::decrypt_pkcs8(&info, passphrase) {
        Ok(plain) => plain,
        Err(CipherError::Unsupported) => return Err(KeyError::UnsupportedEncryption),
        Err(CipherError::Passphrase) => return Err(KeyError::PassphraseWrong),
    };
    // A wrong passphrase leaves padding that looks right once in 256 times, and then bytes that are no key.
    decode("", &plain, KeyError::PassphraseWrong)
}

/// PKCS#8 and the older forms, whole or behind the `DEK-Info` line of OpenSSL's own encryption.
fn plain_or_legacy(pem: &Pem, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
    let Some((cipher, iv)) = &pem.encryption else {
        return decode(&pem.label, &pem.der, KeyError::Damaged { format: "PEM" });
    };
    let passphrase = passphrase.ok_or(KeyError::PassphraseMissing)?;
    let key = Zeroizing::new(cipher::key_of_openssl(*cipher, passphrase, iv));
    let plain = cipher.decrypt(&key, iv, &pem.der).map_err(|_| KeyError::PassphraseWrong)?;
    decode(&pem.label, &plain, KeyError::PassphraseWrong)
}

/// Has russh decode what is no longer encrypted.
fn decode(label: &str, der: &[u8], otherwise: KeyError) -> Result<PrivateKey, KeyError> {
    russh::keys::decode_secret_key(&pem::write(label, der), None).map_err(|error| match error {
        russh::keys::Error::UnknownAlgorithm(oid) => KeyError::UnsupportedType { algorithm: name_of(&oid.to_string()) },
        _ => otherwise,
    })
}

fn unsupported(algorithm: Option<Algorithm>) -> KeyError {
    KeyError::UnsupportedType { algorithm: algorithm.map_or_else(|| "unknown".into(), |known| known.to_string()) }
}

/// The key types that PKCS#8 can hold and SSH servers of today refuse, by object identifier.
fn name_of(oid: &str) -> String {
    match oid {
        "1.2.840.10040.4.1" => "DSA".into(),
        "1.3.101.113" => "Ed448".into(),
        "1.3.132.0.10" => "ECDSA over secp256k1".into(),
        other => format!("{other} (object identifier)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys made for these tests by `ssh-keygen` and `openssl`; only the tests' own servers take them. `NAME.encrypted` takes this.
    const PASSPHRASE: &str = "correct horse";

    fn file(name: &str) -> String {
        std::fs::read_to_string(format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn load_text(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
        load(&credentials::PrivateKey { pem: text.into(), passphrase: passphrase.map(SecretString::from) })
    }

    /// What the key must be: the one whose public half `ssh-keygen` wrote beside it.
    fn fingerprint_of(public: &str) -> String {
        ssh_key::PublicKey::from_openssh(&file(public)).unwrap().fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    fn fingerprint(key: &PrivateKey) -> String {
        key.public_key().fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    const PLAIN: &[(&str, &str)] = &[
        ("ed25519.openssh", "ed25519.openssh.pub"),
        ("rsa.openssh", "rsa.openssh.pub"),
        ("rsa.pkcs8", "rsa.openssh.pub"),
        ("rsa.pem", "rsa.openssh.pub"),
        ("ecdsa.openssh", "ecdsa.openssh.pub"),
        ("ecdsa.pkcs8", "ecdsa.openssh.pub"),
        ("ecdsa.pem", "ecdsa.openssh.pub"),
    ];

    const ENCRYPTED: &[(&str, &str)] = &[
        ("ed25519.openssh.encrypted", "ed25519.openssh.pub"),
        ("rsa.openssh.encrypted", "rsa.openssh.pub"),
        ("rsa.pkcs8.encrypted", "rsa.openssh.pub"),
        ("rsa.pkcs8.sha1.encrypted", "rsa.openssh.pub"),
        ("rsa.pem.aes128.encrypted", "rsa.openssh.pub"),
        ("rsa.pem.aes192.encrypted", "rsa.openssh.pub"),
        ("rsa.pem.aes256.encrypted", "rsa.openssh.pub"),
        ("rsa.pem.des3.encrypted", "rsa.openssh.pub"),
        ("ecdsa.openssh.encrypted", "ecdsa.openssh.pub"),
        ("ecdsa.pkcs8.encrypted", "ecdsa.openssh.pub"),
        ("ecdsa.pem.aes128.encrypted", "ecdsa.openssh.pub"),
    ];

    #[test]
    fn every_plain_form_is_read_with_and_without_a_passphrase_that_it_does_not_need() {
        for (name, public) in PLAIN {
            for passphrase in [None, Some(PASSPHRASE)] {
                let key = load_text(&file(name), passphrase).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(fingerprint(&key), fingerprint_of(public), "{name}");
            }
        }
    }

    #[test]
    fn every_encrypted_form_takes_its_passphrase_and_no_other() {
        for (name, public) in ENCRYPTED {
            let key = load_text(&file(name), Some(PASSPHRASE)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(fingerprint(&key), fingerprint_of(public), "{name}");
            assert_eq!(load_text(&file(name), Some("battery staple")), Err(KeyError::PassphraseWrong), "{name}");
            assert_eq!(load_text(&file(name), None), Err(KeyError::PassphraseMissing), "{name}");
        }
    }

    #[test]
    fn an_ed25519_key_is_one_and_the_same_encrypted_or_not_in_pkcs8() {
        let plain = load_text(&file("ed25519.pkcs8"), None).unwrap();
        let encrypted = load_text(&file("ed25519.pkcs8.encrypted"), Some(PASSPHRASE)).unwrap();
        assert_eq!(plain.algorithm(), Algorithm::Ed25519);
        assert_eq!(fingerprint(&plain), fingerprint(&encrypted));
    }

    #[test]
    fn the_larger_curves_are_read() {
        for (name, algorithm) in
            [("ecdsa384.openssh", "ecdsa-sha2-nistp384"), ("ecdsa521.openssh", "ecdsa-sha2-nistp521")]
        {
            assert_eq!(load_text(&file(name), None).unwrap().algorithm().as_str(), algorithm);
        }
    }

    #[test]
    fn a_key_survives_what_editors_consoles_and_json_do_to_its_lines() {
        for (name, passphrase) in [("rsa.pem.aes256.encrypted", Some(PASSPHRASE)), ("ed25519.openssh", None)] {
            let text = file(name);
            let expected = fingerprint(&load_text(&text, passphrase).unwrap());
            for (what, mangled) in [
                ("CRLF", text.replace('\n', "\r\n")),
                ("spaces for line ends", text.replace('\n', " ")),
                ("JSON escapes left in", text.replace('\n', "\\n")),
                ("Windows JSON escapes left in", text.replace('\n', "\\r\\n")),
                ("indented", text.replace('\n', "\n    ")),
                ("text around", format!("\u{feff}Key attributes: none\n{text}\nthe end")),
                ("no line end at the end", text.trim_end().to_owned()),
            ] {
                let key = load_text(&mangled, passphrase).unwrap_or_else(|error| panic!("{name}, {what}: {error}"));
                assert_eq!(fingerprint(&key), expected, "{name}, {what}");
            }
        }
    }

    #[test]
    fn openssl_may_put_the_curve_before_the_key() {
        let text = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
            file("ecdsa.pem")
        );
        assert_eq!(fingerprint(&load_text(&text, None).unwrap()), fingerprint_of("ecdsa.openssh.pub"));
    }

    #[test]
    fn dsa_is_refused_by_name_in_every_form() {
        for name in ["dsa.openssh", "dsa.pem", "dsa.pkcs8"] {
            let Err(KeyError::UnsupportedType { algorithm }) = load_text(&file(name), None) else {
                panic!("{name} was not refused for its type");
            };
            assert!(["DSA", "ssh-dss"].contains(&algorithm.as_str()), "{name}: {algorithm}");
        }
    }

    #[test]
    fn encryption_that_nobody_should_use_is_named_with_its_way_out() {
        for name in ["rsa.pkcs8.pbes1.encrypted", "rsa.pkcs8.des3.encrypted"] {
            let error = load_text(&file(name), Some(PASSPHRASE)).unwrap_err();
            assert_eq!(error, KeyError::UnsupportedEncryption, "{name}");
            assert!(error.to_string().contains("openssl pkcs8 -topk8"));
        }
    }

    #[test]
    fn what_is_not_a_private_key_is_told_apart() {
        let begins_well = file("rsa.pem");
        let cut_short = &begins_well[..begins_well.len() / 2];
        let half_of_it = format!("{}\n-----END RSA PRIVATE KEY-----\n", &begins_well[..begins_well.len() / 2]);
        for (text, error) in [
            (file("rsa.openssh.pub"), KeyError::PublicKey),
            (file("ecdsa.openssh.pub"), KeyError::PublicKey),
            ("-----BEGIN PUBLIC KEY-----\nMCowBQ==\n-----END PUBLIC KEY-----".into(), KeyError::PublicKey),
            ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA".into(), KeyError::PublicKey),
            ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none".into(), KeyError::Putty),
            ("AAAAC3NzaC1lZDI1NTE5".into(), KeyError::UnknownFormat),
            (String::new(), KeyError::UnknownFormat),
            (cut_short.into(), KeyError::Damaged { format: "PEM" }),
            (half_of_it, KeyError::Damaged { format: "PEM" }),
        ] {
            assert_eq!(load_text(&text, None), Err(error), "{text:.40}");
        }
    }

    #[test]
    fn errors_name_the_field_to_mend_and_show_nothing_of_it() {
        let text = file("rsa.openssh.encrypted");
        let error = load_text(&text, Some("hunter2-passphrase")).unwrap_err();
        assert_eq!(error.field(), "PrivateKeyPassphrase");
        assert!(error.to_string().starts_with(error.field()));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert_eq!(KeyError::PublicKey.field(), "PrivateKey");
    }

    #[test]
    fn what_libssh2_is_given_reads_back_as_the_same_key() {
        for (name, public) in ENCRYPTED {
            let text = to_openssh(&load_text(&file(name), Some(PASSPHRASE)).unwrap()).unwrap();
            let again = load_text(text.expose_secret(), None).unwrap();
            assert_eq!(fingerprint(&again), fingerprint_of(public), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}", cut in 0usize..2000, flip in 0usize..2000) {
            let _ = load_text(&text, Some("x"));
            let mut bytes = file("rsa.pem.aes128.encrypted").into_bytes();
            let at = flip % bytes.len();
            bytes[at] = bytes[at].wrapping_add(1) & 0x7f;
            bytes.truncate(cut.max(1));
            let _ = load_text(&String::from_utf8_lossy(&bytes), Some(PASSPHRASE));
        }
    }
}
