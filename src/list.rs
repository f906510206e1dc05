//! The remote directory, or its tree, as a list of what could be transferred. Decides nothing but where to descend.
//!
//! Directories are read side by side. Symbolic links are followed; a link that leads back up its own path, or through
//! more links than `MOST_LINKS`, is not descended into, so that the walk ends whatever the links are.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::remote::pool::Pool;
use crate::remote::{Attributes, DirEntry, Error, FileKind, Kind, RemotePath};
use crate::retry::Retry;
use crate::select::{Rules, SkipReason};

mod room;

use room::Room;

/// Directories and link targets asked for at once.
const AT_ONCE: usize = 16;
/// Bytes of a path; longer ones cannot be opened anywhere, and end a tree without an end.
const LONGEST_PATH: usize = 4096;
/// Most links to directories on one path.
const MOST_LINKS: usize = 8;
/// Links that lead to one another and are no loop yet: as many as Linux follows.
const LINKS_IN_A_ROW: usize = 40;

/// Something in the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the listed directory.
    pub path: RemotePath,
    /// Of the target, where the entry is a link.
    pub attributes: Attributes,
}

/// What the walk found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Everything but directories, sorted by path.
    pub entries: Vec<Entry>,
    /// Links that lead nowhere useful.
    pub skipped: Vec<(RemotePath, SkipReason)>,
    /// What could not be looked into.
    pub unreadable: Vec<Unreadable>,
}

/// A subdirectory that could not be listed, or a link whose target could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct Unreadable {
    /// Relative to the listed directory.
    pub path: RemotePath,
    pub kind: FileKind,
    pub error: Error,
}

/// Lists `root`, and the subdirectories that `rules` descend into.
///
/// # Errors
///
/// Where `root` itself cannot be listed, no connection is left, or there is more than a run may list.
pub async fn list(pool: &Pool, retry: &Retry, root: &RemotePath, rules: &Rules) -> Result<Listing, Error> {
    Walk { pool, retry, root, rules, room: Room::default() }.list().await
}

/// A directory to be read.
#[derive(Debug, Clone)]
struct Directory {
    /// Relative to the root; empty for the root.
    path: RemotePath,
    /// Links on this path.
    links: usize,
    /// The server's own paths of the directories that hold those links, and of those that they lead to.
    passed: Arc<[RemotePath]>,
}

impl Directory {
    fn root() -> Self {
        Self { path: RemotePath::new(Vec::new()), links: 0, passed: Arc::default() }
    }

    fn is_root(&self) -> bool {
        self.path.as_bytes().is_empty()
    }
}

/// What one directory holds.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    skipped: Vec<(RemotePath, SkipReason)>,
    unreadable: Vec<Unreadable>,
    directories: Vec<Directory>,
}

struct Walk<'a> {
    pool: &'a Pool,
    retry: &'a Retry,
    root: &'a RemotePath,
    rules: &'a Rules,
    room: Room,
}

impl Walk<'_> {
    async fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut waiting = vec![Directory::root()];
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < AT_ONCE {
                let Some(directory) = waiting.pop() else { break };
                reading.push(self.read(directory));
            }
            let Some((directory, result)) = reading.next().await else { break };
            match result {
                Ok(found) => {
                    listing.entries.extend(found.entries);
                    listing.skipped.extend(found.skipped);
                    listing.unreadable.extend(found.unreadable);
                    waiting.extend(found.directories);
                }
                Err(_) if self.room.is_full() => return Err(self.room.too_little()),
                Err(error) if directory.is_root() || !is_of_one_path(&error) => return Err(error),
                Err(error) => {
                    listing.unreadable.push(Unreadable { path: directory.path, kind: FileKind::Directory, error });
                }
            }
        }
        listing.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        // A directory that changes while it is read may tell a name twice.
        listing.entries.dedup_by(|a, b| a.path == b.path);
        listing.skipped.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        listing.unreadable.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    async fn read(&self, directory: Directory) -> (Directory, Result<Found, Error>) {
        let found = self.read_directory(&directory).await;
        (directory, found)
    }

    async fn read_directory(&self, directory: &Directory) -> Result<Found, Error> {
        let names = self.names(&directory.path).await?;
        let mut found = Found::default();
        let mut unclear = Vec::new();
        for name in names {
            let path = directory.path.join(&name.name);
            if path.as_bytes().len() > LONGEST_PATH {
                let error = Error::new(Kind::Failed, format!("the path is longer than {LONGEST_PATH} bytes"));
                found.unreadable.push(Unreadable { path, kind: name.attributes.kind, error });
                continue;
            }
            match name.attributes.kind {
                FileKind::Directory => {
                    if self.rules.descends_into(&path) {
                        found.directories.push(Directory { path, ..directory.clone() });
                    }
                }
                // Without a size or a kind the listing is not enough to read the file by: the server is asked.
                FileKind::Symlink | FileKind::Unknown => unclear.push(Entry { path, attributes: name.attributes }),
                FileKind::File if name.attributes.size.is_none() || name.attributes.mtime.is_none() => {
                    unclear.push(Entry { path, attributes: name.attributes });
                }
                FileKind::File | FileKind::Special => found.entries.push(Entry { path, attributes: name.attributes }),
            }
        }
        let follow = unclear.into_iter().map(|entry| self.follow(directory, entry));
        let mut followed = futures::stream::iter(follow).buffer_unordered(AT_ONCE);
        while let Some(target) = followed.next().await {
            match target? {
                Target::Entry(entry) => found.entries.push(entry),
                Target::Directory(directory) => found.directories.push(directory),
                Target::Skipped(path, reason) => found.skipped.push((path, reason)),
                Target::Unreadable(unreadable) => found.unreadable.push(unreadable),
            }
        }
        Ok(found)
    }

    async fn names(&self, directory: &RemotePath) -> Result<Vec<DirEntry>, Error> {
        let absolute = self.absolute(directory);
        self.retry
            .run(Error::may_pass, |_| async {
                let mut names = Vec::new();
                let mut taken = self.room.begin();
                let mut each = |name: DirEntry| {
                    taken.path(directory.as_bytes().len() + 1 + name.name.len())?;
                    names.push(name);
                    Ok(())
                };
                let listed = self.pool.lease().await?.list(&absolute, &mut each).await;
                // What is asked for again is counted again; what has no end is not asked for a hundred times.
                if !listed.as_ref().is_err_and(Error::may_pass) {
                    taken.keep();
                }
                listed.map(|()| names)
            })
            .await
    }

    /// What an entry is that the listing does not tell enough of: a link's target, or itself.
    async fn follow(&self, directory: &Directory, entry: Entry) -> Result<Target, Error> {
        let Entry { path, attributes: listed } = entry;
        let absolute = self.absolute(&path);
        let stat = |_| async { self.pool.lease().await?.stat(&absolute).await };
        let attributes = match self.retry.run(Error::may_pass, stat).await {
            Ok(attributes) => attributes,
            Err(error) => return self.not_followed(path, listed, error).await,
        };
        if attributes.kind != FileKind::Directory {
            return Ok(Target::Entry(Entry { path, attributes }));
        }
        if !self.rules.descends_into(&path) {
            return Ok(Target::Skipped(path, SkipReason::Directory));
        }
        let resolved = async {
            let target = self.canonical(&absolute).await?;
            let here = self.canonical(&self.absolute(&directory.path)).await?;
            Ok((here, target))
        };
        let (here, target) = match resolved.await {
            Ok(resolved) => resolved,
            Err(error) => return self.not_followed(path, listed, error).await,
        };
        let loops = is_within(&here, &target) || directory.passed.iter().any(|passed| is_within(passed, &target));
        if loops || directory.links >= MOST_LINKS {
            return Ok(Target::Skipped(path, SkipReason::LinkLoop));
        }
        let passed: Vec<_> = directory.passed.iter().cloned().chain([here, target]).collect();
        let mut taken = self.room.begin();
        passed.iter().try_for_each(|path| taken.path(path.as_bytes().len()))?;
        taken.keep();
        Ok(Target::Directory(Directory { path, links: directory.links + 1, passed: passed.into() }))
    }

    /// What becomes of an entry that could not be looked at.
    async fn not_followed(&self, path: RemotePath, listed: Attributes, error: Error) -> Result<Target, Error> {
        match (listed.kind, error.kind) {
            _ if !is_of_one_path(&error) => Err(error),
            (FileKind::Symlink, Kind::NotFound) => Ok(Target::Skipped(path, SkipReason::LinkDangling)),
            // What POSIX calls ELOOP has no status of its own: a disk that fails says the same.
            (FileKind::Symlink, Kind::Failed) if self.leads_nowhere(&path).await? => {
                Ok(Target::Skipped(path, SkipReason::LinkLoop))
            }
            (FileKind::Symlink, _) => Ok(Target::Unreadable(Unreadable { path, kind: FileKind::Symlink, error })),
            _ => Ok(Target::Entry(Entry { path, attributes: listed })),
        }
    }

    /// Whether one link leads to another and never to anything else.
    async fn leads_nowhere(&self, link: &RemotePath) -> Result<bool, Error> {
        let mut passed = vec![self.absolute(link)];
        while let Some(at) = passed.last().filter(|_| passed.len() <= LINKS_IN_A_ROW) {
            let read = |_| async { self.pool.lease().await?.read_link(at).await };
            let next = match self.retry.run(Error::may_pass, read).await {
                Ok(target) => at.beside(&target),
                Err(error) if is_of_one_path(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            if passed.iter().any(|link| is_within(&next, link)) {
                return Ok(true);
            }
            passed.push(next);
        }
        Ok(true)
    }

    async fn canonical(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        self.retry.run(Error::may_pass, |_| async { self.pool.lease().await?.canonicalize(path).await }).await
    }

    fn absolute(&self, path: &RemotePath) -> RemotePath {
        if path.as_bytes().is_empty() { self.root.clone() } else { self.root.join(path.as_bytes()) }
    }
}

enum Target {
    Entry(Entry),
    Directory(Directory),
    Skipped(RemotePath, SkipReason),
    Unreadable(Unreadable),
}

/// Whether an error concerns the path that was asked for, and not the connection.
fn is_of_one_path(error: &Error) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Failed)
}

/// Whether `path` is `ancestor` or lies below it; both as the server's own absolute paths.
fn is_within(path: &RemotePath, ancestor: &RemotePath) -> bool {
    let (path, ancestor) = (path.as_bytes(), ancestor.as_bytes());
    let ancestor = ancestor.strip_suffix(b"/").unwrap_or(ancestor);
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::remote::{Chunk, Each, Engine, Remote, ServerInfo};

    const ROOT: &str = "/out";

    /// A server each of whose directories has a hundred more, of long names.
    #[derive(Clone, Default)]
    struct Endless {
        info: ServerInfo,
        /// All but the root are too long to be listed to their end.
        too_long: bool,
    }

    #[async_trait]
    impl Engine for Endless {
        async fn connect(&self) -> Result<Box<dyn Remote>, Error> {
            Ok(Box::new(self.clone()))
        }
    }

    #[async_trait]
    impl Remote for Endless {
        fn server(&self) -> &ServerInfo {
            &self.info
        }

        fn concurrency(&self) -> usize {
            100
        }

        fn is_lost(&self) -> bool {
            false
        }

        async fn canonicalize(&self, path: &RemotePath) -> Result<RemotePath, Error> {
            Ok(path.clone())
        }

        async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
            Ok(path.clone())
        }

        async fn stat(&self, _: &RemotePath) -> Result<Attributes, Error> {
            Ok(Attributes::default())
        }

        async fn list(&self, dir: &RemotePath, each: &mut Each<'_>) -> Result<(), Error> {
            let attributes = Attributes { kind: FileKind::Directory, ..Attributes::default() };
            (100..200).try_for_each(|name| each(DirEntry { name: format!("{name:0200}").into_bytes(), attributes }))?;
            if self.too_long && *dir != RemotePath::from(ROOT) {
                return Err(Error::new(Kind::Failed, "too long").lasting());
            }
            Ok(())
        }

        async fn read(&self, path: &RemotePath, _: u64, _: u64) -> Result<Chunk, Error> {
            Err(Error::new(Kind::NotFound, path.to_text()))
        }
    }

    #[tokio::test]
    async fn a_tree_without_end_or_of_listings_without_end_ends_the_run() {
        for too_long in [false, true] {
            let retry = Retry { max_attempts: NonZeroU32::MIN, stop: CancellationToken::new() };
            let server = Endless { too_long, ..Endless::default() };
            let pool = Pool::open(Arc::new(server), NonZeroUsize::MIN, retry.clone()).await.expect("a pool");
            let (root, rules) = (RemotePath::from(ROOT), Rules { recursive: true, ..Rules::default() });
            let walk = Walk { pool: &pool, retry: &retry, root: &root, rules: &rules, room: Room::of(2 << 20) };
            let error = walk.list().await.expect_err("it has no end");
            assert_eq!(error.kind, Kind::Failed, "{error}");
            assert!(error.to_string().contains("EXCLUDE"), "{error}");
        }
    }

    #[test]
    fn a_directory_lies_within_itself_and_what_holds_it() {
        for (path, ancestor, within) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
        ] {
            assert_eq!(is_within(&path.into(), &ancestor.into()), within, "{path} in {ancestor}");
        }
    }
}
