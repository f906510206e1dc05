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
use fields::{HOST, PASSWORD, PORT, PRIVATE_KEY, TRUSTED_HOST_KEYS, USERNAME};

pub use error::{FieldFault, FieldFaults, SecretError};
pub use secrets_manager::SecretsManager;
pub use versions::{Version, Versions};

/// The secret's JSON, read: every part optional until it is resolved with the configuration. Only then a part that is
/// missing, or could not be read, is a fault.
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
    /// Fields that could not be read, and are empty above.
    faults: Vec<FieldFault>,
}

impl Secret {
    /// The server and what logs in to it: the environment's word over the secret's, of which only what is used has to be
    /// right. A private key is decoded once to see that it can be, since no server should be bothered with one that cannot.
    pub fn resolve(&self, settings: &SftpSettings) -> Result<Endpoint, SecretError> {
        let private_key = self.private_key.clone();
        let private_key = private_key.map(|pem| PrivateKey { pem, passphrase: self.private_key_passphrase.clone() });
        let host = settings.host.as_ref().or(self.host.as_ref());
        let username = settings.username.as_ref().or(self.username.as_ref());
        let mut faults: Vec<_> = self.faults.iter().filter(|fault| matters(fault, settings)).cloned().collect();
        let read = |names: &[&str]| !faults.iter().any(|fault| is_of(fault, names));
        let mut missing = Vec::new();
        if host.is_none() && read(&HOST) {
            missing.push(FieldFault::Missing { field: HOST[0], variable: "SFTP_HOST" });
        }
        if username.is_none() && read(&USERNAME) {
            missing.push(FieldFault::Missing { field: USERNAME[0], variable: "SFTP_USERNAME" });
        }
        if self.password.is_none() && private_key.is_none() && read(&PASSWORD) && read(&PRIVATE_KEY) {
            missing.push(FieldFault::NothingToLogInWith);
        }
        faults.append(&mut missing);
        if let Some(Err(error)) = private_key.as_ref().map(private_key::load) {
            faults.push(FieldFault::PrivateKey(error.to_string()));
        }
        let (Some(host), Some(username), []) = (host, username, &faults[..]) else {
            return Err(SecretError::Fields(FieldFaults(faults)));
        };
        Ok(Endpoint {
            host: host.clone(),
            port: settings.port.or(self.port).unwrap_or(DEFAULT_PORT),
            credentials: Credentials { username: username.clone(), password: self.password.clone(), private_key },
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

/// Whether the field is used, or would be: the environment's word stands for some.
fn matters(fault: &FieldFault, settings: &SftpSettings) -> bool {
    let replaced = [
        (&HOST[..], settings.host.is_some()),
        (&PORT[..], settings.port.is_some()),
        (&USERNAME[..], settings.username.is_some()),
        (&TRUSTED_HOST_KEYS[..], settings.trusted_host_keys.is_some() || settings.host_key_check == HostKeyCheck::Off),
    ];
    !replaced.iter().any(|(names, replaced)| *replaced && is_of(fault, names))
}

fn is_of(fault: &FieldFault, names: &[&str]) -> bool {
    matches!(fault, FieldFault::Wrong { field, .. } if names.contains(field))
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
    fn every_fault_of_a_secret_is_told_at_once() {
        let secret = r#"{"Host": 1, "Port": "x", "Username": "a\nb", "Password": ["hunter2"], "PrivateKey": "hunter2",
            "TrustedHostKeys": "hunter2", "ArchivePassword": 2}"#;
        let message = resolve(secret, &[]).expect_err(secret).to_string();
        for field in ["Host", "Port", "Username", "Password", "PrivateKey", "TrustedHostKeys", "ArchivePassword"] {
            assert_eq!(
                message.split("; ").filter(|fault| fault.starts_with(&format!("{field} "))).count(),
                1,
                "{message}"
            );
        }
        assert!(!message.contains("hunter2") && !message.contains("has no") && !message.contains('\n'), "{message}");
        let message = resolve("{}", &[]).expect_err("all is missing").to_string();
        assert!(["SFTP_HOST", "SFTP_USERNAME", "neither"].iter().all(|word| message.contains(word)), "{message}");
    }

    #[test]
    fn a_field_that_the_environment_replaces_may_be_wrong() {
        let secret = r#"{"Host": "h", "Username": "u", "Password": "p", "FIELD": ["x"]}"#;
        for (field, (variable, value)) in [
            ("Host", ("SFTP_HOST", "h")),
            ("SFTP_TEST_SERVER_HOST", ("SFTP_HOST", "h")),
            ("Port", ("PORT", "22")),
            ("Username", ("SFTP_USERNAME", "u")),
            ("TrustedHostKeys", ("TRUSTED_HOST_KEYS", FINGERPRINT)),
            ("TrustedHostKeys", ("HOST_KEY_CHECK", "off")),
        ] {
            let secret = secret.replace(&format!(r#""{field}": "#), r#""other": "#).replace("FIELD", field);
            let secret = if field.ends_with("HOST") { secret.replace("\"Host\"", "\"other\"") } else { secret };
            assert!(resolve(&secret, &[(variable, value)]).is_ok(), "{secret} with {variable}");
            let message = resolve(&secret, &[]).expect_err(&secret).to_string();
            assert!(message.starts_with(&format!("{field} of the secret is wrong")), "{message}");
        }
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
