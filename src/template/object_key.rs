//! What may be an object's key.

use std::fmt;

/// Bytes of UTF-8 that S3 allows a key.
const KEY_LIMIT: usize = 1024;

/// What keys of the program's own objects begin with; no file's key does.
pub const RESERVED: &str = ".sftp-s3-connector/";

/// A key that S3 takes and every client can address: 1 to 1,024 bytes, no `.` or `..` between its slashes (clients and
/// proxies resolve those as paths).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// Why a file has no key. Its record says `KEY_INVALID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key comes out empty; see KEY_TEMPLATE")]
    Empty,
    #[error("the key is {0} bytes long, and S3 allows 1024; shorten it with KEY_TEMPLATE")]
    TooLong(usize),
    #[error("the key has a `.` or `..` segment, which clients would resolve away; see KEY_TEMPLATE")]
    DotSegment,
    #[error("the key is below {RESERVED}, where the program keeps its own; see KEY_TEMPLATE")]
    Reserved,
    #[error("the key is the one that REPORT_URI gives the run's report; change one of the two")]
    Report,
    #[error("KEY_TEMPLATE asks for {{mtime}}, and the server tells no modification time")]
    NoModificationTime,
}

impl ObjectKey {
    pub fn new(key: String) -> Result<Self, KeyError> {
        if key.is_empty() {
            Err(KeyError::Empty)
        } else if key.len() > KEY_LIMIT {
            Err(KeyError::TooLong(key.len()))
        } else if key.split('/').any(|segment| segment == "." || segment == "..") {
            Err(KeyError::DotSegment)
        } else {
            Ok(Self(key))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_s3_or_clients_choke_on_are_refused() {
        let key = |text: &str| ObjectKey::new(text.to_owned()).map(ObjectKey::into_string);
        assert_eq!(key(""), Err(KeyError::Empty));
        for text in [".", "..", "a/../b", "./a", "a/.", "a/.."] {
            assert_eq!(key(text), Err(KeyError::DotSegment), "{text}");
        }
        for text in ["...", "a/.b", "a..", " ", "a//b", "a b/é"] {
            assert!(key(text).is_ok(), "{text}");
        }
        assert!(key(&"é".repeat(512)).is_ok());
        assert_eq!(key(&format!("{}a", "é".repeat(512))), Err(KeyError::TooLong(1025)));
    }
}
