//! The files that are open on a connection. Ranges of one file that are read side by side, or one after the other, share a
//! handle: a large file is opened once and not once for each range.
//!
//! A handle outlives its readers only where more of its file is likely to be asked for, one at most, and not while another
//! file waits to be opened: a server may allow a single one. It is used for what lies behind the last range alone: a range
//! that is read again, or a file from its start, is read of whatever has the name by now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;

use super::session::{Handle, Session};
use crate::remote::protocol::Request;
use crate::remote::{Error, RemotePath};

/// The open files of one connection.
#[derive(Default)]
pub struct Files {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that somebody reads, or that are kept.
    open: HashMap<RemotePath, Weak<OpenFile>>,
    /// Read last, and not to its end: the file, and where the range ended.
    kept: Option<(Arc<OpenFile>, u64)>,
    /// Handles that are being opened.
    opening: usize,
}

struct OpenFile {
    path: RemotePath,
    handle: OnceCell<Arc<Handle>>,
}

/// One hold on an open file. The last one's end closes it.
struct Hold<'a> {
    files: &'a Files,
    /// `None` once it was passed on.
    file: Option<Arc<OpenFile>>,
}

/// A file to read from.
pub struct Reader<'a> {
    hold: Hold<'a>,
    pub handle: Arc<Handle>,
}

impl Files {
    /// The file at `path` to read from `offset`, opened unless it is open.
    pub async fn open(&self, session: &Session, path: &RemotePath, offset: u64) -> Result<Reader<'_>, Error> {
        let request = Request::Open { path: path.as_asked()? };
        let joined = self.lock().join(path, offset, session.handle_is_wanted());
        let hold = Hold { files: self, file: Some(joined.clone()) };
        // Behind the hold, so that it is dropped before: the last hold tells the last reader by the count.
        let file = joined;
        // Whoever wants the same file meanwhile waits for the same handle, or tries to get it next.
        let open = || async {
            let _opening = self.opening();
            session.open(request).await.map(Arc::new)
        };
        let opened = file.handle.get_or_try_init(open).await;
        let handle = opened.map_err(|failure| failure.into_error(format_args!("open {path}")))?.clone();
        Ok(Reader { hold, handle })
    }

    /// Closes the file that nobody reads, and keeps none until what is returned is dropped.
    pub fn opening(&self) -> Opening<'_> {
        let mut state = self.lock();
        state.opening += 1;
        state.let_go();
        Opening(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The open file of this path, or one that is to be opened: anew where a range is read again, and where somebody waits
    /// for a handle, who would wait for ever if readers of one file followed each other without end.
    fn join(&mut self, path: &RemotePath, offset: u64, handle_is_wanted: bool) -> Arc<OpenFile> {
        if self.kept.as_ref().is_some_and(|(kept, end)| kept.path == *path && offset < *end) {
            self.let_go();
            self.open.remove(path);
        }
        if let Some(file) = self.open.get(path).and_then(Weak::upgrade)
            && !(handle_is_wanted && file.handle.initialized())
        {
            return file;
        }
        let file = Arc::new(OpenFile { path: path.clone(), handle: OnceCell::new() });
        self.open.insert(path.clone(), Arc::downgrade(&file));
        file
    }

    /// One hold less.
    fn leave(&mut self, file: Arc<OpenFile>) {
        if Arc::strong_count(&file) == 1 && self.is_known(&file) {
            self.open.remove(&file.path);
        }
    }

    /// Closes what is kept.
    fn let_go(&mut self) {
        if let Some((kept, _)) = self.kept.take() {
            self.leave(kept);
        }
    }

    /// Whether the next reader of its path gets this one.
    fn is_known(&self, file: &Arc<OpenFile>) -> bool {
        self.open.get(&file.path).is_some_and(|known| Weak::ptr_eq(known, &Arc::downgrade(file)))
    }
}

/// Something is being opened.
pub struct Opening<'a>(&'a Files);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().opening -= 1;
    }
}

impl Reader<'_> {
    /// Done up to `end`, with more of the file to be read by whoever comes next.
    pub fn keep(mut self, end: u64) {
        let mut state = self.hold.files.lock();
        if let Some(file) = self.hold.file.take_if(|file| state.opening == 0 && state.is_known(file)) {
            state.let_go();
            state.kept = Some((file, end));
        }
        // Released before `self` is, which takes the lock.
        drop(state);
    }

    /// Done to the file's end: nobody is expected to come.
    pub fn finish(self) {
        let mut state = self.hold.files.lock();
        if let (Some(file), Some((kept, _))) = (&self.hold.file, &state.kept)
            && Arc::ptr_eq(file, kept)
        {
            state.let_go();
        }
        // As above.
        drop(state);
    }

    /// Reading it failed: whoever comes next opens the file anew.
    pub fn forget(self) {
        let mut state = self.hold.files.lock();
        if let Some(file) = &self.hold.file
            && state.is_known(file)
        {
            state.open.remove(&file.path);
            state.kept.take_if(|(kept, _)| Arc::ptr_eq(kept, file));
        }
        // As above.
        drop(state);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.files.lock().leave(file);
        }
    }
}
