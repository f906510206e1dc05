//! EventBridge: an event for each remote file and one for the run, in batches of ten, tried again where some were refused.
//!
//! Limits and fields are those of the EventBridge API's `PutEvents`: ten entries and 256 KiB a request, and an answer that
//! says of each entry whether it was taken.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::config::Region;
use aws_sdk_eventbridge::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_eventbridge::operation::put_events::PutEventsError;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::timeouts;
use crate::causes::{causes, refusal};
use crate::config::EventBus;
use crate::exit::Exit;
use crate::pulse::Pulse;
use crate::report::{EventQueue, FileEvent, RunEnd, Told};
use crate::retry::Retry;

/// `source` of every event.
const SOURCE: &str = "sftp-s3-connector";
/// Entries of one request.
const BATCH: usize = 10;
/// Bytes of the entries of one request, with something left for their names.
const BATCH_BYTES: usize = 240 * 1024;
/// How long a batch waits to be full.
const LINGER: Duration = Duration::from_millis(200);
/// Requests under way: at 50 ms each, 3,200 events a second.
const AT_ONCE: usize = 16;
/// Tries of a batch, with up to 3.75 s of pauses between them.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// The run's own event takes so long at most.
const RUN_EVENT_WITHIN: Duration = Duration::from_secs(20);
/// So many batches lost one after another, nothing of which was taken, and the bus counts as closed: a run does not wait for
/// one that is not there.
const LOST_IN_A_ROW: u32 = 3;
/// One batch is tried so often while the bus counts as closed.
const PROBED_EVERY: Duration = Duration::from_secs(60);

/// An event on its way.
struct Event {
    detail_type: &'static str,
    detail: String,
}

impl Event {
    fn of_file(FileEvent { failed, record }: FileEvent) -> Self {
        let detail_type =
            if failed { "SFTP Connector File Retrieve Failed" } else { "SFTP Connector File Retrieve Completed" };
        Self { detail_type, detail: record }
    }

    fn len(&self) -> usize {
        self.detail_type.len() + SOURCE.len() + self.detail.len()
    }
}

/// Sends events while the run goes on.
pub struct Events {
    sender: Sender,
    queue: EventQueue,
    no_more: CancellationToken,
    sending: JoinHandle<()>,
}

/// What is left when the last file has been told of.
pub struct Closed {
    pub sender: Sender,
    /// Says how many events were lost, where some were, and why.
    pub lost: Option<String>,
}

/// Puts events on one bus. Clones share the tally.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    bus: String,
    retry: Retry,
    moves: Pulse,
    tally: Arc<Mutex<Tally>>,
}

#[derive(Default)]
struct Tally {
    sent: u64,
    taken: u64,
    lost_in_a_row: u32,
    /// While the bus counts as closed: when a batch is tried next.
    closed_until: Option<Instant>,
    /// Why the last that was lost was lost.
    why: Option<String>,
}

impl Tally {
    /// Whether a batch is worth a try: one now and then while the bus counts as closed.
    fn may_try(&mut self) -> bool {
        let now = Instant::now();
        match self.closed_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.closed_until = Some(now + PROBED_EVERY);
                true
            }
            None => true,
        }
    }

    fn batch_ended(&mut self, any_taken: bool) {
        if any_taken {
            self.lost_in_a_row = 0;
            self.closed_until = None;
            return;
        }
        self.lost_in_a_row += 1;
        if self.lost_in_a_row == LOST_IN_A_ROW {
            self.closed_until = Some(Instant::now() + PROBED_EVERY);
            tracing::warn!(
                error = self.why(),
                "EVENT_BUS takes nothing: events are lost, and one batch is tried every {} s",
                PROBED_EVERY.as_secs()
            );
        }
    }

    fn why(&self) -> &str {
        self.why.as_deref().unwrap_or("no reason is known")
    }
}

/// What a request left over.
#[derive(Default)]
struct Left {
    /// Sent again, they may be taken.
    again: Vec<Event>,
    /// So many were refused for good.
    lost: usize,
    why: Option<String>,
}

impl Events {
    /// `moves` counts what was taken. Once `stop` is cancelled, nobody waits for room among what is to be sent.
    pub fn start(sdk: &SdkConfig, bus: &EventBus, stop: CancellationToken, moves: Pulse) -> Self {
        // A bus is spoken to in its own region. The tries are ours: entries fail one by one.
        let region = bus.region().map(|region| Region::new(region.to_owned())).or_else(|| sdk.region().cloned());
        let config = aws_sdk_eventbridge::config::Builder::from(sdk)
            .region(region)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts())
            .build();
        let sender = Sender {
            client: Client::from_conf(config),
            bus: bus.as_str().to_owned(),
            // Until the run has no more time for it, stopped or not.
            retry: Retry { max_attempts: ATTEMPTS, stop: CancellationToken::new() },
            moves,
            tally: Arc::default(),
        };
        let (queue, receiver) = EventQueue::new(stop);
        let no_more = CancellationToken::new();
        let sending = tokio::spawn(send_all(sender.clone(), receiver, no_more.clone()));
        Self { sender, queue, no_more, sending }
    }

    /// Takes what there is to tell of each file.
    pub fn queue(&self) -> EventQueue {
        self.queue.clone()
    }

    /// Sends what waits, until `time_is_up`, and takes no more.
    pub async fn close(mut self, time_is_up: impl Future<Output = ()>) -> Closed {
        self.no_more.cancel();
        let in_time = tokio::select! {
            _ = &mut self.sending => true,
            () = time_is_up => false,
        };
        let left = if in_time { 0 } else { self.queue.waiting() };
        self.sending.abort();
        let lost = {
            let tally = self.sender.tally();
            let unsent = self.queue.dropped() + left;
            let (lost, of) = (tally.sent - tally.taken + unsent, tally.sent + unsent);
            match (lost, in_time) {
                (0, _) => None,
                (_, true) => Some(format!("EVENT_BUS: {lost} of {of} events were lost: {}", tally.why())),
                (_, false) => {
                    let why = tally.why.as_deref().unwrap_or("the bus is slow");
                    // A batch may be between the queue and its request.
                    Some(format!("EVENT_BUS: {lost} of {of} events or a few more were lost, as time was up: {why}"))
                }
            }
        };
        Closed { sender: self.sender, lost }
    }
}

async fn send_all(sender: Sender, mut queue: mpsc::Receiver<FileEvent>, no_more: CancellationToken) {
    let mut under_way = JoinSet::new();
    let mut held = None;
    while let Some(batch) = next_batch(&mut queue, &mut held, &no_more).await {
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        let sender = sender.clone();
        under_way.spawn(async move { sender.deliver(batch, false).await });
    }
    under_way.join_all().await;
}

/// As many as one request takes, of what comes within [`LINGER`]. `held` is what the last one had no room for.
async fn next_batch(
    queue: &mut mpsc::Receiver<FileEvent>,
    held: &mut Option<Event>,
    no_more: &CancellationToken,
) -> Option<Vec<Event>> {
    let first = match held.take() {
        Some(event) => event,
        None => next_event(queue, no_more).await?,
    };
    let mut len = first.len();
    let mut batch = vec![first];
    let until = Instant::now() + LINGER;
    while batch.len() < BATCH {
        let Ok(Some(event)) = timeout_at(until, next_event(queue, no_more)).await else { break };
        if len + event.len() > BATCH_BYTES {
            *held = Some(event);
            break;
        }
        len += event.len();
        batch.push(event);
    }
    Some(batch)
}

async fn next_event(queue: &mut mpsc::Receiver<FileEvent>, no_more: &CancellationToken) -> Option<Event> {
    let event = tokio::select! {
        biased;
        event = queue.recv() => event,
        () = no_more.cancelled() => {
            queue.close();
            queue.recv().await
        }
    };
    event.map(Event::of_file)
}

impl Sender {
    /// Tells of the run's end. Says what is wrong where that was lost.
    pub async fn run_ended(&self, run: &RunEnd<'_>, told: &Told) -> Option<String> {
        let detail_type = match run.outcome.exit {
            Exit::Ok => "SFTP Connector Run Completed",
            _ => "SFTP Connector Run Failed",
        };
        let detail = run.record_within(told, BATCH_BYTES);
        let event = self.deliver(vec![Event { detail_type, detail }], true);
        let lost = match tokio::time::timeout(RUN_EVENT_WITHIN, event).await {
            Ok(lost) => lost,
            Err(_) => Some(format!("it was not taken within {} s", RUN_EVENT_WITHIN.as_secs())),
        };
        lost.map(|why| format!("EVENT_BUS: the event of the run's end was lost: {why}"))
    }

    /// Sends a batch until it is taken or lost, `at_any_rate` also while the bus counts as closed. Says why, where some of it
    /// was lost.
    async fn deliver(&self, mut events: Vec<Event>, at_any_rate: bool) -> Option<String> {
        {
            let mut tally = self.tally();
            tally.sent += events.len() as u64;
            if !(at_any_rate || tally.may_try()) {
                return Some(tally.why().to_owned());
            }
        }
        let mut any_taken = false;
        let mut why_lost = None;
        for attempt in 1.. {
            let count = events.len();
            let Left { again, lost, why } = self.put(events).await;
            let taken = count - again.len() - lost;
            any_taken |= taken > 0;
            if taken > 0 {
                self.moves.beat();
            }
            {
                let mut tally = self.tally();
                tally.taken += taken as u64;
                tally.why = why.clone().or(tally.why.take());
            }
            let is_over = again.is_empty() || !self.retry.wait(attempt).await;
            if lost > 0 || (is_over && !again.is_empty()) {
                why_lost = why;
            }
            if is_over {
                break;
            }
            events = again;
        }
        self.tally().batch_ended(any_taken);
        why_lost
    }

    async fn put(&self, events: Vec<Event>) -> Left {
        let entry = |event: &Event| {
            PutEventsRequestEntry::builder()
                .event_bus_name(&self.bus)
                .source(SOURCE)
                .detail_type(event.detail_type)
                .detail(&event.detail)
                .build()
        };
        let entries = events.iter().map(entry).collect();
        let answer = match self.client.put_events().set_entries(Some(entries)).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let why = Some(reason(&error));
                return match may_pass(&error) {
                    true => Left { again: events, lost: 0, why },
                    false => Left { again: Vec::new(), lost: events.len(), why },
                };
            }
        };
        let mut left = Left::default();
        for (at, event) in events.into_iter().enumerate() {
            // In the order of the request. One that the answer does not speak of is not known to be taken.
            let (code, message) = match answer.entries().get(at) {
                Some(entry) => match entry.error_code() {
                    None => continue,
                    Some(code) => (code, entry.error_message().unwrap_or("no reason was given")),
                },
                None => ("InternalFailure", "the answer does not speak of it"),
            };
            left.why = Some(format!("{code}: {message}"));
            if passes(code) {
                left.again.push(event);
            } else {
                left.lost += 1;
            }
        }
        left
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Codes of what passes, of an entry or of a request.
fn passes(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "InternalFailure"
            | "InternalException"
            | "ServiceUnavailable"
            | "RequestExpired"
            | "ExpiredTokenException"
    )
}

/// Whether the same request may be taken when it is sent again: also for want of credentials, which are fetched meanwhile.
fn may_pass(error: &SdkError<PutEventsError>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) | SdkError::DispatchFailure(_) => true,
        SdkError::ServiceError(error) => {
            let status = error.raw().status().as_u16();
            status == 429 || status >= 500 || error.err().code().is_none_or(passes)
        }
        _ => false,
    }
}

/// What went wrong, and what to do about it where that is known.
fn reason(error: &SdkError<PutEventsError>) -> String {
    let SdkError::ServiceError(error) = error else {
        return format!("EventBridge was not reached ({})", causes(error));
    };
    refusal(error.err().code(), error.err().message(), |code| match code {
        "AccessDeniedException" => ": allow events:PutEvents on the bus to the task's role",
        "ResourceNotFoundException" => ": check EVENT_BUS; a bus of another region or account is given by its ARN",
        _ => "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_takes_nothing_is_tried_now_and_then_until_it_does() {
        let mut tally = Tally::default();
        for _ in 0..LOST_IN_A_ROW {
            assert!(tally.may_try());
            tally.batch_ended(false);
        }
        for _ in 0..3 {
            assert!(!tally.may_try());
            tokio::time::advance(PROBED_EVERY).await;
            assert!(tally.may_try(), "one");
            assert!(!tally.may_try(), "and no other");
            tally.batch_ended(false);
        }
        tokio::time::advance(PROBED_EVERY).await;
        assert!(tally.may_try());
        tally.batch_ended(true);
        assert!(tally.may_try() && tally.may_try());
    }
}
