//! Byte ranges from the server, each held against what the listing said of the file.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Transfer;
use crate::checksum::Crc64Nvme;
use crate::exit::Exit;
use crate::failure::{Failure, FailureCode};
use crate::plan::{self, PlannedFile};
use crate::remote::{Chunk, Error, Kind};
use crate::store::Feeder;

/// What a stream reads at a time: small enough that a window of them is, large enough that opening the file is not felt.
const SLICE: u64 = 1 << 20;
/// Slices of one stream that are asked for ahead of the one being sent.
const SLICES_AHEAD: usize = 6;
/// Bytes that a stream holds at most: the slices ahead, the one being sent, and what the socket has taken.
pub const STREAM_WINDOW: u64 = (SLICES_AHEAD as u64 + 2) * SLICE;

impl Transfer {
    /// Exactly `len` bytes at `offset`, of the file as it was listed.
    ///
    /// # Errors
    ///
    /// [`FailureCode::SourceChanged`] where size, modification time or the number of bytes differ from the listing;
    /// [`FailureCode::Interrupted`] once `stop` is cancelled; what the server said, after the retries that may help.
    pub(super) async fn range(
        &self,
        file: &PlannedFile,
        offset: u64,
        len: u64,
        stop: &CancellationToken,
    ) -> Result<Vec<Bytes>, Failure> {
        let read = self
            .retry
            .run(Error::may_pass, |_| async { self.pool.lease().await?.read(&file.remote, offset, len).await });
        let chunk = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Failure::interrupted()),
            chunk = read => chunk.map_err(|error| read_failure(&error))?,
        };
        verify(file, &chunk, len)?;
        self.counters.bytes_read.fetch_add(len, Ordering::Relaxed);
        Ok(chunk.data)
    }

    /// Sends `len` bytes at `offset` into `body`, in order. The last of them go out only after every one was read and
    /// the file was seen unchanged: a body that ends early is not stored.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range); `Ok(None)` where the receiver went away, which then knows why.
    pub(super) async fn feed(
        self: &Arc<Self>,
        file: &PlannedFile,
        (offset, len): (u64, u64),
        mut body: Feeder,
        stop: &CancellationToken,
    ) -> Result<Option<Crc64Nvme>, Failure> {
        let file = Arc::new(file.clone());
        // Tasks of their own: a read that is not polled while the store is slow would keep its connection from others.
        let mut slices = futures::stream::iter(plan::parts(len, SLICE))
            .map(|(at, len)| {
                let (this, file, stop) = (self.clone(), file.clone(), stop.clone());
                Background::spawn(async move { this.range(&file, offset + at, len, &stop).await })
            })
            .buffered(SLICES_AHEAD);
        while let Some(slice) = slices.next().await {
            match slice.unwrap_or_else(|lost| Err(Failure::new(FailureCode::InternalError, lost))) {
                Ok(pieces) => {
                    for piece in pieces {
                        if !body.send(piece).await {
                            return Ok(None);
                        }
                    }
                }
                Err(failure) => {
                    body.break_off().await;
                    return Err(failure);
                }
            }
        }
        Ok(Some(body.finish()))
    }
}

/// A task that ends with the one who waits for it.
pub struct Background<T>(JoinHandle<T>);

impl<T: Send + 'static> Background<T> {
    pub fn spawn(task: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl<T> Future for Background<T> {
    type Output = Result<T, &'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| "a read ended without a result; see the log")
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether what was read is what was listed.
fn verify(file: &PlannedFile, chunk: &Chunk, len: u64) -> Result<(), Failure> {
    let now = chunk.attributes;
    let changed = |what: String| {
        Err(Failure::new(
            FailureCode::SourceChanged,
            format!("the file changed while it was read ({what}); it is left for a run that finds it at rest"),
        ))
    };
    if let Some(size) = now.size
        && size != file.size
    {
        return changed(format!("{} bytes when listed, {size} after reading", file.size));
    }
    if let (Some(listed), Some(read)) = (file.mtime, now.mtime)
        && listed != read
    {
        return changed(format!("modified at {listed} when listed, at {read} after reading, in seconds since 1970"));
    }
    if chunk.len() != len {
        return changed(format!("{} bytes came where {len} were expected", chunk.len()));
    }
    Ok(())
}

/// The record's code for what the server, or the way to it, said.
pub fn read_failure(error: &Error) -> Failure {
    let (code, exit) = match error.kind {
        Kind::Unreachable | Kind::Lost if error.timed_out() => (FailureCode::TimeoutError, Some(Exit::Unreachable)),
        Kind::Unreachable | Kind::Lost => (FailureCode::ConnectionError, Some(Exit::Unreachable)),
        Kind::HostKey => (FailureCode::ConnectionError, Some(Exit::HostKey)),
        Kind::Auth => (FailureCode::ConnectionError, Some(Exit::Auth)),
        Kind::NotFound => (FailureCode::RetrieveFileNotFound, None),
        Kind::Denied | Kind::Failed => (FailureCode::ReadFileError, None),
    };
    Failure { exit, ..Failure::new(code, error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Attributes, FileKind, RemotePath};
    use crate::template::ObjectKey;

    fn file() -> PlannedFile {
        PlannedFile {
            remote: RemotePath::from("/out/a"),
            relative: "a".to_owned(),
            size: 4,
            mtime: Some(100),
            key: ObjectKey::new("a".to_owned()).unwrap(),
            may_share_key: false,
        }
    }

    fn chunk(data: &'static [u8], size: Option<u64>, mtime: Option<u32>) -> Chunk {
        Chunk { data: vec![Bytes::from_static(data)], attributes: Attributes { size, mtime, kind: FileKind::File } }
    }

    #[test]
    fn a_file_as_it_was_listed_is_taken() {
        assert_eq!(verify(&file(), &chunk(b"data", Some(4), Some(100)), 4), Ok(()));
        assert_eq!(verify(&file(), &chunk(b"data", None, None), 4), Ok(()), "a server that tells nothing");
    }

    #[test]
    fn a_file_that_differs_in_anything_is_not() {
        for (chunk, said) in [
            (chunk(b"data", Some(5), Some(100)), "5 after reading"),
            (chunk(b"data", Some(4), Some(101)), "at 101 after"),
            (chunk(b"dat", Some(4), Some(100)), "3 bytes came where 4"),
        ] {
            let failure = verify(&file(), &chunk, 4).unwrap_err();
            assert_eq!(failure.code, FailureCode::SourceChanged);
            assert!(failure.message.contains(said), "{}", failure.message);
        }
    }
}
