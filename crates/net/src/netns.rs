//! Named network namespaces, as `ip netns` keeps them: a file in `/run/netns` on which the
//! namespace is mounted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

use crate::error::NetError;
use crate::names::NETNS_DIR;

/// `NSFS_MAGIC` of linux/magic.h: what a file is on while a namespace is mounted on it.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Whether `path` is a namespace. A bare file is what is left of a creation that was killed.
pub(crate) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC)
}

/// Makes namespace `path` unless it exists, with its loopback link down.
pub(crate) fn ensure(path: &Path) -> Result<(), NetError> {
    if exists(path) {
        return Ok(());
    }
    let fail = |source| NetError::Namespace {
        action: "create",
        path: path.to_owned(),
        source,
    };
    share_netns_dir().map_err(fail)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o444)
        .open(path);
    drop(file.map_err(fail)?);
    on_thread(path, || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let from = Path::new("/proc/thread-self/ns/net");
        mount(
            Some(from),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    })?
    .map_err(|errno| fail(errno.into()))
}

/// Deletes namespace `path`; absent is fine. Links in it go when its last process is gone.
pub(crate) fn delete(path: &Path) -> Result<(), NetError> {
    let fail = |source| NetError::Namespace {
        action: "delete",
        path: path.to_owned(),
        source,
    };
    // A repeated creation may have mounted more than one on top of each other.
    while exists(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|errno| fail(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail(source)),
        _ => Ok(()),
    }
}

/// Runs `f` on a fresh thread inside namespace `path`.
pub(crate) fn enter<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    let fail = |source| NetError::Namespace {
        action: "enter",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    on_thread(path, move || {
        setns(&file, CloneFlags::CLONE_NEWNET).map(|()| f())
    })?
    .map_err(|errno| fail(errno.into()))
}

/// Runs `f` on a fresh thread in the caller's namespace. Netlink work needs a runtime of its own,
/// which must not be started on a thread that may belong to another one.
pub(crate) fn outside<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    on_thread(Path::new("/proc/thread-self/ns/net"), f)
}

fn on_thread<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(|source| NetError::Thread {
                path: path.to_owned(),
                source,
            })?;
        thread
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// One change at a time to what hosts of this server share (the directory of namespaces,
/// forwarding outside). `ip netns add` takes the same lock.
pub(crate) fn lock() -> Result<Flock<File>, NetError> {
    let fail = |source| NetError::Namespace {
        action: "lock",
        path: NETNS_DIR.into(),
        source,
    };
    fs::create_dir_all(NETNS_DIR).map_err(fail)?;
    let dir = File::open(NETNS_DIR).map_err(fail)?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| fail(errno.into()))
}

/// Makes mounts in `/run/netns` show up in, and go away from, every mount namespace; as `ip netns
/// add` does. Otherwise a process in a private mount namespace could keep ours alive.
fn share_netns_dir() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    let none = None::<&str>;
    let share = || {
        mount(
            none,
            NETNS_DIR,
            none,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            none,
        )
    };
    if share().is_err() {
        // Not a mount point yet.
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(NETNS_DIR), NETNS_DIR, none, bind, none)?;
        share()?;
    }
    Ok(())
}
