//! From text to a [`Config`]: every variable is parsed, whatever was wrong before it, and so every fault is found.

use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::environment::Environment;
use super::fault::{Fault, Faults, ToldWith};
use super::table::{Setting, Settings, WhenUnset};
use super::values::{self, boolean, duration, host, job_name, list, number, one_of, size, username, word};
use super::{
    Config, EngineKind, HostKeyCheck, LogSettings, NotifySettings, ObjectAttributes, Operation, SecretSource,
    SftpSettings, UnpackSettings, UploadSettings,
};
use crate::remote::{RemotePath, TrustedHostKey};
use crate::select::Rules;
use crate::template::KeyTemplate;
use crate::units::ByteSize;

/// S3's limits on a part, and on an object that is put in one request.
const PART_SIZES: std::ops::RangeInclusive<ByteSize> = ByteSize::mebibytes(5)..=ByteSize::gibibytes(5);
const WHOLE_OBJECT: ByteSize = ByteSize::gibibytes(5);

/// Where no container sets a limit.
const DEFAULT_MEMORY: ByteSize = ByteSize::mebibytes(32);

/// The bounds of what a container's limit leads to by itself.
const LEAST_MEMORY: ByteSize = ByteSize::mebibytes(16);
const MOST_MEMORY: ByteSize = ByteSize::mebibytes(256);

const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Collects faults while values are read.
#[derive(Default)]
pub struct Reading {
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
}

impl Reading {
    /// The value of a variable that may be left out. `None` too where it is wrong: then there is a fault.
    pub fn optional<T, E: Display>(&mut self, from: &Setting, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let given = from.given.as_deref()?;
        match parse(given) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.faults.push(Fault::wrong(from.variable.name, given, problem));
                None
            }
        }
    }

    /// The value of a variable that has a default in the table, which stands in for a wrong one as well.
    fn or_default<T, E: Display>(&mut self, from: &Setting, parse: impl Fn(&str) -> Result<T, E>) -> T {
        if let Some(value) = self.optional(from, &parse) {
            return value;
        }
        let WhenUnset::Value(default) = from.variable.default else {
            unreachable!("{} has a default in the table", from.variable.name)
        };
        parse(default).unwrap_or_else(|problem| unreachable!("the default of {}: {problem}", from.variable.name))
    }

    fn required<T, E: Display>(
        &mut self,
        from: &Setting,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if from.given.is_none() {
            self.faults.push(Fault::missing(from.variable.name, what));
        }
        self.optional(from, parse)
    }

    fn wrong(&mut self, setting: &Setting, problem: impl Display) {
        let given = setting.given.as_deref().unwrap_or_default();
        self.faults.push(Fault::wrong(setting.variable.name, given, problem));
    }
}

/// `container` is the memory that the container allows, if it sets a limit.
pub fn config(environment: Environment, container: Option<ByteSize>) -> Result<Config, Faults> {
    let Environment { settings, faults, warnings, ecs_metadata, own_region } = environment;
    let mut reading = Reading { faults, warnings };
    let read = &mut reading;

    let bucket = read.required(&settings.bucket, "give the destination bucket", values::bucket);
    let directory = read.required(
        &settings.sftp_directory_path,
        "give the remote directory, or . for the login directory",
        remote_path,
    );
    let secret = secret_source(read, &settings);
    let upload = upload(read, &settings);
    let memory_limit = memory_limit(read, &settings, upload.part_size, container);
    let rest = (
        read.or_default(&settings.operation, operation),
        read.optional(&settings.region, values::region),
        sftp(read, &settings),
        rules(read, &settings),
        read.or_default(&settings.key_template, str::parse::<KeyTemplate>),
        unpack(read, &settings),
        read.or_default(&settings.max_attempts, number(NonZeroU32::MIN..=const { NonZeroU32::new(1000).unwrap() })),
        read.or_default(&settings.dry_run, boolean),
        read.optional(&settings.job_name, job_name),
        read.or_default(&settings.stop_grace, duration(Duration::from_secs(1)..=Duration::from_secs(3600))),
        NotifySettings::read(read, &settings, bucket.as_deref(), (ecs_metadata, own_region)),
        LogSettings::read(read, &settings),
    );
    let (operation, region, sftp, rules, keys, unpack, max_attempts, dry_run, job_name, stop_grace, notify, log) = rest;
    let own_report =
        notify.report.as_ref().zip(bucket.as_deref()).and_then(|(report, bucket)| report.fixed_key(bucket));
    let keys = keys.sparing(own_report.map(str::to_owned));

    let Reading { faults, warnings } = reading;
    match (bucket, directory, secret) {
        (Some(bucket), Some(directory), Some(secret)) if faults.is_empty() => Ok(Config {
            operation,
            bucket,
            region,
            secret,
            sftp,
            directory,
            rules,
            keys,
            unpack,
            upload,
            memory_limit,
            max_attempts,
            dry_run,
            job_name,
            stop_grace,
            notify,
            log,
            warnings,
        }),
        _ => Err(Faults {
            faults,
            warnings,
            operation,
            job_name,
            told_with: Box::new(ToldWith { region, upload, stop_grace, delivers: operation.delivers(dry_run), notify }),
        }),
    }
}

fn operation(text: &str) -> Result<Operation, String> {
    if ["LIST", "SEND"].iter().any(|later| text.trim().eq_ignore_ascii_case(later)) {
        return Err(String::from("this version does not support it yet; give RETRIEVE or TEST"));
    }
    one_of(&[("RETRIEVE", Operation::Retrieve), ("TEST", Operation::Test)])(text)
}

/// Blanks are kept: they may be part of a name.
fn remote_path(text: &str) -> Result<RemotePath, &'static str> {
    if text.contains('\0') { Err("a path holds no NUL character") } else { Ok(RemotePath::from(text)) }
}

fn secret_source(read: &mut Reading, settings: &Settings) -> Option<SecretSource> {
    let stages = read.or_default(&settings.secret_version_stages, stages);
    let given: Vec<_> = [&settings.secret_name, &settings.secret_file, &settings.secret_json]
        .into_iter()
        .filter(|setting| setting.given.is_some())
        .collect();
    if settings.secret_name.given.is_none() && settings.secret_version_stages.given.is_some() {
        read.warnings.push(String::from("SECRET_VERSION_STAGES means nothing without SECRET_NAME"));
    }
    match given[..] {
        [] => {
            read.faults.push(Fault::missing(
                "SECRET_NAME",
                "nor is SECRET_FILE or SECRET_JSON: give exactly one of the three",
            ));
            None
        }
        [one] if one.variable.name == "SECRET_NAME" => {
            read.optional(one, secret_id).map(|id| SecretSource::SecretsManager { id, stages })
        }
        [one] if one.variable.name == "SECRET_FILE" => read.optional(one, secret_file).map(SecretSource::File),
        [one] => one.given.clone().map(|json| SecretSource::Json(SecretString::from(json))),
        [first, ref others @ ..] => {
            let others: Vec<_> = others.iter().map(|setting| setting.variable.name).collect();
            read.wrong(first, format!("so is {}; keep exactly one of the three", others.join(", and so is ")));
            None
        }
    }
}

const HOLDS_THE_SECRET: &str = "it holds the secret itself; that goes into SECRET_JSON";

/// A name as Secrets Manager allows, or an ARN.
fn secret_id(text: &str) -> Result<String, &'static str> {
    let id = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    if id.starts_with('{') {
        return Err(HOLDS_THE_SECRET);
    }
    let name = id.strip_prefix("arn:").map_or(id, |arn| arn.rsplit(':').next().unwrap_or_default());
    if name.is_empty() || id.len() > 2048 || !name.bytes().all(fits) {
        return Err("a secret's name is letters, digits and / _ + = . @ -; or give its ARN");
    }
    Ok(id.to_owned())
}

fn secret_file(text: &str) -> Result<PathBuf, &'static str> {
    if text.trim_start().starts_with('{') { Err(HOLDS_THE_SECRET) } else { Ok(PathBuf::from(text)) }
}

fn stages(text: &str) -> Result<Vec<String>, &'static str> {
    let stages: Vec<_> = list(text).map(str::to_owned).collect();
    let fits = |stage: &String| stage.len() <= 256 && !stage.chars().any(char::is_whitespace);
    if stages.is_empty() || !stages.iter().all(fits) {
        return Err("give version stages, such as AWSCURRENT,AWSPREVIOUS");
    }
    Ok(stages)
}

fn sftp(read: &mut Reading, settings: &Settings) -> SftpSettings {
    const CHECKS: &[(&str, HostKeyCheck)] = &[("strict", HostKeyCheck::Strict), ("off", HostKeyCheck::Off)];
    let timeout = || duration(Duration::from_millis(1)..=FOREVER);
    let sftp = SftpSettings {
        host: read.optional(&settings.sftp_host, host),
        username: read.optional(&settings.sftp_username, username),
        port: read.optional(&settings.port, number(1..=65535)),
        trusted_host_keys: read.optional(&settings.trusted_host_keys, trusted_host_keys),
        host_key_check: read.or_default(&settings.host_key_check, one_of(CHECKS)),
        engine: read.or_default(&settings.sftp_engine, engine),
        connections: read.or_default(
            &settings.sftp_connections,
            number(NonZeroUsize::MIN..=const { NonZeroUsize::new(64).unwrap() }),
        ),
        connect_timeout: read.or_default(&settings.connect_timeout, timeout()),
        idle_timeout: read.or_default(&settings.idle_timeout, timeout()),
    };
    if sftp.host_key_check == HostKeyCheck::Off {
        read.warnings.push(String::from(
            "HOST_KEY_CHECK=off: any server that answers is believed, and gets the password; \
             OPERATION=TEST shows the key to put into TRUSTED_HOST_KEYS",
        ));
    }
    sftp
}

fn trusted_host_keys(text: &str) -> Result<Vec<TrustedHostKey>, String> {
    let join = |faults: Vec<_>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match TrustedHostKey::parse_list(text) {
        Ok(keys) if keys.is_empty() => Err(String::from("there is no key in it")),
        Ok(keys) => Ok(keys),
        Err(faults) => Err(join(faults)),
    }
}

fn engine(text: &str) -> Result<EngineKind, String> {
    let engine = one_of(&[("russh", EngineKind::Russh), ("libssh2", EngineKind::Libssh2)])(text)?;
    if engine == EngineKind::Libssh2 && !cfg!(feature = "libssh2") {
        return Err(String::from("this build leaves libssh2 out; give russh"));
    }
    Ok(engine)
}

fn rules(read: &mut Reading, settings: &Settings) -> Rules {
    Rules {
        recursive: read.or_default(&settings.recursive, boolean),
        include: read.optional(&settings.include, str::parse).unwrap_or_default(),
        exclude: read.optional(&settings.exclude, str::parse).unwrap_or_default(),
    }
}

fn unpack(read: &mut Reading, settings: &Settings) -> UnpackSettings {
    UnpackSettings {
        zip: read.or_default(&settings.unpack, unpacks_zip),
        keep_archive: read.or_default(&settings.keep_archive, boolean),
        template: read.or_default(&settings.unpack_template, str::parse),
        max_size: read.or_default(&settings.max_unpacked_size, size(ByteSize(1)..=ByteSize(u64::MAX))),
        max_entries: read.or_default(&settings.max_entries, number(1..=u64::MAX)),
        max_ratio: read.or_default(&settings.max_unpack_ratio, number(1..=u64::MAX)),
    }
}

fn unpacks_zip(text: &str) -> Result<bool, &'static str> {
    const LATER: [&str; 6] = ["gzip", "bzip2", "xz", "zstd", "tar", "all"];
    let formats: Vec<_> = list(text).map(str::to_ascii_lowercase).collect();
    match formats.iter().find(|format| !["zip", "none"].contains(&format.as_str())) {
        Some(later) if LATER.contains(&later.as_str()) => Err("this version unpacks zip only; give zip or none"),
        Some(_) => Err("give zip or none"),
        None if formats.iter().all(|format| format == "zip") && !formats.is_empty() => Ok(true),
        None if formats.iter().all(|format| format == "none") && !formats.is_empty() => Ok(false),
        None => Err("give zip or none, one of them"),
    }
}

fn upload(read: &mut Reading, settings: &Settings) -> UploadSettings {
    UploadSettings {
        multipart_threshold: read.or_default(&settings.multipart_threshold, size(ByteSize(0)..=WHOLE_OBJECT)),
        part_size: read.or_default(&settings.part_size, size(PART_SIZES)),
        concurrency: read.or_default(
            &settings.upload_concurrency,
            number(NonZeroUsize::MIN..=const { NonZeroUsize::new(1024).unwrap() }),
        ),
        path_style: read.optional(&settings.s3_path_style, boolean),
        attributes: attributes(read, settings),
    }
}

fn attributes(read: &mut Reading, settings: &Settings) -> ObjectAttributes {
    const ENCRYPTIONS: &[(&str, &str)] =
        &[("AES256", "AES256"), ("aws:kms", "aws:kms"), ("aws:kms:dsse", "aws:kms:dsse")];
    let sse = read.optional(&settings.sse, one_of(ENCRYPTIONS));
    let kms_key_id = read.optional(&settings.kms_key_id, word);
    if sse == Some("AES256") && kms_key_id.is_some() {
        read.wrong(&settings.kms_key_id, "SSE=AES256 uses no KMS key; set SSE=aws:kms, or unset one of the two");
    }
    ObjectAttributes {
        // A key that is named is meant to be used; S3 refuses it without the algorithm.
        sse: sse.or(kms_key_id.is_some().then_some("aws:kms")).map(str::to_owned),
        kms_key_id,
        storage_class: read.optional(&settings.storage_class, one_of(STORAGE_CLASSES)).map(str::to_owned),
        tags: read.optional(&settings.object_tags, values::tags).unwrap_or_default(),
    }
}

/// Those of S3's storage classes that an object can be put into.
const STORAGE_CLASSES: &[(&str, &str)] = &[
    ("STANDARD", "STANDARD"),
    ("STANDARD_IA", "STANDARD_IA"),
    ("ONEZONE_IA", "ONEZONE_IA"),
    ("INTELLIGENT_TIERING", "INTELLIGENT_TIERING"),
    ("GLACIER_IR", "GLACIER_IR"),
    ("GLACIER", "GLACIER"),
    ("DEEP_ARCHIVE", "DEEP_ARCHIVE"),
    ("REDUCED_REDUNDANCY", "REDUCED_REDUNDANCY"),
    ("EXPRESS_ONEZONE", "EXPRESS_ONEZONE"),
    ("OUTPOSTS", "OUTPOSTS"),
    ("SNOW", "SNOW"),
    ("FSX_OPENZFS", "FSX_OPENZFS"),
    ("FSX_ONTAP", "FSX_ONTAP"),
];

/// A part is held whole between the two networks, so that less memory than one part would stand still for ever.
fn memory_limit(read: &mut Reading, settings: &Settings, part: ByteSize, container: Option<ByteSize>) -> ByteSize {
    let given = read.optional(&settings.memory_limit, size(ByteSize(0)..=ByteSize(u64::MAX)));
    if let Some(limit) = given {
        if limit < part {
            read.wrong(
                &settings.memory_limit,
                format!("one part of PART_SIZE, {part}, has to fit; give at least that"),
            );
        }
        if let Some(container) = container.filter(|container| limit > *container) {
            read.warnings.push(format!("MEMORY_LIMIT={limit} is more than the container's {container}"));
        }
        return limit;
    }
    let share = container.map_or(DEFAULT_MEMORY, |limit| ByteSize(limit.bytes() / 8).clamp(LEAST_MEMORY, MOST_MEMORY));
    if let Some(container) = container.filter(|container| part > share && part.bytes() > container.bytes() / 2) {
        read.wrong(
            &settings.part_size,
            format!("a part is held in memory, and the container has {container}; give at most half"),
        );
    }
    share.max(part)
}
