//! What a run tells the outside: events of each file, heartbeats while bytes move, and at its end the metrics, the report, the
//! event of the run and Step Functions' answer.
//!
//! None of it can fail a run: what could not be told is a warning, in the log and in the last record.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{Region, SdkConfig};
use tokio::task::JoinHandle;

use crate::config::{NotifySettings, UploadSettings};
use crate::ecs::{self, Task};
use crate::metrics;
use crate::pulse::Pulse;
use crate::report::{Document, EventQueue, Kept, RunEnd, Told};
use crate::shutdown::{Phases, Shutdown};
use crate::store::s3::Connections;
use events::Events;
use report_object::{ReportObject, Storing};
use task_token::TaskToken;

mod events;
mod report_object;
mod task_token;

/// One try of a request to EventBridge or Step Functions.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The events that are still under way are waited for so long.
const EVENTS_WITHIN: Duration = Duration::from_secs(60);

/// Everyone who is told of the run.
pub struct Notify {
    report: Option<ReportObject>,
    events: Option<Events>,
    token: Option<TaskToken>,
    metrics: bool,
    task: Option<JoinHandle<Result<Task, String>>>,
}

impl Notify {
    /// Sends the first heartbeat. `moves` counts what the further ones speak of. Who waited for the run
    /// and no longer does asks for the `shutdown`; once that is asked for, no file's end waits for room among the events.
    pub fn start(
        settings: &NotifySettings,
        upload: &UploadSettings,
        (sdk, connections): (&SdkConfig, &Connections),
        shutdown: &Shutdown,
        moves: &Pulse,
    ) -> Self {
        let own_region = settings.own_region.clone().map(Region::new).or_else(|| sdk.region().cloned());
        let own = &sdk.to_builder().region(own_region).build();
        let report = |uri| ReportObject::new((sdk, connections.clone()), uri, upload, moves.clone());
        let events = |bus| Events::start(own, bus, shutdown.token().clone(), moves.clone());
        let token = |token| TaskToken::start(own, token, moves.clone(), shutdown.clone());
        Self {
            report: settings.report.clone().map(report),
            events: settings.event_bus.as_ref().map(events),
            token: settings.task_token.clone().map(token),
            metrics: settings.metrics,
            task: settings.ecs_metadata.clone().map(|endpoint| tokio::spawn(find_task(endpoint))),
        }
    }

    /// Takes what there is to tell of each file, where somebody wants to hear it.
    pub fn file_events(&self) -> Option<EventQueue> {
        self.events.as_ref().map(Events::queue)
    }

    /// Tells how the run ended. The report is written once every file has been told of, and before anybody learns that the
    /// run is over. What became of it is in `told`, also where this is given up midway.
    ///
    /// A run that was stopped has little time: each part of this gets its share, so that one who is silent keeps nobody else
    /// from being told.
    ///
    /// What is still to be ended when all have been told is returned; it tells of its failures itself.
    pub async fn tell(
        self,
        run: &RunEnd<'_>,
        files: Kept,
        settings: Vec<(&'static str, String)>,
        (shutdown, phases): (&Shutdown, Phases),
        told: &mut Told,
    ) -> Option<Storing> {
        if self.metrics {
            crate::logging::write_line(&metrics::line(run));
        }
        let share = (phases.telling - phases.aborting) / 3;
        let task = match self.task {
            Some(task) => match task.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(task) => Some(task),
                Err(why) => {
                    warn(told, format!("the ECS task that this runs in is not known: {why}"));
                    None
                }
            },
            None => None,
        };
        if let Some(unheard) = self.token.as_ref().and_then(TaskToken::unheard) {
            // The log has it since then.
            told.warnings.push(format!("TASK_TOKEN: Step Functions did not take the last heartbeat: {unheard}"));
        }
        let events = match self.events {
            Some(events) => {
                let time_is_up = async {
                    tokio::select! {
                        () = tokio::time::sleep(EVENTS_WITHIN) => {}
                        () = shutdown.grace_is_over(phases.aborting + share) => {}
                    }
                };
                let closed = events.close(time_is_up).await;
                closed.lost.into_iter().for_each(|lost| warn(told, lost));
                Some(closed.sender)
            }
            None => None,
        };
        let mut abandoned = None;
        if let Some(report) = self.report {
            let identity = run.identity;
            let place = report.place(&identity.connector_id, &identity.transfer_id);
            // It names itself: whoever reads a copy knows where it came from.
            let record = run.record(&Told { report: Some(place.to_string()), warnings: told.warnings.clone() });
            let document = Document::new(&record, settings, task.as_ref(), files);
            match report.write(&place, document, shutdown.grace_is_over(phases.telling - share)).await {
                Ok(()) => told.report = Some(place.to_string()),
                Err(not_written) => {
                    warn(told, format!("the run's report was not written: {}", not_written.why));
                    abandoned = not_written.ending;
                }
            }
        }
        let known = told.clone();
        let event = async { events?.run_ended(run, &known).await };
        let answer = async {
            let why = self.token?.answer(run, &known).await.err()?;
            Some(format!("TASK_TOKEN: Step Functions was not told how the run ended: {why}"))
        };
        let (event, answer) = tokio::join!(event, answer);
        event.into_iter().chain(answer).for_each(|warning| warn(told, warning));
        abandoned
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build()
}

fn warn(told: &mut Told, warning: String) {
    tracing::warn!("{warning}");
    told.warnings.push(warning);
}

async fn find_task(endpoint: String) -> Result<Task, String> {
    let task = ecs::task(&endpoint).await?;
    tracing::info!(
        task = task.task_arn,
        cluster = task.cluster,
        family = task.family,
        revision = task.revision,
        "running as an ECS task"
    );
    Ok(task)
}
