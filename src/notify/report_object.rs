//! The run's report as an object, whole or not there, like every other.

use std::fmt;
use std::time::Duration;

use aws_config::SdkConfig;
use bytes::Bytes;

use crate::checksum::Crc64Nvme;
use crate::config::{ObjectAttributes, ReportUri, UploadSettings};
use crate::pulse::Pulse;
use crate::report::Document;
use crate::store::s3::{Connections, S3Store};
use crate::store::{Body, NewObject, Store as _, Upload};
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
    /// Says why it is not there.
    pub async fn write(
        &self,
        place: &Place,
        document: &Document,
        stop: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let object = NewObject {
            key: ObjectKey::new(place.key.clone()).map_err(|error| error.to_string())?,
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
        let mut pieces = document.pieces(PART);
        if document.size() <= PART as u64 {
            return tokio::select! {
                stored = self.store.put(&object, Body::buffered(pieces.collect())) => stored.map_err(|e| e.to_string()),
                why = stop => Err(why),
            };
        }
        // Not given up midway: the store may have begun. What is begun is ended.
        let id = self.store.begin(&object).await.map_err(|error| error.to_string())?;
        let upload = Upload { object: &object, id: &id };
        let ended = tokio::select! {
            stored = self.store_parts(&upload, &mut pieces) => stored.map_err(|error| error.to_string()),
            why = stop => Err(why),
        };
        if ended.is_err()
            && let Err(error) = self.store.abort(&upload).await
        {
            tracing::warn!(error = %error, "the upload of the run's report was not aborted");
        }
        ended
    }

    async fn store_parts(
        &self,
        upload: &Upload<'_>,
        pieces: &mut (impl Iterator<Item = Bytes> + Send),
    ) -> Result<(), crate::store::Error> {
        let mut parts = Vec::new();
        let mut whole = Crc64Nvme::of(&[]);
        for (number, piece) in (1..).zip(pieces) {
            let checksum = Crc64Nvme::of(std::slice::from_ref(&piece));
            let body = Body::Buffered { pieces: vec![piece], checksum };
            whole = whole.then(checksum);
            parts.push(self.store.upload_part(upload, number, body).await?);
        }
        self.store.complete(upload, &parts, whole).await
    }
}
