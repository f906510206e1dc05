//! Packets out of the chunks that a channel delivers, however it cut them.
//!
//! File data is handed on in slices of those chunks, uncopied but for pieces so small that they are better copied than
//! left to hold on to a chunk; other packets are short and are gathered where a cut runs through them.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{MAX_PACKET, Malformed, Message, Reply, decode, kind};

/// A piece of a chunk keeps all of it in memory. Below this size copying is cheaper than that: a directory of tiny
/// files would otherwise hold a whole SSH packet for each.
const COPY_BELOW: usize = 2048;

/// Reassembles one direction of a session. Holds at most one packet that is not yet whole, and what was pushed since
/// [`next_message`](Framer::next_message) last came back empty.
#[derive(Debug, Default)]
pub struct Framer {
    /// No empty chunk.
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Framer {
    /// Adds what arrived.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
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
        self.gather(rest - data_len);
        Ok(Some(Message::Reply { id, reply: Reply::Data(data) }))
    }

    fn peek_u32(&self) -> Option<u32> {
        let mut bytes = [0; 4];
        let mut have = self.chunks.iter().flatten();
        for byte in &mut bytes {
            *byte = *have.next()?;
        }
        Some(u32::from_be_bytes(bytes))
    }

    /// `len` bytes in one piece. There are at least as many.
    fn gather(&mut self, len: usize) -> Bytes {
        if self.chunks.front().is_some_and(|first| first.len() >= len) {
            return self.slices(len).next().unwrap_or_default();
        }
        let mut gathered = BytesMut::with_capacity(len);
        for piece in self.slices(len) {
            gathered.put(piece);
        }
        gathered.freeze()
    }

    /// `len` bytes in as many pieces as there are chunks, small ones copied and put together.
    fn pieces(&mut self, len: usize) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(1);
        let mut small = BytesMut::new();
        for piece in self.slices(len) {
            if piece.len() < COPY_BELOW {
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

    fn slices(&mut self, mut len: usize) -> impl Iterator<Item = Bytes> + '_ {
        std::iter::from_fn(move || {
            let first = self.chunks.front_mut().filter(|_| len > 0)?;
            let piece = first.split_to(len.min(first.len()));
            if first.is_empty() {
                self.chunks.pop_front();
            }
            len -= piece.len();
            self.len -= piece.len();
            Some(piece)
        })
    }
}
