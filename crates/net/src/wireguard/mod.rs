//! WireGuard in user space: our own I/O around gotatun's protocol engine.
//!
//! ```text
//!            split            seal               runs of equal size
//!  TUN ----> segments ------> datagrams -------> UDP_SEGMENT ----> network    thread "wg out"
//!  TUN <---- super-packets <- packets <--------- UDP_GRO <-------- network    thread "wg in"
//!            coalesce         open
//!                    update_timers, at each peer's own deadline               thread "wg timers"
//! ```
//!
//! The cost of a tunnel is in the system calls and in the walk of each packet through the kernel,
//! not in the cipher. So whole TCP super-packets cross the TUN device (virtio-net headers), whole
//! trains of datagrams cross the socket, and a peer is locked once for a train. Where the kernel
//! refuses one of these, the engine goes on without it (`Offloads`).
//!
//! Which peer a packet goes to, and what a peer may send, is decided by a pure [`Policy`]. A
//! peer's endpoint follows the source of packets that it authenticated, of nothing else.
//! Who is a peer is decided by the owner of the engine: ahead of time (`ensure_peer`), or, for an
//! engine that was started with a door, when a key knocks that no peer has (`knock`): the packet
//! is held, the owner asks around and admits or declines, and nothing is lost.
//! Nothing here knows of hosts, catalogs or async runtimes. Layers from the inside out:
//! `checksum`, `vnet`, `split` and `coalesce` are arithmetic on packets; `initiation`,
//! `flood`, `memory` and `knock` are about strangers; `core` is the protocol without I/O; `tun` and `socket` are the two devices; `engine` holds the threads.

mod checksum;
mod coalesce;
mod core;
mod counters;
mod engine;
mod error;
mod flood;
mod fuzz;
mod inbound;
mod initiation;
mod key;
mod knock;
mod memory;
mod outbound;
mod peer;
mod policy;
mod segment;
mod socket;
mod split;
mod timers;
mod tun;
mod vnet;

pub use counters::{DropReason, Drops};
pub use engine::{Backend, Engine, EngineConfig};
pub use error::WireGuardError;
pub use fuzz::{fuzz_datagram, fuzz_frame, fuzz_initiation};
pub use initiation::Timestamp;
pub use key::{InvalidKey, PrivateKey, PublicKey};
pub use knock::{Knock, Knocks, source};
pub use peer::{PeerConfig, PeerId, PeerStatus};
pub use policy::{Policy, SixPnPolicy};
pub use socket::Underlay;
pub use tun::{Offloads, Tun};

/// IPv6 header, without extension headers.
const IPV6_HEADER_BYTES: usize = 40;
/// IPv4 header without options.
const IPV4_HEADER_BYTES: usize = 20;
/// The longest IP packet, and so the longest super-packet.
const PACKET_BYTES_MAX: usize = 65_535;
/// Segments that are handled together at most; also what the kernel takes in one `UDP_SEGMENT`
/// send (`UDP_MAX_SEGMENTS` of linux/udp.h before 6.9).
const BATCH_SEGMENTS_MAX: usize = 64;
