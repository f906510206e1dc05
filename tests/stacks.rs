//! The CloudFormation templates: linted, held against our own rules, created in moto, and run as they say.

mod harness;
#[allow(dead_code, reason = "each test target uses a part of it")]
#[path = "harness/inprocess/run.rs"]
mod run;

#[path = "stacks/connector.rs"]
mod connector;
#[path = "stacks/permissions.rs"]
mod permissions;
#[path = "stacks/rules.rs"]
mod rules;
#[path = "stacks/stack.rs"]
mod stack;
#[path = "stacks/workflow.rs"]
mod workflow;
