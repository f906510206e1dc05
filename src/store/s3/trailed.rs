//! A streamed body as `aws-chunked` has it: all of it in one chunk, and its checksum in a trailer.
//!
//! The form is that of the S3 API Reference, "Signature calculations for the authorization header: including trailing
//! headers", with an unsigned payload.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::Shared;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::body::StreamedBody;
use super::progress::Progress;
use crate::checksum::Crc64Nvme;
use crate::store::{SourceBroke, Streamed};

/// The header that carries a body's checksum, ahead of it or in its trailer.
pub const CHECKSUM_HEADER: &str = "x-amz-checksum-crc64nvme";

/// Pieces as they arrive in one chunk, their checksum behind them.
pub struct TrailedBody {
    data: StreamedBody,
    checksum: Shared<oneshot::Receiver<Crc64Nvme>>,
    head: Bytes,
    stage: Stage,
    /// Bytes still to come, those of the form included.
    remaining: u64,
    progress: Arc<Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Data,
    Trailer,
    Done,
}

impl TrailedBody {
    pub fn new(Streamed { len, pieces, checksum }: Streamed, progress: Arc<Progress>) -> Self {
        let head = Bytes::from(format!("{len:x}\r\n"));
        let remaining = head.len() as u64 + len + trailer(Crc64Nvme::EMPTY).len() as u64;
        Self { data: StreamedBody::new(len, pieces), checksum, head, stage: Stage::Head, remaining, progress }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceBroke>>> {
        loop {
            match self.stage {
                Stage::Head => {
                    self.stage = Stage::Data;
                    return Poll::Ready(Some(Ok(self.head.clone())));
                }
                Stage::Data => match ready!(http_body::Body::poll_frame(Pin::new(&mut self.data), cx)) {
                    Some(frame) => return Poll::Ready(Some(frame.map(|frame| frame.into_data().unwrap_or_default()))),
                    None => self.stage = Stage::Trailer,
                },
                Stage::Trailer => {
                    let checksum = ready!(Pin::new(&mut self.checksum).poll(cx));
                    self.stage = Stage::Done;
                    return Poll::Ready(Some(checksum.map(trailer).map_err(|_| SourceBroke)));
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }
}

/// The chunk's end, the chunk of no bytes that says that no further one follows, and the trailer.
fn trailer(checksum: Crc64Nvme) -> Bytes {
    Bytes::from(format!("\r\n0\r\n{CHECKSUM_HEADER}:{}\r\n\r\n", checksum.to_base64()))
}

impl http_body::Body for TrailedBody {
    type Data = Bytes;
    type Error = SourceBroke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceBroke>>> {
        let this = self.get_mut();
        let piece = this.poll_piece(cx);
        // After the last piece there is an answer to wait for, and nothing to take.
        this.progress.asked(matches!(piece, Poll::Ready(Some(_))) && this.stage != Stage::Done);
        let piece = ready!(piece);
        if let Some(Ok(piece)) = &piece {
            this.remaining -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
