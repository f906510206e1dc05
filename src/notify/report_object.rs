//! The run's report as an object, whole or not there, like every other.

use std::fmt;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checksum::Crc64Nvme;
use crate::config::{ObjectAttributes, ReportUri, UploadSettings};
use crate::pulse::Pulse;
use crate::report::Document;
use crate::store::s3::{Connections, S3Store};
use crate::store::{self, Body, NewObject, Store as _, Upload};
use crate::template::ObjectKey;

/// A report of more bytes goes in parts of so many: that of 15,000 files.
const PART: usize = 8 << 20;
/// Tries of one request. A store that does not answer has held up the run long enough.
const ATTEMPTS: u32 = 2;
/// A report takes so long at most, and a minute more for each hundred megabytes.
const WITHIN: Duration = Duration::from_secs(60);
const BYTES_A_MINUTE: u64 = 100 << 20;

/// Where one job's reports go.
pub struct ReportObject {
    store: S3Store,
    uri: ReportUri,
}

/// The storing of a report in parts, which ends what it has begun.
pub type Storing = JoinHandle<Result<(), store::Error>>;

/// Why a report is not there.
pub struct NotWritten {
    pub why: String,
    /// What was begun and is still to be ended, which takes as long as the store does.
    pub ending: Option<Storing>,
}

impl From<store::Error> for NotWritten {
    fn from(error: store::Error) -> Self {
        Self { why: error.to_string(), ending: None }
    }
}

/// Where one report goes.
pub struct Place {
    bucket: String,
    key: String,
}

impl fmt::Display for Place {
    /// `s3://BUCKET/KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl ReportObject {
    /// Encrypted as `upload` has it for objects; their storage class and tags are not the report's.
    pub fn new(
        (sdk, connections): (&SdkConfig, Connections),
        uri: ReportUri,
        upload: &UploadSettings,
        moves: Pulse,
    ) -> Self {
        let ObjectAttributes { sse, kms_key_id, .. } = upload.attributes.clone();
        let attributes = ObjectAttributes { sse, kms_key_id, ..ObjectAttributes::default() };
        let settings = UploadSettings { attributes, ..upload.clone() };
        let store = S3Store::over(connections, sdk, uri.bucket().to_owned(), &settings, ATTEMPTS);
        Self { store: store.counted_by(moves), uri }
    }

    pub fn place(&self, job: &str, run: &str) -> Place {
        Place { bucket: self.uri.bucket().to_owned(), key: self.uri.key(job, run) }
    }

    /// Until `stop` is ready, and not longer than a report takes.
    ///
    /// # Errors
    ///
    /// [`NotWritten`] says why it is not there.
    pub async fn write(
        self,
        place: &Place,
        document: Document,
        stop: impl Future<Output = ()>,
    ) -> Result<(), NotWritten> {
        let key = ObjectKey::new(place.key.clone());
        let object = NewObject {
            key: key.map_err(|error| NotWritten { why: error.to_string(), ending: None })?,
            content_type: "application/json".to_owned(),
            metadata: Vec::new(),
        };
        let within = WITHIN * (1 + document.size() / BYTES_A_MINUTE) as u32;
        let stop = async {
            tokio::select! {
                () = stop => {}
                () = tokio::time::sleep(within) => {}
            }
            format!("{place} was not stored in time")
        };
        if document.size() <= PART as u64 {
            let pieces = document.pieces(PART).collect();
            return tokio::select! {
                stored = self.store.put(&object, Body::buffered(pieces)) => Ok(stored?),
                why = stop => Err(NotWritten { why, ending: None }),
            };
        }
        // A task of its own: what is begun is ended, and nobody else has to wait for that.
        let give_up = CancellationToken::new();
        let mut storing = tokio::spawn(store_in_parts(self.store, object, document, give_up.clone()));
        tokio::select! {
            stored = &mut storing => match stored {
                Ok(stored) => Ok(stored?),
                Err(error) => Err(NotWritten { why: error.to_string(), ending: None }),
            },
            why = stop => {
                give_up.cancel();
                Err(NotWritten { why, ending: Some(storing) })
            }
        }
    }
}

/// Until `give_up` is cancelled, or the store fails; then the upload is aborted.
async fn store_in_parts(
    store: S3Store,
    object: NewObject,
    document: Document,
    give_up: CancellationToken,
) -> Result<(), store::Error> {
    // Not given up midway: the store may have begun.
    let id = store.begin(&object).await?;
    let upload = Upload { object: &object, id: &id };
    let stored = tokio::select! {
        stored = store_parts(&store, &upload, &document) => stored,
        () = give_up.cancelled() => Err(store::Error::new(store::Kind::Unavailable, "it was given up")),
    };
    if stored.is_err() {
        store.abandon(&upload).await;
    }
    stored
}

async fn store_parts(store: &S3Store, upload: &Upload<'_>, document: &Document) -> Result<(), store::Error> {
    let mut parts = Vec::new();
    let mut whole = Crc64Nvme::EMPTY;
    for (number, piece) in (1..).zip(document.pieces(PART)) {
        let checksum = Crc64Nvme::of(std::slice::from_ref(&piece));
        let body = Body::Buffered { pieces: vec![piece], checksum };
        whole = whole.then(checksum);
        parts.push(store.upload_part(upload, number, body).await?);
    }
    store.complete(upload, &parts, whole).await
}
