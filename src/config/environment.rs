//! The one place that reads the environment: known variables as text, unknown names that were likely meant for known
//! ones, and known ones that this version cannot act on.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::fault::Fault;
use super::table::{self, Raw, Settings};

/// The environment, sorted by what is known of it.
pub struct Environment {
    pub settings: Settings,
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
    /// What ECS gives every container, at which the task can be asked for.
    pub ecs_metadata: Option<String>,
    /// Where the program runs, whatever `REGION` says of the bucket.
    pub own_region: Option<String>,
}

/// Set by ECS, Lambda and the like, and read by every SDK.
const OWN_REGION: &str = "AWS_REGION";

/// Set by ECS and Fargate.
const ECS_METADATA: &str = "ECS_CONTAINER_METADATA_URI_V4";

/// The process's own variables.
#[allow(clippy::disallowed_methods, reason = "this is the one home of reading the environment")]
pub fn process() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// Sorts the given variables. Of a name that is given twice the first counts, as with `getenv`.
pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let mut known = BTreeMap::new();
    let mut ecs_metadata = None;
    let mut own_region = None;
    for (name, value) in variables {
        // A name that is not UTF-8 is none of ours; an empty value counts as unset.
        let Some(name) = name.to_str().filter(|_| !value.is_empty()) else { continue };
        if name == ECS_METADATA {
            ecs_metadata = value.into_string().ok();
        } else if name == OWN_REGION {
            own_region = value.into_string().ok();
        } else if let Some(name) = table::later(name) {
            faults.push(Fault::wrong(
                name,
                &value.to_string_lossy(),
                "this version does not support it yet; unset it, or use a version that does",
            ));
        } else if let Some(name) = table::known(name) {
            match value.into_string() {
                Ok(value) => {
                    known.entry(name).or_insert(value);
                }
                Err(value) => {
                    faults.push(Fault::wrong(name, &value.to_string_lossy(), "its value has to be UTF-8 text"));
                }
            }
        } else if let Some(meant) = table::near_miss(name) {
            warnings.push(format!("the variable {name} means nothing here; was {meant} meant?"));
        }
    }
    // Only names of the table are handed over, in their own spelling: envy takes `port` for `PORT`, and stops at two.
    let known = known.into_iter().map(|(name, value)| (name.to_owned(), value));
    let raw = envy::from_iter::<_, Raw>(known).expect("each name once and nothing to parse: there is no way to fail");
    Environment { settings: Settings::from(raw), faults, warnings, ecs_metadata, own_region }
}
