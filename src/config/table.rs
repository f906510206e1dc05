//! The one table of variables: the parser reads these names, `--help` prints these lines, and what is one slip away from
//! a name here is warned about.

use serde::Deserialize;

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub default: WhenUnset,
    /// For `--help`: one line.
    pub meaning: &'static str,
}

/// What holds where a variable is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnset {
    /// Nothing can: it must be set.
    Required,
    /// This value, read by the variable's own parser.
    Value(&'static str),
    /// What these words say; another part of the program sees to it.
    Words(&'static str),
}

/// Variables that belong together in `--help`.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub variables: &'static [Variable],
}

/// A variable's row of the table and what the environment gives for it; an empty value counts as none.
#[derive(Clone)]
pub struct Setting {
    pub variable: &'static Variable,
    pub given: Option<String>,
}

/// Declares the table, the struct that `envy` fills from it, and [`Settings`], from one list.
macro_rules! variables {
    ($($title:literal { $($name:ident => $field:ident, $default:expr, $meaning:literal;)* })*) => {
        pub const GROUPS: &[Group] = &[$(Group {
            title: $title,
            variables: &[$(Variable { name: stringify!($name), default: $default, meaning: $meaning }),*],
        }),*];

        /// The environment as text, nothing parsed yet. No `Debug`: it may hold the secret.
        #[derive(Deserialize)]
        pub(super) struct Raw {
            $($($field: Option<String>,)*)*
        }

        /// Every variable of the table with what was given for it. No `Debug`: it may hold the secret.
        pub struct Settings {
            $($(pub $field: Setting,)*)*
        }

        impl Settings {
            /// In the order of the table.
            #[cfg(test)]
            pub fn all(&self) -> Vec<&Setting> {
                vec![$($(&self.$field),*),*]
            }
        }

        impl From<Raw> for Settings {
            fn from(raw: Raw) -> Self {
                // Struct fields are evaluated as written here, which is the order of the rows.
                let mut rows = GROUPS.iter().flat_map(|group| group.variables);
                let mut setting = |given: Option<String>| Setting {
                    variable: rows.next().expect("there is a row for each field: one list declares both"),
                    given: given.filter(|value| !value.is_empty()),
                };
                Self { $($($field: setting(raw.$field),)*)* }
            }
        }
    };
}

use WhenUnset::{Required, Value, Words};

variables! {
    "Where from, where to" {
        BUCKET => bucket, Required, "destination bucket: its name, or an access point's ARN";
        REGION => region, Words("the SDK's own chain"), "AWS region";
        SFTP_DIRECTORY_PATH => sftp_directory_path, Required,
            "remote directory; absolute, or relative to the login directory";
        OPERATION => operation, Value("RETRIEVE"),
            "RETRIEVE delivers the files; TEST checks login, directory and bucket, step by step";
        DRY_RUN => dry_run, Value("false"), "everything up to the first byte: list, select, print what would be done";
        JOB_NAME => job_name, Words("a hash of host, port, directory and bucket"), "names the job in its records";
    }
    "The secret: exactly one of the first three" {
        SECRET_NAME => secret_name, Words("none; one of the three is required"), "Secrets Manager name or ARN";
        SECRET_FILE => secret_file, Words("none; one of the three is required"), "a file holding the secret's JSON";
        SECRET_JSON => secret_json, Words("none; one of the three is required"), "the secret's JSON itself";
        SECRET_VERSION_STAGES => secret_version_stages, Value("AWSCURRENT"),
            "stages of SECRET_NAME, tried in order until one logs in, e.g. AWSCURRENT,AWSPREVIOUS";
    }
    "The SFTP server" {
        SFTP_HOST => sftp_host, Words("from the secret"), "host name or address, over the secret's Host";
        PORT => port, Words("from the secret, else 22"), "SFTP port, over the secret's Port";
        SFTP_USERNAME => sftp_username, Words("from the secret"), "user name, over the secret's Username";
        TRUSTED_HOST_KEYS => trusted_host_keys, Words("from the secret"),
            "what the server's host key must be one of: `type base64` or `SHA256:...`, by comma or line";
        HOST_KEY_CHECK => host_key_check, Value("strict"), "off accepts any host key, with a warning on every run";
        SFTP_ENGINE => sftp_engine, Value("russh"), "libssh2 for servers that only that stack talks to";
        SFTP_CONNECTIONS => sftp_connections, Value("4"),
            "most SFTP connections, 1 to 64; falls by itself to what the server allows";
        CONNECT_TIMEOUT => connect_timeout, Value("30s"), "to reach the server and log in";
        IDLE_TIMEOUT => idle_timeout, Value("60s"), "without a byte from the server";
    }
    "Which files" {
        RECURSIVE => recursive, Value("false"), "descend into subdirectories";
        INCLUDE => include, Words("all"),
            "globs on the path relative to the directory; * stays within a folder, ** crosses";
        EXCLUDE => exclude, Words("none"), "globs likewise; exclude wins";
    }
    "Archives" {
        UNPACK => unpack, Value("zip"), "archive formats to unpack: zip, or none";
        KEEP_ARCHIVE => keep_archive, Value("true"), "store the archive itself as well as its entries";
        UNPACK_TEMPLATE => unpack_template, Value("{archive}/{entry}"),
            "what {path} is for an entry: {archive} is the archive's path less its suffix, {entry} the path inside";
        MAX_UNPACKED_SIZE => max_unpacked_size, Value("1TiB"), "bytes that one archive may expand to";
        MAX_ENTRIES => max_entries, Value("1000000"), "entries that one archive may hold";
        MAX_UNPACK_RATIO => max_unpack_ratio, Value("2000"),
            "expanded bytes over stored bytes, for each archive, past its first 100MiB";
    }
    "Objects" {
        KEY_TEMPLATE => key_template, Value("{path}"),
            "S3 key of a file: {path} {dir} {name} {stem} {ext} {mtime:%Y/%m/%d} {run_start:%Y-%m-%d} {run_id}";
        MULTIPART_THRESHOLD => multipart_threshold, Value("100MiB"),
            "an object of more bytes than this is uploaded in parts; at most 5GiB";
        PART_SIZE => part_size, Value("16MiB"),
            "5MiB to 5GiB; grows by itself so that no object needs more than 10,000 parts";
        SSE => sse, Words("the bucket's"), "AES256, aws:kms or aws:kms:dsse";
        KMS_KEY_ID => kms_key_id, Words("the bucket's"), "key id, alias or ARN; alone it implies SSE=aws:kms";
        STORAGE_CLASS => storage_class, Words("the bucket's"), "as in S3, e.g. STANDARD_IA";
        OBJECT_TAGS => object_tags, Words("none"), "at most ten: k=v,k=v";
        S3_PATH_STYLE => s3_path_style, Words("true with a custom endpoint, else false"),
            "bucket in the path instead of the host name; AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3 are honoured";
    }
    "Resources" {
        UPLOAD_CONCURRENCY => upload_concurrency, Value("16"), "most S3 requests under way, 1 to 1024";
        MEMORY_LIMIT => memory_limit, Words("an eighth of the container's limit, 16MiB to 256MiB, else 32MiB"),
            "bytes of file data held at once; at least PART_SIZE";
        MAX_ATTEMPTS => max_attempts, Value("5"), "tries of one step before its file fails, 1 to 1000";
        STOP_GRACE => stop_grace, Value("25s"), "from SIGTERM to exit, at most";
    }
    "What it tells the outside" {
        REPORT_URI => report_uri, Words("s3://BUCKET/.sftp-s3-connector/runs/"),
            "where the run's report goes: s3://BUCKET/PREFIX/, or one object where it ends in .json; none for none";
        EVENT_BUS => event_bus, Words("none"), "EventBridge bus, by name or ARN: an event for each file and each run";
        TASK_TOKEN => task_token, Words("none"),
            "Step Functions' task token: heartbeats while bytes move, and the answer at the end";
        METRICS => metrics, Words("emf on ECS, else none"),
            "emf writes one line in CloudWatch's embedded metric format to the log; none does not";
    }
    "Logs (on stderr; records go to stdout)" {
        LOG_FORMAT => log_format, Words("text on a terminal, else json"), "json or text";
        LOG_LEVEL => log_level, Words("RUST_LOG, else info"), "off, error, warn, info, debug or trace";
        RUST_LOG => rust_log, Words("info"), "read where LOG_LEVEL is not set";
    }
}

/// Variables whose meaning is settled, that this version does not act on. Setting one is a fault: to ignore `DONE_FILE` would be
/// to deliver files that are not done.
pub const LATER: &[&str] = &[
    "MIN_AGE",
    "MAX_AGE",
    "MIN_SIZE",
    "MAX_SIZE",
    "STABLE_FOR",
    "DONE_FILE",
    "IN_PROGRESS",
    "ORDER_BY",
    "MAX_FILES",
    "MAX_BYTES",
    "EXPECT_FILES",
    "FILES_FROM",
    "OVERWRITE",
    "AFTER_TRANSFER",
    "STATE_URI",
    "LOCK",
    "DEADLINE",
    "SHARD_INDEX",
    "SHARD_COUNT",
    "BANDWIDTH_LIMIT",
    "SFTP_PROXY",
];

/// Every row of the table, in the order of `--help`.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    GROUPS.iter().flat_map(|group| group.variables)
}

/// The table's own spelling of `name`, if it is in the table.
pub fn known(name: &str) -> Option<&'static str> {
    variables().map(|variable| variable.name).find(|known| *known == name)
}

/// The name of [`LATER`], if it is one.
pub fn later(name: &str) -> Option<&'static str> {
    LATER.iter().copied().find(|known| *known == name)
}

/// The known name that `name` is one slip away from: a letter missing, added, wrong, or swapped with its neighbour, the
/// case, or `SFTP_` or `S3_` in front. `None` for a name that is known itself.
pub fn near_miss(name: &str) -> Option<&'static str> {
    if known(name).is_some() || later(name).is_some() {
        return None;
    }
    let bare = name.strip_prefix("SFTP_").or_else(|| name.strip_prefix("S3_")).unwrap_or(name);
    let slipped = |known: &&str| bare.eq_ignore_ascii_case(known) || strsim::osa_distance(name, known) == 1;
    variables().map(|variable| variable.name).chain(LATER.iter().copied()).find(slipped)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_declared_twice_and_each_is_in_capitals() {
        let names: Vec<_> = variables().map(|variable| variable.name).chain(LATER.iter().copied()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn each_field_gets_the_variable_of_its_own_name() {
        for variable in variables() {
            let only = [(variable.name.to_owned(), String::from("x"))];
            let settings = Settings::from(envy::from_iter::<_, Raw>(only).expect("text needs no parsing"));
            let set: Vec<_> = settings.all().into_iter().filter(|setting| setting.given.is_some()).collect();
            assert_eq!(set.iter().map(|setting| setting.variable.name).collect::<Vec<_>>(), [variable.name]);
        }
    }

    #[test]
    fn one_slip_is_a_near_miss_and_two_are_none() {
        for (name, meant) in [
            ("INCLDE", Some("INCLUDE")),
            ("INCLUDEE", Some("INCLUDE")),
            ("INCLIDE", Some("INCLUDE")),
            ("BUCEKT", Some("BUCKET")),
            ("bucket", Some("BUCKET")),
            ("SFTP_PORT", Some("PORT")),
            ("S3_BUCKET", Some("BUCKET")),
            ("AFTER_TRANFER", Some("AFTER_TRANSFER")),
            ("INCLUDE", None),
            ("DONE_FILE", None),
            ("INLDE", None),
            ("PATH", None),
            ("HOSTNAME", None),
            ("AWS_REGION", None),
        ] {
            assert_eq!(near_miss(name), meant, "{name}");
        }
    }
}
