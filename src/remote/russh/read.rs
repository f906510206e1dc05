//! A range of a file, read by as many requests at once as the connection has room for.

use std::collections::BTreeMap;
use std::future::poll_fn;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_util::sync::PollSemaphore;

use super::files::Files;
use super::outcome::Failure;
use super::session::{Handle, Pending, Session};
use super::window;
use crate::remote::protocol::{COPY_BELOW, Reply, Request, status};
use crate::remote::{Attributes, Chunk, Error, Kind, RemotePath};

/// Reads `len` bytes at `offset`, fewer at the end of the file, then the attributes. A close is not waited for.
pub async fn read(session: &Session, files: &Files, path: &RemotePath, offset: u64, len: u64) -> Result<Chunk, Error> {
    let end = offset.saturating_add(len);
    let reader = files.open(session, path, offset).await?;
    let read = read_open(session, &reader.handle, path, offset, len).await;
    match &read {
        Ok(chunk) if chunk.attributes.size.is_some_and(|size| end < size) => reader.keep(end),
        Ok(_) => reader.finish(),
        Err(_) => reader.forget(),
    }
    read
}

async fn read_open(
    session: &Session,
    handle: &Handle,
    path: &RemotePath,
    offset: u64,
    len: u64,
) -> Result<Chunk, Error> {
    let Read { data, no_data_at, attributes } = Range::new(offset, len)
        .read(session, handle)
        .await
        .map_err(|(at, failure)| failure.into_error(format_args!("read {path} at byte {at}")))?;
    let attributes = attributes_of(session, path, attributes.await).await?;
    if let (Some(at), Some(size)) = (no_data_at, attributes.size)
        && at < size
    {
        let message = format!("cannot read {path} at byte {at} of {size}: the server answered with no data");
        return Err(Error::new(Kind::Failed, message));
    }
    Ok(Chunk { data, attributes })
}

/// Attributes that were asked for by handle, or by path from a server that knows no other way.
async fn attributes_of(
    session: &Session,
    path: &RemotePath,
    reply: Result<Reply, Failure>,
) -> Result<Attributes, Error> {
    match reply {
        Err(Failure::Refused(refusal)) if refusal.code == status::OP_UNSUPPORTED => stat(session, path).await,
        reply => expect_attributes(session, reply, path),
    }
}

/// Attributes of what `path` leads to.
pub async fn stat(session: &Session, path: &RemotePath) -> Result<Attributes, Error> {
    let reply = session.request(Request::Stat { path: path.as_asked()? }).await;
    expect_attributes(session, reply, path)
}

fn expect_attributes(session: &Session, reply: Result<Reply, Failure>, path: &RemotePath) -> Result<Attributes, Error> {
    match reply.map_err(|failure| failure.into_error(format_args!("stat {path}")))? {
        Reply::Attributes(attributes) => Ok(attributes),
        _ => Err(session.out_of_step()),
    }
}

/// Bytes of small pieces that are put together in one buffer.
const SMALL_TOGETHER: usize = 64 * 1024;

/// A range as it came.
struct Read {
    /// In order.
    data: Vec<Bytes>,
    /// The first byte that there was no data for, without a word.
    no_data_at: Option<u64>,
    /// The answer of after the last byte.
    attributes: Pending,
}

/// What is still to be asked for, and what has come.
struct Range {
    /// Parts that are not asked for, as offset and end; the last is the next.
    missing: Vec<(u64, u64)>,
    /// Where the file ended, as far as is known.
    end: u64,
    /// The first byte that the server sent no data for, in place of a status: at the end of the file it means that.
    no_data_at: Option<u64>,
    /// By offset.
    runs: BTreeMap<u64, Run>,
}

/// Bytes of a file without a gap.
#[derive(Default)]
struct Run {
    len: u64,
    /// No empty piece.
    pieces: Vec<Bytes>,
    /// Small pieces that came one after another, put together: each alone costs several times what it holds.
    small: Vec<u8>,
}

impl Run {
    fn append(&mut self, data: Vec<Bytes>) {
        for piece in data {
            self.len += piece.len() as u64;
            if piece.len() < COPY_BELOW && !(self.small.is_empty() && self.pieces.is_empty()) {
                self.small.extend_from_slice(&piece);
                if self.small.len() >= SMALL_TOGETHER {
                    self.gather();
                }
            } else {
                self.gather();
                self.pieces.push(piece);
            }
        }
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.small).into_boxed_slice()));
        }
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.gather();
        self.pieces
    }
}

impl Range {
    fn new(offset: u64, len: u64) -> Self {
        let end = offset.saturating_add(len);
        Self { missing: vec![(offset, end)], end, no_data_at: None, runs: BTreeMap::new() }
    }

    /// Reads it, and asks for the file's attributes of after that: behind the last read where the server answers in
    /// order, else once the last byte has come. On failure, the offset of the request that failed.
    async fn read(mut self, session: &Session, handle: &Handle) -> Result<Read, (u64, Failure)> {
        let mut window = PollSemaphore::new(session.window());
        let mut under_way = FuturesUnordered::new();
        let mut attributes = None;
        loop {
            let next = self.next(session.read_len());
            if next.is_some() {
                // A short answer has left something to be asked for after all.
                attributes = None;
            } else if attributes.is_none() && session.works_in_order() {
                attributes = Some(handle.attributes(session));
            }
            tokio::select! {
                // Replies first: they make room for the requests.
                biased;
                Some((offset, len, reply)) = under_way.next() => self.take(session, offset, len, reply)?,
                permit = poll_fn(|context| window.poll_acquire_many(context, permits(next))), if next.is_some() => {
                    let Some((offset, len)) = next else { continue };
                    let Some(permit) = permit else { return Err((offset, Failure::Lost(session.lost_error()))) };
                    self.asked(offset, len);
                    let reply = session.request_read(handle, offset, len, permit);
                    under_way.push(tagged(offset, len, reply));
                }
                else => break,
            }
        }
        let attributes = attributes.unwrap_or_else(|| handle.attributes(session));
        let data = self.runs.into_values().flat_map(Run::into_pieces).collect();
        Ok(Read { data, no_data_at: self.no_data_at, attributes })
    }

    /// The next request to make: offset and length.
    fn next(&mut self, max_len: u32) -> Option<(u64, u32)> {
        loop {
            let &(offset, end) = self.missing.last()?;
            let end = end.min(self.end);
            if offset < end {
                return Some((offset, u32::try_from(end - offset).map_or(max_len, |len| len.min(max_len))));
            }
            self.missing.pop();
        }
    }

    fn asked(&mut self, offset: u64, len: u32) {
        if let Some(part) = self.missing.last_mut() {
            part.0 = offset + u64::from(len);
        }
    }

    fn take(
        &mut self,
        session: &Session,
        offset: u64,
        len: u32,
        reply: Result<Reply, Failure>,
    ) -> Result<(), (u64, Failure)> {
        match reply {
            Ok(Reply::Data(data)) if data.is_empty() => {
                self.no_data_at = Some(self.no_data_at.map_or(offset, |at| at.min(offset)));
                self.ends_at(offset);
            }
            Ok(Reply::Data(data)) => {
                let received: usize = data.iter().map(Bytes::len).sum();
                let (received_end, asked_end) = (offset + received as u64, offset + u64::from(len));
                if received_end < asked_end {
                    self.missing.push((received_end, asked_end));
                }
                if offset < self.end {
                    self.run_that_ends_at(offset).append(data);
                }
            }
            Err(Failure::Refused(refusal)) if refusal.code == status::EOF => self.ends_at(offset),
            Ok(_) => return Err((offset, Failure::Lost(session.out_of_step()))),
            Err(failure) => return Err((offset, failure)),
        }
        Ok(())
    }

    /// Where a short reply is followed by the rest of what was asked for, that goes on the same run; so there are never
    /// more runs than reads of full length.
    fn run_that_ends_at(&mut self, offset: u64) -> &mut Run {
        let before = self.runs.range(..offset).next_back().filter(|(start, run)| *start + run.len == offset);
        let start = before.map_or(offset, |(start, _)| *start);
        self.runs.entry(start).or_default()
    }

    /// The file has no byte at `offset`, nor behind it, even if one was there a moment ago.
    fn ends_at(&mut self, offset: u64) {
        self.end = self.end.min(offset);
        self.runs.split_off(&self.end);
    }
}

fn permits(next: Option<(u64, u32)>) -> u32 {
    next.map_or(0, |(_, len)| len.div_ceil(window::UNIT))
}

async fn tagged(offset: u64, len: u32, reply: Pending) -> (u64, u32, Result<Reply, Failure>) {
    (offset, len, reply.await)
}
