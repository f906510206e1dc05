//! What both engines make of the names that a server lists: which are handed on, and how many are too many.

use super::path::bytes_to_text;
use super::{Error, Kind, RemotePath};

/// Memory that the names of one directory may take, left out ones included: four million of 64 bytes, ten times what a
/// server is known to hold in one. A server that lists for ever is told apart from a big one by it.
const MOST_BYTES: usize = 512 << 20;
/// What a name takes besides its bytes.
const ENTRY: usize = 64;

/// Bytes of a name that was left out that are shown.
const SHOWN: usize = 200;

/// The listing of one directory under way.
pub struct Listing<'a> {
    dir: &'a RemotePath,
    bytes: usize,
    left_out: usize,
    first_left_out: Vec<u8>,
}

impl<'a> Listing<'a> {
    pub fn new(dir: &'a RemotePath) -> Self {
        Self { dir, bytes: 0, left_out: 0, first_left_out: Vec::new() }
    }

    /// Whether `name` is to be handed on. No file can have a name that is empty or holds a separator, which would lead
    /// out of the directory, or a NUL; a server that means well does not send it.
    pub fn admits(&mut self, name: &[u8]) -> Result<bool, Error> {
        self.bytes = self.bytes.saturating_add(ENTRY + name.len());
        if self.bytes > MOST_BYTES {
            let message = format!("cannot list {}: its names are more than {} MiB", self.dir, MOST_BYTES >> 20);
            return Err(Error::new(Kind::Failed, message).lasting());
        }
        if matches!(name, b"." | b"..") {
            return Ok(false);
        }
        let is_name = !name.is_empty() && !name.contains(&b'/') && !name.contains(&0);
        if !is_name {
            if self.left_out == 0 {
                self.first_left_out = name[..name.len().min(SHOWN)].to_vec();
            }
            self.left_out += 1;
        }
        Ok(is_name)
    }

    /// Warns of what was left out.
    pub fn finish(self) {
        if self.left_out > 0 {
            tracing::warn!(
                directory = %self.dir,
                entries = self.left_out,
                first = ?bytes_to_text(&self.first_left_out),
                "the server lists names that are empty or hold a separator or a NUL; they are left out"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_can_be_called_is_left_out() {
        let dir = RemotePath::from("/d");
        let mut listing = Listing::new(&dir);
        for (name, admitted) in [
            (&b"a"[..], true),
            (b"...", true),
            (b"caf\xe9", true),
            (b".", false),
            (b"..", false),
            (b"", false),
            (b"x/y", false),
            (b"z\0", false),
        ] {
            assert_eq!(listing.admits(name).unwrap(), admitted, "{name:?}");
        }
        assert_eq!((listing.left_out, listing.first_left_out.as_slice()), (3, &b""[..]));
    }

    #[test]
    fn a_listing_without_end_ends() {
        let dir = RemotePath::from("/d");
        let mut listing = Listing::new(&dir);
        let name = vec![b'a'; (1 << 20) - ENTRY];
        for _ in 0..MOST_BYTES >> 20 {
            assert!(listing.admits(&name).unwrap());
        }
        let error = listing.admits(b"a").unwrap_err();
        assert!(error.kind == Kind::Failed && !error.may_pass());
        assert!(error.to_string().contains("/d"), "{error}");
    }
}
