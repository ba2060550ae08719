//! A layer unpacked into one temporary file, so that contents can be read by offset.
//!
//! The compression is recognised by its magic number, as every engine does; media types of real
//! registries are too often wrong.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{Digest, Hasher, HashingReader};
use crate::error::{COMPRESSION_RATIO_MAX, ImageError, Reason, Refused};
use crate::layer::ReadAt;

/// A file of known length that is read by offset.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    bytes: u64,
    /// SHA-256 of the whole, which the image's configuration calls the layer's diff id.
    pub(crate) diff_id: Digest,
}

impl Spool {
    pub(crate) fn into_file(self) -> File {
        self.file
    }
}

impl ReadAt for Spool {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
    fn total_bytes(&self) -> u64 {
        self.bytes
    }
}

/// Bytes that the layers of one image may still take, shared between layers in work.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    whole: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
            whole: bytes,
        }
    }

    fn take(&self, bytes: u64) -> Result<(), Reason> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map(|_| ())
            .map_err(|_| Reason::TooManyBytes(self.whole))
    }
}

/// A layer's blob before it is opened.
#[derive(Debug)]
pub(crate) struct Blob<R> {
    pub(crate) reader: R,
    /// Of the compressed bytes, as the manifest has them. None where nothing but the digest of
    /// the unpacked layer is known, which is checked later.
    pub(crate) digest: Option<Digest>,
    pub(crate) bytes: u64,
    /// For messages.
    pub(crate) name: String,
}

/// Unpacks a blob into `file`, checking its size and digest on the way.
pub(crate) fn spool<R: Read>(
    blob: Blob<R>,
    mut file: File,
    budget: &Budget,
) -> Result<Spool, ImageError> {
    let Blob {
        reader,
        digest,
        bytes,
        name,
    } = blob;
    let mut hashing = HashingReader::new(reader.take(bytes.saturating_add(1)));
    let unpacked = unpack(&mut hashing, &mut file, budget, bytes);
    if !matches!(unpacked, Err(Failure::Refused(_))) {
        // What follows the compressed stream counts for the digest.
        io::copy(&mut hashing, &mut io::sink()).map_err(ImageError::io(format!("read {name}")))?;
        let actual = hashing.hasher.bytes;
        if actual != bytes {
            return Err(ImageError::SizeMismatch {
                what: name,
                expected: bytes,
                actual,
            });
        }
        let actual = hashing.hasher.finish();
        if let Some(expected) = digest.filter(|digest| *digest != actual) {
            return Err(ImageError::DigestMismatch {
                what: name,
                expected,
                actual,
            });
        }
    }
    match unpacked {
        Ok((diff_id, bytes)) => Ok(Spool {
            file,
            bytes,
            diff_id,
        }),
        Err(Failure::Io(source)) => Err(ImageError::Io {
            doing: format!("write the unpacked {name}"),
            source,
        }),
        Err(Failure::Damaged(error)) => Err(refused(name, Reason::Compression(error.to_string()))),
        Err(Failure::Refused(reason)) => Err(refused(name, reason)),
    }
}

fn refused(layer: String, reason: Reason) -> ImageError {
    ImageError::Refused(Refused {
        layer,
        entry: "(the whole layer)".to_owned(),
        reason,
    })
}

enum Failure {
    Refused(Reason),
    Damaged(io::Error),
    Io(io::Error),
}

fn unpack(
    packed: &mut impl Read,
    file: &mut File,
    budget: &Budget,
    packed_bytes: u64,
) -> Result<(Digest, u64), Failure> {
    /// Small layers of mostly zeros compress very well and hurt nobody.
    const BYTES_WITHOUT_RATIO: u64 = 64 << 20;
    const BUFFER_BYTES: usize = 256 << 10;
    let bytes_max = packed_bytes
        .saturating_mul(COMPRESSION_RATIO_MAX)
        .max(BYTES_WITHOUT_RATIO);
    let mut reader = decoder(packed).map_err(Failure::Damaged)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => {
                let bytes = hasher.bytes;
                return Ok((hasher.finish(), bytes));
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Damaged(error)),
        };
        budget.take(n as u64).map_err(Failure::Refused)?;
        hasher.update(&buffer[..n]);
        if hasher.bytes > bytes_max {
            return Err(Failure::Refused(Reason::CompressionBomb));
        }
        file.write_all(&buffer[..n]).map_err(Failure::Io)?;
    }
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file that begins like this is one that [`spool`] unpacks.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(GZIP) || start.starts_with(ZSTD)
}

/// The reader that undoes the compression the stream begins with.
fn decoder<'r, R: Read>(packed: &'r mut R) -> io::Result<Box<dyn Read + 'r>> {
    /// 128 MiB of window, the most that the `zstd` command uses without being asked to.
    const ZSTD_WINDOW_LOG_MAX: u32 = 27;
    let mut magic = Vec::with_capacity(ZSTD.len());
    packed
        .by_ref()
        .take(ZSTD.len() as u64)
        .read_to_end(&mut magic)?;
    let start = io::Cursor::new(magic.clone());
    let whole = BufReader::with_capacity(64 << 10, start.chain(packed));
    if magic.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if magic == ZSTD {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(packed: &[u8], budget: u64) -> Result<Spool, ImageError> {
        let blob = Blob {
            reader: packed,
            digest: Some(Digest::of(packed)),
            bytes: packed.len() as u64,
            name: "layer 1".to_owned(),
        };
        spool(blob, tempfile::tempfile().unwrap(), &Budget::new(budget))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn reason(result: Result<Spool, ImageError>) -> Reason {
        match result {
            Err(ImageError::Refused(refused)) => refused.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_spool() {
        let text = b"some bytes ".repeat(1000);
        for packed in [
            text.clone(),
            gzip(&text),
            zstd::encode_all(&text[..], 3).unwrap(),
        ] {
            let spool = spooled(&packed, 1 << 20).unwrap();
            assert_eq!(spool.diff_id, Digest::of(&text));
            let mut end = [0; 11];
            spool
                .read_exact_at(&mut end, spool.total_bytes() - 11)
                .unwrap();
            assert_eq!(&end, b"some bytes ");
        }
    }

    #[test]
    fn a_gzip_stream_of_several_members_is_read_to_its_end() {
        let packed = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(
            spooled(&packed, 100).unwrap().diff_id,
            Digest::of(b"one two")
        );
    }

    #[test]
    fn a_layer_over_the_budget_is_refused() {
        assert_eq!(
            reason(spooled(&gzip(&[0; 5000]), 4999)),
            Reason::TooManyBytes(4999)
        );
    }

    #[test]
    fn a_zstd_bomb_is_refused_long_before_the_budget() {
        let zeros = io::repeat(0).take(300 << 20);
        let bomb = zstd::encode_all(zeros, 1).unwrap();
        assert!(bomb.len() < 60_000, "{}", bomb.len());
        assert_eq!(reason(spooled(&bomb, u64::MAX)), Reason::CompressionBomb);
    }

    #[test]
    fn damage_is_told_from_a_wrong_digest() {
        let mut packed = gzip(&b"some bytes ".repeat(1000));
        packed.truncate(packed.len() / 2);
        assert!(matches!(
            reason(spooled(&packed, 1 << 20)),
            Reason::Compression(_)
        ));
        let blob = Blob {
            reader: &b"other"[..],
            digest: Some(Digest::of(b"bytes")),
            bytes: 5,
            name: "layer 1".to_owned(),
        };
        let result = spool(blob, tempfile::tempfile().unwrap(), &Budget::new(100));
        assert!(matches!(result, Err(ImageError::DigestMismatch { .. })));
    }
}
