//! A logged-in session and its requests, each of which blocks until it is answered or timed out.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Shutdown, TcpStream};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ssh2::{File, FileStat, FileType};

use super::failure;
use crate::pulse::Pulse;
use crate::remote::listing::Listing;
use crate::remote::{Attributes, Chunk, DirEntry, Error, FileKind, Kind, RemotePath};

/// Bytes of one buffer that data is handed out in.
const PIECE: u64 = 1024 * 1024;
/// Most bytes that libssh2 is asked for in one call. It requests four times as many ahead.
const STEP: u64 = 512 * 1024;
/// To say goodbye in, when the connection is given up.
const GOODBYE_MS: u32 = 1000;

pub struct Session {
    // In the order in which libssh2 has to let go of them.
    file: Option<OpenFile>,
    sftp: ssh2::Sftp,
    ssh: ssh2::Session,
    socket: TcpStream,
    moves: Pulse,
}

/// The file that was read last, kept open for the part that follows.
struct OpenFile {
    path: RemotePath,
    file: File,
    /// Where the next part begins. A read from elsewhere, such as one that is tried again, opens the file anew: by now
    /// another may have taken its name.
    next: u64,
}

impl Session {
    /// `socket` is the one that `ssh` has.
    pub fn new(ssh: ssh2::Session, sftp: ssh2::Sftp, socket: TcpStream) -> Self {
        Self { file: None, sftp, ssh, socket, moves: Pulse::default() }
    }

    /// Counts the data and names that the server sends.
    pub fn counted_by(self, moves: Pulse) -> Self {
        Self { moves, ..self }
    }

    /// One message that asks for no answer. Not libssh2's own keepalive, which suspends the timeout of calls.
    pub fn keep_alive(&self) -> Result<(), Error> {
        self.ssh.set_keepalive(false, 1);
        let sent = self.ssh.keepalive_send();
        self.ssh.set_keepalive(false, 0);
        sent.map(|_| ()).map_err(|error| failure::of("keeping the connection alive", &error))
    }

    /// Ends a connection in good order.
    pub fn close(self) {
        let Self { file, sftp, ssh, .. } = self;
        ssh.set_timeout(GOODBYE_MS);
        drop(file);
        drop(sftp);
        // Nobody is left to tell of a failure.
        _ = ssh.disconnect(None, "done", None);
    }

    /// Ends a connection whose server is not expected to answer.
    pub fn abandon(self) {
        _ = self.socket.shutdown(Shutdown::Both);
        self.ssh.set_timeout(GOODBYE_MS);
    }

    pub fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        let found = self.sftp.realpath(local(path)?).map_err(|error| failure::of("resolving the path", &error))?;
        Ok(RemotePath::new(bytes(found)))
    }

    pub fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        let found = self.sftp.readlink(local(path)?).map_err(|error| failure::of("reading the link", &error))?;
        Ok(RemotePath::new(bytes(found)))
    }

    pub fn stat(&self, path: &RemotePath) -> Result<Attributes, Error> {
        let found = self.sftp.stat(local(path)?).map_err(|error| failure::of("looking the path up", &error))?;
        Ok(attributes(&found))
    }

    /// Hands over entries in batches of at most `most`, until there are none or `take` wants no more.
    pub fn list(
        &self,
        dir: &RemotePath,
        most: usize,
        mut take: impl FnMut(Vec<DirEntry>) -> bool,
    ) -> Result<(), Error> {
        let mut open = self.sftp.opendir(local(dir)?).map_err(|error| failure::of("opening the directory", &error))?;
        let mut batch = Vec::new();
        let mut listing = Listing::new(dir);
        loop {
            match open.readdir() {
                Ok((name, stat)) => {
                    self.moves.beat();
                    let name = bytes(name);
                    if !listing.admits(&name)? {
                        continue;
                    }
                    batch.push(DirEntry { name, attributes: attributes(&stat) });
                    if batch.len() == most && !take(std::mem::take(&mut batch)) {
                        return Ok(());
                    }
                }
                Err(error) if failure::is_end_of_directory(&error) => break,
                Err(error) => return Err(failure::of("reading the directory", &error)),
            }
        }
        listing.finish();
        take(batch);
        Ok(())
    }

    /// Stops early, with an error that nobody sees, once `wanted` says no.
    pub fn read(
        &mut self,
        path: &RemotePath,
        offset: u64,
        len: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Chunk, Error> {
        // Out of the session while it is in use: an error leaves it closed. So is another, before this one is opened: the
        // server may allow one alone.
        let kept = self.file.take().filter(|open| open.path == *path && open.next == offset);
        let mut open = match kept {
            Some(open) => open,
            None => {
                let file = self.sftp.open(local(path)?).map_err(|error| failure::of("opening the file", &error))?;
                OpenFile { path: path.clone(), file, next: offset }
            }
        };
        // Also forgets the few bytes that were requested past the last part's end, lest they are out of date.
        self.read_error(open.file.seek(SeekFrom::Start(offset)))?;

        let mut data = Vec::new();
        let mut left = len;
        let mut end_of_file = false;
        while left > 0 && !end_of_file {
            let mut piece = vec![0; usize_of(left.min(PIECE))];
            let mut filled = 0;
            while filled < piece.len() && !end_of_file {
                if !wanted() {
                    return Err(Error::new(Kind::Failed, "the read was given up"));
                }
                // Four times the step is requested ahead: a quarter of the rest makes that end with the part.
                let step = usize_of(left.div_ceil(4).min(STEP));
                let until = piece.len().min(filled + step);
                let count = self.read_error(open.file.read(&mut piece[filled..until]))?;
                end_of_file = count == 0;
                if !end_of_file {
                    self.moves.beat();
                }
                filled += count;
                left -= count as u64;
            }
            piece.truncate(filled);
            piece.shrink_to_fit();
            if !piece.is_empty() {
                data.push(Bytes::from(piece));
            }
        }
        let stat = open.file.stat().map_err(|error| failure::of("looking the open file up", &error))?;
        let attributes = attributes(&stat);
        open.next = offset + (len - left);
        // What was read to its end is not read on.
        if !end_of_file && attributes.size.is_none_or(|size| open.next < size) {
            self.file = Some(open);
        }
        Ok(Chunk { data, attributes })
    }

    /// `ssh2` drops the code of a failed read on the way into `std::io`, but the session still has it: all but the SFTP
    /// status, which only tells a file that is gone from the rest.
    fn read_error<T>(&self, result: std::io::Result<T>) -> Result<T, Error> {
        result.map_err(|error| {
            let session = ssh2::Error::last_session_error(&self.ssh);
            let kind = match session.as_ref().map(ssh2::Error::code) {
                _ if error.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
                Some(ssh2::ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_SFTP_PROTOCOL)) => Kind::Failed,
                _ => Kind::Lost,
            };
            let failed = Error::new(kind, failure::of_read(&error, session.as_ref()));
            session.map_or(failed.clone(), |session| failure::timely(&session, failed))
        })
    }
}

fn local(path: &RemotePath) -> Result<&Path, Error> {
    Ok(Path::new(OsStr::from_bytes(path.as_asked()?)))
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// Of a length that a buffer has.
fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn attributes(stat: &FileStat) -> Attributes {
    let kind = match stat.perm.map(|_| stat.file_type()) {
        None | Some(FileType::Other(0)) => FileKind::Unknown,
        Some(FileType::RegularFile) => FileKind::File,
        Some(FileType::Directory) => FileKind::Directory,
        Some(FileType::Symlink) => FileKind::Symlink,
        Some(_) => FileKind::Special,
    };
    // Version 3 has 32 bits for it.
    Attributes { size: stat.size, mtime: stat.mtime.map(|time| time as u32), kind }
}
