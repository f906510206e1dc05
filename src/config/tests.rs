//! What a user sees of the configuration: what is read, what is refused, and how it is said.

use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

/// The least that a run needs.
const LEAST: [(&str, &str); 3] =
    [("BUCKET", "my-bucket"), ("SECRET_NAME", "partner/sftp"), ("SFTP_DIRECTORY_PATH", "/out")];

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The least, with these over it.
fn with(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let replaced = |name: &str| variables.iter().any(|(other, _)| *other == name);
    let least = LEAST.iter().copied().filter(|(name, _)| !replaced(name));
    owned(&least.chain(variables.iter().copied()).collect::<Vec<_>>())
}

fn config(variables: &[(&str, &str)]) -> Config {
    Config::from_vars(with(variables)).unwrap_or_else(|faults| panic!("{variables:?}:\n{faults}"))
}

fn faults(variables: &[(&str, &str)]) -> Faults {
    Config::from_vars(with(variables)).expect_err(&format!("{variables:?}"))
}

fn in_container(variables: &[(&str, &str)], mebibytes: u64) -> Result<Config, Faults> {
    let variables = with(variables).into_iter().map(|(name, value)| (name.into(), value.into()));
    Config::from_os_vars(variables, Some(ByteSize::mebibytes(mebibytes)))
}

#[test]
fn the_samples_five_variables_are_enough() {
    let config = Config::from_vars(owned(&[
        ("BUCKET", "my-bucket"),
        ("SECRET_NAME", "partner/sftp"),
        ("SFTP_DIRECTORY_PATH", "/out"),
        ("PORT", "2222"),
        ("REGION", "eu-west-1"),
        ("PATH", "/usr/bin"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
    ]))
    .expect("the sample's variables");
    assert_eq!(config.bucket, "my-bucket");
    assert_eq!(config.directory, RemotePath::from("/out"));
    assert_eq!((config.sftp.port, config.region.as_deref()), (Some(2222), Some("eu-west-1")));
    assert!(matches!(config.secret, SecretSource::SecretsManager { ref id, .. } if id == "partner/sftp"));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn defaults_are_those_of_the_readme() {
    let config = config(&[]);
    assert_eq!(config.operation, Operation::Retrieve);
    assert!(matches!(config.secret, SecretSource::SecretsManager { ref stages, .. } if *stages == ["AWSCURRENT"]));
    assert_eq!((config.sftp.port, config.sftp.host.as_ref(), config.sftp.username.as_ref()), (None, None, None));
    assert_eq!((config.sftp.host_key_check, config.sftp.engine), (HostKeyCheck::Strict, EngineKind::Russh));
    assert_eq!(config.sftp.connections.get(), 4);
    assert_eq!(
        (config.sftp.connect_timeout, config.sftp.idle_timeout),
        (Duration::from_secs(30), Duration::from_secs(60))
    );
    assert!(!config.rules.recursive && config.rules.include.is_empty() && config.rules.exclude.is_empty());
    assert_eq!(config.keys, KeyTemplate::default());
    assert!(config.unpack.zip && config.unpack.keep_archive);
    assert_eq!(config.unpack.template, UnpackTemplate::default());
    assert_eq!(config.unpack.max_size, ByteSize::gibibytes(1024));
    assert_eq!((config.unpack.max_entries, config.unpack.max_ratio), (1_000_000, 2000));
    assert_eq!(config.upload.multipart_threshold, ByteSize::mebibytes(100));
    assert_eq!(config.upload.part_size, ByteSize::mebibytes(16));
    assert_eq!((config.upload.concurrency.get(), config.upload.path_style), (16, None));
    assert_eq!(config.memory_limit, ByteSize::mebibytes(32));
    assert_eq!((config.max_attempts.get(), config.stop_grace), (5, Duration::from_secs(25)));
    assert!(!config.dry_run && config.job_name.is_none());
    assert_eq!(config.log, LogSettings::default());
}

#[test]
fn an_empty_value_counts_as_unset() {
    let all_empty: Vec<_> = table::variables()
        .map(|variable| variable.name)
        .chain(table::LATER.iter().copied())
        .filter(|name| !LEAST.iter().any(|(least, _)| least == name))
        .map(|name| (name, ""))
        .collect();
    assert_eq!(format!("{:?}", config(&all_empty)), format!("{:?}", config(&[])));
}

#[test]
fn nothing_set_names_everything_that_is_needed() {
    let faults = Config::from_vars([]).expect_err("nothing is set");
    let named: Vec<_> = faults.iter().map(Fault::variable).collect();
    assert_eq!(named, ["BUCKET", "SFTP_DIRECTORY_PATH", "SECRET_NAME"]);
}

#[test]
fn every_fault_is_reported_at_once_and_each_on_its_own_line() {
    let wrong = [
        ("BUCKET", "My_Bucket"),
        ("SFTP_DIRECTORY_PATH", "a\0b"),
        ("PORT", "70000"),
        ("REGION", "Ireland!"),
        ("SECRET_VERSION_STAGES", ","),
        ("SFTP_HOST", "sftp.example.com:22"),
        ("SFTP_USERNAME", "a\nb"),
        ("TRUSTED_HOST_KEYS", "ssh-ed25519 nonsense"),
        ("HOST_KEY_CHECK", "no"),
        ("SFTP_ENGINE", "openssh"),
        ("OPERATION", "RECEIVE"),
        ("RECURSIVE", "1"),
        ("INCLUDE", "[a"),
        ("EXCLUDE", "/out/*"),
        ("KEY_TEMPLATE", "{paht}"),
        ("UNPACK", "rar"),
        ("KEEP_ARCHIVE", "on"),
        ("UNPACK_TEMPLATE", "{archive}"),
        ("MAX_UNPACKED_SIZE", "0"),
        ("MAX_ENTRIES", "1e6"),
        ("MAX_UNPACK_RATIO", "-1"),
        ("MULTIPART_THRESHOLD", "6GiB"),
        ("PART_SIZE", "4MiB"),
        ("SFTP_CONNECTIONS", "0"),
        ("UPLOAD_CONCURRENCY", "many"),
        ("MEMORY_LIMIT", "a lot"),
        ("SSE", "kms"),
        ("KMS_KEY_ID", "a b"),
        ("STORAGE_CLASS", "COLD"),
        ("OBJECT_TAGS", "team"),
        ("S3_PATH_STYLE", "yes"),
        ("CONNECT_TIMEOUT", "30"),
        ("IDLE_TIMEOUT", "0s"),
        ("MAX_ATTEMPTS", "0"),
        ("DRY_RUN", "maybe"),
        ("JOB_NAME", "a/b"),
        ("STOP_GRACE", "0s"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
    ];
    let faults = faults(&wrong);
    let mut named: Vec<_> = faults.iter().map(Fault::variable).collect();
    let mut expected: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(faults.to_string().lines().count(), wrong.len(), "{faults}");
    assert!(faults.to_string().contains("PART_SIZE is \"4MiB\": give a size from 5MiB to 5GiB"), "{faults}");
}

#[test]
fn faults_tell_whose_run_it_would_have_been() {
    let known = faults(&[("OPERATION", "TEST"), ("JOB_NAME", "nightly"), ("PORT", "x")]);
    assert_eq!((known.operation(), known.job_name()), (Operation::Test, Some("nightly")));
    let unknown = faults(&[("OPERATION", "GUESS"), ("JOB_NAME", "a/b")]);
    assert_eq!((unknown.operation(), unknown.job_name()), (Operation::Retrieve, None));
}

#[test]
fn every_parsed_variable_of_the_table_can_be_wrong() {
    // What only text can be wrong in is covered above; here a variable that nobody parses would show.
    let unparsed: Vec<_> = table::variables()
        .map(|variable| variable.name)
        .filter(|name| !["SECRET_FILE", "SECRET_JSON", "SECRET_NAME", "RUST_LOG"].contains(name))
        .filter(|name| {
            let bad = if *name == "SFTP_DIRECTORY_PATH" { "\0" } else { "{ \u{1} [" };
            Config::from_vars(with(&[(name, bad)])).is_ok()
        })
        .collect();
    assert_eq!(unparsed, [""; 0]);
    assert!(Config::from_vars(with(&[("RUST_LOG", "[span]=x")])).is_err());
}

#[test]
fn exactly_one_source_of_the_secret_is_taken() {
    let file = config(&[("SECRET_NAME", ""), ("SECRET_FILE", "/run/secrets/sftp")]);
    assert!(matches!(file.secret, SecretSource::File(ref path) if path == Path::new("/run/secrets/sftp")));
    let json = config(&[("SECRET_NAME", ""), ("SECRET_JSON", "{\"Password\":\"hunter2\"}")]);
    assert!(matches!(json.secret, SecretSource::Json(ref json) if json.expose_secret().contains("hunter2")));
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:partner/sftp-AbCdEf";
    let stages = config(&[("SECRET_NAME", arn), ("SECRET_VERSION_STAGES", "AWSCURRENT, AWSPREVIOUS")]);
    assert!(matches!(stages.secret, SecretSource::SecretsManager { ref id, ref stages }
        if id == arn && *stages == ["AWSCURRENT", "AWSPREVIOUS"]));

    let several = faults(&[("SECRET_FILE", "/x"), ("SECRET_JSON", "{}")]).to_string();
    for name in ["SECRET_NAME", "SECRET_FILE", "SECRET_JSON", "exactly one"] {
        assert!(several.contains(name), "{several}");
    }
}

#[test]
fn a_secret_in_the_wrong_variable_is_noticed_and_not_shown() {
    for name in ["SECRET_NAME", "SECRET_FILE"] {
        let faults = faults(&[("SECRET_NAME", ""), (name, "{\"Password\": \"hunter2\"}")]);
        assert!(faults.to_string().contains("SECRET_JSON"), "{faults}");
        assert!(!format!("{faults}{faults:?}").contains("hunter2"), "{faults}");
    }
    // Whatever parser it gets to, and whatever that finds wrong with it.
    for secret in [
        "{\"Password\":\"hunter2[b\"}",
        "{\"Password\" : \"hunter2\"}",
        "{\"Password\": \"hunter2\",\n\"x\": \"/hunter2/\"}",
        "{ \"hunter2\" }/{hunter2}{mtime:%hunter2}",
        "/{\"hunter2\"/",
        "{mtime:%!hunter2}{\"",
        "[z-a]hunter2{\"\\",
    ] {
        for variable in table::variables().filter(|variable| variable.name != "SECRET_JSON") {
            let shown = match Config::from_vars(with(&[(variable.name, secret)])) {
                // A directory and an include may be called anything.
                Ok(config) => config.warnings.concat(),
                Err(faults) => format!("{faults}{faults:?}"),
            };
            assert!(!shown.contains("hunter2"), "{}={secret}: {shown}", variable.name);
        }
    }
}

#[test]
fn no_secret_is_in_what_is_shown_of_a_configuration() {
    let config = config(&[("SECRET_NAME", ""), ("SECRET_JSON", "{\"Password\":\"hunter2\"}")]);
    assert!(!format!("{config:?} {:?}", config.describe()).contains("hunter2"));
    assert!(config.describe().contains(&("SECRET_JSON", String::from("(set)"))));
    // A valid glob.
    let misplaced = self::config(&[("INCLUDE", "{\"Password\":\"hunter2\"}")]).summary();
    assert!(
        !misplaced.contains("hunter2") && misplaced.contains("BUCKET=\"") && !misplaced.contains('\n'),
        "{misplaced}"
    );
}

#[test]
fn what_is_described_configures_the_same_run() {
    let given = [
        ("SECRET_NAME", ""),
        ("SECRET_FILE", "/run/secrets/sftp"),
        ("REGION", "eu-west-1"),
        ("JOB_NAME", "nightly"),
        ("SFTP_HOST", "[::1]"),
        ("SFTP_USERNAME", "me"),
        ("PORT", "22"),
        ("INCLUDE", "*.{csv,txt},b/**"),
        ("EXCLUDE", "**/tmp*"),
        ("KEY_TEMPLATE", "in/{dir}/{name}"),
        ("KMS_KEY_ID", "alias/x"),
        ("STORAGE_CLASS", "standard_ia"),
        ("OBJECT_TAGS", "a=b,c=d"),
        ("S3_PATH_STYLE", "TRUE"),
        ("CONNECT_TIMEOUT", "1500ms"),
        ("UNPACK", "none"),
    ];
    let described = config(&given).describe();
    let again = Config::from_vars(described.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    assert_eq!(again.expect("what is described is valid").describe(), described);
    let defaults: Vec<_> = config(&[]).describe().into_iter().map(|(name, _)| name).collect();
    for variable in table::variables() {
        let told = matches!(variable.default, table::WhenUnset::Value(_) | table::WhenUnset::Required);
        assert!(!told || defaults.contains(&variable.name), "{}", variable.name);
    }
}

#[test]
fn a_variable_of_a_later_version_is_refused_and_not_ignored() {
    for name in table::LATER {
        let faults = faults(&[(name, "hunter2")]);
        let named: Vec<_> = faults.iter().map(Fault::variable).collect();
        assert_eq!(named, [*name]);
        assert!(faults.to_string().contains("does not support"), "{faults}");
    }
    assert!(
        !faults(&[("SFTP_PROXY", "socks5://me:hunter2@proxy"), ("TASK_TOKEN", "hunter2")])
            .to_string()
            .contains("hunter2")
    );
    for (name, value) in [("OPERATION", "LIST"), ("OPERATION", "send"), ("UNPACK", "zip,tar"), ("UNPACK", "all")] {
        assert!(faults(&[(name, value)]).to_string().contains("this version"), "{name}={value}");
    }
    assert!(faults(&[("UNPACK", "none,zip")]).to_string().contains("one of them"));
}

#[test]
fn a_name_one_slip_away_is_warned_about_also_beside_faults() {
    let config = config(&[("INCLDE", "*.csv"), ("RECURSIVEE", "")]);
    assert_eq!(config.warnings, ["the variable INCLDE means nothing here; was INCLUDE meant?"]);
    let faults = Config::from_vars(owned(&[("BUKCET", "b")])).expect_err("no bucket");
    assert!(faults.to_string().contains("was BUCKET meant?"), "{faults}");
}

#[test]
fn a_value_that_is_not_utf8_is_a_fault_only_in_a_variable_of_ours() {
    let invalid = OsString::from_vec(b"/out/caf\xe9".to_vec());
    let least = || with(&[]).into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let foreign = [(OsString::from("LS_COLORS"), invalid.clone()), (OsString::from_vec(vec![0xff]), invalid.clone())];
    assert!(Config::from_os_vars(least().chain(foreign), None).is_ok());
    let ours = least().chain([(OsString::from("INCLUDE"), invalid)]);
    let faults = Config::from_os_vars(ours, None).expect_err("not UTF-8");
    assert_eq!(faults.iter().map(Fault::variable).collect::<Vec<_>>(), ["INCLUDE"]);
}

#[test]
fn trusted_host_keys_are_a_list_by_comma_or_a_paste_of_ssh_keyscan() {
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const FINGERPRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
    let keys = |text: &str| config(&[("TRUSTED_HOST_KEYS", text)]).sftp.trusted_host_keys.map(|keys| keys.len());
    assert_eq!(keys(&format!("{ED25519},{FINGERPRINT}")), Some(2));
    assert_eq!(keys(&format!("# host:22 SSH-2.0-OpenSSH\n[host]:2222 {ED25519}\n\n{FINGERPRINT}\n")), Some(2));
    assert!(faults(&[("TRUSTED_HOST_KEYS", "# nothing\n")]).to_string().contains("no key"));
}

#[test]
fn a_host_key_check_that_is_off_is_warned_about() {
    let warnings = config(&[("HOST_KEY_CHECK", "OFF")]).warnings;
    assert!(matches!(&warnings[..], [warning] if warning.contains("HOST_KEY_CHECK=off")), "{warnings:?}");
}

#[test]
fn a_kms_key_implies_kms_and_contradicts_aes256() {
    let attributes = config(&[("KMS_KEY_ID", "alias/x")]).upload.attributes;
    assert_eq!(attributes.sse.as_deref(), Some("aws:kms"));
    let attributes = config(&[("KMS_KEY_ID", "alias/x"), ("SSE", "AWS:KMS:DSSE")]).upload.attributes;
    assert_eq!(attributes.sse.as_deref(), Some("aws:kms:dsse"));
    assert!(faults(&[("KMS_KEY_ID", "alias/x"), ("SSE", "AES256")]).to_string().contains("SSE=AES256"));
}

#[test]
fn memory_follows_the_container_and_holds_a_part_at_least() {
    let limit = |variables: &[(&str, &str)], mebibytes| {
        in_container(variables, mebibytes).expect("a valid configuration").memory_limit
    };
    assert_eq!(limit(&[], 512), ByteSize::mebibytes(64));
    assert_eq!(limit(&[], 64), ByteSize::mebibytes(16));
    assert_eq!(limit(&[], 30_000), ByteSize::mebibytes(256));
    assert_eq!(limit(&[("PART_SIZE", "100MiB")], 512), ByteSize::mebibytes(100));
    assert_eq!(limit(&[("MEMORY_LIMIT", "20MiB")], 512), ByteSize::mebibytes(20));
    assert_eq!(config(&[("PART_SIZE", "100MiB")]).memory_limit, ByteSize::mebibytes(100));

    let part = in_container(&[("PART_SIZE", "100MiB")], 128).expect_err("no room for a part");
    assert!(part.to_string().starts_with("PART_SIZE is \"100MiB\""), "{part}");
    let memory = faults(&[("MEMORY_LIMIT", "8MiB")]).to_string();
    assert!(memory.contains("PART_SIZE, 16MiB"), "{memory}");
    let more = in_container(&[("MEMORY_LIMIT", "1GiB")], 512).expect("a warning only").warnings;
    assert!(more[0].contains("512MiB"), "{more:?}");
}

#[test]
fn a_directory_keeps_its_blanks_and_may_be_relative() {
    assert_eq!(config(&[("SFTP_DIRECTORY_PATH", " in box ")]).directory, RemotePath::from(" in box "));
    assert_eq!(config(&[("SFTP_DIRECTORY_PATH", ".")]).directory, RemotePath::from("."));
}

proptest! {
    #[test]
    fn no_environment_makes_it_panic(
        values in proptest::collection::vec(("[A-Z_]{1,12}", any::<String>()), 0..4),
        picks in proptest::collection::vec((any::<proptest::sample::Index>(), any::<String>()), 0..6),
    ) {
        let names: Vec<_> = table::variables().map(|variable| variable.name).collect();
        let known = picks.into_iter().map(|(pick, value)| (pick.get(&names).to_string(), value));
        let _ = Config::from_vars(values.into_iter().chain(known));
    }
}
