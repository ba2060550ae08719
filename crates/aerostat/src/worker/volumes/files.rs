//! The files of volumes and snapshots. Everything here blocks.
//!
//! ```text
//!  <data>/volumes/                  0700
//!    vol_…/disk.ext4                the file system; owner: the user of the VMM that has it, or root
//!    vol_…/disk.ext4.new            one that is being made; renamed when it is whole and on disk
//!    vs_…/disk.ext4                 a snapshot
//! ```
//!
//! Two locks (flock(2)), both of which end with whoever holds them:
//! - on the directory: one worker at a time works on the file. Programs that it starts inherit it,
//!   so that one which outlives its worker keeps the next one waiting.
//! - on the file: exclusive while a machine has it or its file system is being resized, shared
//!   while it is copied. Two VMMs never have the same file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    chown,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use types::VolumeId;
use vmm::sparse;

use super::copy::{self, Stillness};
use super::crash_point;
use super::superblock::{self, Superblock};

const DISK: &str = "disk.ext4";
const NEW: &str = "disk.ext4.new";
/// Where e2fsprogs are, also when the daemon was started with a poor PATH.
const PROGRAMS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// What has to stay free on the disk, for the ledger and the log.
const RESERVE_BYTES: u64 = 64 << 20;
/// Of what a failing program says, so much is told.
const OUTPUT_CHARS_MAX: usize = 400;

/// Something that could not be done with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{program} says: {output}")]
    Program {
        program: &'static str,
        output: String,
    },
    #[error("the disk is full: {needed} bytes are needed, {free} are free")]
    DiskFull { needed: u64, free: u64 },
    #[error("{} is in use", path.display())]
    InUse { path: PathBuf },
}

impl FileError {
    pub(super) fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Program { output, .. } => output.contains("No space left"),
            Self::InUse { .. } => false,
        }
    }
}

pub(super) fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> FileError + use<'a> {
    move |source| FileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// What a file takes and what its file system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) allocated_bytes: u64,
    pub(super) superblock: Superblock,
}

/// The folder of volumes and snapshots.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
    reflink: bool,
}

/// The right to work on one directory of [`Files`].
struct Work {
    dir: PathBuf,
    lock: File,
}

impl Files {
    /// Makes the folder if it is not there, and finds out what its file system can do.
    pub(super) fn open(root: &Path) -> Result<Self, FileError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(root);
        made.map_err(failed("make directory", root))?;
        let reflink = copy::can_reflink(root)?;
        let root = root.to_owned();
        Ok(Self { root, reflink })
    }

    /// Whether a copy shares its blocks with the original, and is one moment of it.
    pub(super) fn reflink(&self) -> bool {
        self.reflink
    }

    /// The file of a volume or snapshot.
    pub(super) fn disk(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DISK)
    }

    /// What is there, by name.
    pub(super) fn names(&self) -> Result<Vec<String>, FileError> {
        let failed = failed("read directory", &self.root);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Bytes of the disk that nobody has.
    pub(super) fn free_bytes(&self) -> Result<u64, FileError> {
        let measured = nix::sys::statvfs::statvfs(&self.root);
        let disk = measured.map_err(|e| failed("measure the disk of", &self.root)(e.into()))?;
        Ok((disk.blocks_available() * disk.fragment_size()).saturating_sub(RESERVE_BYTES))
    }

    fn work(&self, name: &str) -> Result<Work, FileError> {
        let dir = self.root.join(name);
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&dir);
        made.map_err(failed("make directory", &dir))?;
        let lock = File::open(&dir).map_err(failed("open", &dir))?;
        lock.lock().map_err(failed("lock", &dir))?;
        Ok(Work { dir, lock })
    }

    /// Makes an empty file system. Nothing happens if it is there.
    pub(super) fn make(&self, name: &str, size_gb: u64) -> Result<(), FileError> {
        let work = self.work(name)?;
        if work.disk().exists() {
            return Ok(());
        }
        if self.free_bytes()? == 0 {
            return Err(FileError::DiskFull { needed: 1, free: 0 });
        }
        let new = work.new_file()?;
        new.set_len(size_gb << 30)
            .map_err(failed("size", &work.new_path()))?;
        let path = work.new_path();
        // Nothing but root's own need is kept back; inode tables are zeroed by whoever mounts it.
        work.run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0"],
            &[
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0",
            ],
            &path,
            &[0],
        )?;
        crash_point("file-made");
        work.publish(&new)
    }

    /// Makes a copy of `from`, whose file system then has `size_gb`. Nothing happens if it is
    /// there.
    ///
    /// # Errors
    /// [`FileError::InUse`] if somebody writes to `from` and a copy would be no single moment.
    pub(super) fn copy(
        &self,
        from: &str,
        name: &str,
        size_gb: Option<u64>,
    ) -> Result<(), FileError> {
        let work = self.work(name)?;
        if work.disk().exists() {
            return Ok(());
        }
        let path = self.disk(from);
        let source = File::open(&path).map_err(failed("open", &path))?;
        let stillness = match source.try_lock_shared() {
            Ok(()) => Stillness::Still,
            Err(TryLockError::WouldBlock) => Stillness::Written,
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        };
        let new = work.new_file()?;
        if self.reflink {
            copy::reflink(&source, &new).map_err(failed("clone", &path))?;
        } else {
            if stillness == Stillness::Written {
                return Err(FileError::InUse { path });
            }
            let needed = allocated(&source).map_err(failed("measure", &path))?;
            let free = self.free_bytes()?;
            if needed > free {
                return Err(FileError::DiskFull { needed, free });
            }
            sparse::copy(&source, &new).map_err(failed("copy", &path))?;
        }
        drop(source);
        crash_point("file-copied");
        if let Some(size_gb) = size_gb {
            let length = new.metadata().map_err(failed("measure", &path))?.len();
            if size_gb << 30 > length {
                work.resize(&new, &work.new_path(), size_gb)?;
            }
        }
        work.publish(&new)
    }

    /// Makes room for a file system that grows while it is used.
    pub(super) fn lengthen(&self, name: &str, size_gb: u64) -> Result<(), FileError> {
        let path = self.disk(name);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("measure", &path))?.len();
        if length < size_gb << 30 {
            file.set_len(size_gb << 30).map_err(failed("size", &path))?;
        }
        file.sync_all().map_err(failed("write", &path))
    }

    /// Lets a file system that nobody uses grow.
    pub(super) fn grow(&self, name: &str, size_gb: u64) -> Result<(), FileError> {
        let work = self.work(name)?;
        let path = work.disk();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        work.resize(&file, &path, size_gb)?;
        file.sync_all().map_err(failed("write", &path))
    }

    /// Deletes a volume or snapshot, whatever there is of it.
    pub(super) fn remove(&self, name: &str) -> Result<(), FileError> {
        let dir = self.root.join(name);
        match fs::symlink_metadata(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("look at", &dir)(error)),
            Ok(found) if !found.is_dir() => {
                return fs::remove_file(&dir).map_err(failed("delete", &dir));
            }
            Ok(_) => {}
        }
        let work = self.work(name)?;
        for path in [work.new_path(), work.disk()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        crash_point("file-removed");
        fs::remove_dir_all(&dir).map_err(failed("delete", &dir))?;
        sync(&self.root)
    }

    /// Gives the file to the user that a VMM runs as; nobody else but root may open it.
    pub(super) fn hand_to(&self, name: &str, uid: u32) -> Result<(), FileError> {
        let path = self.disk(name);
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .and_then(|()| chown(&path, Some(uid), Some(uid)))
            .map_err(failed("change the owner of", &path))
    }

    pub(super) fn measure(&self, name: &str) -> Result<Measure, FileError> {
        let path = self.disk(name);
        let measure = || {
            let file = File::open(&path)?;
            let mut bytes = [0; superblock::BYTES];
            file.read_exact_at(&mut bytes, superblock::OFFSET)?;
            Ok(Measure {
                allocated_bytes: allocated(&file)?,
                superblock: Superblock::parse(&bytes).unwrap_or_default(),
            })
        };
        measure().map_err(failed("measure", &path))
    }

    /// A digest of what the file holds; see [`copy::digest`].
    pub(super) fn digest(&self, name: &str) -> Result<String, FileError> {
        let path = self.disk(name);
        let digest = || copy::digest(&File::open(&path)?);
        digest().map_err(failed("read", &path))
    }
}

impl Work {
    fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    fn new_path(&self) -> PathBuf {
        self.dir.join(NEW)
    }

    /// An empty file in place of whatever an interrupted attempt has left.
    fn new_file(&self) -> Result<File, FileError> {
        let path = self.new_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("delete", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let made = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        made.map_err(failed("make", &path))
    }

    /// The new file is whole: it takes its name, on disk.
    fn publish(&self, new: &File) -> Result<(), FileError> {
        let path = self.new_path();
        new.sync_all().map_err(failed("write", &path))?;
        fs::rename(&path, self.disk()).map_err(failed("rename", &path))?;
        sync(&self.dir)?;
        if let Some(parent) = self.dir.parent() {
            sync(parent)?;
        }
        Ok(())
    }

    /// Checks the file system and lets it fill a file of the new size. May be repeated.
    fn resize(&self, file: &File, path: &Path, size_gb: u64) -> Result<(), FileError> {
        // Replays the journal, too; 1 and 2 say that something was put right.
        self.run("e2fsck", &["-f", "-p"], &[], path, &[0, 1, 2])?;
        let bytes = size_gb << 30;
        let length = file.metadata().map_err(failed("measure", path))?.len();
        if length < bytes {
            file.set_len(bytes).map_err(failed("size", path))?;
        }
        crash_point("file-sized");
        self.run("resize2fs", &[], &[], path, &[0])
    }

    fn run(
        &self,
        program: &'static str,
        flags: &[&str],
        options: &[&str],
        path: &Path,
        good: &[i32],
    ) -> Result<(), FileError> {
        // The program holds the lock of the directory as its standard input: what it does is over
        // before anybody else begins.
        let lock = self.lock.try_clone().map_err(failed("lock", &self.dir))?;
        let output = Command::new(program)
            .args(flags)
            .args(options)
            .arg(path)
            .env("PATH", PROGRAMS)
            .env("LC_ALL", "C")
            .stdin(Stdio::from(lock))
            .output();
        let output = output.map_err(|source| FileError::Program {
            program,
            output: format!("it cannot be run: {source} (is e2fsprogs installed?)"),
        })?;
        if output
            .status
            .code()
            .is_some_and(|code| good.contains(&code))
        {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let said: String = said.trim().chars().take(OUTPUT_CHARS_MAX).collect();
        let output = format!("{said} ({})", output.status);
        Err(FileError::Program { program, output })
    }
}

fn allocated(file: &File) -> io::Result<u64> {
    // stat(2) counts in units of 512 bytes, whatever the block size is.
    Ok(file.metadata()?.blocks() * 512)
}

fn sync(dir: &Path) -> Result<(), FileError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("write", dir))
}

/// Reads `length` bytes at `offset`; beyond the end there are zeros.
pub(super) fn read_block(mut file: &File, offset: u64, block: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    block[filled..].fill(0);
    Ok(())
}

/// The name under which a volume's files are.
pub(super) fn name(id: &VolumeId) -> &str {
    id.as_str()
}
