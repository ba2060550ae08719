//! Packets and the kernel's network: one host's namespace, links, guards and the way out; and
//! [`wireguard`], the way to other hosts.
//!
//! ```text
//!      root namespace            aero-<host>                          machines
//!                          lo  fdaa::3, <net>::3 (resolvers), VIPs, the host's own addresses
//!  uplink -- NAT -- aero<host> ==== egress -- NAT -- forward -- guard -- m<field> ==== eth0 | tap
//!            table inet             198.18.x.y/31               table inet aerostat
//!            aerostat_<host>        wgmesh (other hosts)        table arp  aerostat
//!                                   wggate (WireGuard clients)
//! ```
//!
//! Everything of a host lives in its own namespace, so tear-down is deleting the namespace and
//! several hosts share one server. Outside are one veth end and one nftables table, both named
//! after the host. `outside` is the network namespace of the thread that calls; for the product
//! that is the root namespace, for tests one of their own.
//!
//! Every function here blocks for some milliseconds (netlink, `nft`): call them from a blocking
//! thread. Each may be repeated, and repairs what an earlier call, killed half-way, left behind.
//! No state is kept anywhere but in the kernel.
#![deny(unsafe_code)]

mod egress;
mod error;
mod guard;
mod host;
mod links;
mod names;
mod netns;
mod networks;
mod nft;
mod sockets;
mod sys;
mod sysctl;
pub mod wireguard;

pub use error::NetError;
pub use host::{Attach, AttachKind, Attachment, Egress, HostNet, HostNetConfig};
pub use names::{
    API_PORT, CLUSTER_API_PORT, GATEWAY_LINK, GATEWAY_V4, LinkName, MACHINES_V4, MEMBERSHIP_PORT,
    MESH_LINK, Mac, RPC_PORT,
};
pub use networks::TunError;
pub use sockets::Sockets;
