//! System calls without a safe wrapper that fits.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;
use types::api::TerminalSize;

/// Takes one ended child: its PID and raw status. `None` if no child has ended, or there is none.
///
/// Needed: nix loses the PID of a child that a real-time signal killed.
pub(crate) fn reap_one() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call, which writes nothing else.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Sends any signal, also a real-time one, which nix cannot name. A negative `pid` is a group.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two numbers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The terminal's end of a pseudo-terminal, whatever is mounted on /dev/pts.
pub(crate) fn open_pty_peer(controller: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // Needed: nix has no TIOCGPTPEER.
    // SAFETY: the request takes flags by value and returns a descriptor that nobody else owns.
    let fd = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; `fd` is open and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // Needed: nix has no safe TIOCSWINSZ.
    // SAFETY: `size` outlives the call, and the kernel copies it.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers a descriptor with the current runtime.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Needed: tokio deprecates the safe constructor, because it takes types that may lie.
    // SAFETY: an `OwnedFd` is open for as long as it lives and always the same descriptor.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Writes down what is on its way to the file system of `directory`, and lets further writers wait.
pub(crate) fn freeze(directory: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_number(directory, FIFREEZE, 0)
}

/// Lets the writers go on.
pub(crate) fn thaw(directory: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_number(directory, FITHAW, 0)
}

/// Has a loop device take on the size of its file.
pub(crate) fn reread_size(device: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_number(device, LOOP_SET_CAPACITY, 0)
}

/// Lets the ext4 of `directory` grow to that many of its blocks.
pub(crate) fn resize_ext4(directory: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // Needed: EXT4_IOC_RESIZE_FS has no safe wrapper.
    // SAFETY: `blocks` outlives the call, which reads it.
    match unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// `linux/fs.h`: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const FIFREEZE: libc::Ioctl = 0xc004_5877;
const FITHAW: libc::Ioctl = 0xc004_5878;
// `linux/loop.h`.
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
// `linux/ext4.h`: _IOW('f', 16, __u64).
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

fn ioctl_number(fd: BorrowedFd<'_>, request: libc::Ioctl, number: libc::c_int) -> io::Result<()> {
    // Needed: none of these has a safe wrapper.
    // SAFETY: they take a number by value, or nothing.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
