//! What the keys of an archive's entries all begin with, as far as it is known before the archive was read.

use chrono::{DateTime, Utc};

use super::{KeyPiece, KeyTemplate, UnpackPiece, UnpackTemplate, push_time, render_segments, without_suffix};

/// What comes next in a key depends on the entry.
struct Unknown;

impl UnpackTemplate {
    /// What [`render`](Self::render) gives for any entry of this archive begins with this.
    pub fn prefix(&self, archive: &str) -> String {
        let mut path = String::new();
        let known = render_segments(&mut path, &self.segments, |piece, path| match piece {
            UnpackPiece::Literal(text) => {
                path.push_str(text);
                Ok(())
            }
            UnpackPiece::Archive => {
                path.push_str(without_suffix(archive));
                Ok(())
            }
            UnpackPiece::Entry => Err(Unknown),
        });
        match known {
            Ok(()) | Err(Unknown) => path,
        }
    }
}

impl KeyTemplate {
    /// The key of any path that begins with `path` begins with this, whatever its modification time.
    pub fn prefix(&self, path: &str, run_start: DateTime<Utc>, run_id: &str) -> String {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut key = String::new();
        let known = render_segments(&mut key, &self.segments, |piece, key| match piece {
            KeyPiece::Literal(text) => {
                key.push_str(text);
                Ok(())
            }
            KeyPiece::RunStart(format) => push_time(key, run_start, format).map_err(|_| Unknown),
            KeyPiece::RunId => {
                key.push_str(run_id);
                Ok(())
            }
            KeyPiece::Path => Err(begin(key, path)),
            KeyPiece::Dir => Err(begin(key, dir)),
            KeyPiece::Name | KeyPiece::Stem | KeyPiece::Ext { .. } | KeyPiece::ModificationTime(_) => {
                Err(begin(key, ""))
            }
        });
        match known {
            Ok(()) | Err(Unknown) => key,
        }
    }
}

/// Pushes what is known of a placeholder. Where that is nothing, the placeholder's segment may be left out with its `/`.
fn begin(key: &mut String, known: &str) -> Unknown {
    if known.is_empty() {
        key.truncate(key.trim_end_matches('/').len());
    } else {
        key.push_str(known);
    }
    Unknown
}
