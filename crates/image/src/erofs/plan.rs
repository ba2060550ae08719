//! Where everything goes.

use std::collections::BTreeMap;

use super::Unrepresentable;
use super::directory;
use super::format::{
    BLOCK_BYTES, DataLayout, INODE_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET,
};
use super::xattr;
use crate::tree::{Kind, NodeId, ROOT, Tree};

/// One inode's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) node: NodeId,
    /// Its directory; the root's is itself. Of a file with many names, the first one's.
    pub(crate) parent: NodeId,
    pub(crate) offset: u64,
    pub(crate) layout: DataLayout,
    pub(crate) bytes: u64,
    pub(crate) links: u32,
    /// Relative to the first data block.
    pub(crate) first_block: u64,
}

impl Placed {
    pub(crate) fn nid(&self) -> u64 {
        self.offset / SLOT_BYTES
    }

    /// Content that lies behind the inode instead of in blocks.
    pub(crate) fn tail_bytes(&self) -> u64 {
        match self.layout {
            DataLayout::Plain => 0,
            DataLayout::Inline => self.bytes % BLOCK_BYTES,
        }
    }

    /// Content that lies in blocks.
    pub(crate) fn block_content_bytes(&self) -> u64 {
        self.bytes - self.tail_bytes()
    }
}

/// A finished layout: inodes in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) placed: Vec<Placed>,
    /// Index into `placed`, by node.
    pub(crate) by_node: Vec<u32>,
    pub(crate) metadata_blocks: u64,
    pub(crate) data_blocks: u64,
}

impl Plan {
    pub(crate) fn of(&self, node: NodeId) -> &Placed {
        &self.placed[self.by_node[node.index()] as usize]
    }
}

const UNPLACED: u32 = u32::MAX;

/// Lays a tree out, directory by directory, so that what is listed together lies together.
pub(crate) fn plan(tree: &Tree) -> Result<Plan, Unrepresentable> {
    let mut plan = Plan {
        placed: Vec::with_capacity(tree.nodes_len()),
        by_node: vec![UNPLACED; tree.nodes_len()],
        metadata_blocks: 0,
        data_blocks: 0,
    };
    discover(tree, &mut plan);
    let mut at = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
    for placed in &mut plan.placed {
        let node = tree.node(placed.node);
        placed.bytes = match &node.kind {
            Kind::Directory(children) => directory_bytes(children)?,
            Kind::File(content) => content.bytes,
            Kind::Symlink(target) => target.len() as u64,
            Kind::Device(_) | Kind::Fifo => 0,
        };
        let header = INODE_BYTES + xattr::bytes(&node.meta.xattrs) as u64;
        (placed.offset, placed.layout) = position(at, header, placed.bytes % BLOCK_BYTES);
        at = (placed.offset + header + placed.tail_bytes()).next_multiple_of(SLOT_BYTES);
        placed.first_block = plan.data_blocks;
        plan.data_blocks += placed.block_content_bytes().div_ceil(BLOCK_BYTES);
    }
    plan.metadata_blocks = at.div_ceil(BLOCK_BYTES);
    match u32::try_from(plan.metadata_blocks + plan.data_blocks) {
        Ok(_) => Ok(plan),
        Err(_) => Err(Unrepresentable::Blocks),
    }
}

/// Lists every node once, breadth first, and counts its names.
fn discover(tree: &Tree, plan: &mut Plan) {
    let seen = |plan: &mut Plan, node: NodeId, parent: NodeId| {
        let slot = &mut plan.by_node[node.index()];
        if *slot != UNPLACED {
            plan.placed[*slot as usize].links += 1;
            return;
        }
        *slot = u32::try_from(plan.placed.len()).expect("a tree counts its nodes in 32 bits");
        plan.placed.push(Placed {
            node,
            parent,
            offset: 0,
            layout: DataLayout::Plain,
            bytes: 0,
            links: 1,
            first_block: 0,
        });
    };
    seen(plan, ROOT, ROOT);
    let mut next = 0;
    while next < plan.placed.len() {
        let directory = plan.placed[next].node;
        if let Kind::Directory(children) = &tree.node(directory).kind {
            // Its own `.`, and the `..` of each directory in it.
            plan.placed[next].links += 1;
            for child in children.values() {
                seen(plan, *child, directory);
                if matches!(tree.node(*child).kind, Kind::Directory(_)) {
                    plan.placed[next].links += 1;
                }
            }
        }
        next += 1;
    }
}

fn directory_bytes(children: &BTreeMap<Box<[u8]>, NodeId>) -> Result<u64, Unrepresentable> {
    let mut names: Vec<&[u8]> = children.keys().map(|name| &**name).collect();
    names.extend([&b"."[..], b".."]);
    names.sort_unstable();
    let bytes = directory::bytes(&names);
    match u32::try_from(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(Unrepresentable::Directory),
    }
}

/// Places an inode of `header` bytes (with attributes) and decides about its tail.
///
/// The 64 bytes of an inode do not cross a block's end, and a tail ends in the block in which
/// its inode begins: the kernel reads short symbolic links in one piece. Attributes may cross.
fn position(at: u64, header: u64, tail: u64) -> (u64, DataLayout) {
    let left = |offset: u64| BLOCK_BYTES - offset % BLOCK_BYTES;
    let here = if left(at) < INODE_BYTES {
        at.next_multiple_of(BLOCK_BYTES)
    } else {
        at
    };
    if tail == 0 {
        return (here, DataLayout::Plain);
    }
    let fits = |offset: u64| header + tail <= left(offset);
    if fits(here) {
        return (here, DataLayout::Inline);
    }
    let next = here.next_multiple_of(BLOCK_BYTES);
    // Starting a block for the tail's sake wastes what is left of this one; a block of its own
    // wastes what the tail does not fill.
    let wasted_by_next = next - here;
    let wasted_by_own_block = BLOCK_BYTES - tail;
    if fits(next) && wasted_by_next <= wasted_by_own_block {
        return (next, DataLayout::Inline);
    }
    (here, DataLayout::Plain)
}
