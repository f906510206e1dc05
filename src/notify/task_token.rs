//! Step Functions' task token: heartbeats while bytes move, the answer at the end, and an end before it where nobody waits
//! for one any more.
//!
//! `SendTaskHeartbeat`, `SendTaskSuccess` and `SendTaskFailure` of the Step Functions API, whose limits are here. A token
//! lets its holder answer for the task: it is a secret.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::retry::RetryPartition;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;

use super::timeouts;
use crate::causes::{causes, refusal};
use crate::exit::Exit;
use crate::pulse::Pulse;
use crate::report::{RunEnd, Told};
use crate::shutdown::{Cause, Shutdown};

/// Between two looks at whether something moved.
const BEAT: Duration = Duration::from_secs(15);
/// Tries of one request.
const ATTEMPTS: u32 = 4;
/// Bytes of `output`.
const MOST_OUTPUT: usize = 256 * 1024;
/// Bytes of `cause`.
const MOST_CAUSE: usize = 32 * 1024;
/// The task was answered for, given up, or its execution stopped.
const NOT_WAITED_FOR: [&str; 2] = ["TaskTimedOut", "TaskDoesNotExist"];

/// Answers for one task.
pub struct TaskToken {
    /// Apart from that of the heartbeats, whose failures use up the tries that a client grants itself.
    client: Client,
    token: SecretString,
    beating: JoinHandle<()>,
    unheard: Arc<Mutex<Option<String>>>,
}

impl TaskToken {
    /// Sends a heartbeat now, and further ones while `moves` counts on. Where Step Functions took one and says later that it
    /// no longer waits, the run is to stop.
    pub fn start(sdk: &SdkConfig, token: SecretString, moves: Pulse, shutdown: Shutdown) -> Self {
        let unheard = Arc::default();
        let heart = Heart {
            client: client(sdk, "heartbeats"),
            token: token.clone(),
            moves,
            shutdown,
            unheard: Arc::clone(&unheard),
        };
        Self { client: client(sdk, "answer"), token, beating: tokio::spawn(heart.beat()), unheard }
    }

    /// Why the last heartbeat was not taken, where it was not.
    pub fn unheard(&self) -> Option<String> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// What a heartbeat takes.
struct Heart {
    client: Client,
    token: SecretString,
    moves: Pulse,
    shutdown: Shutdown,
    unheard: Arc<Mutex<Option<String>>>,
}

impl Heart {
    /// A task that is stuck is silent, so that Step Functions finds it.
    async fn beat(self) {
        let token = self.token.expose_secret();
        let mut at_last = None;
        loop {
            let now = self.moves.count();
            if at_last != Some(now) {
                match self.client.send_task_heartbeat().task_token(token).send().await {
                    Ok(_) => {
                        at_last = Some(now);
                        self.note(None);
                    }
                    Err(error) => {
                        let why = reason(&error).replace(token, "(the token)");
                        // A token that was never good says nothing of this run.
                        if at_last.is_some() && error.code().is_some_and(|code| NOT_WAITED_FOR.contains(&code)) {
                            tracing::warn!(error = why, "stopping: Step Functions no longer waits for this task");
                            return self.shutdown.stop(Cause::GivenUp);
                        }
                        self.note(Some(why));
                    }
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Notes why Step Functions did not take a heartbeat, or that it did. Logs once for each silence.
    fn note(&self, why: Option<String>) {
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(why)) = (&*unheard, &why) {
            tracing::warn!(error = why, "TASK_TOKEN: Step Functions did not take a heartbeat");
        }
        *unheard = why;
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
        "InvalidToken" => ": it is not a token of Step Functions in this region",
        code if NOT_WAITED_FOR.contains(&code) => ": the state machine no longer waits for it",
        _ => "",
    })
}
