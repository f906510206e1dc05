//! The task role is enough, and no more: every call that the program makes, in all its operations, against the policies.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::connector::{Partner, create, task};
use crate::harness::moto::Moto;
use crate::harness::noise;
use crate::harness::proxy::Proxy;
use crate::harness::recorder::Recorder;
use crate::harness::seaweed::{ADMIN, Seaweed};
use crate::harness::until;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_task_role_allows_what_the_program_does_and_nothing_else() {
    let moto = Moto::shared().await;
    let partner = Partner::new(moto).await;
    partner.put("small.txt", "small");
    partner.put("large.bin", noise(12 * MIB, 1));
    let mut parameters = partner.parameters();
    for (name, value) in [
        ("EventBus", "default"),
        ("ObjectTags", "partner=acme"),
        ("MultipartThreshold", "8MiB"),
        ("PartSize", "5MiB"),
        ("BucketKmsKeyArn", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
    ] {
        parameters.insert(name.to_owned(), value.to_owned());
    }
    let stack = create(moto, &parameters);
    let workflow = crate::workflow::create(moto, &stack, &[]);
    // Where the bucket is real: checksums, parts, aborts.
    let seaweed = Seaweed::shared().await;
    let bucket = stack.output("BucketName");
    seaweed.client(ADMIN).create_bucket().bucket(bucket).send().await.expect("the stack's bucket, in SeaweedFS");
    let recorder = Recorder::start(seaweed.port(), moto.port()).await;
    let environment = stack.environment();
    let run = || task(&environment, &recorder.endpoint(), &partner);

    run().finish().await.assert_exit(0, "OK");
    run().env("OPERATION", "TEST").finish().await.assert_exit(0, "OK");
    run().env("DRY_RUN", "true").finish().await.assert_exit(0, "OK");
    // One that fails, and answers a token that nobody knows: asking is what counts.
    run()
        .env("TASK_TOKEN", "no-such-token")
        .env("SFTP_DIRECTORY_PATH", "nowhere")
        .finish()
        .await
        .assert_exit(8, "DIRECTORY");
    run().env("TASK_TOKEN", "no-such-token").finish().await.assert_exit(0, "OK");
    // One that is stopped in the middle of an upload, which it aborts.
    let slow = Proxy::to_port(partner.sshd.port()).rate(2_000_000).start().await;
    let stopped = run().env("PORT", slow.port()).start();
    until("an upload is open", std::time::Duration::from_secs(30), async || {
        let open = seaweed.client(ADMIN).list_multipart_uploads().bucket(bucket).send().await.ok()?;
        (!open.uploads().is_empty()).then_some(())
    })
    .await;
    stopped.signal(Signal::SIGTERM);
    stopped.finish().await.assert_exit(143, "INTERRUPTED");

    let mut done: BTreeSet<String> = recorder.actions();
    // Asked of S3 after an answer was lost, which no test can order to happen over a proxy that loses none; its call is shown
    // in the store's own tests.
    done.insert("s3:GetObject".to_owned());
    // S3 asks these of KMS in the caller's name: PutObject a data key, UploadPart and CompleteMultipartUpload to open it again.
    done.extend(["kms:GenerateDataKey", "kms:Decrypt"].map(str::to_owned));
    let allowed = stack.allowed(stack.output("TaskRoleArn"));
    let mut may: BTreeSet<String> = allowed.iter().map(|(action, _)| action.clone()).collect();
    // What the workflow's stack adds to the task's role.
    may.extend(workflow.allowed(stack.output("TaskRoleArn")).into_iter().map(|(action, _)| action));
    assert_eq!(done, may, "what the program did, and what the role allows");

    for (action, resource) in allowed {
        let within = match action.split(':').next() {
            Some("s3") => resource == format!("arn:aws:s3:::{bucket}/*"),
            Some("secretsmanager") => resource == partner.secret_arn,
            Some("events") => resource.ends_with(":event-bus/default"),
            Some("kms") => resource == parameters["BucketKmsKeyArn"],
            Some("states") => resource == "*",
            _ => false,
        };
        assert!(within, "{action} on {resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_spoken_to_in_its_own_region() {
    let moto = Moto::shared().await;
    let partner = Partner::new(moto).await;
    partner.put("small.txt", "small");
    let stack = create(moto, &partner.parameters());
    let seaweed = Seaweed::shared().await;
    let bucket = stack.output("BucketName");
    seaweed.client(ADMIN).create_bucket().bucket(bucket).send().await.expect("a bucket in another region");
    let recorder = Recorder::start(seaweed.port(), moto.port()).await;
    let run = task(&stack.environment(), &recorder.endpoint(), &partner);
    // The bucket is elsewhere; ECS says where the task runs.
    let run = run.env("REGION", "eu-west-1").env("AWS_REGION", "us-east-1").env("EVENT_BUS", "default");
    run.env("TASK_TOKEN", "no-such-token").finish().await.assert_exit(0, "OK");
    let spoken: BTreeSet<_> = recorder.calls().into_iter().map(|call| (call.service, call.region)).collect();
    let expected =
        [("events", "us-east-1"), ("s3", "eu-west-1"), ("secretsmanager", "us-east-1"), ("states", "us-east-1")];
    assert_eq!(spoken, expected.map(|(service, region)| (service.to_owned(), region.to_owned())).into());
}
