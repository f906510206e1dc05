//! Bodies of requests: pieces in memory, and pieces as they come. Neither copies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::progress::Progress;
use crate::pulse::Pulse;
use crate::store::{Body, SourceBroke, Streamed};

/// What a request that carries a body is given: a checksum ahead of bytes that are at hand, a trailer after those that are
/// not.
pub struct Wire {
    pub body: ByteStream,
    pub content_length: Option<i64>,
    pub checksum: Option<String>,
    pub algorithm: Option<ChecksumAlgorithm>,
}

impl Wire {
    /// `moves` counts the pieces that are sent.
    pub fn of(body: Body, moves: &Pulse) -> Self {
        match body {
            Body::Buffered { pieces, checksum } => Self {
                body: buffered(pieces, moves.clone()),
                content_length: Some(checksum.len() as i64),
                checksum: Some(checksum.to_base64()),
                algorithm: None,
            },
            // The SDK computes the trailer's checksum by itself.
            Body::Streamed(Streamed { len, pieces, .. }) => Self {
                body: ByteStream::new(sdk_body(StreamedBody::new(len, pieces), moves)),
                content_length: None,
                checksum: None,
                algorithm: Some(ChecksumAlgorithm::Crc64Nvme),
            },
        }
    }
}

/// A body that the SDK can send again: pieces are shared, not copied.
fn buffered(pieces: Vec<Bytes>, moves: Pulse) -> ByteStream {
    let body = SdkBody::retryable(move || sdk_body(PiecesBody::new(pieces.clone()), &moves));
    ByteStream::new(body)
}

/// A body for the SDK's connections; `moves` counts the pieces that they take.
pub fn sdk_body<B>(body: B, moves: &Pulse) -> SdkBody
where
    B: http_body::Body<Data = Bytes, Error = SourceBroke> + Unpin + Send + Sync + 'static,
{
    SdkBody::from_body_1_x(Counted { body, moves: moves.clone() })
}

struct Counted<B> {
    body: B,
    moves: Pulse,
}

impl<B: http_body::Body + Unpin> http_body::Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.moves.beat();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Pieces in memory as an HTTP body, handed to the socket as they are.
pub struct PiecesBody {
    pieces: std::vec::IntoIter<Bytes>,
    remaining: u64,
    /// Where somebody watches it.
    progress: Option<Arc<Progress>>,
}

impl PiecesBody {
    pub fn new(pieces: Vec<Bytes>) -> Self {
        let remaining = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), remaining, progress: None }
    }

    pub fn watched(pieces: Vec<Bytes>, progress: Arc<Progress>) -> Self {
        Self { progress: Some(progress), ..Self::new(pieces) }
    }
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = SourceBroke;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceBroke>>> {
        let next = self.pieces.next();
        if let Some(piece) = &next {
            self.remaining -= piece.len() as u64;
        }
        if let Some(progress) = &self.progress {
            progress.asked(self.remaining > 0);
        }
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// Pieces as they arrive, exactly as many bytes as announced.
pub struct StreamedBody {
    remaining: u64,
    pieces: mpsc::Receiver<Result<Bytes, SourceBroke>>,
}

impl StreamedBody {
    pub fn new(len: u64, pieces: mpsc::Receiver<Result<Bytes, SourceBroke>>) -> Self {
        Self { remaining: len, pieces }
    }
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = SourceBroke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceBroke>>> {
        let this = self.get_mut();
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let frame = match ready!(this.pieces.poll_recv(cx)) {
            Some(Ok(piece)) if piece.len() as u64 <= this.remaining => {
                this.remaining -= piece.len() as u64;
                Ok(Frame::data(piece))
            }
            _ => Err(SourceBroke),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
