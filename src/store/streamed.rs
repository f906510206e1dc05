//! The two ends of a body that is sent while it is read: who reads feeds it, the store's adapter takes it.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::Shared;
use tokio::sync::{mpsc, oneshot};

use crate::checksum::{Crc64Nvme, Hasher};

/// Pieces that may wait between the reader and the socket.
const PIECES_WAITING: usize = 2;

/// The taking end: exactly `len` bytes as they come, then their checksum.
#[derive(Debug)]
pub struct Streamed {
    pub len: u64,
    /// `Err`, or the end before `len` bytes: the body broke off, and nothing is to be stored.
    pub pieces: mpsc::Receiver<Result<Bytes, SourceBroke>>,
    /// Of all pieces, once all were sent. An error where the body broke off.
    pub checksum: Shared<oneshot::Receiver<Crc64Nvme>>,
}

/// The feeding end. Dropping it before all pieces were sent, and [`finish`](Feeder::finish) was called, breaks the body
/// off.
#[derive(Debug)]
pub struct Feeder {
    pieces: mpsc::Sender<Result<Bytes, SourceBroke>>,
    checksum: oneshot::Sender<Crc64Nvme>,
    hasher: Hasher,
}

/// The source of a streamed body failed; why is told by whoever feeds it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the source of the upload broke off")]
pub struct SourceBroke;

/// Both ends of a body of `len` bytes.
pub fn streamed(len: u64) -> (Feeder, Streamed) {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let (to, checksum) = oneshot::channel();
    (
        Feeder { pieces: sender, checksum: to, hasher: Hasher::new() },
        Streamed { len, pieces, checksum: checksum.shared() },
    )
}

impl Feeder {
    /// Passes a piece on, waiting for room. `false` where nobody takes it: the request ended, and knows why.
    pub async fn send(&mut self, piece: Bytes) -> bool {
        self.hasher.update(&piece);
        self.pieces.send(Ok(piece)).await.is_ok()
    }

    /// All pieces were sent. Returns the checksum that follows them.
    pub fn finish(self) -> Crc64Nvme {
        let checksum = self.hasher.finish();
        // Where nobody takes it, the request ended already.
        let _ = self.checksum.send(checksum);
        checksum
    }

    /// The source failed.
    pub async fn break_off(self) {
        // As above.
        let _ = self.pieces.send(Err(SourceBroke)).await;
    }
}
