//! What has no safe wrapper: KVM, loop devices, taps, and what a child does before it is exec'ed.
#![allow(unsafe_code, reason = "the one place of this crate for it")]

mod kvm;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{ForkResult, Gid, Uid};

pub(crate) use kvm::{GuestEnd, run_guest};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Open files of a VMM: its disks and a few more.
const FILES_MAX: u64 = 1024;
/// The kernel's bound is a mask of 64 bits.
const CAPABILITY_MAX: libc::c_ulong = 63;
/// Others may take the free loop device that we were told of; then we ask again.
const LOOP_TRIES: u32 = 64;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    Ok(Errno::result(result)?)
}

/// Attaches `file` to a loop device that goes away with its last user. The device stays for as
/// long as the returned file, or a mount of it, does.
pub(crate) fn attach_loop(file: &File, read_only: bool) -> io::Result<(File, PathBuf)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    for _ in 0..LOOP_TRIES {
        // Needed: LOOP_CTL_GET_FREE has no safe wrapper.
        // SAFETY: the request takes no argument and touches no memory of ours.
        let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(&path)?;
        // SAFETY: plain integers, for which zero is a value.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        config.info.flags = flags;
        // Needed: LOOP_CONFIGURE has no safe wrapper.
        // SAFETY: `config` has the layout of struct loop_config and outlives the call.
        match checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &config) }) {
            Ok(_) => return Ok((device, path)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Opens a tap that exists already, with virtio headers as QEMU expects them.
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: plain integers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // Needed: TUNSETIFF has no safe wrapper.
    // SAFETY: `request` is a struct ifreq, as this request wants, and outlives the call.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &request) })?;
    Ok(tun.into())
}

/// Becomes two processes.
///
/// # Errors
/// If there is no room for another process.
///
/// The caller must have one thread only: the child may then use everything.
pub(crate) fn fork() -> io::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "forking with other threads is not safe");
    // Needed: fork has no safe wrapper.
    // SAFETY: there is no other thread, as was just checked, that might hold a lock.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Lets the child inherit `fds` under their numbers.
pub(crate) fn keep_fds(command: &mut Command, fds: Vec<RawFd>) {
    let before_exec = move || {
        for &fd in &fds {
            // Needed: FD_CLOEXEC must be cleared in the child only, or other children that are
            // spawned meanwhile inherit the file too.
            // SAFETY: fcntl on a number is async-signal-safe and touches no memory.
            checked(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe system calls only and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// What a child may do.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// User and group; no other group than these beside it.
    pub(crate) uid: u32,
    pub(crate) groups: Vec<Gid>,
    /// Its root directory.
    pub(crate) root: Option<CString>,
}

/// Lets the child run as another user, in another root, without network, capabilities and any way
/// to get them, and die with the thread that spawned it.
pub(crate) fn confine(command: &mut Command, confinement: Confinement) {
    let Confinement { uid, groups, root } = confinement;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    let before_exec = move || {
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_NOFILE, FILES_MAX, FILES_MAX)?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
        if let Some(root) = &root {
            nix::unistd::chroot(root.as_c_str())?;
            nix::unistd::chdir(c"/")?;
        }
        for capability in 0..=CAPABILITY_MAX {
            // Needed: PR_CAPBSET_DROP has no safe wrapper.
            // SAFETY: the call takes numbers and touches no memory of ours. It fails for
            // capabilities that this kernel does not have, which nobody can get either.
            let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(group, group, group)?;
        // This clears the capabilities that are held.
        nix::unistd::setresuid(user, user, user)?;
        // After the change of user, which clears it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    };
    // Needed: `CommandExt::uid` gives no way to set groups, and nothing sets the death signal.
    // SAFETY: the closure makes async-signal-safe system calls only and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// Lets the child gain nothing by running other programs.
pub(crate) fn no_new_privileges(command: &mut Command) {
    let before_exec = || Ok(nix::sys::prctl::set_no_new_privs()?);
    // Needed: nothing else runs between fork and exec.
    // SAFETY: the closure makes one async-signal-safe system call and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// Adds a seccomp filter to those of this thread, which needs `CAP_SYS_ADMIN` or
/// `no_new_privileges`.
pub(crate) fn install_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // Needed: seccompiler's own function sets `no_new_privileges`, which root is to be without.
    // SAFETY: `program` has the layout of struct sock_fprog and points to as many instructions as
    // it says, which the kernel copies; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &program,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// The errors (0: none) that system calls with that first argument, the others 0, have in a process
/// behind `filters`.
#[cfg(test)]
pub(crate) fn heard_behind<const N: usize>(
    filters: Vec<seccompiler::BpfProgram>,
    calls: [(libc::c_long, i64); N],
) -> Vec<i32> {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = io::pipe().unwrap();
    let mut command = Command::new("true");
    let before_exec = move || {
        for filter in &filters {
            install_filter(filter)?;
        }
        for (number, first) in calls {
            // SAFETY: with no pointers among the arguments no call touches memory of ours, and
            // none of those that the filters let through makes a process.
            let result = unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) };
            let heard = match Errno::result(result) {
                Ok(_) => 0,
                Err(errno) => errno as i32,
            };
            writer.write_all(&heard.to_le_bytes())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe system calls only and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
    assert!(command.status().unwrap().success());
    drop(command);
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).unwrap();
    let heard = heard.chunks_exact(4);
    heard
        .map(|n| i32::from_le_bytes(n.try_into().unwrap()))
        .collect()
}

/// Receives file descriptors that were sent over a Unix socket with one byte or more.
///
/// # Errors
/// If other than `N` came, or nothing more does.
pub(crate) fn receive_fds<const N: usize>(socket: &impl AsRawFd) -> io::Result<[OwnedFd; N]> {
    let mut data = [0; 1];
    let mut iov = [io::IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([RawFd; N]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // Needed: nix hands over numbers.
            // SAFETY: the kernel just made these descriptors for us and nobody else knows them.
            let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
            let fds: Vec<_> = fds.into_iter().map(owned).collect();
            return fds
                .try_into()
                .map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Sends file descriptors over a Unix socket, with one byte.
pub(crate) fn send_fds(socket: &impl AsRawFd, fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let iov = [io::IoSlice::new(&[0])];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &iov,
        &control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Closes every file of this process but the standard streams and `kept`: for the child of a fork
/// that is to share none of its parent's. Nothing that owns one of them may be used afterwards.
pub(crate) fn close_all_but(kept: &impl AsRawFd) -> io::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(io::Error::other)?;
    let first = libc::STDERR_FILENO.cast_unsigned() + 1;
    for (from, to) in [(first, kept - 1), (kept + 1, libc::c_uint::MAX)] {
        if from <= to {
            // Needed: close_range has no safe wrapper.
            // SAFETY: it touches no memory; the caller promises to use none of the files.
            checked(unsafe { libc::close_range(from, to, 0) })?;
        }
    }
    Ok(())
}

/// A socket that this process was given under a number when it was started.
///
/// # Errors
/// If the number is that of a standard stream, or nothing is open under it.
pub(crate) fn inherited_socket(fd: RawFd) -> io::Result<UnixStream> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: asking for the flags of a number is harmless, whatever it stands for.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // Needed: inherited descriptors are known by number only.
    // SAFETY: it is open, as was just seen, and whoever started this process says that it is ours.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Lets SIGPIPE end the processes that this one becomes.
pub(crate) fn default_sigpipe() -> io::Result<()> {
    // Needed: nix declares every change of a signal's disposition unsafe.
    // SAFETY: no handler is installed.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}
