//! The only unsafe code of this crate: ioctls of TUN and tap devices and of links, which have no
//! safe wrapper.
#![allow(unsafe_code, reason = "TUNSETIFF and its kin have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` of linux/if_tun.h: Ethernet frames, each after a 10-byte
/// virtio-net header, so that guests hand over and take whole TSO packets.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;

/// `IFF_TUN | IFF_NO_PI`: bare IP packets.
const TUN_FLAGS: u16 = 0x0001 | 0x1000;
/// `IFF_VNET_HDR`: each after a virtio-net header.
const VNET_FLAG: u16 = 0x4000;

// The ioctls take an int (or a pointer to ifreq) although their numbers say otherwise.
nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);
nix::ioctl_write_int_bad!(tun_set_owner, libc::TUNSETOWNER);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
nix::ioctl_write_ptr_bad!(set_link_mtu, libc::SIOCSIFMTU, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_link_queue, libc::SIOCSIFTXQLEN, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_link_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Opens, and if need be makes, tap `name` in the calling thread's network namespace. It goes
/// with its last descriptor unless it has been made to stay (`keep_tap`).
///
/// EBUSY: somebody else holds it. EINVAL: there is a link of that name which is no such tap.
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    open_device(name, TAP_FLAGS, 0).map(Into::into)
}

/// Makes TUN device `name` in the calling thread's network namespace; with virtio-net headers
/// (`vnet`) or without. Reads do not block. It goes with its last descriptor.
///
/// EBUSY: somebody else holds it. EINVAL: there is a link of that name which is no such device,
/// or the kernel knows no such headers.
pub(crate) fn open_tun(name: &str, vnet: bool) -> io::Result<File> {
    let flags = if vnet {
        TUN_FLAGS | VNET_FLAG
    } else {
        TUN_FLAGS
    };
    open_device(name, flags, libc::O_NONBLOCK)
}

fn open_device(name: &str, flags: u16, open_flags: libc::c_int) -> io::Result<File> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(open_flags)
        .open("/dev/net/tun")?;
    let mut request = link_request(name)?;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(flags.to_ne_bytes());
    // SAFETY: the descriptor is open, `request` outlives the call and is what TUNSETIFF takes;
    // the kernel copies it.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}

/// A request about link `name`, otherwise zero.
fn link_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// Says which super-packets we take from the TUN device: TCP's, UDP's (kernel 6.2). With either
/// goes leaving checksums to us. EINVAL: the kernel does not know one of them.
pub(crate) fn set_tun_offloads(tun: &File, tcp: bool, udp: bool) -> io::Result<()> {
    let tcp_bits = if tcp {
        libc::TUN_F_TSO4 | libc::TUN_F_TSO6
    } else {
        0
    };
    let udp_bits = if udp {
        libc::TUN_F_USO4 | libc::TUN_F_USO6
    } else {
        0
    };
    let checksum = if tcp || udp { libc::TUN_F_CSUM } else { 0 };
    let bits = (checksum | tcp_bits | udp_bits).cast_signed();
    // SAFETY: the descriptor is open; TUNSETOFFLOAD takes its argument by value.
    unsafe { tun_set_offload(tun.as_raw_fd(), bits) }?;
    Ok(())
}

/// Sets link `name` of the calling thread's network namespace up, with this MTU and room for
/// this many packets in its queue.
pub(crate) fn set_up_link(name: &str, mtu: u16, queue_packets: u16) -> io::Result<()> {
    // Any socket will do: the ioctls are those of its namespace.
    let socket = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let fd = socket.as_raw_fd();
    let mut request = link_request(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    // SAFETY: the descriptor is open, `request` outlives the call and is what SIOCSIFMTU takes.
    unsafe { set_link_mtu(fd, &raw const request) }?;
    // The kernel reads the queue's length from where the metric would be.
    request.ifr_ifru.ifru_metric = queue_packets.into();
    // SAFETY: as above, for SIOCSIFTXQLEN.
    unsafe { set_link_queue(fd, &raw const request) }?;
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
    // SAFETY: as above, for SIOCSIFFLAGS.
    unsafe { set_link_flags(fd, &raw const request) }?;
    Ok(())
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
