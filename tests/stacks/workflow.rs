//! `orchestration.yaml`: its state machines, executed by moto's interpreter of the States Language, with the real program as
//! the task. moto starts no container, so that each test starts the program as ECS would: with the environment that moto's
//! ECS has for the task that the workflow has run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::connector::{self, Partner, task};
use crate::harness::aws;
use crate::harness::moto::Moto;
use crate::harness::seaweed::{ADMIN, client};
use crate::harness::until;
use crate::stack::Stack;

const TEMPLATE: &str = "cloudformation/orchestration.yaml";
const WITHIN: Duration = Duration::from_secs(60);

/// The workflow's stack over a connector's.
pub fn create(moto: &Moto, connector: &Stack, more: &[(&str, &str)]) -> Stack {
    let passed = [
        "ClusterArn",
        "TaskDefinitionArn",
        "TaskRoleArn",
        "ExecutionRoleArn",
        "Subnets",
        "SecurityGroups",
        "CapacityProvider",
        "PublicIp",
        "BucketName",
    ];
    let mut parameters: Vec<_> = passed.iter().map(|name| (*name, connector.output(name))).collect();
    parameters.extend(more);
    Stack::create(&moto.endpoint(), TEMPLATE, &parameters)
}

/// A partner, both stacks, and a moto that executes state machines.
struct Workflow {
    moto: Moto,
    partner: Partner,
    connector: Stack,
    stack: Stack,
    /// Where what is published at the topic can be read.
    inbox: String,
    /// Tasks that a test has dealt with.
    seen: Mutex<BTreeSet<String>>,
}

impl Workflow {
    async fn new(more: &[(&str, &str)]) -> Self {
        // One of its own: that state machines are executed is a setting of all of it.
        let moto = Moto::start_with_workflows().await;
        let endpoint = moto.endpoint();
        let partner = Partner::new(&moto).await;
        let connector = connector::create(&moto, &partner.parameters());
        let mut parameters = vec![("RetrySeconds", "1"), ("Retries", "1")];
        parameters.extend(more);
        let stack = create(&moto, &connector, &parameters);
        let call =
            |service: &str, operation: &str, parameters: Value| aws::call(&endpoint, service, operation, &parameters);
        let inbox = call("sqs", "create_queue", json!({"QueueName": "inbox"}))["QueueUrl"]
            .as_str()
            .expect("a queue")
            .to_owned();
        let queue = json!({"TopicArn": stack.output("TopicArn"), "Protocol": "sqs", "Endpoint": "arn:aws:sqs:us-east-1:123456789012:inbox"});
        call("sns", "subscribe", queue);
        Self { moto, partner, connector, stack, inbox, seen: Mutex::default() }
    }

    fn call(&self, service: &str, operation: &str, parameters: Value) -> Value {
        aws::call(&self.moto.endpoint(), service, operation, &parameters)
    }

    /// The definition that the stack has made. moto's interpreter keeps its machines apart from those of its CloudFormation.
    fn definition(&self, name: &str) -> Value {
        self.call("moto", "config", json!({"stepfunctions": {"execute_state_machine": false}}));
        let described = self.call(
            "stepfunctions",
            "describe_state_machine",
            json!({"stateMachineArn": self.stack.physical_id(name)}),
        );
        serde_json::from_str(described["definition"].as_str().expect("a definition")).expect("JSON")
    }

    /// Starts an execution of a definition, and returns its ARN.
    fn start(&self, definition: &Value, input: &Value) -> String {
        self.start_as(&format!("e-{}", uuid::Uuid::now_v7()), definition, input)
    }

    fn start_as(&self, name: &str, definition: &Value, input: &Value) -> String {
        self.call("moto", "config", json!({"stepfunctions": {"execute_state_machine": true}}));
        let machine = self.call(
            "stepfunctions",
            "create_state_machine",
            json!({"name": format!("m-{}", uuid::Uuid::now_v7()), "definition": definition.to_string(), "roleArn": "arn:aws:iam::123456789012:role/any"}),
        );
        let started = self.call(
            "stepfunctions",
            "start_execution",
            json!({"stateMachineArn": machine["stateMachineArn"], "name": name, "input": input.to_string()}),
        );
        started["executionArn"].as_str().expect("an execution").to_owned()
    }

    fn start_workflow(&self) -> String {
        self.start(&self.definition("Workflow"), &json!({}))
    }

    /// A task that the workflow has run and that no test has seen, as ECS describes it.
    async fn next_task(&self) -> Value {
        let cluster = self.connector.output("ClusterArn");
        let task = until("the workflow runs a task", WITHIN, async || {
            let listed = self.call("ecs", "list_tasks", json!({"cluster": cluster}));
            let seen = self.seen.lock().await;
            listed["taskArns"]
                .as_array()?
                .iter()
                .filter_map(Value::as_str)
                .find(|arn| !seen.contains(*arn))
                .map(str::to_owned)
        })
        .await;
        self.seen.lock().await.insert(task.clone());
        self.call("ecs", "describe_tasks", json!({"cluster": cluster, "tasks": [task]}))["tasks"][0].clone()
    }

    /// What the container would have in its environment.
    fn environment(&self, task: &Value) -> BTreeMap<String, String> {
        let mut environment = self.connector.environment();
        let overrides = &task["overrides"]["containerOverrides"][0];
        assert_eq!(overrides["name"], "connector", "{task}");
        for variable in overrides["environment"].as_array().expect("variables") {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            environment.insert(text(&variable["name"]), text(&variable["value"]));
        }
        environment
    }

    /// How the execution ended.
    async fn ended(&self, execution: &str) -> Value {
        until("the execution ends", WITHIN, async || {
            let described = self.call("stepfunctions", "describe_execution", json!({"executionArn": execution}));
            (described["status"] != "RUNNING").then_some(described)
        })
        .await
    }

    /// What was published, subjects and messages.
    fn told(&self) -> String {
        let received = self.call("sqs", "receive_message", json!({"QueueUrl": self.inbox, "MaxNumberOfMessages": 10}));
        received["Messages"].to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_succeeds_hands_its_report_to_the_next_step() {
    let workflow = Workflow::new(&[("NextStep", "EVENT"), ("NotifySuccess", "true")]).await;
    workflow.partner.put("a.txt", "a");
    workflow.call("sqs", "create_queue", json!({"QueueName": "next"}));
    workflow.call(
        "events",
        "put_rule",
        json!({"Name": "next", "EventPattern": json!({"source": ["sftp-s3-connector.workflow"]}).to_string()}),
    );
    let target = json!({"Rule": "next", "Targets": [{"Id": "next", "Arn": "arn:aws:sqs:us-east-1:123456789012:next"}]});
    workflow.call("events", "put_targets", target);

    let execution = workflow.start_workflow();
    let environment = workflow.environment(&workflow.next_task().await);
    assert!(environment.contains_key("TASK_TOKEN"), "{:?}", environment.keys());
    let run = task(&environment, &workflow.moto.endpoint(), &workflow.partner).secret(&environment["TASK_TOKEN"]);
    let finished = run.finish().await;

    finished.assert_exit(0, "OK");
    assert!(finished.run().get("warnings").is_none(), "{}", finished.show());
    let ended = workflow.ended(&execution).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    let output: Value = serde_json::from_str(ended["output"].as_str().expect("an output")).expect("JSON");
    assert_eq!(output, *finished.run());
    let queue = json!({"QueueUrl": workflow.call("sqs", "get_queue_url", json!({"QueueName": "next"}))["QueueUrl"]});
    let event =
        workflow.call("sqs", "receive_message", queue)["Messages"][0]["Body"].as_str().expect("an event").to_owned();
    let event: Value = serde_json::from_str(&event).expect("JSON");
    assert_eq!(
        (&event["detail-type"], &event["detail"]["report"]),
        (&"SFTP Connector Files Delivered".into(), &output["report"])
    );
    assert!(workflow.told().contains("files delivered"), "{}", workflow.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
    let workflow = Workflow::new(&[]).await;
    workflow.partner.put("a.txt", "a");
    let endpoint = workflow.moto.endpoint();

    // The server is away at first.
    let execution = workflow.start_workflow();
    let environment = workflow.environment(&workflow.next_task().await);
    let away = task(&environment, &endpoint, &workflow.partner).env("PORT", 9).env("MAX_ATTEMPTS", 1);
    away.finish().await.assert_exit(7, "UNREACHABLE");
    let environment = workflow.environment(&workflow.next_task().await);
    task(&environment, &endpoint, &workflow.partner).finish().await.assert_exit(0, "OK");
    let ended = workflow.ended(&execution).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");

    // The partner has changed the login.
    let execution = workflow.start_workflow();
    let environment = workflow.environment(&workflow.next_task().await);
    let refused = task(&environment, &endpoint, &workflow.partner).env("SFTP_USERNAME", "nobody-knows");
    refused.finish().await.assert_exit(5, "AUTH");
    let ended = workflow.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &"AUTH".into()), "{ended}");
    let told = workflow.told();
    assert!(told.contains("a run failed") && told.contains("AUTH"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_died_silently_is_answered_for() {
    let workflow = Workflow::new(&[("Retries", "0")]).await;
    let execution = workflow.start_workflow();
    let task = workflow.next_task().await;
    // What EventBridge has of a task that stopped (Amazon ECS task state change events): its description, in `detail`.
    let mut detail = task.clone();
    detail["lastStatus"] = "STOPPED".into();
    detail["stopCode"] = "EssentialContainerExited".into();
    detail["stoppedReason"] = "OutOfMemoryError: container killed due to memory usage".into();
    let event = json!({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail});
    let answer = workflow.start(&workflow.definition("LastWords"), &event);
    assert_eq!(workflow.ended(&answer).await["status"], "SUCCEEDED");
    let ended = workflow.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &"TASK_DIED".into()), "{ended}");
    assert!(ended["cause"].as_str().is_some_and(|cause| cause.contains("OutOfMemoryError")), "{ended}");

    // One that has been answered for already, or has answered itself, has stopped: nothing is wrong.
    let answer = workflow.start(&workflow.definition("LastWords"), &event);
    let ended = workflow.ended(&answer).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_watched_is_known_by_its_exit_code() {
    let workflow = Workflow::new(&[("Integration", "Sync")]).await;
    let definition = workflow.definition("Workflow");
    // From where the watched task has failed: moto's own `.sync` never fails.
    let mut failed = definition.clone();
    failed["StartAt"] = "WhatFailed".into();
    let state = |code: Value, attempt: u64| {
        let cause =
            json!({"Containers": [{"ExitCode": code, "Name": "connector"}], "StopCode": "EssentialContainerExited"});
        json!({
            "settings": {"topic": workflow.stack.output("TopicArn"), "integration": "Sync", "next": "NONE",
                "notifySuccess": false, "retries": 1},
            "attempt": attempt,
            "error": {"Error": "States.TaskFailed", "Cause": cause.to_string()},
        })
    };
    for (code, name) in [(2, "CONFIG"), (5, "AUTH"), (6, "HOST_KEY"), (9, "DESTINATION")] {
        let ended = workflow.ended(&workflow.start(&failed, &state(code.into(), 0))).await;
        assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &name.into()), "{ended}");
    }
    // What may pass, after its last try.
    for (code, name) in
        [(json!(7), "UNREACHABLE"), (json!(143), "INTERRUPTED"), (json!(137), "TASK_DIED"), (Value::Null, "TASK_DIED")]
    {
        let ended = workflow.ended(&workflow.start(&failed, &state(code, 1))).await;
        assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &name.into()), "{ended}");
    }
    // And before it: the task is run again, and this time ends well.
    let execution = workflow.start(&failed, &state(7.into(), 0));
    let task = workflow.next_task().await;
    let report = workflow.environment(&task)["REPORT_URI"].clone();
    assert!(report.ends_with(".json"), "{report}");
    workflow.call(
        "ecs",
        "stop_task",
        json!({"cluster": workflow.connector.output("ClusterArn"), "task": task["taskArn"]}),
    );
    let ended = workflow.ended(&execution).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    assert!(ended["output"].as_str().is_some_and(|output| output.contains(&report)), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_watched_hands_on_a_report_that_is_there_and_no_other() {
    let workflow = Workflow::new(&[("Integration", "Sync"), ("NextStep", "EVENT")]).await;
    // From where the watched task has ended well.
    let mut ended_well = workflow.definition("Workflow");
    ended_well["StartAt"] = "NeedsReport".into();
    let input = |next: &str| {
        json!({
            "settings": {"topic": workflow.stack.output("TopicArn"), "integration": "Sync", "next": next,
                "notifySuccess": false, "retries": 0},
            "attempt": 0,
            "run": {"report": "s3://b/report.json"},
        })
    };
    let ended = workflow.ended(&workflow.start(&ended_well, &input("EVENT"))).await;
    assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &"NO_REPORT".into()), "{ended}");
    // Nobody asks for it.
    let ended = workflow.ended(&workflow.start(&ended_well, &input("NONE"))).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");

    let store = client(&workflow.moto.endpoint(), ADMIN);
    let put = store.put_object().bucket(workflow.connector.output("BucketName"));
    put.key(".sftp-s3-connector/runs/executions/there-0.json").send().await.expect("a report");
    let ended = workflow.ended(&workflow.start_as("there", &ended_well, &input("EVENT"))).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_stuck_or_takes_too_long_is_told_of_by_name() {
    let workflow = Workflow::new(&[("Retries", "0")]).await;
    let definition = workflow.definition("Workflow");
    // No task answers: the one time its heartbeat is missed, the other time its end.
    for (seconds, name) in [("HeartbeatSeconds", "TASK_STUCK"), ("TimeoutSeconds", "TASK_TIMEOUT")] {
        let mut impatient = definition.clone();
        let transfer = impatient["States"]["Transfer"].as_object_mut().expect("a state");
        transfer.remove("HeartbeatSeconds");
        transfer.insert(seconds.to_owned(), 2.into());
        let ended = workflow.ended(&workflow.start(&impatient, &json!({}))).await;
        assert_eq!((&ended["status"], &ended["error"]), (&"FAILED".into(), &name.into()), "{ended}");
        assert!(ended["cause"].as_str().is_some_and(|cause| cause.contains(" s: ")), "{ended}");
    }
}
