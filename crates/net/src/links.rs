//! Links, addresses and routes of the calling thread's network namespace, by rtnetlink.
//!
//! Synchronous on purpose: a netlink socket belongs to the namespace of the thread that opened
//! it, so each use has a thread (`netns::enter`) and a runtime of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::net::if_::{if_nameindex, if_nametoindex};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime::Runtime;

use crate::error::NetError;
use crate::names::Mac;

/// Below the kernel's metric for routes that do not say (`IP6_RT_PRIO_USER`, 1024). A metric of
/// its own also keeps a route from replacing an unreachable one, which has to be there again when
/// the link goes.
const PREFERRED_METRIC: u32 = 512;

/// A netlink socket in one namespace.
pub(crate) struct Links {
    runtime: Runtime,
    handle: Handle,
}

/// One end of a veth pair.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    /// The namespace to make it in, if another than the caller's.
    pub(crate) netns: Option<BorrowedFd<'a>>,
}

impl Links {
    pub(crate) fn open() -> Result<Self, NetError> {
        let open = || -> io::Result<Self> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            let guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            drop(guard);
            Ok(Self { runtime, handle })
        };
        open().map_err(|source| NetError::Netlink { source })
    }

    /// Deletes `link`; absent is fine.
    pub(crate) fn delete(&self, link: &str) -> Result<(), NetError> {
        let Some(index) = index(link) else {
            return Ok(());
        };
        match self
            .runtime
            .block_on(self.handle.link().del(index).execute())
        {
            Err(source) if errno(&source) != Some(nix::libc::ENODEV) => Err(NetError::Link {
                action: "delete",
                link: link.to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn add_veth(&self, near: &End, far: &End) -> Result<(), NetError> {
        let peer = end_message::<LinkUnspec>(LinkUnspec::new_with_name(far.name), far);
        let near_message = end_message(LinkVeth::new(near.name, far.name), near)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        let add = self.handle.link().add(near_message.build());
        self.runtime
            .block_on(add.execute())
            .map_err(|source| NetError::Link {
                action: "create",
                link: near.name.to_owned(),
                source,
            })
    }

    /// Sets hardware address (if given) and MTU (in bytes), and sets the link up.
    pub(crate) fn set_up(&self, link: &str, mac: Option<Mac>, mtu: u32) -> Result<(), NetError> {
        let mut message = LinkUnspec::new_with_index(required_index(link)?)
            .mtu(mtu)
            .up();
        if let Some(mac) = mac {
            message = message.address(mac.0.to_vec());
        }
        let set = self.handle.link().set(message.build()).execute();
        self.link_result("set up", link, self.runtime.block_on(set))
    }

    pub(crate) fn loopback_up(&self) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(required_index("lo")?)
            .up()
            .build();
        let set = self.handle.link().set(message).execute();
        self.link_result("set up", "lo", self.runtime.block_on(set))
    }

    /// Gives `link` an address, without duplicate address detection: nobody else can have it, and
    /// it must be usable at once.
    pub(crate) fn address(&self, link: &str, address: IpAddr, prefix: u8) -> Result<(), NetError> {
        let index = required_index(link)?;
        let mut add = self.handle.address().add(index, address, prefix).replace();
        if address.is_ipv6() {
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            add.message_mut().attributes.push(flags);
        }
        self.link_result("address", link, self.runtime.block_on(add.execute()))
    }

    /// Takes an address away from `link`; absent is fine.
    pub(crate) fn no_address(
        &self,
        link: &str,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetError> {
        let index = required_index(link)?;
        let mut like = self.handle.address().add(index, address, prefix);
        let del = self.handle.address().del(like.message_mut().clone());
        match self.runtime.block_on(del.execute()) {
            Err(error) if errno(&error) == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            result => self.link_result("take an address from", link, result),
        }
    }

    /// Routes what has no better route to `gateway` on `link`.
    pub(crate) fn default_route(&self, link: &str, gateway: IpAddr) -> Result<(), NetError> {
        let index = required_index(link)?;
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .onlink()
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .onlink()
                .build(),
        };
        self.route("set the default route of", link, message)
    }

    /// Routes `destination` out of `link`; packets made here get source `source`.
    pub(crate) fn route_v6(
        &self,
        link: &str,
        destination: (Ipv6Addr, u8),
        source: Ipv6Addr,
    ) -> Result<(), NetError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination.0, destination.1)
            .pref_source(source)
            .output_interface(required_index(link)?)
            .build();
        self.route("route to", link, message)
    }

    /// Routes `destination` out of `link`, before every route that says nothing of a metric.
    pub(crate) fn preferred_v6(
        &self,
        link: &str,
        destination: (Ipv6Addr, u8),
    ) -> Result<(), NetError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination.0, destination.1)
            .priority(PREFERRED_METRIC)
            .output_interface(required_index(link)?)
            .build();
        self.route("route to", link, message)
    }

    pub(crate) fn route_v4(&self, link: &str, destination: Ipv4Addr) -> Result<(), NetError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, 32)
            .scope(RouteScope::Link)
            .output_interface(required_index(link)?)
            .build();
        self.route("route to", link, message)
    }

    /// Refuses packets to `destination` that have no better route.
    pub(crate) fn unreachable_v6(&self, destination: Ipv6Addr, len: u8) -> Result<(), NetError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination, len)
            .kind(RouteType::Unreachable)
            .output_interface(required_index("lo")?)
            .build();
        self.route("make unreachable beyond", "lo", message)
    }

    fn route(
        &self,
        action: &'static str,
        link: &str,
        message: RouteMessage,
    ) -> Result<(), NetError> {
        let add = self.handle.route().add(message).replace();
        self.link_result(action, link, self.runtime.block_on(add.execute()))
    }

    fn link_result(
        &self,
        action: &'static str,
        link: &str,
        result: Result<(), rtnetlink::Error>,
    ) -> Result<(), NetError> {
        result.map_err(|source| NetError::Link {
            action,
            link: link.to_owned(),
            source,
        })
    }
}

fn end_message<T>(message: LinkMessageBuilder<T>, end: &End) -> LinkMessageBuilder<T> {
    let message = message.address(end.mac.0.to_vec());
    match end.netns {
        Some(netns) => message.setns_by_fd(netns.as_raw_fd()),
        None => message,
    }
}

/// The index of `link` in the calling thread's network namespace.
pub(crate) fn index(link: &str) -> Option<u32> {
    if_nametoindex(link).ok()
}

fn required_index(link: &str) -> Result<u32, NetError> {
    if_nametoindex(link).map_err(|errno| NetError::NoLink {
        link: link.to_owned(),
        source: errno.into(),
    })
}

/// The names of all links of the calling thread's network namespace.
pub(crate) fn names() -> Result<Vec<String>, NetError> {
    let links = if_nameindex().map_err(|errno| NetError::ListLinks {
        source: errno.into(),
    })?;
    Ok(links
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned())
        .collect())
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().abs()),
        _ => None,
    }
}
