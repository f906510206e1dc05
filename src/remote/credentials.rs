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

/// What to answer at keyboard-interactive, where `shown` says of each question whether its answer is shown while it is
/// typed: the password to whatever is typed unseen, or to the only question; nothing to the others, which ask for what
/// nobody is here to know and what a server may log.
pub fn answers(shown: impl ExactSizeIterator<Item = bool>, password: &str) -> Vec<String> {
    let only = shown.len() == 1;
    shown.map(|shown| if only || !shown { password.to_owned() } else { String::new() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_goes_to_unseen_questions_and_to_an_only_one() {
        let answers = |shown: &[bool]| answers(shown.iter().copied(), "pw");
        assert_eq!(answers(&[false]), ["pw"]);
        assert_eq!(answers(&[true]), ["pw"]);
        assert_eq!(answers(&[true, false]), ["", "pw"]);
        assert_eq!(answers(&[true, true]), ["", ""]);
        assert!(answers(&[]).is_empty());
    }
}
