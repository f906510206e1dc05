//! What the decoder sends of one entry: piece by piece, cut where parts end, or straight into a request's body.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Event;
use crate::checksum::Crc64Nvme;
use crate::failure::{Failure, FailureCode};
use crate::store::Feeder;

/// What a decoding thread sends.
pub type Events = mpsc::Receiver<Event>;

/// The next piece of the entry under way; `None` at its end, its checksum having held.
pub async fn next_piece(events: &mut Events) -> Result<Option<Bytes>, Failure> {
    match events.recv().await {
        Some(Event::Data(piece)) => Ok(Some(piece)),
        Some(Event::End) => Ok(None),
        Some(Event::Done(Err(failure))) => Err(failure),
        _ => Err(out_of_step()),
    }
}

pub fn out_of_step() -> Failure {
    Failure::new(FailureCode::InternalError, "the decoder ended without a word; see the log")
}

/// One entry's data, cut where parts end.
pub struct Pieces<'a> {
    events: &'a mut Events,
    /// What the last cut left.
    rest: Bytes,
}

impl<'a> Pieces<'a> {
    pub fn new(events: &'a mut Events) -> Self {
        Self { events, rest: Bytes::new() }
    }

    /// At most `most` bytes; none at the entry's end.
    async fn next(&mut self, most: u64) -> Result<Bytes, Failure> {
        if self.rest.is_empty() {
            match next_piece(self.events).await? {
                Some(piece) => self.rest = piece,
                None => return Ok(Bytes::new()),
            }
        }
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Ok(self.rest.split_to(len))
    }

    /// Exactly `len` bytes.
    pub async fn take(&mut self, len: u64) -> Result<Vec<Bytes>, Failure> {
        let mut pieces = Vec::new();
        let mut left = len;
        while left > 0 {
            let piece = self.next(left).await?;
            if piece.is_empty() {
                return Err(out_of_step());
            }
            left -= piece.len() as u64;
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Waits for the entry's end.
    pub async fn end(&mut self) -> Result<(), Failure> {
        if self.next(1).await?.is_empty() { Ok(()) } else { Err(out_of_step()) }
    }
}

/// Sends exactly `len` bytes into `body`; with `last`, the last of them only once the entry's checksum held. `Ok(None)`
/// where the receiver went away, which then knows why.
pub async fn feed(
    pieces: &mut Pieces<'_>,
    len: u64,
    last: bool,
    mut body: Feeder,
) -> Result<Option<Crc64Nvme>, Failure> {
    let mut left = len;
    let fed = async {
        while left > 0 {
            let piece = pieces.next(left).await?;
            if piece.is_empty() {
                return Err(out_of_step());
            }
            left -= piece.len() as u64;
            if left == 0 && last {
                pieces.end().await?;
            }
            if !body.send(piece).await {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match fed.await {
        Ok(true) => Ok(Some(body.finish())),
        Ok(false) => Ok(None),
        Err(failure) => {
            body.break_off().await;
            Err(failure)
        }
    }
}
