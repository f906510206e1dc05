//! What a run tells the outside, and that none of it fails a run: the report, events, Step Functions, metrics.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::inprocess::json_service::{Answer, JsonService, refusal};
use crate::inprocess::run::{Finished, Run, assert_absent};
use crate::inprocess::s3::Operation;
use crate::inprocess::sftp::{Content, Fault, Misdeed, Quirks, Tree, Trigger};
use crate::proxy::{Proxy, Toward};
use crate::world::{BUCKET, World};

const BUS: &str = "partner-files";
const TOKEN: &str = "AAAAKgAAAAIAAAAAAAAAAS-the-token-of-a-task";

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file("/out/a.txt", "a").file("/out/b.txt", "b").file("/out/c.csv", "c");
    tree
}

/// A service that keeps what it was asked, operation and parameters.
struct Kept {
    service: JsonService,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Kept {
    async fn start(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let kept = asked.clone();
        let service = JsonService::start(move |operation, parameters| {
            kept.lock().unwrap().push((operation.to_owned(), parameters.clone()));
            answer(operation, parameters)
        });
        Self { service: service.await.expect("a loopback port is free"), asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap().clone();
        for (operation, parameters) in &asked {
            assert_absent(crate::world::PASSWORD, operation, &parameters.to_string());
        }
        asked
    }

    fn operations(&self) -> Vec<String> {
        self.asked().into_iter().map(|(operation, _)| operation).collect()
    }

    /// The entries of every `PutEvents`.
    fn entries(&self) -> Vec<Value> {
        let batches = self.asked();
        for (operation, asked) in &batches {
            assert_eq!(operation, "AWSEvents.PutEvents");
            assert!((1..=10).contains(&asked["Entries"].as_array().expect("entries").len()), "{asked}");
        }
        batches.iter().flat_map(|(_, asked)| asked["Entries"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// EventBridge that takes everything.
fn taken(parameters: &Value) -> Answer {
    let entries = parameters["Entries"].as_array().map_or(0, Vec::len);
    let entries: Vec<_> = (0..entries).map(|n| json!({"EventId": format!("event-{n}")})).collect();
    (StatusCode::OK, json!({"FailedEntryCount": 0, "Entries": entries}))
}

fn run_with_events(world: &World, events: &Kept) -> Run {
    world.run("/out").env("EVENT_BUS", BUS).env("AWS_ENDPOINT_URL_EVENTBRIDGE", events.service.url())
}

fn run_with_token(world: &World, steps: &Kept) -> Run {
    world.run("/out").env("TASK_TOKEN", TOKEN).env("AWS_ENDPOINT_URL_SFN", steps.service.url()).secret(TOKEN)
}

async fn until(what: &str, ready: impl AsyncFn() -> Option<()>) {
    let started = Instant::now();
    while ready().await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn report(world: &World, finished: &Finished) -> Value {
    let place = finished.run()["report"].as_str().expect("the last record names the report").to_owned();
    let key = place.strip_prefix(&format!("s3://{BUCKET}/")).expect("in the bucket");
    let text = world.s3.read(BUCKET, key).await.expect("the report is there");
    let report: Value = serde_json::from_slice(&text).expect("the report is JSON");
    for secret in [crate::world::PASSWORD, TOKEN] {
        assert_absent(secret, "the report", &report.to_string());
    }
    report
}

fn warnings(finished: &Finished) -> String {
    finished.run()["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_holds_the_last_record_the_settings_and_every_record() {
    let world = World::new(tree()).await;
    let run = world.run("/out").env("EXCLUDE", "*.csv").env("JOB_NAME", "nightly");
    let finished = world.finish(run).await;

    finished.assert_exit(0, "OK");
    let run = finished.run();
    let id = run["transfer-id"].as_str().expect("an id");
    assert_eq!(run["report"], format!("s3://{BUCKET}/.sftp-s3-connector/runs/nightly/{id}.json"));
    let report = report(&world, &finished).await;
    assert_eq!(report["run"], *run);
    assert_eq!(report["files"].as_array().expect("a list"), finished.files());
    assert_eq!(report["settings"]["BUCKET"], BUCKET);
    assert_eq!(report["settings"]["EXCLUDE"], "*.csv");
    assert_eq!(report["settings"]["SECRET_JSON"], "(withheld)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_written_of_a_run_that_failed_too_and_where_it_is_wanted() {
    let world = World::new(tree()).await;
    let there = format!("s3://{BUCKET}/reports/latest.json");
    let finished = world.run("/nowhere").env("REPORT_URI", &there).finish().await;
    finished.assert_exit(8, "DIRECTORY");
    assert_eq!(finished.run()["report"], there);
    let report = report(&world, &finished).await;
    assert_eq!((&report["run"]["exit-name"], &report["files"]), (&"DIRECTORY".into(), &json!([])));

    // A fault of the configuration, told where it was said to be told.
    let finished = world.run("/out").env("REPORT_URI", &there).env("PORT", "no port").finish().await;
    finished.assert_exit(2, "CONFIG");
    let report = crate::outside::report(&world, &finished).await;
    assert_eq!(report["run"]["exit-name"], "CONFIG");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_a_test_leave_no_report_and_neither_does_none() {
    let world = World::new(tree()).await;
    for (name, value) in [("DRY_RUN", "true"), ("OPERATION", "TEST"), ("REPORT_URI", "none")] {
        let finished = world.run("/out").env(name, value).finish().await;
        finished.assert_exit(0, "OK");
        assert!(finished.run().get("report").is_none(), "{name}\n{}", finished.show());
        let left = world.s3.list_all(BUCKET).await.into_iter().filter(|object| object.key.starts_with('.')).count();
        assert_eq!(left, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_is_a_warning() {
    let world = World::new(tree()).await;
    let finished = world.run("/out").env("REPORT_URI", "s3://no-such-bucket/").finish().await;
    finished.assert_exit(0, "OK");
    assert!(warnings(&finished).contains("report was not written"), "{}", finished.show());
    assert!(finished.run().get("report").is_none(), "{}", finished.show());
    world.assert_keys(&["a.txt", "b.txt", "c.csv"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_many_files_goes_in_parts() {
    let mut tree = Tree::new();
    for n in 0..16_000 {
        tree.file(format!("/out/{n:05}-a-name-that-is-long-enough-to-fill-a-report.txt"), "");
    }
    let world = World::new(tree).await;
    let finished = world.finish(world.run("/out").deadline(Duration::from_secs(300))).await;
    finished.assert_exit(0, "OK");
    let report = report(&world, &finished).await;
    assert_eq!(report["files"].as_array().expect("a list").len(), 16_000);
    assert!(world.s3.count(Operation::UploadPart) > 1, "it went in one piece");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_and_the_run_are_an_event() {
    let mut tree = tree();
    tree.file("/out/bad.zip", "PK\x03\x04 and no more than that");
    let world = World::new(tree).await;
    let events = Kept::start(|_, parameters| taken(parameters)).await;

    let finished = world.finish(run_with_events(&world, &events).env("EXCLUDE", "c.csv")).await;

    finished.assert_exit(3, "PARTIAL");
    let mut entries = events.entries();
    let last = entries.pop().expect("the run's own event is the last");
    assert!(
        entries
            .iter()
            .chain([&last])
            .all(|entry| entry["EventBusName"] == BUS && entry["Source"] == "sftp-s3-connector")
    );
    assert_eq!(last["DetailType"], "SFTP Connector Run Failed");
    let detail =
        |entry: &Value| -> Value { serde_json::from_str(entry["Detail"].as_str().expect("text")).expect("JSON") };
    let (mut run, told) = (finished.run().clone(), detail(&last));
    assert_eq!(told["report"], run["report"], "who is told of the run can find its report");
    run.as_object_mut().expect("an object").remove("warnings");
    assert_eq!(told, run);
    let mut types: Vec<_> = entries.iter().map(|entry| entry["DetailType"].as_str().expect("text")).collect();
    types.sort_unstable();
    assert_eq!(
        types,
        [
            "SFTP Connector File Retrieve Completed",
            "SFTP Connector File Retrieve Completed",
            "SFTP Connector File Retrieve Failed"
        ]
    );
    for entry in &entries {
        let detail = detail(entry);
        assert!(finished.files().contains(&detail), "no record says {detail}\n{}", finished.show());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_were_refused_are_sent_again_and_others_are_not() {
    let world = World::new(tree()).await;
    let asked = Mutex::new(0);
    let events = Kept::start(move |_, parameters| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let (status, mut answer) = taken(parameters);
        if *asked == 1 {
            let last = parameters["Entries"].as_array().map_or(0, Vec::len) - 1;
            answer["FailedEntryCount"] = 1.into();
            answer["Entries"][last] = json!({"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"});
        }
        (status, answer)
    })
    .await;
    let finished = world.finish(run_with_events(&world, &events)).await;
    finished.assert_exit(0, "OK");
    assert!(finished.run().get("warnings").is_none(), "{}", finished.show());
    // Three files and the run, one of them twice.
    let mut details: Vec<_> = events.entries().iter().map(|entry| entry["Detail"].to_string()).collect();
    assert_eq!(details.len(), 5);
    details.sort();
    details.dedup();
    assert_eq!(details.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_for_good_is_told_of() {
    let world = World::new(tree()).await;
    let events = Kept::start(|_, parameters| {
        let (status, mut answer) = taken(parameters);
        for (at, entry) in parameters["Entries"].as_array().expect("entries").iter().enumerate() {
            if entry["Detail"].as_str().is_some_and(|detail| detail.contains("/out/b.txt")) {
                answer["FailedEntryCount"] = 1.into();
                answer["Entries"][at] = json!({"ErrorCode": "MalformedDetail", "ErrorMessage": "no such detail"});
            }
        }
        (status, answer)
    })
    .await;
    let finished = world.finish(run_with_events(&world, &events)).await;
    finished.assert_exit(0, "OK");
    let told = warnings(&finished);
    assert!(told.contains("1 of 3 events were lost: MalformedDetail: no such detail"), "{told}");
    // None was sent again.
    assert_eq!(events.entries().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_refuses_or_is_not_there_is_a_warning_and_holds_nobody_up() {
    let mut tree = Tree::new();
    for n in 0..3000 {
        tree.file(format!("/out/{n}.txt"), "x");
    }
    let world = World::new(tree).await;
    let refusing =
        Kept::start(|_, _| refusal("AccessDeniedException", "not allowed to perform: events:PutEvents")).await;
    let finished = world.finish(run_with_events(&world, &refusing)).await;
    finished.assert_exit(0, "OK");
    let told = warnings(&finished);
    assert!(told.contains("3000 of 3000 events were lost") && told.contains("allow events:PutEvents"), "{told}");
    assert!(refusing.asked().len() < 20, "{} requests to who refuses each", refusing.asked().len());

    let started = Instant::now();
    // Nothing listens on the discard port.
    let run = run_with_events(&world, &refusing).env("AWS_ENDPOINT_URL_EVENTBRIDGE", "http://127.0.0.1:9");
    let finished = world.finish(run).await;
    finished.assert_exit(0, "OK");
    assert!(warnings(&finished).contains("3000 of 3000 events were lost"), "{}", finished.show());
    assert!(started.elapsed() < Duration::from_secs(40), "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn step_functions_gets_the_last_record_or_the_exits_name() {
    let world = World::new(tree()).await;
    let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
    let finished = world.finish(run_with_token(&world, &steps)).await;
    finished.assert_exit(0, "OK");
    let asked = steps.asked();
    let (last, answer) = asked.last().expect("an answer");
    assert_eq!((last.as_str(), &answer["taskToken"]), ("AWSStepFunctions.SendTaskSuccess", &TOKEN.into()));
    let output: Value = serde_json::from_str(answer["output"].as_str().expect("text")).expect("JSON");
    assert_eq!(output, *finished.run());
    assert!(output["report"].as_str().is_some_and(|place| place.starts_with("s3://")), "{output}");
    let beats = asked.len() - 1;
    assert!(steps.operations()[..beats].iter().all(|call| call == "AWSStepFunctions.SendTaskHeartbeat"));

    // However it ends: in a test, with a wrong configuration, or without a connection.
    for (name, value, exit) in
        [("OPERATION", "TEST", "OK"), ("PORT", "no", "CONFIG"), ("SFTP_HOST", "127.0.0.2", "UNREACHABLE")]
    {
        let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
        let finished = run_with_token(&world, &steps).env(name, value).env("MAX_ATTEMPTS", 1).finish().await;
        assert_eq!(finished.run()["exit-name"], exit, "{}", finished.show());
        let (last, answer) = steps.asked().pop().expect("an answer");
        if exit == "OK" {
            assert_eq!(last, "AWSStepFunctions.SendTaskSuccess");
        } else {
            assert_eq!((last.as_str(), &answer["error"]), ("AWSStepFunctions.SendTaskFailure", &exit.into()));
            let cause: Value = serde_json::from_str(answer["cause"].as_str().expect("text")).expect("JSON");
            assert_eq!(cause["exit-name"], exit);
        }
    }
}

/// Heartbeats in fifty seconds of a run, which is looked at every fifteen.
async fn heartbeats(world: &World, settings: &[(&str, &str)]) -> usize {
    let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
    let mut run = run_with_token(world, &steps).env("SFTP_CONNECTIONS", 1);
    for (name, value) in settings {
        run = run.env(name, value);
    }
    // Killed when it is dropped.
    let _running = run.start();
    tokio::time::sleep(Duration::from_secs(50)).await;
    steps.operations().iter().filter(|call| call.ends_with("Heartbeat")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_while_bytes_move_and_stop_when_they_do_not() {
    let tree = || {
        let mut tree = Tree::new();
        tree.file("/out/large.bin", Content::synthetic(1, 60_000_000));
        tree
    };
    let world = World::new(tree()).await;
    let moving = Proxy::to_port(world.sftp.port()).rate(1_000_000).start().await;
    let stalled =
        Proxy::to_port(world.sftp.port()).rate(1_000_000).stall_after(Toward::Client, 2_000_000).start().await;
    // Lists its directory on its first connection, opens the file on each, and sends nothing of it.
    let after = |connections, replies| Fault::on_connections(connections, Trigger::Replies(replies), Misdeed::Stall);
    let faults = vec![after(1..=1, 7), after(2..=u64::MAX, 3)];
    let silent = World::quirky(tree(), Quirks { faults, ..Quirks::default() }).await;

    let (moving, stalled) = (moving.port().to_string(), stalled.port().to_string());
    let (by_moving, by_stalled) = ([("PORT", moving.as_str())], [("PORT", stalled.as_str()), ("IDLE_TIMEOUT", "90s")]);
    let (moving, stalled, tried_in_vain) = tokio::join!(
        heartbeats(&world, &by_moving),
        heartbeats(&world, &by_stalled),
        heartbeats(&silent, &[("IDLE_TIMEOUT", "5s"), ("MAX_ATTEMPTS", "50")]),
    );
    // At once, and at 15, 30 and 45 seconds; the others at once, and for what came in their beginning.
    assert!(moving >= 3, "{moving} heartbeats of a run that moves");
    assert!((1..=2).contains(&stalled), "{stalled} heartbeats of a run that is stuck");
    assert!((1..=2).contains(&tried_in_vain), "{tried_in_vain} heartbeats of a run that tries in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_step_functions_gave_up_stops_beside_the_next_try() {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(1, 60_000_000));
    let world = World::new(tree).await;
    // It would take ten minutes.
    let proxy = Proxy::to_port(world.sftp.port()).rate(100_000).start().await;
    let beats = Mutex::new(0);
    let steps = Kept::start(move |operation, _| {
        *beats.lock().unwrap() += 1;
        let is_first = *beats.lock().unwrap() == 1;
        if is_first && operation.ends_with("Heartbeat") {
            return (StatusCode::OK, json!({}));
        }
        refusal("TaskTimedOut", &format!("Task Timed Out: 'Provided task {TOKEN} does not exist'"))
    })
    .await;
    let run = run_with_token(&world, &steps).env("PORT", proxy.port()).env("STOP_GRACE", "4s");
    let finished = world.finish(run.env("PART_SIZE", "5MiB").env("MULTIPART_THRESHOLD", "6MiB")).await;
    finished.assert_exit(143, "INTERRUPTED");
    let message = finished.run()["failure-message"].as_str().expect("a message");
    assert!(message.contains("Step Functions no longer waits"), "{message}");
    assert_eq!(world.s3.count(Operation::CreateMultipartUpload), 1);
    assert_eq!(world.s3.open_uploads(BUCKET).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_taken_is_a_warning_without_the_token() {
    let world = World::new(tree()).await;
    let steps =
        Kept::start(|_, _| refusal("TaskTimedOut", &format!("Task Timed Out: 'Provided task {TOKEN} does not exist'")))
            .await;
    let finished = world.finish(run_with_token(&world, &steps)).await;
    finished.assert_exit(0, "OK");
    assert!(warnings(&finished).contains("Step Functions was not told"), "{}", finished.show());
    assert!(warnings(&finished).contains("no longer waits"), "{}", finished.show());
    assert!(warnings(&finished).contains("did not take the last heartbeat"), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_tells_everybody_within_its_grace() {
    let mut tree = Tree::new();
    tree.file("/out/large.bin", Content::synthetic(1, 30_000_000));
    let world = World::new(tree).await;
    let proxy = Proxy::to_port(world.sftp.port()).rate(300_000).start().await;
    let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
    let events = Kept::start(|_, parameters| taken(parameters)).await;
    let run = run_with_token(&world, &steps)
        .env("EVENT_BUS", BUS)
        .env("AWS_ENDPOINT_URL_EVENTBRIDGE", events.service.url())
        .env("PORT", proxy.port())
        .env("STOP_GRACE", "8s")
        .env("IDLE_TIMEOUT", "20s");
    let running = run.start();
    let moving = async || (proxy.bytes(Toward::Client) > 500_000).then_some(());
    until("bytes arrive", moving).await;
    running.signal(Signal::SIGTERM);
    let signalled = Instant::now();
    let finished = running.finish().await;
    // A second is the machine's, which may be busy.
    assert!(signalled.elapsed() < Duration::from_secs(9), "it took {:?}", signalled.elapsed());
    finished.assert_exit(143, "INTERRUPTED");
    assert_eq!(report(&world, &finished).await["run"]["exit-name"], "INTERRUPTED");
    let (last, answer) = steps.asked().pop().expect("an answer");
    assert_eq!((last.as_str(), &answer["error"]), ("AWSStepFunctions.SendTaskFailure", &"INTERRUPTED".into()));
    assert_eq!(events.entries().pop().expect("an event")["DetailType"], "SFTP Connector Run Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_holds_nobody_up_and_keeps_nobody_from_being_told() {
    // A listener that nobody accepts from: connections succeed, and nothing is answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    let mut tree = Tree::new();
    for n in 0..3000 {
        tree.file(format!("/out/{n}.txt"), "x");
    }
    let world = World::new(tree).await;
    let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
    let run = run_with_token(&world, &steps).env("EVENT_BUS", BUS).env("AWS_ENDPOINT_URL_EVENTBRIDGE", &silent);

    let started = Instant::now();
    let finished = world.finish(run.clone().deadline(Duration::from_secs(150))).await;
    finished.assert_exit(0, "OK");
    assert!(warnings(&finished).contains("events were lost"), "{}", finished.show());
    assert!(started.elapsed() < Duration::from_secs(120), "it took {:?}", started.elapsed());
    assert_eq!(steps.operations().pop().expect("an answer"), "AWSStepFunctions.SendTaskSuccess");

    // Stopped while the bus is silent: Step Functions is answered, the report is there, and it ends in time.
    let running = run.env("STOP_GRACE", "16s").start();
    let begun = async || (steps.operations().last()?.ends_with("Heartbeat")).then_some(());
    until("it has begun", begun).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.signal(Signal::SIGTERM);
    let signalled = Instant::now();
    let finished = running.finish().await;
    assert!(signalled.elapsed() < Duration::from_secs(17), "it took {:?}", signalled.elapsed());
    let answer = steps.operations().pop().expect("an answer");
    assert!(
        answer.starts_with("AWSStepFunctions.SendTask") && !answer.ends_with("Heartbeat"),
        "{answer}\n{}",
        finished.show()
    );
    assert!(finished.run().get("report").is_some(), "{}", finished.show());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_key_is_the_programs_own_is_refused() {
    let mut tree = tree();
    tree.file("/out/.sftp-s3-connector/runs/forged.json", "{}").file("/out/latest.json", "{}");
    let world = World::new(tree).await;
    let run = world.run("/out").env("RECURSIVE", true).env("REPORT_URI", format!("s3://{BUCKET}/latest.json"));
    let finished = run.finish().await;
    finished.assert_exit(3, "PARTIAL");
    for name in ["forged.json", "latest.json"] {
        assert_eq!(finished.only(name)["failure-code"], "KEY_INVALID");
    }
    assert_eq!(report(&world, &finished).await["run"]["files-failed"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_and_a_dry_run_with_a_wrong_configuration_tell_nobody_but_who_waits() {
    let world = World::new(tree()).await;
    let events = Kept::start(|_, parameters| taken(parameters)).await;
    for (name, value) in [("OPERATION", "TEST"), ("DRY_RUN", "true")] {
        let steps = Kept::start(|_, _| (StatusCode::OK, json!({}))).await;
        let there = format!("s3://{BUCKET}/reports/latest.json");
        let run = run_with_events(&world, &events).env("REPORT_URI", &there).env(name, value).env("PORT", "no");
        let run = run.env("TASK_TOKEN", TOKEN).env("AWS_ENDPOINT_URL_SFN", steps.service.url()).secret(TOKEN);
        let finished = run.finish().await;
        finished.assert_exit(2, "CONFIG");
        assert!(finished.run().get("report").is_none() && events.asked().is_empty(), "{}", finished.show());
        let (last, answer) = steps.asked().pop().expect("an answer");
        assert_eq!((last.as_str(), &answer["error"]), ("AWSStepFunctions.SendTaskFailure", &"CONFIG".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_ecs_the_task_is_named_and_the_metrics_are_one_line_of_the_log() {
    let world = World::new(tree()).await;
    let metadata = json!({"Cluster": "partners", "TaskARN": "arn:aws:ecs:eu-central-1:123456789012:task/partners/1a2b",
        "Family": "nightly", "Revision": "7", "DesiredStatus": "RUNNING"});
    let ecs = crate::inprocess::json_service::plain(metadata.clone()).await.expect("a loopback port is free");
    let run = world.run("/out").env("ECS_CONTAINER_METADATA_URI_V4", ecs.url()).env("JOB_NAME", "nightly");
    let finished = world.finish(run).await;

    finished.assert_exit(0, "OK");
    let task = &report(&world, &finished).await["task"];
    assert_eq!(
        *task,
        json!({"task-arn": metadata["TaskARN"], "cluster": "partners", "family": "nightly", "revision": "7"})
    );
    assert!(finished.stderr.contains("running as an ECS task"), "{}", finished.show());

    let lines: Vec<Value> = finished
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line.get("_aws").is_some())
        .collect();
    let [line] = lines.as_slice() else { panic!("{} lines of metrics\n{}", lines.len(), finished.show()) };
    assert_eq!((&line["Job"], &line["Files"], &line["Bytes"]), (&"nightly".into(), &3.into(), &3.into()));
    assert_eq!((&line["RunsSucceeded"], &line["RunsFailed"]), (&1.into(), &0.into()));
    assert_is_embedded_metric_format(line);

    let none = world.run("/out").env("ECS_CONTAINER_METADATA_URI_V4", ecs.url()).env("METRICS", "none").finish().await;
    assert!(!none.stderr.contains("CloudWatchMetrics"), "{}", none.show());
    // Nothing listens on the discard port.
    let unknown = world.run("/out").env("ECS_CONTAINER_METADATA_URI_V4", "http://127.0.0.1:9").finish().await;
    unknown.assert_exit(0, "OK");
    assert!(warnings(&unknown).contains("the ECS task that this runs in is not known"), "{}", unknown.show());
    let elsewhere = world.run("/out").finish().await;
    assert!(!elsewhere.stderr.contains("CloudWatchMetrics"), "{}", elsewhere.show());
}

/// The rules of "Specification: Embedded metric format" of the CloudWatch user guide, and its schema's bounds.
fn assert_is_embedded_metric_format(line: &Value) {
    const UNITS: [&str; 8] =
        ["Seconds", "Microseconds", "Milliseconds", "Bytes", "Count", "Percent", "Bytes/Second", "Count/Second"];
    let root = line.as_object().expect("a root node");
    let metadata = root["_aws"].as_object().expect("a metadata object");
    assert!(
        metadata["Timestamp"].as_u64().is_some_and(|time| time > 1_600_000_000_000),
        "milliseconds since the epoch"
    );
    assert!(metadata.keys().all(|name| ["Timestamp", "CloudWatchMetrics"].contains(&name.as_str())), "{metadata:?}");
    let directives = metadata["CloudWatchMetrics"].as_array().expect("directives");
    assert!(!directives.is_empty());
    for directive in directives {
        assert!(directive["Namespace"].as_str().is_some_and(|name| (1..=1024).contains(&name.len())));
        let sets = directive["Dimensions"].as_array().expect("sets of dimensions");
        assert!(!sets.is_empty());
        for set in sets {
            let names = set.as_array().expect("a set of dimensions");
            assert!((1..=30).contains(&names.len()));
            for name in names {
                let value = root[name.as_str().expect("a name")].as_str().expect("a dimension's value is text");
                assert!((1..=1024).contains(&value.len()) && value.is_ascii() && !value.starts_with(':'), "{value}");
            }
        }
        let metrics = directive["Metrics"].as_array().expect("metrics");
        assert!((1..=100).contains(&metrics.len()));
        for metric in metrics {
            let name = metric["Name"].as_str().expect("a name");
            assert!((1..=1024).contains(&name.len()) && root[name].is_number(), "{name}");
            assert!(UNITS.contains(&metric["Unit"].as_str().expect("a unit")), "{metric}");
        }
    }
}
