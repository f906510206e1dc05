//! The object store as the rest of the program sees it: put one object, or upload it in parts.
//!
//! An object appears whole or not at all: a put whose body breaks off leaves nothing, and so does an upload that is
//! aborted. The S3 adapter is `store/s3.rs`, and nothing else names `aws_sdk_s3`.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::Shared;
use tokio::sync::oneshot;

use crate::checksum::Crc64Nvme;
use crate::template::ObjectKey;

pub mod s3;
mod streamed;

pub use streamed::{Feeder, SourceBroke, Streamed, streamed};

/// Where objects go. One bucket.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores one object with one request. A buffered body is sent again by the adapter where the request may be
    /// repeated; a streamed one is tried once.
    async fn put(&self, object: &NewObject, body: Body) -> Result<(), Error>;

    /// Begins an upload in parts. Until it is completed or aborted it costs storage and shows nowhere.
    async fn begin(&self, object: &NewObject) -> Result<UploadId, Error>;

    /// Uploads one part. `number` is from 1 to 10,000; every part but the last has at least 5 MiB. Retries as
    /// [`put`](Store::put) does.
    async fn upload_part(&self, upload: &Upload<'_>, number: u32, body: Body) -> Result<Part, Error>;

    /// Makes the object out of all parts, given in the order of their numbers. `checksum` is that of the whole object:
    /// the store compares it.
    async fn complete(&self, upload: &Upload<'_>, parts: &[Part], checksum: Crc64Nvme) -> Result<(), Error>;

    /// Gives the upload up and frees its parts. No part of it may be under way.
    async fn abort(&self, upload: &Upload<'_>) -> Result<(), Error>;

    /// Aborts an upload that is of no more use. That it could not be is logged, and is never a failure of its own.
    async fn abandon(&self, upload: &Upload<'_>) {
        if let Err(error) = self.abort(upload).await {
            tracing::error!(
                key = upload.object.key.as_str(),
                upload_id = upload.id.0,
                error = %error,
                "an upload could not be aborted; its parts cost storage until a lifecycle rule removes them"
            );
        }
    }
}

/// What is to be stored, without its bytes.
#[derive(Debug, Clone)]
pub struct NewObject {
    pub key: ObjectKey,
    pub content_type: String,
    /// User metadata, names without `x-amz-meta-`; ASCII values.
    pub metadata: Vec<(&'static str, String)>,
}

/// An upload in parts that was begun.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    pub object: &'a NewObject,
    pub id: &'a UploadId,
}

/// S3's upload id. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadId(pub String);

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u32,
    pub etag: String,
    pub checksum: Option<Crc64Nvme>,
}

/// The bytes of one request.
#[derive(Debug)]
pub enum Body {
    /// All at hand, with their checksum: it is sent ahead of them and the store refuses bytes that differ.
    Buffered { pieces: Vec<Bytes>, checksum: Crc64Nvme },
    /// Read while it is sent; the checksum follows in a trailer. Where the source breaks off, so does the request, and
    /// nothing is stored.
    Streamed(Streamed),
}

impl Body {
    /// What tells when the whole body is on its way.
    pub fn sent(&self) -> Sent {
        match self {
            Self::Buffered { checksum, .. } => Sent::AtHand(*checksum),
            Self::Streamed(streamed) => Sent::Following(streamed.checksum.clone()),
        }
    }

    /// Of buffered pieces.
    pub fn buffered(pieces: Vec<Bytes>) -> Self {
        let checksum = Crc64Nvme::of(&pieces);
        Body::Buffered { pieces, checksum }
    }
}

/// The checksum of a body: at hand, or known when the last of the body was handed over.
#[derive(Debug, Clone)]
pub enum Sent {
    AtHand(Crc64Nvme),
    Following(Shared<oneshot::Receiver<Crc64Nvme>>),
}

impl Sent {
    /// What to look for if the answer to the request is lost; `None` where not all of the body was sent.
    pub fn checksum(&self) -> Option<Crc64Nvme> {
        match self {
            Self::AtHand(checksum) => Some(*checksum),
            Self::Following(checksum) => checksum.clone().now_or_never()?.ok(),
        }
    }
}

/// What went wrong, chosen from the service's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such bucket.
    NoBucket,
    /// The bucket refuses this to these credentials, or there are none.
    Denied,
    /// The request was refused for another reason that trying again does not mend.
    Rejected,
    /// The store did not answer, or asked to come back later.
    Unavailable,
    /// The streamed body broke off; its feeder knows why.
    SourceBroke,
    /// The upload id is not known (any more).
    NoUpload,
}

/// An error of one request, in words for the person who reads the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    message: String,
    refused: bool,
}

impl Error {
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), refused: false }
    }

    /// The same error, where it is known that nothing was stored.
    pub fn as_refusal(self) -> Self {
        Self { refused: true, ..self }
    }

    /// Whether it is known that nothing was stored.
    pub fn is_refusal(&self) -> bool {
        self.refused
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn may_pass(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}
