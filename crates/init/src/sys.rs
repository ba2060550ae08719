//! System calls without a safe wrapper.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{SockFlag, accept4};
use nix::unistd::{ForkResult, fork};

/// Which side of a fork this is.
pub(crate) enum Forked {
    Parent { child: i32 },
    Child,
}

/// Forks a process that has one thread.
///
/// # Panics
/// If there are more.
pub(crate) fn fork_alone() -> nix::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    // Without /proc the count is unknown; then the caller is the fresh process it has to be.
    assert!(threads.unwrap_or(1) == 1, "fork with several threads");
    // Needed: a PID namespace takes effect for children only.
    // SAFETY: there is no other thread that could hold a lock in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent {
            child: child.as_raw(),
        }),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Takes a connection that waits at `listener`.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let accepted = accept4(listener.as_raw_fd(), flags)?;
    // Needed: nix hands over a number.
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    if nix::fcntl::fcntl(borrowed(descriptor)?, nix::fcntl::FcntlArg::F_GETFD).is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is open, and its number came with the program's arguments: nothing else in
    // this process knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn borrowed(descriptor: RawFd) -> io::Result<std::os::fd::BorrowedFd<'static>> {
    if descriptor < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: used for one query, which a closed descriptor answers with an error.
    Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) })
}

/// Makes standard input the controlling terminal of this session.
pub(crate) fn take_terminal() -> io::Result<()> {
    // Needed: nix has no TIOCSCTTY.
    // SAFETY: takes a number.
    match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Undoes Rust's ignoring of SIGPIPE, which programs would inherit.
pub(crate) fn default_sigpipe() -> nix::Result<()> {
    // SAFETY: the default action is no function of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}

/// Most entropy that is taken at once.
const ENTROPY_BYTES_MAX: usize = 256;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG` of the kernel's include/uapi/linux/random.h.
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
const RESEED: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with room for the bytes.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; ENTROPY_BYTES_MAX],
}

/// Gives the kernel's random number generator new entropy and has it use that at once.
pub(crate) fn reseed(entropy: &[u8]) -> io::Result<()> {
    let length = entropy.len();
    if length == 0 || length > ENTROPY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let count = libc::c_int::try_from(length).map_err(io::Error::other)?;
    let mut given = Entropy {
        bits: count * 8,
        bytes: count,
        buffer: [0; ENTROPY_BYTES_MAX],
    };
    given.buffer[..length].copy_from_slice(entropy);
    let device = File::options().write(true).open("/dev/urandom")?;
    // Needed: there is no wrapper for these requests, and writing to the device counts for nothing.
    // SAFETY: `given` is laid out as the request wants, outlives the call, and is only read.
    nix::errno::Errno::result(unsafe {
        libc::ioctl(device.as_raw_fd(), ADD_ENTROPY, &raw const given)
    })?;
    // SAFETY: the request takes no argument.
    nix::errno::Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RESEED) })?;
    Ok(())
}
