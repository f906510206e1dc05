//! How much the paths of one run may be, counted as the names come: a server may tell as many as it likes.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::remote::{Error, Kind};

/// Ten million paths of 150 bytes. More than this is a server gone wrong: a tree without an end, or listings that never
/// stop.
const MOST_BYTES: usize = 2 << 30;
/// What a path takes besides its bytes.
const ENTRY_BYTES: usize = 64;

/// What is left of it.
#[derive(Debug)]
pub struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// What one listing has taken. Given back unless it is kept.
pub struct Taken<'a> {
    room: &'a Room,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(MOST_BYTES)
    }
}

impl Room {
    pub fn of(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    pub fn begin(&self) -> Taken<'_> {
        Taken { room: self, bytes: 0 }
    }

    /// Whether there was too little. It stays so.
    pub fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.most
    }

    /// What the run ends with then. No further attempt mends it.
    pub fn too_little(&self) -> Error {
        let most = self.most >> 20;
        let message = format!(
            "the server lists more files and directories than {most} MiB hold: choose a smaller SFTP_DIRECTORY_PATH, or keep \
             directories out with EXCLUDE"
        );
        Error::new(Kind::Failed, message).lasting()
    }
}

impl Taken<'_> {
    /// Takes what a path of `len` bytes needs.
    ///
    /// # Errors
    ///
    /// Where so much is not left.
    pub fn path(&mut self, len: usize) -> Result<(), Error> {
        let bytes = ENTRY_BYTES + len;
        self.bytes += bytes;
        self.room.taken.fetch_add(bytes, Ordering::Relaxed);
        if self.room.is_full() {
            return Err(self.room.too_little());
        }
        Ok(())
    }

    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.room.is_full() {
            self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_failed_gives_back_what_it_took_and_too_much_stays_too_much() {
        let room = Room::of(10 * ENTRY_BYTES);
        for _ in 0..100 {
            let mut failed = room.begin();
            failed.path(ENTRY_BYTES).expect("two of ten");
        }
        let mut kept = room.begin();
        kept.path(8 * ENTRY_BYTES).expect("nine of ten");
        kept.keep();
        let mut too_much = room.begin();
        too_much.path(0).expect("ten of ten");
        let error = too_much.path(0).expect_err("one more");
        assert!(!error.may_pass());
        drop(too_much);
        assert!(room.is_full());
    }
}
