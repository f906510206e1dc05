//! How long requests may take: the time of an attempt, by what it carries, and when one that does not move is given up.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::client::customize::CustomizableOperation;

use crate::store::Body;

/// To reach an S3 endpoint; it answers in milliseconds or not at all.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request whose bytes do not move for this long is given up and tried again. S3 itself closes an idle request
/// after 20 s or so; a source that is slow does not count.
pub const STALLED_FOR: Duration = Duration::from_secs(30);

/// A request without file data is answered within this, or given up and tried again.
pub const BRIEF: Duration = Duration::from_secs(30);
/// The same for a completion, which S3 may work on for minutes.
pub const COMPLETION: Duration = Duration::from_secs(300);
/// A store that has all of a streamed body and says nothing for this long is given up.
pub const ANSWER: Duration = Duration::from_secs(60);
/// Bytes a second that a request with file data is given time for, on top of [`BRIEF`].
const SLOWEST: u64 = 128 << 10;
/// File data that [`BRIEF`] is long enough for. Its requests take the client's own settings: settings of one request are
/// a tenth of what a small one costs.
const SMALL: u64 = 1 << 20;

/// How long each attempt of a request may take.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// [`BRIEF`], the client's own setting.
    Brief,
    Within(Duration),
    None,
}

impl Limit {
    /// Of a request with this body. A streamed one takes the time that its source takes.
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Buffered { checksum, .. } if checksum.len() <= SMALL => Self::Brief,
            Body::Buffered { checksum, .. } => Self::Within(BRIEF + Duration::from_secs(checksum.len() / SLOWEST)),
            Body::Streamed(_) => Self::None,
        }
    }

    pub fn attempt(self) -> Option<Duration> {
        match self {
            Self::Brief => Some(BRIEF),
            Self::Within(limit) => Some(limit),
            Self::None => None,
        }
    }
}

/// The request, each attempt of which ends after `limit`; of `attempts`, where not all are left that the client has.
pub fn within<T, E, B>(
    request: CustomizableOperation<T, E, B>,
    limit: Limit,
    attempts: Option<u32>,
) -> CustomizableOperation<T, E, B> {
    if matches!((limit, attempts), (Limit::Brief, None)) {
        return request;
    }
    let mut settings = aws_sdk_s3::Config::builder().timeout_config(timeouts(limit.attempt()));
    if !matches!(limit, Limit::Brief) {
        let stalled = StalledStreamProtectionConfig::enabled().grace_period(STALLED_FOR).upload_enabled(true).build();
        settings = settings.stalled_stream_protection(stalled);
    }
    settings.set_retry_config(attempts.map(|attempts| RetryConfig::standard().with_max_attempts(attempts)));
    request.config_override(settings)
}

pub fn timeouts(attempt: Option<Duration>) -> TimeoutConfig {
    let mut timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT);
    timeouts.set_operation_attempt_timeout(attempt);
    timeouts.build()
}
