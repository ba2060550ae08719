//! The merge: layers, lowest first, become one tree whose file contents are ranges of the
//! layers.
//!
//! A layer acts in two passes: its whiteouts take things away from what the layers below left,
//! then its other entries are put in their places. So the order of whiteouts within a layer does
//! not matter, and a whiteout never hides what its own layer brings. Parents that are symbolic
//! links are followed inside the tree, as a process in the image would see them; a path that
//! climbs above the root that way is refused. Nothing here touches a file system.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{
    DEPTH_MAX, METADATA_BYTES_MAX, PATH_STEPS_MAX, Reason, SYMLINKS_FOLLOWED_MAX, printable,
};
use crate::layer::{Change, Device, Entry, Meta, split};

/// Place of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

/// The root directory of every tree.
pub(crate) const ROOT: NodeId = NodeId(0);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An inode. Two names of one node are hard links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub meta: Meta,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    File(Content),
    Symlink(Box<[u8]>),
    Device(Device),
    Fifo,
}

/// A range of a layer's spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub layer: u32,
    pub offset: u64,
    pub bytes: u64,
}

/// A file system tree in memory, without the contents of its files.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// Nodes that lost their last name stay until the tree goes; they are in no directory.
    nodes: Vec<Node>,
    entries_max: usize,
    metadata_bytes: usize,
    steps: u64,
}

/// What to do about directories on the way that are not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Stop,
}

impl Tree {
    /// An empty root directory that will hold at most `entries_max` nodes.
    pub(crate) fn new(entries_max: usize) -> Self {
        let root = Node {
            meta: Meta::implied_directory(),
            kind: Kind::Directory(BTreeMap::new()),
        };
        Self {
            nodes: vec![root],
            entries_max,
            metadata_bytes: 0,
            steps: 0,
        }
    }

    /// # Panics
    /// For an id of another tree.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn nodes_len(&self) -> usize {
        self.nodes.len()
    }

    /// First pass over a layer: takes away what a whiteout or opaque marker names.
    pub(crate) fn take_away(&mut self, entry: &Entry) -> Result<(), Reason> {
        match entry.change {
            Change::Whiteout => {
                let (parent, name) = split(&entry.path);
                if let Some(parent) = self.lower_directory(parent)? {
                    self.children_mut(parent).remove(name);
                }
            }
            Change::Opaque => {
                if let Some(directory) = self.lower_directory(&entry.path)? {
                    self.children_mut(directory).clear();
                }
            }
            Change::Directory(_)
            | Change::File { .. }
            | Change::Symlink { .. }
            | Change::HardLink { .. }
            | Change::Device { .. }
            | Change::Fifo(_) => {}
        }
        Ok(())
    }

    /// Second pass over layer number `layer`: puts an entry in its place.
    pub(crate) fn put(&mut self, layer: u32, entry: Entry) -> Result<(), Reason> {
        let (meta, kind) = match entry.change {
            Change::Whiteout | Change::Opaque => return Ok(()),
            Change::Directory(meta) => return self.put_directory(&entry.path, meta),
            Change::HardLink { target } => return self.put_link(&entry.path, &target),
            Change::File {
                meta,
                offset,
                bytes,
            } => (
                meta,
                Kind::File(Content {
                    layer,
                    offset,
                    bytes,
                }),
            ),
            Change::Symlink { meta, target } => (meta, Kind::Symlink(target)),
            Change::Device { meta, device } => (meta, Kind::Device(device)),
            Change::Fifo(meta) => (meta, Kind::Fifo),
        };
        let (parent, name) = self.place(&entry.path)?;
        let id = self.add(meta, kind)?;
        self.name(parent, name, id)
    }

    fn put_directory(&mut self, path: &[u8], meta: Meta) -> Result<(), Reason> {
        if path.is_empty() {
            self.nodes[ROOT.index()].meta = meta;
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        if let Some(id) = self.child(parent, name)
            && self.is_directory(id)
        {
            self.count(xattr_bytes(&meta))?;
            self.nodes[id.index()].meta = meta;
            return Ok(());
        }
        let id = self.add(meta, Kind::Directory(BTreeMap::new()))?;
        self.name(parent, name, id)
    }

    fn put_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Reason> {
        let missing = || Reason::HardLinkTarget {
            target: printable(target),
        };
        let (parent, name) = split(target);
        let parent = self.walk(parent, Missing::Stop)?.ok_or_else(missing)?;
        let id = self.child(parent, name).ok_or_else(missing)?;
        if self.is_directory(id) {
            return Err(Reason::HardLinkToDirectory {
                target: printable(target),
            });
        }
        let (parent, name) = self.place(path)?;
        self.name(parent, name, id)
    }

    /// The directory an entry belongs in and its name there.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(NodeId, &'p [u8]), Reason> {
        let (parent, name) = split(path);
        if name.is_empty() {
            return Err(Reason::RootNotDirectory);
        }
        let parent = self.walk(parent, Missing::Create)?;
        Ok((parent.expect("missing directories are created"), name))
    }

    /// A directory for a whiteout to work in; where there is none, nothing is hidden.
    fn lower_directory(&mut self, path: &[u8]) -> Result<Option<NodeId>, Reason> {
        match self.walk(path, Missing::Stop) {
            Err(Reason::ParentNotDirectory) => Ok(None),
            other => other,
        }
    }

    /// Follows a path to a directory, through symbolic links.
    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<Option<NodeId>, Reason> {
        let mut way = vec![ROOT];
        let mut links = 0;
        let mut todo: Vec<Cow<'_, [u8]>> = components(path).rev().map(Cow::Borrowed).collect();
        while let Some(name) = todo.pop() {
            self.steps += 1;
            if self.steps > PATH_STEPS_MAX {
                return Err(Reason::TooManySteps);
            }
            let here = *way.last().expect("the root stays");
            if *name == *b".." {
                if way.len() == 1 {
                    return Err(Reason::LeavesRoot);
                }
                way.pop();
                continue;
            }
            let id = match (self.child(here, &name), missing) {
                (Some(id), _) => id,
                (None, Missing::Stop) => return Ok(None),
                (None, Missing::Create) => {
                    let directory = Kind::Directory(BTreeMap::new());
                    let id = self.add(Meta::implied_directory(), directory)?;
                    self.name(here, &name, id)?;
                    id
                }
            };
            match &self.node(id).kind {
                Kind::Directory(_) => way.push(id),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > SYMLINKS_FOLLOWED_MAX {
                        return Err(Reason::SymlinkLoop);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(components(target).rev().map(|c| Cow::Owned(c.to_vec())));
                }
                Kind::File(_) | Kind::Device(_) | Kind::Fifo => {
                    return Err(Reason::ParentNotDirectory);
                }
            }
            if way.len() > DEPTH_MAX {
                return Err(Reason::TooDeep);
            }
        }
        Ok(way.last().copied())
    }

    fn add(&mut self, meta: Meta, kind: Kind) -> Result<NodeId, Reason> {
        if self.nodes.len() >= self.entries_max {
            return Err(Reason::TooManyEntries(self.entries_max));
        }
        let target_bytes = if let Kind::Symlink(target) = &kind {
            target.len()
        } else {
            0
        };
        self.count(target_bytes + xattr_bytes(&meta))?;
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| Reason::TooManyEntries(self.entries_max))?;
        self.nodes.push(Node { meta, kind });
        Ok(NodeId(id))
    }

    fn name(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), Reason> {
        if name.len() > crate::error::NAME_BYTES_MAX {
            return Err(Reason::NameTooLong);
        }
        self.count(name.len())?;
        self.children_mut(parent).insert(name.into(), id);
        Ok(())
    }

    /// What was replaced stays counted: the bound is on the work a stranger can cause.
    fn count(&mut self, bytes: usize) -> Result<(), Reason> {
        self.metadata_bytes += bytes;
        if self.metadata_bytes > METADATA_BYTES_MAX {
            return Err(Reason::TooMuchMetadata);
        }
        Ok(())
    }

    fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, Kind::Directory(_))
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(children) => children.get(name).copied(),
            Kind::File(_) | Kind::Symlink(_) | Kind::Device(_) | Kind::Fifo => None,
        }
    }

    fn children_mut(&mut self, id: NodeId) -> &mut BTreeMap<Box<[u8]>, NodeId> {
        match &mut self.nodes[id.index()].kind {
            Kind::Directory(children) => children,
            Kind::File(_) | Kind::Symlink(_) | Kind::Device(_) | Kind::Fifo => {
                unreachable!("only directories are walked to")
            }
        }
    }
}

fn xattr_bytes(meta: &Meta) -> usize {
    meta.xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|c| !matches!(c, [] | [b'.']))
}

#[cfg(test)]
mod tests;
