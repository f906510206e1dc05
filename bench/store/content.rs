//! The bytes of a request, kept as they came: few of them in memory, more in a file that is written once, while they arrive.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checksum::{Checksum, Hasher};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use s3s::dto::StreamingBlob;
use s3s::{S3Result, s3_error};

/// What has no more bytes than this stays in memory: a file for each small object would cost more than its bytes do.
const SMALL: usize = 64 << 10;
/// What is read from a file at once.
const BLOCK: u64 = 512 << 10;

/// Where the files are.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: AtomicU64,
}

/// The bytes of one request, and their checksum. Its file goes when its last clone is dropped.
#[derive(Debug, Clone)]
pub struct Content {
    place: Place,
    checksum: Checksum,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Bytes),
    File(Arc<StoredFile>),
}

/// A file that is removed when dropped.
#[derive(Debug)]
struct StoredFile(PathBuf);

impl Drop for StoredFile {
    fn drop(&mut self) {
        // What stays behind goes with the folder.
        let _ = fs::remove_file(&self.0);
    }
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path, files: AtomicU64::new(0) }
    }

    /// Keeps all that the body brings.
    ///
    /// Written by the task that receives it, piece by piece: one has 350 KiB, which the page cache takes in about the time in which
    /// another thread would wake.
    pub async fn keep(&self, mut body: StreamingBlob) -> S3Result<Content> {
        let mut hasher = Hasher::new();
        let mut small = Vec::new();
        let mut large: Option<(StoredFile, File)> = None;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
            hasher.update(&piece);
            let written = match &mut large {
                Some((_, file)) => file.write_all(&piece),
                None if small.len() + piece.len() <= SMALL => small.write_all(&piece),
                None => self.create().and_then(|created| {
                    let (_, file) = large.insert(created);
                    file.write_all(&small)?;
                    file.write_all(&piece)
                }),
            };
            written.map_err(|error| s3_error!(error, InternalError))?;
        }
        let place = match large {
            Some((file, _)) => Place::File(Arc::new(file)),
            // Of the size that it has: the objects of a run are many.
            None => Place::Memory(small.into_boxed_slice().into()),
        };
        Ok(Content { place, checksum: hasher.finish() })
    }

    fn create(&self) -> io::Result<(StoredFile, File)> {
        let path = self.path.join(self.files.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::create_new(&path)?;
        Ok((StoredFile(path), file))
    }
}

impl Content {
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    fn read(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.slice(offset as usize..(offset + len) as usize)),
            Place::File(file) => {
                let mut block = vec![0; len as usize];
                File::open(&file.0)?.read_exact_at(&mut block, offset)?;
                Ok(block.into())
            }
        }
    }
}

/// The bytes from `start` to before `end` of all the contents, one after the other.
pub fn read(contents: &[Content], start: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + use<> {
    let mut blocks = Vec::new();
    let mut begin = 0;
    for content in contents {
        let len = content.checksum.len();
        let (mut offset, stop) = (start.saturating_sub(begin), len.min(end.saturating_sub(begin)));
        while offset < stop {
            let block = BLOCK.min(stop - offset);
            blocks.push((content.clone(), offset, block));
            offset += block;
        }
        begin += len;
    }
    futures::stream::iter(blocks).then(|(content, offset, len)| async move {
        tokio::task::spawn_blocking(move || content.read(offset, len)).await.map_err(io::Error::other)?
    })
}
