//! Where the secret comes from, and its JSON turned into credentials. No value of it is ever printed.

use secrecy::SecretString;

use crate::remote::TrustedHostKey;
pub use crate::remote::{Credentials, PrivateKey};

/// The secret's JSON, read: every part optional until it is resolved with the configuration.
#[derive(Debug, Clone, Default)]
pub struct Secret {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub private_key: Option<SecretString>,
    pub private_key_passphrase: Option<SecretString>,
    pub trusted_host_keys: Vec<TrustedHostKey>,
    pub archive_password: Option<SecretString>,
}
