//! `connector.yaml`, created in moto with each of its choices, and the program run as its task definition has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::aws::{self, template};
use crate::harness::moto::Moto;
use crate::harness::seaweed::{ADMIN, client};
use crate::harness::sshd::{Sshd, SshdOptions};
use crate::run::Run;
use crate::stack::{MOTO_LACKS, Stack};

pub const TEMPLATE: &str = "cloudformation/connector.yaml";
pub const DIRECTORY: &str = "outgoing";

/// A partner's server, and its login as a secret in moto, in the sample's shape.
pub struct Partner {
    pub sshd: Sshd,
    pub secret_arn: String,
}

impl Partner {
    pub async fn new(moto: &Moto) -> Self {
        let sshd = Sshd::start(SshdOptions::default());
        fs::create_dir(sshd.root().join(DIRECTORY)).expect("the partner's directory");
        let secret = json!({
            "SFTP_TEST_SERVER_HOST": "127.0.0.1",
            "SFTP_TEST_SERVER_USERNAME": sshd.username(),
            "SFTP_TEST_SERVER_PASSWORD": sshd.password(),
        });
        let name = format!("partner-{}", uuid::Uuid::now_v7());
        let secret_arn = moto.create_secret(&name, &secret.to_string()).await;
        Self { sshd, secret_arn }
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.sshd.root().join(DIRECTORY).join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Parameters that join the stack to this partner.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let parameters = [
            ("SecretArn", self.secret_arn.clone()),
            ("SftpDirectoryPath", DIRECTORY.to_owned()),
            ("Port", self.sshd.port().to_string()),
            ("TrustedHostKeys", self.sshd.host_key_lines().join(",")),
        ];
        parameters.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

pub fn create(moto: &Moto, parameters: &BTreeMap<String, String>) -> Stack {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Stack::create(&moto.endpoint(), TEMPLATE, &parameters)
}

/// The program with a task's environment, all of AWS at `endpoint`.
pub fn task(environment: &BTreeMap<String, String>, endpoint: &str, partner: &Partner) -> Run {
    let mut run = Run::new(env!("CARGO_BIN_EXE_sftp-s3-connector"));
    for (name, value) in environment {
        run = run.env(name, value);
    }
    run.env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", ADMIN.access_key)
        .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret_key)
        .secret(partner.sshd.password())
        .secret(ADMIN.secret_key)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stacks_task_delivers_to_the_stacks_bucket() {
    let moto = Moto::shared().await;
    let partner = Partner::new(moto).await;
    partner.put("orders.csv", "a;b\n1;2\n");
    let stack = create(moto, &partner.parameters());

    let finished = task(&stack.environment(), &moto.endpoint(), &partner).finish().await;

    finished.assert_exit(0, "OK");
    assert_eq!(finished.run()["connector-id"], stack.name, "the job has the stack's name");
    let store = client(&moto.endpoint(), ADMIN);
    let object =
        store.get_object().bucket(stack.output("BucketName")).key("orders.csv").send().await.expect("the file");
    assert_eq!(object.body.collect().await.expect("its bytes").into_bytes(), "a;b\n1;2\n");
    assert!(finished.run()["report"].as_str().is_some_and(|place| place.contains(stack.output("BucketName"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_on_the_bus_gets_an_event_of_each_file_and_of_the_run() {
    let moto = Moto::shared().await;
    let endpoint = moto.endpoint();
    let partner = Partner::new(moto).await;
    partner.put("a.csv", "a");
    partner.put("b.csv", "bb");
    let name = format!("partner-{}", uuid::Uuid::now_v7());
    let call = |service: &str, operation: &str, asked: Value| aws::call(&endpoint, service, operation, &asked);
    let bus = call("events", "create_event_bus", json!({"Name": name}))["EventBusArn"].clone();
    let inbox = call("sqs", "create_queue", json!({"QueueName": name}))["QueueUrl"].clone();
    let pattern = json!({"source": ["sftp-s3-connector"]}).to_string();
    call("events", "put_rule", json!({"Name": name, "EventBusName": name, "EventPattern": pattern}));
    let queue = json!({"Id": "inbox", "Arn": format!("arn:aws:sqs:us-east-1:123456789012:{name}")});
    call("events", "put_targets", json!({"Rule": name, "EventBusName": name, "Targets": [queue]}));
    let mut parameters = partner.parameters();
    parameters.insert("EventBus".to_owned(), bus.as_str().expect("an ARN").to_owned());
    let stack = create(moto, &parameters);

    let finished = task(&stack.environment(), &endpoint, &partner).finish().await;

    finished.assert_exit(0, "OK");
    assert!(finished.run().get("warnings").is_none(), "{}", finished.show());
    let received = call("sqs", "receive_message", json!({"QueueUrl": inbox, "MaxNumberOfMessages": 10}));
    let events: Vec<Value> = received["Messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| serde_json::from_str(message["Body"].as_str().expect("text")).expect("JSON"))
        .collect();
    let of = |kind: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["detail-type"] == kind).map(|event| &event["detail"]).collect()
    };
    let files = of("SFTP Connector File Retrieve Completed");
    assert_eq!((events.len(), files.len()), (3, 2), "{events:?}");
    assert!(finished.files().iter().all(|record| files.contains(&record)), "{files:?}");
    assert_eq!(of("SFTP Connector Run Completed"), [finished.run()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_choice_makes_a_stack() {
    let moto = Moto::shared().await;
    let partner = Partner::new(moto).await;
    let made = create(moto, &partner.parameters());
    let choices: [&[(&str, &str)]; 5] = [
        &[("FixedAddress", "true")],
        &[
            ("VpcId", "vpc-12345678"),
            ("SubnetIds", "subnet-1,subnet-2"),
            ("SecurityGroupIds", "sg-1"),
            ("AssignPublicIp", "ENABLED"),
        ],
        &[("ExistingBucket", made.output("BucketName")), ("EventBus", "default"), ("ObjectTags", "a=b")],
        &[
            ("ScheduleExpression", "rate(1 hour)"),
            ("UseSpot", "true"),
            ("NoSuccessHours", "3"),
            ("AlarmEmail", "a@b.example"),
        ],
        &[
            ("CpuArchitecture", "ARM64"),
            ("Cpu", "1024"),
            ("Memory", "2048"),
            ("JobName", "nightly"),
            ("InjectSecret", "true"),
            // Which AWS is reached by, too.
            ("Port", "443"),
        ],
    ];
    let mut types: BTreeSet<String> = made.types().into_iter().map(str::to_owned).collect();
    for choice in choices {
        let mut parameters = partner.parameters();
        parameters.extend(choice.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let stack = create(moto, &parameters);
        types.extend(stack.types().into_iter().map(str::to_owned));
        let definition = stack.task_definition();
        let container = &definition["containerDefinitions"][0];
        assert_eq!(container["readonlyRootFilesystem"], true);
        assert_eq!((&container["user"], &container["stopTimeout"]), (&"65532:65532".into(), &30.into()), "{container}");
        let command = stack.output("RunTaskCommand");
        assert!(
            command.starts_with("aws ecs run-task ") && command.contains(stack.output("TaskDefinitionArn")),
            "{command}"
        );
        let has = |text: &str| choice.iter().any(|(name, _)| *name == text);
        assert_eq!(has("FixedAddress"), stack.types().contains(&"AWS::EC2::NatGateway"));
        assert_eq!(has("VpcId"), !stack.types().contains(&"AWS::EC2::VPC"));
        assert_eq!(command.contains("assignPublicIp=ENABLED"), !has("FixedAddress"), "{command}");
        assert_eq!(has("UseSpot"), command.contains("FARGATE_SPOT"), "{command}");
        assert_eq!(has("InjectSecret"), stack.environment()["SECRET_NAME"].is_empty());
    }
    let template = template(TEMPLATE);
    let all = template["Resources"].as_object().expect("resources").values();
    let lacking: BTreeSet<_> =
        all.filter_map(|resource| resource["Type"].as_str()).filter(|kind| !types.contains(*kind)).collect();
    assert_eq!(lacking, MOTO_LACKS.into(), "what moto did not make");
}

/// What CloudFormation makes of a value whose parameters are these. Conditions are those of the secret.
fn evaluate(value: &Value, parameters: &BTreeMap<&str, &str>) -> Value {
    let text = |value: &Value| evaluate(value, parameters).as_str().expect("text").to_owned();
    let Some((function, of)) = value.as_object().and_then(|object| object.iter().next()) else { return value.clone() };
    match function.as_str() {
        "Ref" => parameters.get(of.as_str().expect("a name")).copied().unwrap_or_default().into(),
        "Fn::If" => {
            let holds = of[0] == "HasHost" && !parameters["SftpHost"].is_empty();
            evaluate(&of[if holds { 1 } else { 2 }], parameters)
        }
        "Fn::Split" => text(&of[1]).split(of[0].as_str().expect("text")).collect::<Vec<_>>().into(),
        "Fn::Join" => {
            let items = evaluate(&of[1], parameters);
            let items: Vec<_> = items.as_array().expect("a list").iter().map(&text).collect();
            items.join(of[0].as_str().expect("text")).into()
        }
        "Fn::Sub" => {
            let values = of[1].as_object().expect("values");
            let fill = |filled: String, (name, value): (&String, &Value)| {
                filled.replace(&format!("${{{name}}}"), &text(value))
            };
            values.iter().fold(of[0].as_str().expect("text").to_owned(), fill).into()
        }
        other => panic!("{other} is not for a secret"),
    }
}

/// moto's CloudFormation makes no secret.
#[test]
fn the_secret_is_json_whatever_is_in_a_password_or_a_key() {
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----\n";
    let parameters = BTreeMap::from([
        ("SftpHost", "sftp.partner.example"),
        ("SftpUsername", "acme"),
        ("SftpPassword", r#"a "quoted" \back\\slash' and more"#),
        ("SftpPrivateKey", key),
        ("SftpPrivateKeyPassphrase", ""),
    ]);
    let template = template(TEMPLATE);
    let secret = evaluate(&template["Resources"]["Secret"]["Properties"]["SecretString"], &parameters);
    let secret: Value = serde_json::from_str(secret.as_str().expect("text")).expect("JSON");
    assert_eq!(secret["Host"], "sftp.partner.example");
    assert_eq!(secret["PrivateKey"], key.replace('\r', ""));
    assert_eq!(secret["PrivateKeyPassphrase"], "");
    assert!(
        secret["Password"].as_str().is_some_and(|text| text.starts_with(r#"a "quoted" \back\\slash' and "#)),
        "{secret}"
    );
}
