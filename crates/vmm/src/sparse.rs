//! Files that are mostly holes, as disks are.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Calls `f` with the beginning and end of everything that is no hole, in order (lseek(2),
/// `SEEK_DATA` and `SEEK_HOLE`).
///
/// # Errors
/// If the file cannot be searched, or the first of `f`.
pub fn for_each_extent(
    file: &File,
    mut f: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let length = file.metadata()?.len();
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        // Never negative: that is an error.
        lseek(file, at, whence).map(i64::unsigned_abs)
    };
    let mut at = 0;
    while at < length {
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(start, Whence::SeekHole)?.min(length);
        if end <= start {
            return Ok(());
        }
        f(start, end)?;
        at = end;
    }
    Ok(())
}

/// Copies what is no hole into the empty file `to`.
///
/// # Errors
/// If either cannot be read or written, or `from` becomes shorter meanwhile.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    for_each_extent(from, |start, end| {
        let (mut from, mut to) = (from, to);
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut from.take(end - start), &mut to)?;
        match copied == end - start {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    })
}
