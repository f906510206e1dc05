//! What logs in. Values are held so that nothing prints them.

use secrecy::SecretString;

/// A user and what proves it. `Debug` shows which parts there are, never their values.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub username: String,
    pub password: Option<SecretString>,
    pub private_key: Option<PrivateKey>,
}

/// A private key as text: OpenSSH, PKCS#8 or PEM.
#[derive(Debug, Clone)]
pub struct PrivateKey {
    pub pem: SecretString,
    pub passphrase: Option<SecretString>,
}
