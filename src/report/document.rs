//! The run's report: one JSON document with its last record, its settings and every file's record.

use std::io::Read as _;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::spool::Kept;
use crate::ecs::Task;

/// The end of the list of files, and of the document.
const END: &str = "\n]}\n";

/// The document, its list of files still packed.
#[derive(Debug)]
pub struct Document {
    head: String,
    files: Kept,
}

#[derive(Serialize)]
struct Head<'a> {
    run: Value,
    program: Program,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a Task>,
    settings: Map<String, Value>,
}

#[derive(Serialize)]
struct Program {
    name: &'static str,
    version: &'static str,
}

impl Document {
    /// `run` is the last record, as JSON; `settings` are variables and their values.
    pub fn new(run: &str, settings: Vec<(&'static str, String)>, task: Option<&Task>, files: Kept) -> Self {
        let head = Head {
            run: serde_json::from_str(run).unwrap_or(Value::Null),
            program: Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
            task,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
        };
        let head = serde_json::to_string(&head).expect("strings and numbers are JSON");
        let open = head.strip_suffix('}').expect("an object ends so");
        Self { head: format!("{open},\"files\":[\n"), files }
    }

    /// Bytes of the whole document.
    pub fn size(&self) -> u64 {
        self.head.len() as u64 + self.files.size() + END.len() as u64
    }

    /// The document in pieces of `len` bytes, the last one shorter.
    pub fn pieces(&self, len: usize) -> impl Iterator<Item = Bytes> {
        let mut text = self.head.as_bytes().chain(self.files.read()).chain(END.as_bytes());
        let mut left = self.size();
        std::iter::from_fn(move || {
            let next = left.min(len as u64);
            left -= next;
            let mut piece = Vec::with_capacity(next as usize);
            (&mut text).take(next).read_to_end(&mut piece).expect("what was packed here is unpacked");
            (!piece.is_empty()).then(|| Bytes::from(piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spool::Spool;
    use super::*;

    fn document(files: u64) -> Document {
        let mut spool = Spool::default();
        (0..files).for_each(|n| spool.add(&json!({"file-path": format!("/out/{n}")}).to_string()));
        Document::new(r#"{"exit-code":0}"#, vec![("BUCKET", "b".to_owned())], None, spool.finish())
    }

    #[test]
    fn it_is_one_json_object_whatever_it_is_cut_into() {
        for files in [0, 1, 1000] {
            let document = document(files);
            for len in [1, 7, 1 << 20] {
                let text = document.pieces(len).collect::<Vec<_>>().concat();
                assert_eq!(text.len() as u64, document.size());
                let read: Value = serde_json::from_slice(&text).expect("JSON");
                assert_eq!((&read["run"], &read["settings"]), (&json!({"exit-code": 0}), &json!({"BUCKET": "b"})));
                assert_eq!(read["files"].as_array().expect("a list").len() as u64, files);
                assert!(read.get("task").is_none());
            }
        }
    }
}
