//! What a server serves: a tree of files, directories and links, named by bytes. It is also the model that a test
//! holds the bucket against.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Content;
use super::wire::Status;

/// One name in the tree.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: NodeKind,
    pub mtime: u32,
    /// Opening it, or listing it, is refused with `SSH_FX_PERMISSION_DENIED`.
    pub denied: bool,
    /// Opening it finds no such file, though it is listed: as if it was removed since.
    pub gone: bool,
    /// Looking it up fails with `SSH_FX_FAILURE`, as where its disk fails.
    pub broken: bool,
    /// What listings and stats say in place of the true size.
    pub claimed_size: Option<u64>,
    /// After this many bytes of it were served, it is another file under the same name.
    becomes: Option<(u64, Box<Node>)>,
    served: u64,
}

#[derive(Debug, Clone)]
pub enum NodeKind {
    File(Content),
    Directory(BTreeMap<Vec<u8>, Node>),
    /// Where it leads: absolute, or relative to its directory.
    Link(Vec<u8>),
    /// A pipe.
    Pipe,
}

impl Node {
    /// 2026-01-02T03:04:05Z, unless a test says otherwise.
    pub const MTIME: u32 = 1_767_323_045;

    pub fn new(kind: NodeKind) -> Self {
        Self {
            kind,
            mtime: Self::MTIME,
            denied: false,
            gone: false,
            broken: false,
            claimed_size: None,
            becomes: None,
            served: 0,
        }
    }

    pub fn file(content: impl Into<Content>) -> Self {
        Self::new(NodeKind::File(content.into()))
    }

    pub fn directory() -> Self {
        Self::new(NodeKind::Directory(BTreeMap::new()))
    }

    pub fn link(target: impl AsRef<[u8]>) -> Self {
        Self::new(NodeKind::Link(target.as_ref().to_vec()))
    }

    pub fn pipe() -> Self {
        Self::new(NodeKind::Pipe)
    }

    pub fn mtime(mut self, mtime: u32) -> Self {
        self.mtime = mtime;
        self
    }

    pub fn broken(mut self) -> Self {
        self.broken = true;
        self
    }

    pub fn denied(mut self) -> Self {
        self.denied = true;
        self
    }

    pub fn vanishing(mut self) -> Self {
        self.gone = true;
        self
    }

    pub fn claiming(mut self, size: u64) -> Self {
        self.claimed_size = Some(size);
        self
    }

    pub fn becoming(mut self, after_bytes: u64, node: Node) -> Self {
        self.becomes = Some((after_bytes, Box::new(node)));
        self
    }

    /// What stats say of its size.
    pub fn size(&self) -> u64 {
        self.claimed_size.unwrap_or(match &self.kind {
            NodeKind::File(content) => content.len(),
            NodeKind::Directory(_) => 4096,
            NodeKind::Link(target) => target.len() as u64,
            NodeKind::Pipe => 0,
        })
    }

    /// `st_mode`.
    pub fn mode(&self) -> u32 {
        match self.kind {
            NodeKind::File(_) => 0o100_644,
            NodeKind::Directory(_) => 0o040_755,
            NodeKind::Link(_) => 0o120_777,
            NodeKind::Pipe => 0o010_644,
        }
    }

    /// Notes that `bytes` of it were served, and turns it into what it becomes when that is due.
    pub(super) fn serve(&mut self, bytes: u64) {
        self.served += bytes;
        if let Some((_, next)) = self.becomes.take_if(|(after, _)| *after <= self.served) {
            *self = *next;
        }
    }
}

/// A tree from its root. Paths are absolute, their segments any bytes but `/`.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Node,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::directory() }
    }
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in `folder`, as it is now; contents are read when they are asked for. Links stay links.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        Ok(Self { root: node_on_disk(folder)? })
    }

    /// Puts `node` at `path`, and directories where they are missing on the way to it.
    pub fn put(&mut self, path: impl AsRef<[u8]>, node: Node) -> &mut Self {
        let mut segments = segments(path.as_ref()).peekable();
        let mut at = &mut self.root;
        while let Some(segment) = segments.next() {
            let NodeKind::Directory(children) = &mut at.kind else {
                panic!("{} leads through what is not a directory", path.as_ref().escape_ascii());
            };
            if segments.peek().is_none() {
                children.insert(segment.to_vec(), node);
                return self;
            }
            at = children.entry(segment.to_vec()).or_insert_with(Node::directory);
        }
        self.root = node;
        self
    }

    pub fn file(&mut self, path: impl AsRef<[u8]>, content: impl Into<Content>) -> &mut Self {
        self.put(path, Node::file(content))
    }

    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.put(path, Node::directory())
    }

    pub fn link(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.put(path, Node::link(target))
    }

    /// Puts `node` under a name that may be any bytes at all: how a hostile server names things.
    pub fn put_name(&mut self, directory: impl AsRef<[u8]>, name: impl AsRef<[u8]>, node: Node) -> &mut Self {
        match self.get_mut(directory.as_ref()).map(|node| &mut node.kind) {
            Some(NodeKind::Directory(children)) => children.insert(name.as_ref().to_vec(), node),
            _ => panic!("{} is not a directory", directory.as_ref().escape_ascii()),
        };
        self
    }

    /// What is at `path`, no link followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        segments(path).try_fold(&self.root, |at, segment| match &at.kind {
            NodeKind::Directory(children) => children.get(segment),
            _ => None,
        })
    }

    pub fn get_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        segments(path).try_fold(&mut self.root, |at, segment| match &mut at.kind {
            NodeKind::Directory(children) => children.get_mut(segment),
            _ => None,
        })
    }

    /// Every file below `directory`, with its path relative to it, in order. Links are not followed.
    pub fn files(&self, directory: &str) -> Vec<(Vec<u8>, &Content)> {
        let mut found = Vec::new();
        if let Some(node) = self.get(directory.as_bytes()) {
            collect(node, &mut Vec::new(), &mut found);
        }
        found
    }

    /// The path without links, `.` and `..` that `path` leads to; its last segment's own link is kept unless
    /// `follow_last`. What it names may be missing, as long as its directory is there.
    pub(super) fn resolve(&self, path: &[u8], home: &[u8], follow_last: bool) -> Result<Vec<u8>, Status> {
        let mut todo: Vec<Vec<u8>> = Vec::new();
        push_segments(&mut todo, path);
        if !path.starts_with(b"/") {
            push_segments(&mut todo, home);
        }
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(segment) = todo.pop() {
            match segment.as_slice() {
                b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(segment),
            }
            let node = self.get(&joined(&at));
            match node.map(|node| &node.kind) {
                Some(NodeKind::Link(target)) if follow_last || !todo.is_empty() => {
                    links += 1;
                    // As many as Linux follows.
                    if links > 40 {
                        return Err(Status::Failure);
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    } else {
                        at.pop();
                    }
                    push_segments(&mut todo, target);
                }
                Some(NodeKind::Directory(_)) => {}
                None | Some(_) if !todo.is_empty() => return Err(Status::NoSuchFile),
                _ => {}
            }
        }
        Ok(joined(&at))
    }
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty())
}

/// Puts the segments of `path` on a stack, the first on top.
fn push_segments(stack: &mut Vec<Vec<u8>>, path: &[u8]) {
    let segments: Vec<&[u8]> = segments(path).collect();
    stack.extend(segments.into_iter().rev().map(<[u8]>::to_vec));
}

fn joined(segments: &[Vec<u8>]) -> Vec<u8> {
    let mut path = vec![b'/'];
    path.extend_from_slice(&segments.join(&b'/'));
    path
}

fn collect<'a>(node: &'a Node, path: &mut Vec<Vec<u8>>, found: &mut Vec<(Vec<u8>, &'a Content)>) {
    match &node.kind {
        NodeKind::File(content) => found.push((path.join(&b'/'), content)),
        NodeKind::Directory(children) => {
            for (name, child) in children {
                path.push(name.clone());
                collect(child, path, found);
                path.pop();
            }
        }
        NodeKind::Link(_) | NodeKind::Pipe => {}
    }
}

fn node_on_disk(path: &Path) -> io::Result<Node> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = if metadata.is_dir() {
        let mut children = BTreeMap::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            children.insert(entry.file_name().as_bytes().to_vec(), node_on_disk(&entry.path())?);
        }
        NodeKind::Directory(children)
    } else if metadata.is_symlink() {
        NodeKind::Link(std::fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else if metadata.is_file() {
        NodeKind::File(Content::Disk { path: path.to_owned(), len: metadata.len() })
    } else {
        NodeKind::Pipe
    };
    Ok(Node::new(kind).mtime(u32::try_from(metadata.mtime()).unwrap_or(0)))
}
