//! Packets out of the chunks that a channel delivers, however it cut them.
//!
//! File data is handed on in slices of those chunks, uncopied but for pieces that are small, or less than half of the
//! chunk that they would hold on to: so data holds no more than twice its size in memory, whatever the server puts
//! around it. Other packets are short and are gathered where a cut runs through them.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{MAX_PACKET, Malformed, Message, Reply, decode, kind};

/// A piece of a chunk keeps all of it in memory. Below this size copying is cheaper than that: a directory of tiny
/// files would otherwise hold a whole SSH packet for each.
pub const COPY_BELOW: usize = 2048;

/// Reassembles one direction of a session. Holds at most one packet that is not yet whole, and what was pushed since
/// [`next_message`](Framer::next_message) last came back empty.
#[derive(Debug, Default)]
pub struct Framer {
    /// No empty chunk.
    chunks: VecDeque<Chunk>,
    len: usize,
}

/// What is left of a chunk, and how long it was.
#[derive(Debug)]
struct Chunk {
    rest: Bytes,
    whole: usize,
}

impl Framer {
    /// Adds what arrived.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(Chunk { whole: chunk.len(), rest: chunk });
        }
    }

    /// The next whole message, if one is there. After an error the stream has no next message.
    pub fn next_message(&mut self) -> Result<Option<Message>, Malformed> {
        let Some(len) = self.peek_u32() else { return Ok(None) };
        if len > MAX_PACKET {
            return Err(Malformed::TooLong(len));
        }
        if len == 0 {
            return Err(Malformed::Empty);
        }
        let len = len as usize;
        if self.len < 4 + len {
            return Ok(None);
        }
        self.gather(4);
        let kind = self.gather(1)[0];
        if kind != kind::DATA {
            return decode(kind, self.gather(len - 1)).map(Some);
        }
        let Some(rest) = len.checked_sub(1 + 4 + 4) else { return Err(Malformed::CutShort("data")) };
        let mut head = self.gather(8);
        let (id, data_len) = (head.get_u32(), head.get_u32() as usize);
        if data_len > rest {
            return Err(Malformed::CutShort("data"));
        }
        let data = self.pieces(data_len);
        // Later versions have a flag here, and so may a server that mixes them up.
        self.slices(rest - data_len).for_each(drop);
        Ok(Some(Message::Reply { id, reply: Reply::Data(data) }))
    }

    fn peek_u32(&self) -> Option<u32> {
        let mut bytes = [0; 4];
        let mut have = self.chunks.iter().flat_map(|chunk| &chunk.rest);
        for byte in &mut bytes {
            *byte = *have.next()?;
        }
        Some(u32::from_be_bytes(bytes))
    }

    /// `len` bytes in one piece. There are at least as many.
    fn gather(&mut self, len: usize) -> Bytes {
        if self.chunks.front().is_some_and(|first| first.rest.len() >= len) {
            return self.slices(len).next().map_or_else(Bytes::new, |(piece, _)| piece);
        }
        let mut gathered = BytesMut::with_capacity(len);
        for (piece, _) in self.slices(len) {
            gathered.put(piece);
        }
        gathered.freeze()
    }

    /// `len` bytes in as many pieces as there are chunks, those that are better copied put together.
    fn pieces(&mut self, len: usize) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(1);
        let mut small = BytesMut::new();
        for (piece, whole) in self.slices(len) {
            if piece.len() < COPY_BELOW || piece.len() < whole / 2 {
                small.put(piece);
                continue;
            }
            if !small.is_empty() {
                pieces.push(small.split().freeze());
            }
            pieces.push(piece);
        }
        if !small.is_empty() {
            pieces.push(small.freeze());
        }
        pieces
    }

    /// The next `len` bytes, each slice with the length of the chunk that it is of.
    fn slices(&mut self, mut len: usize) -> impl Iterator<Item = (Bytes, usize)> + '_ {
        std::iter::from_fn(move || {
            let first = self.chunks.front_mut().filter(|_| len > 0)?;
            let piece = first.rest.split_to(len.min(first.rest.len()));
            let whole = first.whole;
            if first.rest.is_empty() {
                self.chunks.pop_front();
            }
            len -= piece.len();
            self.len -= piece.len();
            Some((piece, whole))
        })
    }
}
