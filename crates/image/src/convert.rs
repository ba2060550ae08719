//! Spooled layers become one EROFS file.

use std::fs::File;
use std::io;

use crate::digest::Digest;
use crate::erofs;
use crate::error::{ImageError, Limits, Reason, Refused, printable};
use crate::layer::{Layer, LayerError, ReadAt};
use crate::tree::Tree;

/// Name of the root file system that these layers make: equal for equal layers and writer.
pub(crate) fn rootfs_id(layers: impl Iterator<Item = Digest>) -> Digest {
    let mut text = format!("erofs {}\n", erofs::WRITER_VERSION);
    for layer in layers {
        text.push_str(&layer.to_string());
        text.push('\n');
    }
    Digest::of(text.as_bytes())
}

/// What a layer is called in messages.
pub(crate) fn layer_name(index: usize, layers: usize, digest: &Digest) -> String {
    format!("layer {} of {layers} ({digest})", index + 1)
}

/// Merges layers, lowest first. `names` are for messages.
pub(crate) fn merge<R: ReadAt>(
    spools: &[R],
    names: &[String],
    limits: &Limits,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::new(limits.entries_max);
    for (index, (spool, name)) in spools.iter().zip(names).enumerate() {
        let number = u32::try_from(index).expect("layers are bounded");
        apply(&mut tree, number, spool, limits).map_err(|error| match error {
            LayerError::Refused { entry, reason } => ImageError::Refused(Refused {
                layer: name.clone(),
                entry,
                reason,
            }),
            LayerError::Io(source) => ImageError::Io {
                doing: format!("read {name}"),
                source,
            },
        })?;
    }
    Ok(tree)
}

/// The two passes of one layer; see [`Tree`].
fn apply<R: ReadAt + ?Sized>(
    tree: &mut Tree,
    number: u32,
    spool: &R,
    limits: &Limits,
) -> Result<(), LayerError> {
    let refuse = |path: &[u8], reason| LayerError::Refused {
        entry: printable(path),
        reason,
    };
    for (count, entry) in Layer::new(spool).enumerate() {
        let entry = entry?;
        if count >= limits.entries_max {
            return Err(refuse(
                &entry.path,
                Reason::TooManyEntries(limits.entries_max),
            ));
        }
        tree.take_away(&entry)
            .map_err(|reason| refuse(&entry.path, reason))?;
    }
    for entry in Layer::new(spool) {
        let entry = entry?;
        let path = entry.path.clone();
        tree.put(number, entry)
            .map_err(|reason| refuse(&path, reason))?;
    }
    Ok(())
}

/// Writes the merged layers to `out`, an empty file, and makes them durable.
pub(crate) fn write<R: ReadAt>(
    tree: &Tree,
    spools: &[R],
    id: &Digest,
    out: File,
) -> Result<u64, ImageError> {
    let plan = erofs::plan(tree).map_err(|error| ImageError::Unsupported {
        what: "the image's tree",
        why: error.to_string(),
    })?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&id.bytes()[..16]);
    let written = || ImageError::io("write the root file system image");
    let file = erofs::write(tree, &plan, spools, uuid, out).map_err(written())?;
    file.sync_all().map_err(written())?;
    Ok(file.metadata().map_err(written())?.len())
}

/// Reads `data` as a layer, merges it twice over itself and writes the result to memory.
///
/// For fuzzers and stored corpora: whatever the bytes are, this returns, within the memory that
/// small limits allow, and the answer is whether the layer was accepted.
pub fn fuzz_layer(data: &[u8]) -> bool {
    const LIMITS: Limits = Limits {
        unpacked_bytes_max: 1 << 20,
        entries_max: 2000,
    };
    let spools = [Slice(data), Slice(data)];
    let names = ["layer 1 of 2".to_owned(), "layer 2 of 2".to_owned()];
    let Ok(tree) = merge(&spools, &names, &LIMITS) else {
        return false;
    };
    let Ok(plan) = erofs::plan(&tree) else {
        return false;
    };
    /// Hard links cannot multiply content, but two layers of the same input double it.
    const BLOCKS_MAX: u64 = 16 << 10;
    if plan.metadata_blocks + plan.data_blocks > BLOCKS_MAX {
        return false;
    }
    erofs::write(&tree, &plan, &spools, [0; 16], io::Cursor::new(Vec::new())).is_ok()
}

/// A layer in memory.
struct Slice<'a>(&'a [u8]);

impl ReadAt for Slice<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }
}
