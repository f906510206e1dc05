//! The secret: where it comes from, the shapes it has, and what is said when it will not do.

use std::io::Write;

use serde_json::json;

use crate::inprocess::run::Run;
use crate::inprocess::secrets::{SecretsServer, arn};
use crate::inprocess::sftp::Tree;
use crate::world::{PASSWORD, USER, World};

async fn world() -> World {
    let mut tree = Tree::new();
    tree.file("/out/a.txt", "a");
    World::new(tree).await
}

/// A run whose secret is in Secrets Manager, under `name`.
fn with_secrets_manager(world: &World, secrets: &SecretsServer, name: &str) -> Run {
    world
        .run("/out")
        .without("SECRET_JSON")
        .env("SECRET_NAME", name)
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_published_shapes_and_ours_log_in() {
    let world = world().await;
    let port = world.sftp.port();
    let shapes = [
        // The AWS sample's three keys.
        json!({
            "SFTP_TEST_SERVER_HOST": "127.0.0.1",
            "SFTP_TEST_SERVER_USERNAME": USER,
            "SFTP_TEST_SERVER_PASSWORD": PASSWORD,
        }),
        // The Transfer Family connector's, which has its host elsewhere.
        json!({ "Username": USER, "Password": PASSWORD }),
        // Ours.
        json!({ "Host": "127.0.0.1", "Port": port, "Username": USER, "Password": PASSWORD, "Unknown": { "a": 1 } }),
        // Mixed, the port as people write it.
        json!({ "SFTP_TEST_SERVER_HOST": "127.0.0.1", "Port": port.to_string(), "Username": USER, "Password": PASSWORD }),
    ];
    for shape in shapes {
        let run = world.run("/out").env("SECRET_JSON", &shape).env("TRUSTED_HOST_KEYS", world.sftp.host_key());
        let run = if shape.get("Port").is_none() { run.env("PORT", port) } else { run };
        let has_host = shape.get("Host").or(shape.get("SFTP_TEST_SERVER_HOST")).is_some();
        let run = if has_host { run } else { run.env("SFTP_HOST", "127.0.0.1") };
        world.finish(run).await.assert_exit(0, "OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_read_from_a_file() {
    let world = world().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // As editors leave it.
    writeln!(file, "{}", world.secret).unwrap();
    let run = world.run("/out").without("SECRET_JSON").env("SECRET_FILE", file.path().display());
    world.finish(run).await.assert_exit(0, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_manager_is_asked_by_name_or_arn() {
    let world = world().await;
    let secrets = SecretsServer::start().await.unwrap();
    secrets.put("partner/sftp", &world.secret);
    for id in ["partner/sftp", &arn("partner/sftp")] {
        world.finish(with_secrets_manager(&world, &secrets, id)).await.assert_exit(0, "OK");
        assert_eq!(secrets.asked().last(), Some(&(id.to_owned(), "AWSCURRENT".to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_stage_is_tried_when_the_first_does_not_log_in() {
    let mut world = world().await;
    let secrets = SecretsServer::start().await.unwrap();
    secrets.put_stage("partner", "AWSPREVIOUS", &world.secret);
    world.add_secret("Password", "rotated-Too-Early-9");
    secrets.put("partner", &world.secret);

    let current_only = with_secrets_manager(&world, &secrets, "partner");
    world.finish(current_only).await.assert_exit(5, "AUTH");

    let both = with_secrets_manager(&world, &secrets, "partner").env("SECRET_VERSION_STAGES", "AWSCURRENT,AWSPREVIOUS");
    world.finish(both).await.assert_exit(0, "OK");
    let stages: Vec<_> = secrets.asked().into_iter().map(|(_, stage)| stage).collect();
    assert_eq!(stages, ["AWSCURRENT", "AWSCURRENT", "AWSPREVIOUS"]);
    world.assert_keys(&["a.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_does_not_exist_leaves_the_others() {
    let world = world().await;
    let secrets = SecretsServer::start().await.unwrap();
    secrets.put("partner", &world.secret);
    let run = with_secrets_manager(&world, &secrets, "partner").env("SECRET_VERSION_STAGES", "AWSPENDING,AWSCURRENT");
    world.finish(run).await.assert_exit(0, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_had_is_code_4() {
    let world = world().await;
    let secrets = SecretsServer::start().await.unwrap();
    secrets.put("private", &world.secret);
    secrets.deny("private");
    for name in ["no-such-secret", "private"] {
        let finished = world.finish(with_secrets_manager(&world, &secrets, name)).await;
        finished.assert_exit(4, "SECRET");
        assert!(finished.run()["failure-message"].as_str().unwrap().contains(name), "{}", finished.show());
    }
    let run = world.run("/out").without("SECRET_JSON").env("SECRET_FILE", "/no/such/file");
    world.finish(run).await.assert_exit(4, "SECRET");
    assert_eq!(world.sftp.stats().attempts(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_will_not_do_is_code_4_and_names_the_field() {
    let world = world().await;
    let key_of_no_kind = "not-A-private-Key-3";
    let cases = [
        (format!("{{\"Password\": \"{PASSWORD}"), "JSON"),
        (json!([PASSWORD]).to_string(), "JSON"),
        (json!({ "Username": USER, "Password": PASSWORD }).to_string(), "Host"),
        (json!({ "Host": "127.0.0.1", "Password": PASSWORD }).to_string(), "Username"),
        (json!({ "Host": "127.0.0.1", "Username": USER }).to_string(), "Password"),
        (json!({ "Host": "127.0.0.1", "Username": USER, "PrivateKey": key_of_no_kind }).to_string(), "PrivateKey"),
        (json!({ "Host": "127.0.0.1", "Port": "many", "Username": USER, "Password": PASSWORD }).to_string(), "Port"),
        (
            json!({ "Host": "127.0.0.1", "Username": USER, "Password": PASSWORD, "TrustedHostKeys": ["x"] })
                .to_string(),
            "TrustedHostKeys",
        ),
    ];
    for (secret, field) in cases {
        let run = world.run("/out").env("SECRET_JSON", &secret).secret(key_of_no_kind);
        let finished = world.finish(run).await;
        finished.assert_exit(4, "SECRET");
        assert!(finished.run()["failure-message"].as_str().unwrap().contains(field), "{field}\n{}", finished.show());
    }
    assert_eq!(world.sftp.stats().attempts(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_environment_is_told_at_once_and_nothing_is_contacted() {
    let world = world().await;
    let run = world
        .run("/out")
        .without("BUCKET")
        .env("OPERATION", "TEST")
        .env("JOB_NAME", "nightly")
        .env("PORT", "70000")
        .env("RECURSIVE", "perhaps")
        .env("PART_SIZE", "4MiB")
        .env("SECRET_NAME", "partner");
    let finished = run.finish().await;
    finished.assert_exit(2, "CONFIG");
    for variable in ["BUCKET", "PORT", "RECURSIVE", "PART_SIZE", "SECRET_NAME"] {
        assert!(finished.show().contains(variable), "{variable}\n{}", finished.show());
    }
    assert_eq!((&finished.run()["operation"], &finished.run()["connector-id"]), (&"TEST".into(), &"nightly".into()));
    assert_eq!(crate::inprocess::sftp::Stats::read(&world.sftp.stats().connections), 0);
}
