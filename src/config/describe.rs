//! A configuration told in its own variables, for the log's first lines and the run's report. No secret.

use super::fault::show;
use super::{Config, EngineKind, HostKeyCheck, SecretSource};
use crate::units::format_duration;

impl Config {
    /// What holds for this run, defaults included, by the variable's name; what is left to the secret, the bucket or
    /// the SDK is left out.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let (secret, stages) = match &self.secret {
            SecretSource::SecretsManager { id, stages } => (("SECRET_NAME", id.clone()), Some(stages.join(","))),
            SecretSource::File(path) => (("SECRET_FILE", path.display().to_string()), None),
            SecretSource::Json(_) => (("SECRET_JSON", String::from("(set)")), None),
        };
        let keys = self.sftp.trusted_host_keys.as_ref();
        let keys = keys.map(|keys| keys.iter().map(|key| key.fingerprint()).collect::<Vec<_>>().join(","));
        let globs = |globs: &crate::select::Globs| (!globs.is_empty()).then(|| globs.to_string());
        let attributes = &self.upload.attributes;
        let tags: Vec<_> = attributes.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let settings = [
            ("OPERATION", Some(self.operation.name().to_owned())),
            ("BUCKET", Some(self.bucket.clone())),
            ("REGION", self.region.clone()),
            ("SFTP_DIRECTORY_PATH", Some(self.directory.to_text())),
            ("DRY_RUN", Some(self.dry_run.to_string())),
            ("JOB_NAME", self.job_name.clone()),
            (secret.0, Some(secret.1)),
            ("SECRET_VERSION_STAGES", stages),
            ("SFTP_HOST", self.sftp.host.clone()),
            ("PORT", self.sftp.port.map(|port| port.to_string())),
            ("SFTP_USERNAME", self.sftp.username.clone()),
            ("TRUSTED_HOST_KEYS", keys),
            ("HOST_KEY_CHECK", Some(check(self.sftp.host_key_check).to_owned())),
            ("SFTP_ENGINE", Some(engine(self.sftp.engine).to_owned())),
            ("SFTP_CONNECTIONS", Some(self.sftp.connections.to_string())),
            ("CONNECT_TIMEOUT", Some(format_duration(self.sftp.connect_timeout))),
            ("IDLE_TIMEOUT", Some(format_duration(self.sftp.idle_timeout))),
            ("RECURSIVE", Some(self.rules.recursive.to_string())),
            ("INCLUDE", globs(&self.rules.include)),
            ("EXCLUDE", globs(&self.rules.exclude)),
            ("UNPACK", Some(String::from(if self.unpack.zip { "zip" } else { "none" }))),
            ("KEEP_ARCHIVE", Some(self.unpack.keep_archive.to_string())),
            ("UNPACK_TEMPLATE", Some(self.unpack.template.to_string())),
            ("MAX_UNPACKED_SIZE", Some(self.unpack.max_size.to_string())),
            ("MAX_ENTRIES", Some(self.unpack.max_entries.to_string())),
            ("MAX_UNPACK_RATIO", Some(self.unpack.max_ratio.to_string())),
            ("KEY_TEMPLATE", Some(self.keys.to_string())),
            ("MULTIPART_THRESHOLD", Some(self.upload.multipart_threshold.to_string())),
            ("PART_SIZE", Some(self.upload.part_size.to_string())),
            ("SSE", attributes.sse.clone()),
            ("KMS_KEY_ID", attributes.kms_key_id.clone()),
            ("STORAGE_CLASS", attributes.storage_class.clone()),
            ("OBJECT_TAGS", (!tags.is_empty()).then(|| tags.join(","))),
            ("S3_PATH_STYLE", self.upload.path_style.map(|path_style| path_style.to_string())),
            ("UPLOAD_CONCURRENCY", Some(self.upload.concurrency.to_string())),
            ("MEMORY_LIMIT", Some(self.memory_limit.to_string())),
            ("MAX_ATTEMPTS", Some(self.max_attempts.to_string())),
            ("STOP_GRACE", Some(format_duration(self.stop_grace))),
            ("REPORT_URI", Some(self.notify.report.as_ref().map_or("none".to_owned(), ToString::to_string))),
            ("EVENT_BUS", self.notify.event_bus.as_ref().map(|bus| bus.as_str().to_owned())),
            ("TASK_TOKEN", self.notify.task_token.is_some().then(|| "(set)".to_owned())),
            ("METRICS", Some(String::from(if self.notify.metrics { "emf" } else { "none" }))),
        ];
        settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The same without what resembles a secret, as one in the wrong variable may well be a valid glob.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let shown = |(name, value): (&'static str, String)| match show(name, &value) {
            Some(_) => (name, value),
            None => (name, "(withheld)".to_owned()),
        };
        self.describe().into_iter().map(shown).collect()
    }

    /// That on one line, for the log, with long values cut short.
    pub fn summary(&self) -> String {
        let shown = |(name, value): &(&'static str, String)| {
            format!("{name}={}", show(name, value).as_deref().unwrap_or("(withheld)"))
        };
        self.describe().iter().map(shown).collect::<Vec<_>>().join(" ")
    }
}

fn check(check: HostKeyCheck) -> &'static str {
    match check {
        HostKeyCheck::Strict => "strict",
        HostKeyCheck::Off => "off",
    }
}

fn engine(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Russh => "russh",
        EngineKind::Libssh2 => "libssh2",
    }
}
