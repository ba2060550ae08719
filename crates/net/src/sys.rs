//! The only unsafe code of this crate: the tap device's ioctls, which have no safe wrapper.
#![allow(unsafe_code, reason = "TUNSETIFF and its kin have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` of linux/if_tun.h: Ethernet frames, each after a 10-byte
/// virtio-net header, so that guests hand over and take whole TSO packets.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;

// The ioctls take an int (or a pointer to ifreq) although their numbers say otherwise.
nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);
nix::ioctl_write_int_bad!(tun_set_owner, libc::TUNSETOWNER);

/// Opens, and if need be makes, tap `name` in the calling thread's network namespace. It goes
/// with its last descriptor unless it has been made to stay (`keep_tap`).
///
/// EBUSY: somebody else holds it. EINVAL: there is a link of that name which is no such tap.
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(TAP_FLAGS.to_ne_bytes());
    // SAFETY: the descriptor is open, `request` outlives the call and is what TUNSETIFF takes;
    // the kernel copies it.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file.into())
}

/// Makes the tap behind `tap` outlive its descriptors, and lets user `owner_uid` open it.
pub(crate) fn keep_tap(tap: &OwnedFd, owner_uid: u32) -> io::Result<()> {
    let owner = libc::c_int::from_ne_bytes(owner_uid.to_ne_bytes());
    // SAFETY: the descriptor is open; both ioctls take their argument by value.
    unsafe {
        tun_set_owner(tap.as_raw_fd(), owner)?;
        tun_set_persist(tap.as_raw_fd(), 1)?;
    }
    Ok(())
}
