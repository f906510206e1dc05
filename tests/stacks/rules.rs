//! What a template has to be, whatever it deploys: valid, small enough to deploy as it is, and no wider than it must be.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Map, Value};

use crate::harness::aws;
use crate::harness::process::installed;

const TEMPLATES: [&str; 2] = ["cloudformation/connector.yaml", "cloudformation/orchestration.yaml"];
/// `aws cloudformation deploy` sends a larger one by way of a bucket, which would have to be named.
const MOST_BYTES: usize = 51_200;

fn templates() -> impl Iterator<Item = (&'static str, Value)> {
    TEMPLATES.iter().map(|file| (*file, aws::template(file)))
}

#[test]
fn cfn_lint_finds_nothing() {
    let output = Command::new(installed("cfn-lint"))
        .args(["--include-checks", "I", "--regions", "us-east-1", "eu-central-1", "--"])
        .args(TEMPLATES)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cfn-lint starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_template_is_deployed_without_a_bucket_to_send_it_by() {
    for file in TEMPLATES {
        let len = std::fs::metadata(file).expect(file).len() as usize;
        assert!(len <= MOST_BYTES, "{file}: {len} bytes");
    }
}

/// Every value below `value`, with the member that it is.
fn walk<'a>(value: &'a Value, member: &'a str, visit: &mut impl FnMut(&'a str, &'a Value)) {
    visit(member, value);
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| walk(value, name, visit)),
        Value::Array(items) => items.iter().for_each(|item| walk(item, member, visit)),
        _ => {}
    }
}

fn resources(template: &Value) -> &Map<String, Value> {
    template["Resources"].as_object().expect("resources")
}

/// Every statement of every policy, those behind conditions included, with the resource that has it.
fn statements(template: &Value) -> Vec<(String, Value)> {
    let mut statements = Vec::new();
    for (name, resource) in resources(template) {
        walk(resource, name, &mut |_, value| {
            if value.get("Effect").is_some() {
                statements.push((name.clone(), value.clone()));
            }
        });
    }
    assert!(statements.len() > 3, "policies were not found");
    statements
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// What the actions of a service may be narrowed to, from the Service Authorization Reference as cfn-lint has it.
fn has_resource_types(action: &str) -> bool {
    let venv = installed("python");
    let library = venv.parent().and_then(|bin| bin.parent()).expect("a virtual environment").join("lib");
    let python = std::fs::read_dir(library).expect("lib").next().expect("one Python").expect("it").path();
    let policies = python.join("site-packages/cfnlint/data/AdditionalSpecs/Policies.json");
    let policies: Value = serde_json::from_slice(&std::fs::read(policies).expect("cfn-lint's data")).expect("JSON");
    let (service, name) = action.split_once(':').expect("SERVICE:ACTION");
    let known = &policies[service]["Actions"][name.to_lowercase()];
    assert!(known.is_object(), "{action} is no action of AWS");
    known.get("Resources").is_some()
}

#[test]
fn no_policy_allows_more_than_it_names() {
    for (file, template) in templates() {
        for (resource, statement) in statements(&template) {
            let told = format!("{file} {resource}: {statement}");
            if statement["Effect"] == "Deny" {
                continue;
            }
            let actions = strings(&statement["Action"]);
            assert!(!actions.is_empty() && actions.iter().all(|action| !action.contains('*')), "{told}");
            assert!(statement.get("NotAction").is_none() && statement.get("NotResource").is_none(), "{told}");
            if strings(&statement["Resource"]).iter().any(|resource| resource == "*") {
                assert!(actions.iter().all(|action| !has_resource_types(action)), "{told}");
            }
            // A role's own trust: one service of AWS, and nobody on behalf of another account.
            if actions.iter().any(|action| action == "sts:AssumeRole") {
                let service = statement["Principal"]["Service"].as_str().expect(&told);
                assert!(service.ends_with(".amazonaws.com"), "{told}");
                assert!(statement["Condition"].to_string().contains("aws:SourceAccount"), "{told}");
            } else if let Some(principal) = statement.get("Principal") {
                assert!(principal != "*" && principal.get("AWS").is_none(), "{told}");
                // EventBridge's requests to a topic have nothing that a condition could look at.
                let is_bare = principal["Service"] == "events.amazonaws.com" && statement["Action"] == "sns:Publish";
                assert!(is_bare || statement["Condition"].to_string().contains("aws:SourceAccount"), "{told}");
            }
        }
    }
}

#[test]
fn nothing_may_come_in_and_nothing_is_public() {
    for (file, template) in templates() {
        walk(&template["Resources"], file, &mut |member, _| {
            assert!(!member.contains("Ingress"), "{file}: {member}");
        });
        for (name, resource) in resources(&template) {
            let properties = &resource["Properties"];
            match resource["Type"].as_str().expect("a type") {
                "AWS::S3::Bucket" => {
                    let block = properties["PublicAccessBlockConfiguration"].as_object().expect(name);
                    assert!(block.len() == 4 && block.values().all(|blocked| blocked == true), "{name}");
                    assert!(
                        !properties["BucketEncryption"].is_null() && !properties["LifecycleConfiguration"].is_null()
                    );
                    assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate", "{name} holds files");
                }
                "AWS::EC2::Subnet" => assert!(properties.get("MapPublicIpOnLaunch").is_none(), "{name}"),
                _ => {}
            }
        }
    }
}

#[test]
fn every_parameter_is_used_described_and_in_a_group() {
    for (file, template) in templates() {
        let mut used = BTreeSet::new();
        for part in ["Resources", "Conditions", "Outputs", "Rules"] {
            walk(&template[part], part, &mut |member, value| {
                let Some(text) = value.as_str() else { return };
                match member {
                    "Ref" => _ = used.insert(text.to_owned()),
                    "Fn::Sub" => used
                        .extend(text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()))),
                    _ => {}
                }
            });
        }
        let mut grouped = Vec::new();
        walk(&template["Metadata"], "", &mut |member, value| {
            if member == "Parameters"
                && let Some(name) = value.as_str()
            {
                grouped.push(name.to_owned());
            }
        });
        let parameters = template["Parameters"].as_object().expect("parameters");
        for (name, parameter) in parameters {
            assert!(used.contains(name), "{file}: {name} is not used");
            assert_eq!(grouped.iter().filter(|grouped| *grouped == name).count(), 1, "{file}: {name} is in one group");
            assert!(parameter["Description"].as_str().is_some_and(|text| text.ends_with('.')), "{file}: {name}");
        }
        assert_eq!(grouped.len(), parameters.len(), "{file}: a group names what is no parameter");
    }
}

/// `KEY_TEMPLATE` → `KeyTemplate`.
fn parameter_of(variable: &str) -> String {
    let word = |word: &str| word[..1].to_owned() + &word[1..].to_lowercase();
    variable.split('_').map(word).collect()
}

#[test]
fn every_variable_of_the_program_can_be_passed() {
    let template = aws::template("cloudformation/connector.yaml");
    let container = &template["Resources"]["TaskDefinition"]["Properties"]["ContainerDefinitions"][0];
    let environment = container["Environment"].as_array().expect("variables");
    let parameters = template["Parameters"].as_object().expect("parameters");
    let known = connector::config::GROUPS.iter().flat_map(|group| group.variables).map(|variable| variable.name);
    for variable in known {
        let passed = environment.iter().find(|passed| passed["Name"] == variable);
        match variable {
            // Of one run, not of the job: Step Functions' workflow sets it for each.
            "TASK_TOKEN" => assert!(passed.is_none()),
            // As ECS injects it, so that it is in no task definition.
            "SECRET_JSON" => {
                assert!(container["Secrets"].to_string().contains("SECRET_JSON") && passed.is_none());
                assert!(parameters.contains_key("InjectSecret"));
            }
            "BUCKET" | "SECRET_NAME" => {
                let existing = if variable == "BUCKET" { "ExistingBucket" } else { "SecretArn" };
                assert!(passed.expect(variable)["Value"].to_string().contains(existing), "{variable}");
            }
            _ => {
                let parameter = parameter_of(variable);
                assert!(passed.expect(variable)["Value"].to_string().contains(&parameter), "{variable}: {passed:?}");
                let default = &parameters.get(&parameter).expect(&parameter)["Default"];
                assert!(*default == "" || variable == "SFTP_DIRECTORY_PATH", "{parameter} is empty by default");
            }
        }
    }
    for passed in environment {
        let name = passed["Name"].as_str().expect("a name");
        assert!(
            connector::config::GROUPS.iter().flat_map(|group| group.variables).any(|variable| variable.name == name),
            "{name} is no variable of the program"
        );
    }
}
