//! A streamed body as `aws-chunked` has it: all of it in one chunk, and its checksum in a trailer; and whether it moves.
//!
//! The form is that of the S3 API Reference, "Signature calculations for the authorization header: including trailing
//! headers", with an unsigned payload.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::StreamedBody;
use crate::checksum::Crc64Nvme;
use crate::store::{SourceBroke, Streamed};

/// The header that carries a body's checksum, ahead of it or in its trailer.
pub const CHECKSUM_HEADER: &str = "x-amz-checksum-crc64nvme";

/// Pieces as they arrive in one chunk, their checksum behind them.
pub struct TrailedBody {
    data: StreamedBody,
    checksum: oneshot::Receiver<Crc64Nvme>,
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
        this.progress.asked(matches!(piece, Poll::Ready(Some(_))));
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

/// Whether a body's bytes move, for whoever watches its request.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    /// Milliseconds from the start to when the store took a piece last; [`Self::NOTHING_TO_TAKE`] while there is none.
    took_ms: AtomicU64,
}

impl Progress {
    const NOTHING_TO_TAKE: u64 = u64::MAX;

    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), took_ms: AtomicU64::new(0) })
    }

    /// The connection had room for a piece, and got one or not.
    fn asked(&self, got_one: bool) {
        let took_ms = if got_one { self.start.elapsed().as_millis() as u64 } else { Self::NOTHING_TO_TAKE };
        self.took_ms.store(took_ms, Ordering::Relaxed);
    }

    /// Ready once the store has taken nothing for so long although there was something.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let since = match self.took_ms.load(Ordering::Relaxed) {
                Self::NOTHING_TO_TAKE => Duration::ZERO,
                took_ms => self.start.elapsed().saturating_sub(Duration::from_millis(took_ms)),
            };
            if since >= limit {
                return;
            }
            tokio::time::sleep(limit - since).await;
        }
    }
}
