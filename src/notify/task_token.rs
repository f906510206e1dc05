//! Step Functions' task token: heartbeats while bytes move, and the answer at the end.
//!
//! `SendTaskHeartbeat`, `SendTaskSuccess` and `SendTaskFailure` of the Step Functions API, whose limits are here. A token
//! lets its holder answer for the task: it is a secret.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::retry::RetryPartition;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;

use super::{refusal, timeouts};
use crate::causes::causes;
use crate::exit::Exit;
use crate::pulse::Pulse;
use crate::report::{RunEnd, Told};

/// Between two looks at whether something moved.
const BEAT: Duration = Duration::from_secs(15);
/// Tries of one request.
const ATTEMPTS: u32 = 4;
/// Bytes of `output`.
const MOST_OUTPUT: usize = 256 * 1024;
/// Bytes of `cause`.
const MOST_CAUSE: usize = 32 * 1024;

/// Answers for one task.
pub struct TaskToken {
    /// Apart from that of the heartbeats, whose failures use up the tries that a client grants itself.
    client: Client,
    token: SecretString,
    beating: JoinHandle<()>,
}

impl TaskToken {
    /// Sends a heartbeat now, and further ones while `moves` counts on.
    pub fn start(sdk: &SdkConfig, token: SecretString, moves: Pulse) -> Self {
        let beating = tokio::spawn(beat(client(sdk, "heartbeats"), token.clone(), moves));
        Self { client: client(sdk, "answer"), token, beating }
    }

    /// Success with the last record and where the report is, or a failure by the name of the exit code.
    ///
    /// # Errors
    ///
    /// Says why Step Functions did not take the answer.
    pub async fn answer(self, run: &RunEnd<'_>, told: &Told) -> Result<(), String> {
        self.beating.abort();
        let token = self.token.expose_secret();
        let answered = match run.outcome.exit {
            Exit::Ok => {
                let answer =
                    self.client.send_task_success().task_token(token).output(run.record_within(told, MOST_OUTPUT));
                answer.send().await.map(drop).map_err(|error| reason(&error))
            }
            exit => {
                let answer = self.client.send_task_failure().task_token(token).error(exit.name());
                answer.cause(run.record_within(told, MOST_CAUSE)).send().await.map(drop).map_err(|error| reason(&error))
            }
        };
        answered.map_err(|why| why.replace(token, "(the token)"))
    }
}

fn client(sdk: &SdkConfig, purpose: &'static str) -> Client {
    let config = aws_sdk_sfn::config::Builder::from(sdk)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .retry_partition(RetryPartition::new(purpose))
        .timeout_config(timeouts())
        .build();
    Client::from_conf(config)
}

impl Drop for TaskToken {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// A task that is stuck is silent, so that Step Functions finds it.
async fn beat(client: Client, token: SecretString, moves: Pulse) {
    let mut at_last = None;
    let mut is_heard = true;
    loop {
        let now = moves.count();
        if at_last != Some(now) {
            match client.send_task_heartbeat().task_token(token.expose_secret()).send().await {
                Ok(_) => {
                    is_heard = true;
                    at_last = Some(now);
                }
                Err(error) => {
                    let why = reason(&error).replace(token.expose_secret(), "(the token)");
                    // Once for each silence.
                    if std::mem::take(&mut is_heard) {
                        tracing::warn!(error = why, "TASK_TOKEN: Step Functions did not take a heartbeat");
                    }
                }
            }
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// What went wrong, and what to do about it where that is known.
fn reason<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let SdkError::ServiceError(error) = error else { return format!("it was not reached ({})", causes(error)) };
    refusal(error.err().code(), error.err().message(), |code| match code {
        "AccessDeniedException" => {
            ": allow states:SendTaskSuccess, states:SendTaskFailure and states:SendTaskHeartbeat to the task's role"
        }
        "TaskTimedOut" => ": the state machine no longer waits for it",
        _ => "",
    })
}
