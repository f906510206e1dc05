//! Where the secret comes from, and its JSON turned into credentials. No value of it is ever printed.
//!
//! [`Versions`] reads it, one version at a time and only as far as needed; [`Secret::parse`] takes its fields apart;
//! [`Secret::resolve`] puts them together with what the environment says. Whatever fails names the field, never a value.

mod error;
mod fields;
mod secrets_manager;
mod versions;

use secrecy::SecretString;

use crate::config::{HostKeyCheck, SftpSettings};
use crate::remote::{DEFAULT_PORT, Endpoint, HostKeyPolicy, TrustedHostKey, private_key};

pub use crate::remote::{Credentials, PrivateKey};
pub use error::SecretError;
pub use secrets_manager::SecretsManager;
pub use versions::{Version, Versions};

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

impl Secret {
    /// The server and what logs in to it: the environment's word over the secret's. A private key is decoded once to see
    /// that it can be, since no server should be bothered with one that cannot.
    pub fn resolve(&self, settings: &SftpSettings) -> Result<Endpoint, SecretError> {
        let host = match (&settings.host, &self.host) {
            (Some(host), _) => host.clone(),
            (None, Some(host)) => {
                crate::config::parse_host(host).map_err(|problem| SecretError::Field { field: "Host", problem })?
            }
            (None, None) => return Err(SecretError::Missing { field: "Host", variable: "SFTP_HOST" }),
        };
        let username = settings.username.clone().or_else(|| self.username.clone());
        let username = username.ok_or(SecretError::Missing { field: "Username", variable: "SFTP_USERNAME" })?;
        if self.password.is_none() && self.private_key.is_none() {
            return Err(SecretError::NothingToLogInWith);
        }
        let private_key = self.private_key.clone();
        let private_key = private_key.map(|pem| PrivateKey { pem, passphrase: self.private_key_passphrase.clone() });
        if let Some(key) = &private_key {
            private_key::load(key).map_err(|error| SecretError::PrivateKey(error.to_string()))?;
        }
        Ok(Endpoint {
            host,
            port: settings.port.or(self.port).unwrap_or(DEFAULT_PORT),
            credentials: Credentials { username, password: self.password.clone(), private_key },
            host_keys: match settings.host_key_check {
                HostKeyCheck::Off => HostKeyPolicy::Off,
                HostKeyCheck::Strict => {
                    let trusted = settings.trusted_host_keys.as_ref().unwrap_or(&self.trusted_host_keys);
                    HostKeyPolicy::Strict(trusted.clone())
                }
            },
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::Config;

    /// Opens nothing: made for the tests of `remote::private_key`.
    const KEY: &str = include_str!("../tests/keys/ed25519.openssh");
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const FINGERPRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

    fn settings(variables: &[(&str, &str)]) -> SftpSettings {
        let least = [("BUCKET", "my-bucket"), ("SFTP_DIRECTORY_PATH", "/out"), ("SECRET_JSON", "{}")];
        let variables = least.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_vars(variables).expect("the test's settings").sftp
    }

    fn resolve(json: &str, variables: &[(&str, &str)]) -> Result<Endpoint, SecretError> {
        Secret::parse(json).expect("the test's secret").resolve(&settings(variables))
    }

    #[test]
    fn the_samples_secret_is_enough_and_the_environment_goes_over_it() {
        let secret = r#"{"SFTP_TEST_SERVER_HOST": "a.example", "SFTP_TEST_SERVER_USERNAME": "me",
            "SFTP_TEST_SERVER_PASSWORD": "hunter2"}"#;
        let endpoint = resolve(secret, &[]).expect("all that is needed");
        assert_eq!((endpoint.url().as_str(), endpoint.credentials.username.as_str()), ("sftp://a.example:22", "me"));
        assert_eq!(endpoint.credentials.password.expect("a password").expose_secret(), "hunter2");
        assert_eq!(endpoint.host_keys, HostKeyPolicy::Strict(Vec::new()));

        let over = [("SFTP_HOST", "[::1]"), ("PORT", "2022"), ("SFTP_USERNAME", "you")];
        let endpoint = resolve(secret, &over).expect("all that is needed");
        assert_eq!((endpoint.url().as_str(), endpoint.credentials.username.as_str()), ("sftp://[::1]:2022", "you"));
    }

    #[test]
    fn the_port_is_the_environments_then_the_secrets_then_22() {
        let port = |secret: &str, variables: &[_]| resolve(secret, variables).expect("an endpoint").port;
        let with_port = r#"{"Host": "h", "Username": "u", "Password": "p", "Port": 2222}"#;
        assert_eq!(port(with_port, &[("PORT", "22")]), 22);
        assert_eq!(port(with_port, &[]), 2222);
        assert_eq!(port(r#"{"Host": "h", "Username": "u", "Password": "p"}"#, &[]), 22);
    }

    #[test]
    fn host_keys_of_the_environment_replace_the_secrets_and_off_replaces_both() {
        let secret = format!(r#"{{"Host": "h", "Username": "u", "Password": "p", "TrustedHostKeys": "{ED25519}"}}"#);
        let policy = |variables: &[_]| resolve(&secret, variables).expect("an endpoint").host_keys;
        assert_eq!(policy(&[]), HostKeyPolicy::Strict(vec![ED25519.parse().expect("a key")]));
        assert_eq!(
            policy(&[("TRUSTED_HOST_KEYS", FINGERPRINT)]),
            HostKeyPolicy::Strict(vec![FINGERPRINT.parse().expect("a fingerprint")])
        );
        assert_eq!(policy(&[("HOST_KEY_CHECK", "off")]), HostKeyPolicy::Off);
    }

    #[test]
    fn what_is_missing_is_named_with_the_variable_that_could_supply_it() {
        for (secret, names) in [
            (r#"{"Username": "u", "Password": "p"}"#, ["Host", "SFTP_HOST"]),
            (r#"{"Host": "h", "Password": "p"}"#, ["Username", "SFTP_USERNAME"]),
            (r#"{"Host": "h", "Username": "u"}"#, ["Password", "PrivateKey"]),
            (r#"{"Host": "h", "Username": "", "Password": "p"}"#, ["Username", "SFTP_USERNAME"]),
        ] {
            let message = resolve(secret, &[]).expect_err(secret).to_string();
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
    }

    #[test]
    fn a_host_in_the_secret_is_held_to_the_rules_of_sftp_host_unless_that_is_set() {
        let secret = r#"{"Host": "sftp://me:hunter2@h", "Username": "u", "Password": "p"}"#;
        let message = resolve(secret, &[]).expect_err("no host name").to_string();
        assert!(message.contains("Host") && message.contains("scheme") && !message.contains("hunter2"), "{message}");
        assert!(resolve(secret, &[("SFTP_HOST", "h")]).is_ok());
    }

    #[test]
    fn a_key_is_read_however_the_console_mangled_it() {
        let joined = |separator: &str| KEY.trim().lines().collect::<Vec<_>>().join(separator);
        for (how, key) in [
            ("as it is", KEY.to_owned()),
            ("spaces for line ends", joined(" ")),
            ("a literal \\n for line ends", joined("\\n")),
            ("carriage returns", joined("\r\n")),
            ("indented", joined("\n    ")),
        ] {
            let secret = serde_json::json!({"Host": "h", "Username": "u", "PrivateKey": key});
            assert!(resolve(&secret.to_string(), &[]).is_ok(), "{how}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_a_fault_of_the_secret() {
        let message = resolve(r#"{"Host": "h", "Username": "u", "Password": "p", "PrivateKey": "hunter2"}"#, &[])
            .expect_err("no key")
            .to_string();
        assert!(message.contains("PrivateKey") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn nothing_of_the_secret_is_in_debug_output() {
        let json = serde_json::json!({
            "Host": "h", "Username": "u", "Password": "hunter2-password", "PrivateKey": KEY,
            "PrivateKeyPassphrase": "hunter2-passphrase", "ArchivePassword": "hunter2-archive",
        });
        let secret = Secret::parse(&json.to_string()).expect("a secret");
        let endpoint = secret.resolve(&settings(&[])).expect("an endpoint");
        let shown = format!("{secret:?} {endpoint:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("OPENSSH"), "{shown}");
    }
}
