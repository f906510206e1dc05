//! A stack that moto has created, and what is in it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::aws;

/// Types that moto's CloudFormation does not make: what they would be is held against the rules and cfn-lint alone, and what
/// the program needs of them (its secret) a test makes by the service's own API.
pub const MOTO_LACKS: [&str; 9] = [
    "AWS::CloudWatch::Alarm",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::Scheduler::Schedule",
    "AWS::Scheduler::ScheduleGroup",
    "AWS::SecretsManager::Secret",
    "AWS::Transfer::Server",
    "AWS::Transfer::User",
];

/// A stack in the moto at `endpoint`.
pub struct Stack {
    pub name: String,
    endpoint: String,
    outputs: BTreeMap<String, String>,
    /// Type and physical id by logical name.
    resources: BTreeMap<String, (String, String)>,
}

impl Stack {
    /// Creates it from a template file.
    pub fn create(endpoint: &str, file: &str, parameters: &[(&str, &str)]) -> Self {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let body = std::fs::read_to_string(path).expect(file);
        let name = format!("stack-{}", uuid::Uuid::now_v7());
        let parameters: Vec<_> =
            parameters.iter().map(|(key, value)| json!({"ParameterKey": key, "ParameterValue": value})).collect();
        let call = |operation: &str, parameters: &Value| aws::call(endpoint, "cloudformation", operation, parameters);
        call(
            "create_stack",
            &json!({"StackName": name, "TemplateBody": body, "Parameters": parameters, "Capabilities": ["CAPABILITY_IAM"]}),
        );
        let described = call("describe_stacks", &json!({"StackName": name}));
        let stack = &described["Stacks"][0];
        assert_eq!(stack["StackStatus"], "CREATE_COMPLETE", "{stack}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let outputs = stack["Outputs"].as_array().expect("outputs");
        let outputs = outputs.iter().map(|output| (text(&output["OutputKey"]), text(&output["OutputValue"]))).collect();
        let listed = call("describe_stack_resources", &json!({"StackName": name}));
        let resources = listed["StackResources"].as_array().expect("resources");
        let resources = resources.iter().map(|resource| {
            let kind = (text(&resource["ResourceType"]), text(&resource["PhysicalResourceId"]));
            (text(&resource["LogicalResourceId"]), kind)
        });
        Self { resources: resources.collect(), name, endpoint: endpoint.to_owned(), outputs }
    }

    #[track_caller]
    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).unwrap_or_else(|| panic!("no output {name}: {:?}", self.outputs))
    }

    /// Types of all resources that were made.
    pub fn types(&self) -> Vec<&str> {
        self.resources.values().map(|(kind, _)| kind.as_str()).collect()
    }

    /// What a resource is called by its service.
    #[track_caller]
    pub fn physical_id(&self, name: &str) -> &str {
        &self.resources.get(name).unwrap_or_else(|| panic!("no resource {name}: {:?}", self.resources)).1
    }

    pub fn call(&self, service: &str, operation: &str, parameters: &Value) -> Value {
        aws::call(&self.endpoint, service, operation, parameters)
    }

    /// The task definition that the outputs name.
    pub fn task_definition(&self) -> Value {
        let described =
            self.call("ecs", "describe_task_definition", &json!({"taskDefinition": self.output("TaskDefinitionArn")}));
        described["taskDefinition"].clone()
    }

    /// The variables of its container.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let definition = self.task_definition();
        let variables = definition["containerDefinitions"][0]["environment"].as_array().expect("variables").clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        variables.iter().map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
    }

    /// What a role's own policies allow: an action and the resource that it is allowed on.
    pub fn allowed(&self, role: &str) -> Vec<(String, String)> {
        let role = role.rsplit('/').next().unwrap_or(role);
        let listed = self.call("iam", "list_role_policies", &json!({"RoleName": role}));
        let mut allowed = Vec::new();
        for name in listed["PolicyNames"].as_array().expect("names") {
            let policy = self.call("iam", "get_role_policy", &json!({"RoleName": role, "PolicyName": name}));
            for statement in
                policy["PolicyDocument"]["Statement"].as_array().expect("statements").iter().filter(|s| !s.is_null())
            {
                for action in one_or_many(&statement["Action"]) {
                    for resource in one_or_many(&statement["Resource"]) {
                        allowed.push((action.clone(), resource));
                    }
                }
            }
        }
        allowed
    }
}

fn one_or_many(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}
