//! Follows a [`Plan`] from the first byte of the file to the last.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use super::directory::{self, Dirent};
use super::format::{
    BLOCK_BYTES, FileType, Inode, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock, device_number,
    seal,
};
use super::plan::{Placed, Plan};
use super::xattr;
use crate::layer::{DeviceKind, ReadAt};
use crate::tree::{Content, Kind, Node, NodeId, ROOT, Tree};

const COPY_BYTES: usize = 1 << 20;

/// Writes the image of `tree` to `out`, which is empty and at its start. `spools` hold the
/// layers by number.
pub(crate) fn write<R: ReadAt, W: Read + Write + Seek>(
    tree: &Tree,
    plan: &Plan,
    spools: &[R],
    uuid: [u8; 16],
    out: W,
) -> io::Result<W> {
    let mut writer = Writer {
        tree,
        plan,
        spools,
        out: BufWriter::with_capacity(COPY_BYTES, out),
        position: 0,
        buffer: vec![0; COPY_BYTES],
    };
    writer.superblock(uuid)?;
    for (serial, placed) in plan.placed.iter().enumerate() {
        writer.inode(serial, placed)?;
    }
    writer.pad_to(plan.metadata_blocks * BLOCK_BYTES)?;
    for placed in plan
        .placed
        .iter()
        .filter(|placed| placed.block_content_bytes() > 0)
    {
        writer.content(placed, 0, placed.block_content_bytes())?;
        writer.pad_to(writer.position.next_multiple_of(BLOCK_BYTES))?;
    }
    assert_eq!(
        writer.position,
        (plan.metadata_blocks + plan.data_blocks) * BLOCK_BYTES,
        "the plan and what was written are of one size"
    );
    let mut out = writer
        .out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let mut first_block = [0; 4096];
    out.seek(SeekFrom::Start(0))?;
    out.read_exact(&mut first_block)?;
    seal(&mut first_block);
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&first_block)?;
    Ok(out)
}

struct Writer<'a, R, W: Write> {
    tree: &'a Tree,
    plan: &'a Plan,
    spools: &'a [R],
    out: BufWriter<W>,
    position: u64,
    buffer: Vec<u8>,
}

impl<R: ReadAt, W: Write> Writer<'_, R, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.position < offset {
            let bytes = (offset - self.position).min(BLOCK_BYTES);
            self.put(&ZEROS[..usize::try_from(bytes).expect("at most a block")])?;
        }
        assert_eq!(self.position, offset, "the plan does not overlap");
        Ok(())
    }

    fn superblock(&mut self, uuid: [u8; 16]) -> io::Result<()> {
        self.pad_to(SUPERBLOCK_OFFSET)?;
        let blocks = self.plan.metadata_blocks + self.plan.data_blocks;
        let root = self.plan.of(ROOT).nid();
        let superblock = Superblock {
            root: u16::try_from(root).expect("the root is first"),
            inodes: self.plan.placed.len() as u64,
            blocks: u32::try_from(blocks).expect("checked by the plan"),
            uuid,
        };
        self.put(&superblock.encode())?;
        self.pad_to(SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES)
    }

    fn inode(&mut self, serial: usize, placed: &Placed) -> io::Result<()> {
        self.pad_to(placed.offset)?;
        let node = self.tree.node(placed.node);
        let block_or_device = match node.kind {
            Kind::Device(device) => device_number(device.major, device.minor),
            Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => {
                let block = self.plan.metadata_blocks + placed.first_block;
                u32::try_from(block).expect("checked by the plan")
            }
        };
        let inode = Inode {
            layout: placed.layout,
            xattr_count: xattr::count(&node.meta.xattrs),
            mode: file_type(node).mode_bits() | node.meta.mode,
            bytes: placed.bytes,
            block_or_device,
            serial: u32::try_from(serial + 1).expect("nodes are counted in 32 bits"),
            uid: node.meta.uid,
            gid: node.meta.gid,
            mtime_s: node.meta.mtime_s,
            mtime_ns: node.meta.mtime_ns,
            links: placed.links,
        };
        self.put(&inode.encode())?;
        self.put(&xattr::encode(&node.meta.xattrs))?;
        self.content(placed, placed.block_content_bytes(), placed.tail_bytes())
    }

    /// Writes `bytes` bytes of an inode's content from `from`.
    fn content(&mut self, placed: &Placed, from: u64, bytes: u64) -> io::Result<()> {
        let part = |whole: &[u8]| {
            let index = |n: u64| usize::try_from(n).expect("in memory");
            whole[index(from)..index(from + bytes)].to_vec()
        };
        match &self.tree.node(placed.node).kind {
            Kind::File(content) => self.copy(*content, from, bytes),
            Kind::Symlink(target) => self.put(&part(target)),
            Kind::Directory(_) if bytes > 0 => self.put(&part(&self.directory(placed))),
            Kind::Directory(_) | Kind::Device(_) | Kind::Fifo => Ok(()),
        }
    }

    fn copy(&mut self, content: Content, from: u64, bytes: u64) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        while done < bytes {
            let n = usize::try_from(bytes - done)
                .unwrap_or(COPY_BYTES)
                .min(COPY_BYTES);
            let spool = &self.spools[content.layer as usize];
            spool.read_exact_at(&mut buffer[..n], content.offset + from + done)?;
            self.put(&buffer[..n])?;
            done += n as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn directory(&self, placed: &Placed) -> Vec<u8> {
        let Kind::Directory(children) = &self.tree.node(placed.node).kind else {
            return vec![];
        };
        let dirent = |name, id: NodeId| Dirent {
            name,
            nid: self.plan.of(id).nid(),
            file_type: file_type(self.tree.node(id)),
        };
        let mut entries: Vec<Dirent<'_>> = children
            .iter()
            .map(|(name, id)| dirent(name, *id))
            .collect();
        entries.push(dirent(b".", placed.node));
        entries.push(dirent(b"..", placed.parent));
        entries.sort_unstable_by_key(|entry| entry.name);
        directory::encode(&entries)
    }
}

fn file_type(node: &Node) -> FileType {
    match node.kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Device(device) => match device.kind {
            DeviceKind::Character => FileType::Character,
            DeviceKind::Block => FileType::Block,
        },
        Kind::Fifo => FileType::Fifo,
    }
}
