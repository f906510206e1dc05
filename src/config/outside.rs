//! Who is told of a run: the types, and how their variables are read.

use secrecy::SecretString;

use super::parse::Reading;
use super::table::Settings;
use super::values::{bucket, one_of, word};
use crate::template::RESERVED;

/// Below what is reserved in the destination bucket, where nothing else is said.
const REPORTS: &str = "runs/";
/// A path that ends so is a key, and no prefix.
const KEY_SUFFIX: &str = ".json";
/// Letters of a token, by the Step Functions API.
const TOKEN_LIMIT: usize = 2048;
/// What a report's key has room for besides its name.
const PATH_LIMIT: usize = 800;

/// What a run tells the outside, and where.
#[derive(Debug, Clone, Default)]
pub struct NotifySettings {
    /// `None`: no report is written.
    pub report: Option<ReportUri>,
    /// `REPORT_URI` says so, and not its default.
    pub report_is_asked_for: bool,
    pub event_bus: Option<EventBus>,
    pub task_token: Option<SecretString>,
    /// Write the line of metrics.
    pub metrics: bool,
    /// The endpoint that tells of the ECS task that this is.
    pub ecs_metadata: Option<String>,
    /// Where Step Functions and a bus without an ARN are: where the program runs. `None`: `REGION`.
    pub own_region: Option<String>,
}

/// Where runs' reports go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportUri {
    bucket: String,
    /// A prefix that is empty or ends in `/`, or a key that ends in `.json`.
    path: String,
}

impl ReportUri {
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key that every report goes to in `bucket`, where the run's name is no part of it.
    pub fn fixed_key(&self, bucket: &str) -> Option<&str> {
        (self.bucket == bucket && self.path.ends_with(KEY_SUFFIX)).then_some(&self.path)
    }

    /// Key of the report of one run of a job.
    pub fn key(&self, job: &str, run: &str) -> String {
        if self.path.ends_with(KEY_SUFFIX) { self.path.clone() } else { format!("{}{job}/{run}.json", self.path) }
    }
}

impl std::fmt::Display for ReportUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.path)
    }
}

/// An EventBridge bus, by its name or ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBus(String);

impl EventBus {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The region that an ARN names: `arn:PARTITION:events:REGION:ACCOUNT:event-bus/NAME`.
    pub fn region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
    }
}

impl NotifySettings {
    /// Who is told of a run that `delivers`, or of a test or a dry run: then only who waits for an answer gets one.
    pub fn of_a_run(&self, delivers: bool) -> Self {
        if delivers {
            return self.clone();
        }
        let Self { task_token, ecs_metadata, own_region, .. } = self.clone();
        Self { task_token, ecs_metadata, own_region, ..Self::default() }
    }

    pub fn speaks_to_anybody(&self) -> bool {
        let Self { report, event_bus, task_token, metrics, .. } = self;
        report.is_some() || event_bus.is_some() || task_token.is_some() || *metrics
    }

    /// `destination` is `BUCKET`, where that could be read.
    pub(super) fn read(
        read: &mut Reading,
        settings: &Settings,
        destination: Option<&str>,
        (ecs_metadata, own_region): (Option<String>, Option<String>),
    ) -> Self {
        let asked = read.optional(&settings.report_uri, report_uri);
        let by_default = || Some(ReportUri { bucket: destination?.to_owned(), path: format!("{RESERVED}{REPORTS}") });
        Self {
            report_is_asked_for: settings.report_uri.given.is_some(),
            report: match (asked, &settings.report_uri.given) {
                (Some(asked), _) => asked,
                (None, Some(_)) => None,
                (None, None) => by_default(),
            },
            event_bus: read.optional(&settings.event_bus, event_bus),
            task_token: read.optional(&settings.task_token, task_token),
            metrics: read
                .optional(&settings.metrics, one_of(&[("emf", true), ("none", false)]))
                .unwrap_or(ecs_metadata.is_some()),
            ecs_metadata,
            own_region,
        }
    }
}

/// `None` for none.
fn report_uri(text: &str) -> Result<Option<ReportUri>, String> {
    const RIGHT: &str = "give s3://BUCKET/PREFIX/, s3://BUCKET/KEY.json, or none";
    let text = text.trim();
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let (name, path) =
        text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))).ok_or(RIGHT)?;
    let bucket = bucket(name).map_err(|problem| format!("{problem}; {RIGHT}"))?;
    let folders = path.strip_suffix('/').unwrap_or(path);
    if !path.is_empty() && folders.split('/').any(|segment| ["", ".", ".."].contains(&segment)) {
        return Err(format!("its path has an empty, `.` or `..` segment; {RIGHT}"));
    }
    if path.len() > PATH_LIMIT || path.chars().any(char::is_control) {
        return Err(format!("its path is longer than {PATH_LIMIT} bytes or has a line end in it; {RIGHT}"));
    }
    let is_whole = path.is_empty() || path.ends_with('/') || path.ends_with(KEY_SUFFIX);
    Ok(Some(ReportUri { bucket, path: if is_whole { path.to_owned() } else { format!("{path}/") } }))
}

fn event_bus(text: &str) -> Result<EventBus, String> {
    const RIGHT: &str = "give the bus by its name, or its ARN (arn:aws:events:REGION:ACCOUNT:event-bus/NAME)";
    let bus = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let is_name = |name: &str| (1..=256).contains(&name.len()) && name.bytes().all(fits);
    let is_arn = || {
        let parts: Vec<_> = bus.splitn(6, ':').collect();
        matches!(parts[..], ["arn", partition, "events", region, account, resource]
            if [partition, region, account].into_iter().all(is_name)
                && resource.strip_prefix("event-bus/").is_some_and(is_name))
    };
    if is_name(bus) || is_arn() { Ok(EventBus(bus.to_owned())) } else { Err(RIGHT.to_owned()) }
}

fn task_token(text: &str) -> Result<SecretString, String> {
    let token = word(text)?;
    if token.len() > TOKEN_LIMIT {
        return Err(format!("a task token has at most {TOKEN_LIMIT} letters"));
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_below_a_prefix_or_to_a_key() {
        for (uri, key) in [
            ("s3://reports/a/b/", "a/b/job/run.json"),
            ("s3://reports/a", "a/job/run.json"),
            ("s3://reports", "job/run.json"),
            ("s3://reports/", "job/run.json"),
            (" s3://reports/latest.json ", "latest.json"),
        ] {
            let read = report_uri(uri).expect(uri).expect("a place");
            assert_eq!((read.bucket(), read.key("job", "run").as_str()), ("reports", key), "{uri}");
            assert_eq!(read.fixed_key("reports"), key.ends_with("latest.json").then_some(key));
            assert_eq!(read.fixed_key("other"), None);
        }
        assert_eq!(report_uri("none"), Ok(None));
        for uri in [
            "reports/a",
            "s3:/reports",
            "s3://R/",
            "s3://reports//a",
            "s3://reports/a//b",
            "s3://reports/../a",
            "https://reports/a",
        ] {
            assert!(report_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_bus_has_a_name_or_an_arn_whose_region_counts() {
        let region = |text| event_bus(text).map(|bus| bus.region().map(str::to_owned));
        assert_eq!(region("default"), Ok(None));
        assert_eq!(region("aws.partner/example.com/1"), Ok(None));
        assert_eq!(region("arn:aws:events:eu-west-1:123456789012:event-bus/mine"), Ok(Some("eu-west-1".to_owned())));
        for text in [
            "a bus",
            "arn:aws:events:eu-west-1:123456789012:event-bus/",
            "arn:aws:events:eu-west-1:123456789012:rule/mine",
            "arn:aws:sns:eu-west-1:1:topic",
            "",
        ] {
            assert!(event_bus(text).is_err(), "{text}");
        }
    }
}
