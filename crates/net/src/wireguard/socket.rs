//! The UDP socket: datagrams to and from other hosts, whole trains where the kernel lets us.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use gotatun::packet::Packet;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use super::counters::{Counters, DropReason};
use super::error::WireGuardError;
use super::tun::Offloads;
use super::{BATCH_SEGMENTS_MAX, PACKET_BYTES_MAX};

/// 10 ms at 10 Gbit/s, and what the kernel adds to each datagram.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
const SEND_BUFFER_BYTES: usize = 2 << 20;
/// What an IPv6 packet has room for beside its UDP header; IPv4's 20 bytes fit as well.
const TRAIN_BYTES_MAX: usize = PACKET_BYTES_MAX - 48;

/// A socket in the underlay's namespace.
#[derive(Debug)]
pub struct Underlay {
    socket: UdpSocket,
    /// An IPv6 socket speaks to IPv4 as well, by mapped addresses.
    ipv6: bool,
    /// Ends when the kernel refuses a train.
    segment: AtomicBool,
}

impl Underlay {
    /// Listens in the calling thread's network namespace. `[::]` is every address of both
    /// families; of IPv4 only where the kernel has no IPv6.
    pub fn bind(address: SocketAddr, offloads: Offloads) -> Result<Self, WireGuardError> {
        let bound = match UdpSocket::bind(address) {
            Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                _ => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, address.port())),
            },
            bound => bound,
        };
        let socket = bound.map_err(|source| WireGuardError::Listen { address, source })?;
        let is_ipv6 = socket.local_addr().is_ok_and(|here| here.is_ipv6());
        // Beyond the limit of net.core only with CAP_NET_ADMIN; less is slower, not wrong.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER_BYTES).is_err() {
            let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER_BYTES);
        }
        if offloads.udp_receive
            && let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true)
        {
            tracing::warn!(%error, "kernel without UDP_GRO");
        }
        // 0: nothing is segmented but what is sent as a train.
        let segments = offloads.udp_send && setsockopt(&socket, sockopt::UdpGsoSegment, &0).is_ok();
        if offloads.udp_send && !segments {
            tracing::warn!("kernel without UDP_SEGMENT");
        }
        Ok(Self {
            socket,
            ipv6: is_ipv6,
            segment: AtomicBool::new(segments),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends all datagrams, in order, as few times as it can.
    pub(super) fn send(&self, to: SocketAddr, datagrams: &[Packet], counters: &Counters) {
        let to = match to {
            SocketAddr::V4(v4) if self.ipv6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            to => to,
        };
        let to = SockaddrStorage::from(to);
        let mut rest = datagrams;
        while !rest.is_empty() {
            let (train, after) = rest.split_at(self.train(rest));
            rest = after;
            if train.len() > 1 && self.send_train(&to, train) {
                continue;
            }
            for datagram in train {
                let slices = [IoSlice::new(datagram.as_ref())];
                if self.send_once(&to, &slices, &[]).is_err() {
                    counters.add(DropReason::SendFailed, 1);
                }
            }
        }
    }

    /// How many of the first datagrams may go together: equally long, but for a shorter last one.
    fn train(&self, datagrams: &[Packet]) -> usize {
        if !self.segment.load(Ordering::Relaxed) {
            return 1;
        }
        train_length(datagrams.iter().map(|datagram| datagram.as_ref().len()))
    }

    /// Whether the kernel took it. If not, the datagrams have to go one by one.
    fn send_train(&self, to: &SockaddrStorage, train: &[Packet]) -> bool {
        let Ok(size) = u16::try_from(train[0].as_ref().len()) else {
            return false;
        };
        let slices: Vec<_> = train
            .iter()
            .map(|datagram| IoSlice::new(datagram.as_ref()))
            .collect();
        match self.send_once(to, &slices, &[ControlMessage::UdpGsoSegments(&size)]) {
            Ok(_) => true,
            // No checksum offload on the device.
            Err(error @ (Errno::EIO | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP)) => {
                tracing::warn!(%error, "kernel refuses UDP_SEGMENT");
                self.segment.store(false, Ordering::Relaxed);
                false
            }
            // EINVAL or EMSGSIZE: a path MTU below a segment, where fragments may still get through.
            // That is one peer's path, and no reason to send slowly to all.
            Err(_) => false,
        }
    }

    fn send_once(
        &self,
        to: &SockaddrStorage,
        slices: &[IoSlice],
        options: &[ControlMessage],
    ) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        loop {
            match sendmsg(fd, slices, options, MsgFlags::empty(), Some(to)) {
                Err(Errno::EINTR) => {}
                sent => return sent,
            }
        }
    }

    /// The next train: its bytes within `buffer`, where it came from, and the length of all its
    /// datagrams but the last. `WouldBlock` if there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut options = nix::cmsg_space!(i32);
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut options),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let segment = message.cmsgs()?.find_map(|option| match option {
            ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
            _ => None,
        });
        let from = message.address.as_ref().and_then(socket_address);
        Ok(Received {
            bytes: message.bytes,
            from: from.ok_or(io::ErrorKind::InvalidData)?,
            segment_bytes: segment
                .filter(|bytes| *bytes > 0)
                .unwrap_or(message.bytes.max(1)),
        })
    }
}

impl AsFd for Underlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) struct Received {
    pub(super) bytes: usize,
    pub(super) from: SocketAddr,
    pub(super) segment_bytes: usize,
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    let any = v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })?;
    Some(SocketAddr::new(any.ip().to_canonical(), any.port()))
}

fn train_length(mut lengths: impl Iterator<Item = usize>) -> usize {
    let Some(first) = lengths.next() else {
        return 0;
    };
    let (mut count, mut total) = (1, first);
    for bytes in lengths {
        if count == BATCH_SEGMENTS_MAX || bytes > first || total + bytes > TRAIN_BYTES_MAX {
            break;
        }
        count += 1;
        total += bytes;
        if bytes < first {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends trains over a loopback whose MTU is below their segments.
    fn across_a_narrow_path() {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = std::process::Command::new("/sbin/ip")
            .args("link set lo up mtu 1280".split(' '))
            .status();
        assert!(up.unwrap().success());
        let bind = || Underlay::bind("[::1]:0".parse().unwrap(), Offloads::default()).unwrap();
        let (a, b) = (bind(), bind());
        let could = a.segment.load(Ordering::Relaxed);
        let packets: Vec<Packet> = (0..3_u8)
            .map(|n| Packet::copy_from(&[n; 1400][..]))
            .collect();
        let counters = Counters::default();
        a.send(b.local_addr().unwrap(), &packets, &counters);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        for packet in &packets {
            let received = b.receive(&mut buffer).unwrap();
            assert_eq!(&buffer[..received.bytes], packet.as_ref());
        }
        assert_eq!(counters.snapshot().of(DropReason::SendFailed), 0);
        assert_eq!(a.segment.load(Ordering::Relaxed), could);
    }

    #[test]
    fn a_narrow_path_slows_down_nobody_else() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: a_narrow_path_slows_down_nobody_else: needs root for a namespace");
            return;
        }
        std::thread::spawn(across_a_narrow_path).join().unwrap();
    }

    #[test]
    fn a_train_ends_with_a_shorter_datagram_or_before_a_longer_one() {
        let of = |lengths: &[usize]| train_length(lengths.iter().copied());
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[100, 100, 60, 60]), 3);
        assert_eq!(of(&[100, 100, 120]), 2);
        assert_eq!(of(&[148, 1452]), 1);
        assert_eq!(of(&[1452; 60]), 45);
        assert_eq!(of(&[64; 100]), BATCH_SEGMENTS_MAX);
    }
}
