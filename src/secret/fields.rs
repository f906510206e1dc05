//! The secret's JSON taken apart: the sample's names, those of the Transfer Family connector, and ours, in any mixture.

use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{FieldFault, Secret, SecretError};
use crate::config::{parse_host, parse_username};
use crate::remote::TrustedHostKey;

/// Where a secret has both, the connector's name counts. The first of each is the one that messages use.
pub const HOST: [&str; 2] = ["Host", "SFTP_TEST_SERVER_HOST"];
pub const PORT: [&str; 1] = ["Port"];
pub const USERNAME: [&str; 2] = ["Username", "SFTP_TEST_SERVER_USERNAME"];
pub const PASSWORD: [&str; 2] = ["Password", "SFTP_TEST_SERVER_PASSWORD"];
pub const PRIVATE_KEY: [&str; 1] = ["PrivateKey"];
pub const TRUSTED_HOST_KEYS: [&str; 1] = ["TrustedHostKeys"];

impl Secret {
    /// Reads the JSON. Empty strings and `null` count as absent, unknown names are passed over. Whether what is there is
    /// enough, and whether a field that cannot be read matters, is for [`resolve`](Self::resolve) to say.
    pub fn parse(json: &str) -> Result<Self, SecretError> {
        // Windows editors begin a file with a byte order mark, which JSON has no place for.
        let json = json.strip_prefix('\u{feff}').unwrap_or(json);
        // Untyped first: a typed parser's errors quote the value that does not fit.
        let value: Value = serde_json::from_str(json)
            .map_err(|error| SecretError::NotJson { line: error.line(), column: error.column() })?;
        let fields = match &value {
            Value::Object(fields) => fields,
            other => return Err(SecretError::NotAnObject(kind(other))),
        };
        let mut faults = Vec::new();
        let read = &mut faults;
        Ok(Self {
            host: or_fault(read, host(fields)),
            port: or_fault(read, port(fields)),
            username: or_fault(read, username(fields)),
            password: or_fault(read, first_text(fields, PASSWORD)).map(|(_, text)| SecretString::from(text)),
            private_key: or_fault(read, text(fields, PRIVATE_KEY[0])).map(SecretString::from),
            private_key_passphrase: or_fault(read, text(fields, "PrivateKeyPassphrase")).map(SecretString::from),
            trusted_host_keys: or_fault(read, trusted_host_keys(fields)),
            archive_password: or_fault(read, text(fields, "ArchivePassword")).map(SecretString::from),
            faults,
        })
    }
}

/// What was read; nothing, where there was a fault.
fn or_fault<T: Default>(faults: &mut Vec<FieldFault>, read: Result<T, FieldFault>) -> T {
    read.unwrap_or_else(|fault| {
        faults.push(fault);
        T::default()
    })
}

fn text(fields: &Map<String, Value>, field: &'static str) -> Result<Option<String>, FieldFault> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(wrong(field, format!("it is {} and has to be a string", kind(other)))),
    }
}

/// With the name that it was found under.
fn first_text(
    fields: &Map<String, Value>,
    names: [&'static str; 2],
) -> Result<Option<(&'static str, String)>, FieldFault> {
    for name in names {
        if let Some(text) = text(fields, name)? {
            return Ok(Some((name, text)));
        }
    }
    Ok(None)
}

/// By the rules of `SFTP_HOST`.
fn host(fields: &Map<String, Value>) -> Result<Option<String>, FieldFault> {
    let Some((name, text)) = first_text(fields, HOST)? else { return Ok(None) };
    parse_host(&text).map(Some).map_err(|problem| wrong(name, problem))
}

/// By the rules of `SFTP_USERNAME`.
fn username(fields: &Map<String, Value>) -> Result<Option<String>, FieldFault> {
    let Some((name, text)) = first_text(fields, USERNAME)? else { return Ok(None) };
    parse_username(&text).map(Some).map_err(|problem| wrong(name, problem))
}

/// A number, or a string that holds one, as consoles make of it.
fn port(fields: &Map<String, Value>) -> Result<Option<u16>, FieldFault> {
    const FIELD: &str = PORT[0];
    let port = match fields.get(FIELD) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Number(number)) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Some(other) => return Err(wrong(FIELD, format!("it is {} and has to be a number", kind(other)))),
    };
    let port = port.filter(|port| *port != 0);
    port.map(Some).ok_or_else(|| wrong(FIELD, "it has to be a whole number from 1 to 65535"))
}

/// One string, which may hold several keys, or an array of such strings.
fn trusted_host_keys(fields: &Map<String, Value>) -> Result<Vec<TrustedHostKey>, FieldFault> {
    const FIELD: &str = TRUSTED_HOST_KEYS[0];
    let Some(Value::Array(items)) = fields.get(FIELD) else {
        let text = text(fields, FIELD);
        let text = text.map_err(|_| wrong(FIELD, "it has to be a string or an array of strings"))?;
        return parse_keys(FIELD, text.as_deref().unwrap_or_default());
    };
    let mut keys = Vec::new();
    for item in items {
        let text = item.as_str().ok_or_else(|| wrong(FIELD, "each item of the array has to be a string"))?;
        keys.extend(parse_keys(FIELD, text)?);
    }
    Ok(keys)
}

fn parse_keys(field: &'static str, text: &str) -> Result<Vec<TrustedHostKey>, FieldFault> {
    TrustedHostKey::parse_list(text).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        wrong(field, faults.join("; "))
    })
}

fn wrong(field: &'static str, problem: impl Into<String>) -> FieldFault {
    FieldFault::Wrong { field, problem: problem.into() }
}

/// What a JSON value is, without what it says.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::super::error::FieldFaults;
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const FINGERPRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

    fn parse(json: &str) -> Secret {
        Secret::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    /// Of the whole, or of its one field.
    fn error(json: &str) -> String {
        match Secret::parse(json) {
            Err(error) => error.to_string(),
            Ok(secret) => match &secret.faults[..] {
                [fault] => fault.to_string(),
                faults => panic!("{json}: {faults:?}"),
            },
        }
    }

    fn exposed(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(ExposeSecret::expose_secret)
    }

    #[test]
    fn both_published_shapes_are_read_and_may_be_mixed() {
        let sample = parse(
            r#"{"SFTP_TEST_SERVER_HOST": "h", "SFTP_TEST_SERVER_USERNAME": "u", "SFTP_TEST_SERVER_PASSWORD": "p"}"#,
        );
        assert_eq!((sample.host.as_deref(), sample.username.as_deref()), (Some("h"), Some("u")));
        assert_eq!(exposed(sample.password.as_ref()), Some("p"));

        let connector = parse(r#"{"Username": "u", "Password": "p", "PrivateKey": "k"}"#);
        assert_eq!((connector.host.as_deref(), connector.username.as_deref()), (None, Some("u")));
        assert_eq!(exposed(connector.private_key.as_ref()), Some("k"));

        let mixed = parse(
            r#"{"SFTP_TEST_SERVER_HOST": "h", "Username": "u", "SFTP_TEST_SERVER_USERNAME": "other",
                "Password": "", "SFTP_TEST_SERVER_PASSWORD": " p\n", "comment": ["ignored"], "username": 1}"#,
        );
        assert_eq!((mixed.host.as_deref(), mixed.username.as_deref()), (Some("h"), Some("u")));
        assert_eq!(exposed(mixed.password.as_ref()), Some(" p\n"), "a password is kept to the letter");
    }

    #[test]
    fn our_own_fields_are_read() {
        let secret = parse(
            r#"{"Host": "h", "Port": "2222", "PrivateKeyPassphrase": "pp", "ArchivePassword": "ap", "Password": null}"#,
        );
        assert_eq!((secret.host.as_deref(), secret.port), (Some("h"), Some(2222)));
        assert_eq!(exposed(secret.private_key_passphrase.as_ref()), Some("pp"));
        assert_eq!(exposed(secret.archive_password.as_ref()), Some("ap"));
        assert!(secret.password.is_none());
        assert_eq!(parse(r#"{"Port": 22}"#).port, Some(22));
        assert_eq!(parse("\u{feff}{\"Port\": \"\"}").port, None);
    }

    #[test]
    fn trusted_host_keys_are_a_string_or_an_array() {
        for keys in [
            format!(r#""{ED25519},{FINGERPRINT}""#),
            format!(r##""# host\n[host]:22 {ED25519}\n{FINGERPRINT}\n""##),
            format!(r#"["{ED25519}", "{FINGERPRINT}"]"#),
        ] {
            assert_eq!(parse(&format!(r#"{{"TrustedHostKeys": {keys}}}"#)).trusted_host_keys.len(), 2, "{keys}");
        }
        for keys in ["null", "\"\"", "[]"] {
            assert_eq!(parse(&format!(r#"{{"TrustedHostKeys": {keys}}}"#)).trusted_host_keys, [], "{keys}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_field_and_never_by_its_value() {
        for (json, named) in [
            (r#"{"Password": ["hunter2"]}"#, "Password"),
            (r#"{"SFTP_TEST_SERVER_PASSWORD": {"x": "hunter2"}}"#, "SFTP_TEST_SERVER_PASSWORD"),
            (r#"{"Username": 47110815}"#, "Username"),
            (r#"{"Username": "hunter2\n"}"#, "Username"),
            (r#"{"SFTP_TEST_SERVER_HOST": "sftp://hunter2"}"#, "SFTP_TEST_SERVER_HOST"),
            (r#"{"PrivateKey": 47110815}"#, "PrivateKey"),
            (r#"{"PrivateKeyPassphrase": true}"#, "PrivateKeyPassphrase"),
            (r#"{"ArchivePassword": 47110815}"#, "ArchivePassword"),
            (r#"{"Port": "hunter2"}"#, "Port"),
            (r#"{"Port": 70000}"#, "Port"),
            (r#"{"Port": 0}"#, "Port"),
            (r#"{"Port": 22.5}"#, "Port"),
            (r#"{"Port": [22]}"#, "Port"),
            (r#"{"TrustedHostKeys": 47110815}"#, "TrustedHostKeys"),
            (r#"{"TrustedHostKeys": [47110815]}"#, "TrustedHostKeys"),
            (r#"{"TrustedHostKeys": "hunter2"}"#, "TrustedHostKeys"),
            (r#""hunter2""#, "a string"),
            (r#"["hunter2"]"#, "an array"),
            ("hunter2", "not JSON"),
            (r#"{"Password": "hunter2"#, "not JSON"),
            (r#"{"Password": "hunter2\x"}"#, "not JSON"),
            ("", "not JSON"),
        ] {
            let message = error(json);
            assert!(message.contains(named), "{json}: {message}");
            assert!(!message.contains("hunter2") && !message.contains("47110815"), "{message}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[0-9a-z \\n-]{0,30}".prop_map(|text| Value::from(format!("hunter2{text}"))),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| proptest::collection::vec(inner, 0..3).prop_map(Value::from))
    }

    proptest! {
        #[test]
        fn no_value_is_in_any_error_or_debug_output(
            values in proptest::collection::vec((0_usize..12, any_json()), 0..6),
        ) {
            const NAMES: [&str; 12] = [
                "Port", "Password", "PrivateKey", "PrivateKeyPassphrase", "TrustedHostKeys", "ArchivePassword",
                "SFTP_TEST_SERVER_PASSWORD", "other", "Port", "TrustedHostKeys", "Password", "PrivateKey",
            ];
            let fields: Map<_, _> = values.into_iter().map(|(name, value)| (NAMES[name].to_owned(), value)).collect();
            let shown = match Secret::parse(&Value::from(fields).to_string()) {
                Ok(secret) => format!("{secret:?} {}", FieldFaults(secret.faults.clone())),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Secret::parse(&text);
        }
    }
}
