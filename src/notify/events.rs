//! EventBridge: an event for each remote file and one for the run, in batches of ten, tried again where some were refused.
//!
//! Limits and fields are those of the EventBridge API's `PutEvents`: ten entries and 256 KiB a request, and an answer that
//! says of each entry whether it was taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::config::{Region, timeout::TimeoutConfig};
use aws_sdk_eventbridge::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_eventbridge::operation::put_events::PutEventsError;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::causes::causes;
use crate::config::EventBus;
use crate::exit::Exit;
use crate::report::{FileEvent, RunEnd, Told};
use crate::retry::Retry;

/// `source` of every event.
const SOURCE: &str = "sftp-s3-connector";
/// Entries of one request.
const BATCH: usize = 10;
/// Bytes of the entries of one request, with something left for their names.
const BATCH_BYTES: usize = 240 * 1024;
/// How long a batch waits to be full.
const LINGER: Duration = Duration::from_millis(200);
/// Requests under way.
const AT_ONCE: usize = 4;
/// Events that may wait; then a file's end waits for them.
const WAITING: usize = 1000;
/// One try of a request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// So many batches that are lost one after another, and no further one is tried: a run does not wait for a bus that is
/// not there.
const LOST_IN_A_ROW: u32 = 3;

/// An event on its way.
struct Event {
    detail_type: &'static str,
    detail: String,
}

impl Event {
    fn of_file(FileEvent { failed, record }: FileEvent) -> Self {
        let detail_type =
            if failed { "SFTP Connector File Retrieve Failed" } else { "SFTP Connector File Retrieve Completed" };
        Self { detail_type, detail: if record.len() > BATCH_BYTES { shortened(&record) } else { record } }
    }

    fn len(&self) -> usize {
        self.detail_type.len() + SOURCE.len() + self.detail.len()
    }
}

/// A record without what may be long of it: the names of an archive's entries.
fn shortened(record: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(record) else { return String::from("{}") };
    if let Some(Value::Array(delivered)) = fields.remove("entries-delivered") {
        fields.insert("entries-delivered-count".to_owned(), delivered.len().into());
    }
    fields.retain(|_, value| value.as_str().is_none_or(|text| text.len() < BATCH_BYTES / 8));
    Value::Object(fields).to_string()
}

/// Sends events while the run goes on.
pub struct Events {
    sender: Sender,
    queue: mpsc::Sender<FileEvent>,
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
    tally: Arc<Mutex<Tally>>,
}

#[derive(Default)]
struct Tally {
    sent: u64,
    taken: u64,
    lost_in_a_row: u32,
    /// Why the last that was lost was lost.
    why: Option<String>,
}

impl Tally {
    fn given_up(&self) -> bool {
        self.lost_in_a_row >= LOST_IN_A_ROW
    }

    fn lost(&mut self, why: Option<String>) {
        self.lost_in_a_row += 1;
        self.why = why.or(self.why.take());
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
    /// `retry` says how often entries that were not taken are sent, and when no more.
    pub fn start(sdk: &SdkConfig, bus: &EventBus, retry: Retry) -> Self {
        // A bus is spoken to in its own region. The tries are ours: entries fail one by one.
        let region = bus.region().map(|region| Region::new(region.to_owned())).or_else(|| sdk.region().cloned());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let config = aws_sdk_eventbridge::config::Builder::from(sdk)
            .region(region)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        let sender =
            Sender { client: Client::from_conf(config), bus: bus.as_str().to_owned(), retry, tally: Arc::default() };
        let (queue, receiver) = mpsc::channel(WAITING);
        let no_more = CancellationToken::new();
        let sending = tokio::spawn(send_all(sender.clone(), receiver, no_more.clone()));
        Self { sender, queue, no_more, sending }
    }

    /// Takes what there is to tell of each file.
    pub fn queue(&self) -> mpsc::Sender<FileEvent> {
        self.queue.clone()
    }

    /// Sends what waits, and takes no more.
    pub async fn close(mut self, within: Duration) -> Closed {
        self.no_more.cancel();
        let in_time = tokio::time::timeout(within, &mut self.sending).await.is_ok();
        if !in_time {
            self.sending.abort();
        }
        let lost = {
            let tally = self.sender.tally();
            let lost = tally.sent - tally.taken;
            match (lost, in_time) {
                (0, true) => None,
                (_, true) => Some(format!("EVENT_BUS: {lost} of {} events were lost: {}", tally.sent, tally.why())),
                (_, false) => {
                    Some(format!("EVENT_BUS: {lost} events and more were not sent within {} s", within.as_secs()))
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
        under_way.spawn(async move { sender.deliver(batch).await });
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
        let record = run.record(told);
        let detail = if record.len() > BATCH_BYTES { run.brief(told) } else { record };
        let lost_before = {
            let mut tally = self.tally();
            // It is worth a try, whatever became of the others.
            tally.lost_in_a_row = 0;
            tally.sent - tally.taken
        };
        self.deliver(vec![Event { detail_type, detail }]).await;
        let tally = self.tally();
        (tally.sent - tally.taken > lost_before)
            .then(|| format!("EVENT_BUS: the event of the run's end was lost: {}", tally.why()))
    }

    /// Sends a batch until it is taken or lost.
    async fn deliver(&self, mut events: Vec<Event>) {
        self.tally().sent += events.len() as u64;
        let mut attempt = 1;
        while !self.tally().given_up() {
            let count = events.len();
            let Left { again, lost, why } = self.put(events).await;
            {
                let mut tally = self.tally();
                tally.taken += (count - again.len() - lost) as u64;
                match lost {
                    0 if again.is_empty() => tally.lost_in_a_row = 0,
                    0 => {}
                    _ => tally.lost(why.clone()),
                }
            }
            if again.is_empty() {
                return;
            }
            if !self.retry.wait(attempt).await {
                return self.tally().lost(why);
            }
            events = again;
            attempt += 1;
        }
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
            match code {
                "ThrottlingException" | "InternalFailure" | "InternalException" | "ServiceUnavailable" => {
                    left.again.push(event);
                }
                _ => left.lost += 1,
            }
        }
        left
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the same request may be taken when it is sent again.
fn may_pass<R>(error: &SdkError<PutEventsError, R>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout(),
        SdkError::ServiceError(error) => {
            matches!(
                error.err().code(),
                None | Some("ThrottlingException" | "InternalException" | "ServiceUnavailable")
            )
        }
        _ => false,
    }
}

/// What went wrong, and what to do about it where that is known.
fn reason<R: std::fmt::Debug + 'static>(error: &SdkError<PutEventsError, R>) -> String {
    let SdkError::ServiceError(error) = error else {
        return format!("EventBridge was not reached ({})", causes(error));
    };
    let code = error.err().code().unwrap_or("an error without a code");
    let message = error.err().message().unwrap_or("no reason was given");
    let advice = match code {
        "AccessDeniedException" => ": allow events:PutEvents on the bus to the task's role",
        "ResourceNotFoundException" => ": check EVENT_BUS and REGION",
        _ => "",
    };
    format!("{code} ({message}){advice}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_that_is_too_long_for_an_event_loses_what_is_long() {
        let names: Vec<_> = (0..20_000).map(|n| format!("archive/a-name-of-some-length-{n}.txt")).collect();
        let record =
            json!({"file-path": "/out/a.zip", "status-code": "FAILED", "entries-delivered": names}).to_string();
        let event = Event::of_file(FileEvent { failed: true, record });
        assert!(event.len() < BATCH_BYTES);
        let detail: Value = serde_json::from_str(&event.detail).expect("JSON");
        let left = json!({"file-path": "/out/a.zip", "status-code": "FAILED", "entries-delivered-count": 20_000});
        assert_eq!(detail, left);
    }
}
