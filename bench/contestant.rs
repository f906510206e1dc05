//! Who runs: the program with either engine, rclone as it comes and tuned, the AWS sample's own way, and the floors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::data::Data;
use crate::harness::process::installed;
use crate::harness::seaweed::{Bucket, REGION};
use crate::measure::Order;
use crate::site::{SECRET, Site};

/// No client takes so long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the sample's way gets: it takes minutes where the others take seconds.
const SAMPLE_LIMIT: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contestant {
    /// The program as it comes.
    Russh,
    Libssh2,
    /// The program with `SFTP_CONNECTIONS=1`.
    OneConnection,
    Rclone,
    /// With the best settings that its documentation and trials gave.
    RcloneTuned,
    /// One file after the other through paramiko and boto3, as the AWS sample does it.
    Sample,
    /// OpenSSH's `sftp` to /dev/null, then a bare upload of the same bytes by the AWS SDK; for an archive `unzip -p` between.
    Floor,
}

impl Contestant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Russh => "sftp-s3-connector",
            Self::Libssh2 => "sftp-s3-connector, libssh2",
            Self::OneConnection => "sftp-s3-connector, one connection",
            Self::Rclone => "rclone",
            Self::RcloneTuned => "rclone, tuned",
            Self::Sample => "the AWS sample's way",
            Self::Floor => "floor",
        }
    }

    /// What `--only` calls it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Russh => "russh",
            Self::Libssh2 => "libssh2",
            Self::OneConnection => "one-connection",
            Self::Rclone => "rclone",
            Self::RcloneTuned => "rclone-tuned",
            Self::Sample => "sample",
            Self::Floor => "floor",
        }
    }

    /// Too slow to be run more than once.
    pub fn runs_once(self) -> bool {
        self == Self::Sample
    }

    /// The program; the others are its peers.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Russh | Self::Libssh2 | Self::OneConnection)
    }

    pub fn delivers(self) -> bool {
        self != Self::Floor
    }
}

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub connector: PathBuf,
    pub upload_floor: PathBuf,
}

/// One delivery.
pub struct Job<'a> {
    pub site: &'a Site,
    pub data: Data,
    pub bucket: &'a Bucket,
    /// The server's, or the proxy's that makes it far away.
    pub port: u16,
    pub groups: Vec<PathBuf>,
}

impl Job<'_> {
    /// The commands to run, one after the other.
    pub fn orders(&self, contestant: Contestant, programs: &Programs) -> Vec<Order> {
        match contestant {
            Contestant::Russh => vec![self.connector(programs, &[])],
            Contestant::Libssh2 => vec![self.connector(programs, &[("SFTP_ENGINE", "libssh2")])],
            Contestant::OneConnection => vec![self.connector(programs, &[("SFTP_CONNECTIONS", "1")])],
            Contestant::Rclone => vec![self.rclone(&[])],
            Contestant::RcloneTuned => vec![self.rclone(&[
                "--transfers=16",
                "--checkers=16",
                "--s3-upload-concurrency=8",
                "--sftp-concurrency=128",
            ])],
            Contestant::Sample => vec![self.sample()],
            Contestant::Floor => self.floor(programs),
        }
    }

    fn order(&self, program: impl Into<PathBuf>, arguments: Vec<String>, environment: &[(&str, String)]) -> Order {
        let folder = self.site.folder.path();
        let mut all = self.site.credentials();
        all.insert("HOME".to_owned(), folder.display().to_string());
        all.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        all.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Order {
            program: program.into(),
            arguments,
            environment: all,
            directory: folder.to_owned(),
            groups: self.groups.clone(),
            log: folder.join("log"),
            limit: Some(LIMIT),
        }
    }

    /// Every setting is the default but what says where from and where to.
    fn connector(&self, programs: &Programs, settings: &[(&str, &str)]) -> Order {
        let mut environment: BTreeMap<&str, String> = BTreeMap::from([
            ("BUCKET", self.bucket.name.clone()),
            ("SECRET_NAME", SECRET.to_owned()),
            ("SFTP_DIRECTORY_PATH", self.data.name()),
            ("PORT", self.port.to_string()),
            ("REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL_S3", self.bucket.endpoint.clone()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.site.moto.endpoint()),
        ]);
        if self.data.is_tree() {
            environment.insert("RECURSIVE", "true".to_owned());
        }
        if matches!(self.data, Data::Zip(..)) {
            // The peers unpack and do not store the archive; nor does the job here.
            environment.insert("KEEP_ARCHIVE", "false".to_owned());
        }
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let environment: Vec<_> = environment.into_iter().collect();
        self.order(&programs.connector, Vec::new(), &environment)
    }

    fn rclone(&self, flags: &[&str]) -> Order {
        let environment = [
            ("RCLONE_CONFIG", "/notfound".to_owned()),
            ("RCLONE_CONFIG_FROM_TYPE", "sftp".to_owned()),
            ("RCLONE_CONFIG_FROM_HOST", "127.0.0.1".to_owned()),
            ("RCLONE_CONFIG_FROM_PORT", self.port.to_string()),
            ("RCLONE_CONFIG_FROM_USER", self.site.sshd.username().to_owned()),
            ("RCLONE_CONFIG_FROM_KEY_FILE", self.site.key_file().display().to_string()),
            // A partner's server gives no shell; without this rclone tries for one.
            ("RCLONE_CONFIG_FROM_SHELL_TYPE", "none".to_owned()),
            ("RCLONE_CONFIG_TO_TYPE", "s3".to_owned()),
            ("RCLONE_CONFIG_TO_PROVIDER", "Other".to_owned()),
            ("RCLONE_CONFIG_TO_ENV_AUTH", "true".to_owned()),
            ("RCLONE_CONFIG_TO_REGION", REGION.to_owned()),
            ("RCLONE_CONFIG_TO_ENDPOINT", self.bucket.endpoint.clone()),
        ];
        let (from, to) = (format!("from:{}", self.data.name()), format!("to:{}", self.bucket.name));
        let mut arguments = match self.data {
            Data::Zip(..) => {
                vec!["archive".to_owned(), "extract".to_owned(), format!("{from}/archive.zip"), format!("{to}/archive")]
            }
            _ => vec!["copy".to_owned(), from, to],
        };
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.order(installed("rclone"), arguments, &environment)
    }

    fn sample(&self) -> Order {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/sample.py");
        let environment = [
            ("SFTP_PORT", self.port.to_string()),
            ("SFTP_USER", self.site.sshd.username().to_owned()),
            ("SFTP_KEY_FILE", self.site.key_file().display().to_string()),
            ("SFTP_DIRECTORY_PATH", self.data.name()),
            ("BUCKET", self.bucket.name.clone()),
            ("S3_ENDPOINT", self.bucket.endpoint.clone()),
        ];
        let order = self.order(installed("python"), vec![script.display().to_string()], &environment);
        Order { limit: Some(SAMPLE_LIMIT), ..order }
    }

    fn floor(&self, programs: &Programs) -> Vec<Order> {
        let root = self.site.sshd.root().join(self.data.name());
        let remote = match self.data {
            Data::Zip(..) => "archive.zip",
            _ => "large.bin",
        };
        // aes128-gcm is what the program asks for first, too.
        let script = format!(
            "echo 'get {}/{remote} /dev/null' | sftp -q -b - -c aes128-gcm@openssh.com -P {} -i {} \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {}@127.0.0.1",
            self.data.name(),
            self.port,
            self.site.key_file().display(),
            self.site.sshd.username(),
        );
        let mut orders = vec![self.order("/bin/sh", vec!["-c".to_owned(), script], &[])];
        let mut upload = root.clone();
        if matches!(self.data, Data::Zip(..)) {
            upload = self.site.folder.path().join("unzipped");
            let script = format!("unzip -p {} > {}", root.join(remote).display(), upload.display());
            orders.push(self.order("/bin/sh", vec!["-c".to_owned(), script], &[]));
        } else {
            upload.push(remote);
        }
        let arguments = vec![self.bucket.endpoint.clone(), self.bucket.name.clone(), upload.display().to_string()];
        orders.push(self.order(&programs.upload_floor, arguments, &[]));
        orders
    }
}
