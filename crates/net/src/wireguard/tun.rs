//! The TUN device: inner packets to and from the kernel, whole super-packets where it lets us.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

use super::error::WireGuardError;
use super::vnet::{Gso, VNET_HEADER_BYTES, VnetHeader};

/// The kernel's default of 500 is too short for super-packets of many flows.
const QUEUE_PACKETS: u16 = 2000;

/// What the engine may leave to the kernel. All of it by default; where the kernel refuses one,
/// it goes on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// TCP super-packets across the TUN device, both ways.
    pub tun_tcp: bool,
    /// UDP super-packets out of the TUN device (kernel 6.2).
    pub tun_udp: bool,
    /// Trains of datagrams in one send (`UDP_SEGMENT`, kernel 4.18).
    pub udp_send: bool,
    /// Trains of datagrams in one receive (`UDP_GRO`, sound from kernel 5.12 on).
    pub udp_receive: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self {
            tun_tcp: true,
            tun_udp: true,
            udp_send: true,
            udp_receive: true,
        }
    }
}

impl Offloads {
    pub const NONE: Self = Self {
        tun_tcp: false,
        tun_udp: false,
        udp_send: false,
        udp_receive: false,
    };
}

/// A TUN device, which goes with its descriptor.
#[derive(Debug)]
pub struct Tun {
    file: File,
    link: String,
    mtu: u16,
    /// Frames carry a virtio-net header.
    vnet: bool,
    /// Decrypted segments may be written as super-packets. Ends when the kernel refuses one.
    coalesce: AtomicBool,
}

impl Tun {
    /// Makes device `link` in the calling thread's network namespace, and sets it up.
    /// Addresses and routes are the caller's.
    pub fn open(link: &str, mtu: u16, offloads: Offloads) -> Result<Self, WireGuardError> {
        let wants_vnet = offloads.tun_tcp || offloads.tun_udp;
        let open = |vnet: bool| sys::open_tun(link, vnet);
        let opened = match open(wants_vnet) {
            Err(error) if wants_vnet && error.raw_os_error() == Some(nix::libc::EINVAL) => {
                tracing::warn!(link, "kernel has no virtio-net headers on TUN devices");
                open(false).map(|file| (file, false))
            }
            opened => opened.map(|file| (file, wants_vnet)),
        };
        let (file, vnet) = opened.map_err(|source| WireGuardError::OpenTun {
            link: link.to_owned(),
            source,
        })?;
        let tcp = vnet && negotiate(&file, link, offloads);
        let configured = sys::set_up_link(link, mtu, QUEUE_PACKETS);
        configured.map_err(|source| WireGuardError::ConfigureTun {
            link: link.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            link: link.to_owned(),
            mtu,
            vnet,
            coalesce: AtomicBool::new(tcp),
        })
    }

    pub fn link(&self) -> &str {
        &self.link
    }

    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(super) fn coalesces(&self) -> bool {
        self.coalesce.load(Ordering::Relaxed)
    }

    /// Reads the next frame into `buffer`: its header, and its packet; `None` for a frame of a kind
    /// that we never asked for. `WouldBlock` if there is none now.
    pub(super) fn read<'a>(
        &self,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<(VnetHeader, &'a mut [u8])>> {
        let bytes = (&self.file).read(buffer)?;
        let frame = &mut buffer[..bytes];
        if !self.vnet {
            return Ok(Some((VnetHeader::PLAIN, frame)));
        }
        let header = VnetHeader::parse(frame).map(|(header, _)| header);
        Ok(header.map(|header| (header, &mut frame[VNET_HEADER_BYTES..])))
    }

    /// Writes one frame. `Unsupported` if the kernel takes no super-packets after all.
    pub(super) fn write(&self, header: VnetHeader, pieces: &[&[u8]]) -> io::Result<()> {
        let bytes = header.to_bytes();
        let mut slices = Vec::with_capacity(1 + pieces.len());
        if self.vnet {
            slices.push(IoSlice::new(&bytes));
        }
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        match (&self.file).write_vectored(&slices) {
            Err(error)
                if header.gso != Gso::None && error.raw_os_error() == Some(nix::libc::EINVAL) =>
            {
                tracing::warn!(
                    link = self.link,
                    "kernel refuses super-packets on the TUN device"
                );
                self.coalesce.store(false, Ordering::Relaxed);
                Err(io::ErrorKind::Unsupported.into())
            }
            written => written.map(|_| ()),
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Asks for less and less. Returns whether TCP super-packets are on.
fn negotiate(file: &File, link: &str, offloads: Offloads) -> bool {
    let wanted = [
        (offloads.tun_tcp, offloads.tun_udp),
        (offloads.tun_tcp, false),
    ];
    for (tcp, udp) in wanted {
        match sys::set_tun_offloads(file, tcp, udp) {
            Ok(()) => return tcp,
            Err(error) => {
                tracing::warn!(link, tcp, udp, %error, "TUN device without these offloads")
            }
        }
    }
    false
}
