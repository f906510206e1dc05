//! Remote paths are bytes: partners send Latin-1 and Shift-JIS names, and SFTP version 3 names no encoding.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{Error, Kind};

/// A `/`-separated path on the SFTP server, as bytes, absolute or relative to the login directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePath(Vec<u8>);

/// What stays as it is in `sftp-path` metadata: the unreserved characters of RFC 3986 §2.3 and the separator.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl RemotePath {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What a server is asked for: `.` for the empty path, which not every server takes for the login directory.
    /// [`Kind::NotFound`] for a path with a NUL, which no file has, and for which OpenSSH ends the session.
    pub fn as_asked(&self) -> Result<&[u8], Error> {
        if self.0.contains(&0) {
            return Err(Error::new(Kind::NotFound, format!("no file is named {self:?}, with a NUL byte")));
        }
        Ok(if self.0.is_empty() { b"." } else { &self.0 })
    }

    pub fn is_absolute(&self) -> bool {
        self.0.first() == Some(&b'/')
    }

    /// `self/name`; an empty `self` is the login directory, so that `name` stands alone.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        if !joined.is_empty() && joined.last() != Some(&b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self(joined)
    }

    /// What `target` is from the directory that `self` is in.
    pub fn beside(&self, target: &Self) -> Self {
        if target.is_absolute() {
            return target.clone();
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        Self([&self.0[..end], &target.0].concat())
    }

    /// The last segment.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Text with each byte that is not UTF-8 as `%XX`: for keys, records and messages. Not reversible where the name
    /// itself holds such a sequence; [`percent_encoded`](Self::percent_encoded) is.
    pub fn to_text(&self) -> String {
        bytes_to_text(&self.0)
    }

    /// Every byte but letters, digits, `/`, `-`, `.`, `_` and `~` as `%XX`.
    pub fn percent_encoded(&self) -> String {
        percent_encode(&self.0, PLAIN).to_string()
    }
}

/// UTF-8 stays, each byte of an invalid sequence becomes `%XX`.
pub fn bytes_to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl From<&str> for RemotePath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_utf8_shows_each_invalid_byte() {
        assert_eq!(RemotePath::new(b"caf\xe9/\xff\xfe.txt".to_vec()).to_text(), "caf%E9/%FF%FE.txt");
        assert_eq!(RemotePath::from("café 100%").to_text(), "café 100%");
    }

    #[test]
    fn a_link_is_read_from_its_own_directory() {
        for (link, target, led_to) in [
            ("/a/b", "c", "/a/c"),
            ("/a/b", "../c", "/a/../c"),
            ("/b", "c", "/c"),
            ("b", "c", "c"),
            ("/a/b", "/c", "/c"),
        ] {
            assert_eq!(RemotePath::from(link).beside(&target.into()), led_to.into());
        }
    }

    #[test]
    fn a_server_is_asked_for_a_dot_instead_of_nothing_and_never_for_a_nul() {
        assert_eq!(RemotePath::from("").as_asked().unwrap(), b".");
        assert_eq!(RemotePath::from("a b").as_asked().unwrap(), b"a b");
        assert_eq!(RemotePath::new(b"a\0b".to_vec()).as_asked().unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn percent_encoding_tells_a_percent_sign_from_an_encoded_byte() {
        assert_eq!(RemotePath::from("/a b/%FF").percent_encoded(), "/a%20b/%25FF");
        assert_eq!(RemotePath::new(b"/\xff".to_vec()).percent_encoded(), "/%FF");
    }

    #[test]
    fn joining_puts_one_separator_between() {
        for (dir, joined) in [("/", "/x"), ("/a", "/a/x"), ("/a/", "/a/x"), ("", "x")] {
            assert_eq!(RemotePath::from(dir).join(b"x"), RemotePath::from(joined));
        }
    }
}
