//! One host's network: its namespace, and the machines attached to it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::libc;
use tracing::info;
use types::sixpn::{GATEWAY, HOST_PLANE, MTU, RESOLVER, host_addr};
use types::{HostId, SixPn};

use crate::error::NetError;
use crate::guard::{self, MACHINE_PREFIX_LEN, machine_prefix};
use crate::links::{self, End, Links};
use crate::names::{
    EGRESS_LINK, GATEWAY_MAC, GATEWAY_V4, LinkName, Mac, NETNS_DIR, SIX_PN, host_netns,
    is_machine_netns, machine_netns,
};
use crate::sockets::Sockets;
use crate::{egress, netns, networks, nft, sys, sysctl};

/// The one link of a machine that has a namespace of its own.
const MACHINE_LINK: &str = "eth0";

/// Whether machines reach the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Through the host's own routes, behind its address.
    Nat,
    /// Not at all.
    None,
}

/// What a host's network is to be.
#[derive(Debug, Clone)]
pub struct HostNetConfig {
    pub host: HostId,
    pub egress: Egress,
}

/// A host's network that is there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostNet {
    pub(crate) host: HostId,
    pub(crate) netns: PathBuf,
    /// In the namespace.
    pub(crate) nft: Arc<nft::Session>,
}

/// A machine to attach.
#[derive(Debug, Clone)]
pub struct Attach {
    pub name: LinkName,
    /// The machine's first address; its whole /112 is routed to it.
    pub address: SixPn,
    /// From `MACHINES_V4`, unique on this host; only used for the way out.
    pub ipv4: Ipv4Addr,
    pub kind: AttachKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachKind {
    /// A persistent tap with virtio-net headers in the host's namespace, which `owner_uid` may
    /// open. The guest configures its end itself.
    Tap { owner_uid: u32 },
    /// A veth pair whose far end is `eth0`, configured, in a namespace of the machine's own.
    Veth,
}

/// A machine that is attached, and how its own end is (veth) or must be (tap) configured:
/// `ipv6`/128 and `ipv4`/32, default routes by both gateways (on-link), no duplicate address
/// detection, no router advertisements, resolver `fdaa::3`.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub name: LinkName,
    /// The machine's namespace, for a veth.
    pub netns: Option<PathBuf>,
    /// The host's namespace, in which the tap is.
    pub host_netns: PathBuf,
    /// Of the machine's end.
    pub mac: Mac,
    pub ipv6: SixPn,
    pub ipv4: Ipv4Addr,
    pub gateway_v6: Ipv6Addr,
    pub gateway_v4: Ipv4Addr,
    /// Bytes.
    pub mtu: u32,
    /// Whether frames on the tap carry a virtio-net header (`IFF_VNET_HDR`).
    pub vnet_hdr: bool,
}

impl HostNet {
    /// Makes the host's network, or adopts it and repairs what is missing. Machines that are
    /// attached stay.
    pub fn ensure(config: &HostNetConfig) -> Result<Self, NetError> {
        let path = host_netns(config.host);
        let _lock = netns::lock()?;
        netns::ensure(&path)?;
        let nft = Arc::new(nft::Session::default());
        netns::enter(&path, || ensure_inside(config.host, &nft))??;
        match config.egress {
            Egress::Nat => egress::ensure(config.host)?,
            Egress::None => egress::remove(config.host)?,
        }
        info!(host = %config.host, netns = %path.display(), "network is ready");
        Ok(Self {
            host: config.host,
            netns: path,
            nft,
        })
    }

    /// The host's namespace, as a file that `setns` takes.
    pub fn netns(&self) -> &std::path::Path {
        &self.netns
    }

    /// Runs `f` on a fresh thread inside the namespace; sockets made there stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        netns::enter(&self.netns, f)
    }

    /// Makes sockets inside the namespace for tasks outside.
    pub fn sockets(&self) -> Result<Sockets, NetError> {
        Sockets::start(&self.netns)
    }

    /// Attaches a machine, or repairs its attachment. The guard stands before the link does.
    pub fn attach(&self, request: &Attach) -> Result<Attachment, NetError> {
        let name = request.name;
        let machine_ns = machine_netns(self.host, name);
        let netns = match request.kind {
            AttachKind::Veth => {
                // The lock is for the directory that namespaces are in.
                let _lock = netns::lock()?;
                netns::ensure(&machine_ns)?;
                Some(machine_ns)
            }
            AttachKind::Tap { .. } => {
                netns::delete(&machine_ns)?;
                None
            }
        };
        let is_whole = match &netns {
            Some(path) => netns::enter(path, || links::index(MACHINE_LINK).is_some())?,
            None => true,
        };
        self.enter(|| {
            let script = guard::machine(name, request.address, request.ipv4)
                + &guard::network(request.address.network);
            self.nft.apply("guard a machine", &script)?;
            let links = Links::open()?;
            match (request.kind, &netns) {
                (AttachKind::Tap { owner_uid }, _) => ensure_tap(&links, name, owner_uid)?,
                (AttachKind::Veth, Some(_)) if is_whole && is_there(name) => {}
                (AttachKind::Veth, Some(path)) => add_machine_veth(&links, name, path)?,
                (AttachKind::Veth, None) => {}
            }
            self.ensure_near_end(&links, request)
        })??;
        if let Some(path) = &netns {
            netns::enter(path, || ensure_far_end(request))??;
        }
        Ok(self.attachment(request))
    }

    /// What [`Self::attach`] makes of a request.
    pub fn attachment(&self, request: &Attach) -> Attachment {
        let name = request.name;
        let (netns, vnet_hdr) = match request.kind {
            AttachKind::Veth => (Some(machine_netns(self.host, name)), false),
            AttachKind::Tap { .. } => (None, true),
        };
        Attachment {
            name,
            netns,
            host_netns: self.netns.clone(),
            mac: name.mac(),
            ipv6: request.address,
            ipv4: request.ipv4,
            gateway_v6: GATEWAY,
            gateway_v4: GATEWAY_V4,
            mtu: MTU,
            vnet_hdr,
        }
    }

    /// Opens the tap of an attached machine, for a VMM that is given a descriptor. Flags are as
    /// `Attachment` says. Fails with EBUSY while another process has it open.
    pub fn open_tap(&self, name: LinkName) -> Result<OwnedFd, NetError> {
        let link = name.to_string();
        self.enter(|| sys::open_tap(&link))?
            .map_err(|source| NetError::Tap { link, source })
    }

    /// Takes a machine off the network; absent is fine.
    pub fn detach(&self, name: &LinkName) -> Result<(), NetError> {
        self.enter(|| Links::open()?.delete(&name.to_string()))??;
        netns::delete(&machine_netns(self.host, *name))?;
        let script = guard::no_machine(*name);
        self.enter(|| self.nft.apply("forget a machine", &script))?
    }

    /// The machines of which anything is attached, for the sweep at start-up.
    pub fn attachments(&self) -> Result<Vec<LinkName>, NetError> {
        let mut names = self.enter(machine_links)??;
        let prefix = format!("aero-{}-", self.host);
        let of_netns = |file: String| -> Option<LinkName> {
            format!("m{}", file.strip_prefix(&prefix)?).parse().ok()
        };
        names.extend(
            machine_namespaces(self.host)?
                .into_iter()
                .filter_map(of_netns),
        );
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Removes everything of `host` from this server: links, namespaces, translation; forwarding
    /// outside goes back to what it was. Absent is fine.
    pub fn remove(host: HostId) -> Result<(), NetError> {
        let _lock = netns::lock()?;
        let path = host_netns(host);
        if netns::exists(&path) {
            // By name, since a process that is still in there would keep the namespace's links.
            netns::enter(&path, || {
                let links = Links::open()?;
                let all = links::names()?;
                all.iter()
                    .filter(|link| *link != "lo")
                    .try_for_each(|link| links.delete(link))
            })??;
        }
        egress::remove(host)?;
        for file in machine_namespaces(host)? {
            netns::delete(&PathBuf::from(NETNS_DIR).join(file))?;
        }
        netns::delete(&path)?;
        info!(%host, "network is removed");
        Ok(())
    }

    /// [`Self::remove`], unless a machine is attached. Says whether it did.
    pub fn remove_unused(host: HostId) -> Result<bool, NetError> {
        let netns = host_netns(host);
        let is_there = netns::exists(&netns);
        let net = Self {
            host,
            netns,
            nft: Arc::default(),
        };
        if is_there && !net.attachments()?.is_empty() {
            return Ok(false);
        }
        Self::remove(host).map(|()| true)
    }

    /// Everything of `host` that is on this server, one line each; empty after `remove`.
    pub fn inventory(host: HostId) -> Result<Vec<String>, NetError> {
        let mut found = egress::inventory(host)?;
        let path = host_netns(host);
        if path.exists() {
            found.push(format!("netns {}", path.display()));
        }
        for file in machine_namespaces(host)? {
            found.push(format!("netns {NETNS_DIR}/{file}"));
        }
        if netns::exists(&path) {
            let inside = netns::enter(&path, links::names)??;
            let links = inside.into_iter().filter(|link| link != "lo");
            found.extend(links.map(|link| format!("link {link} in {}", path.display())));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn ensure_near_end(&self, links: &Links, request: &Attach) -> Result<(), NetError> {
        let link = &request.name.to_string();
        let us = host_addr(request.address.network, self.host);
        links.set_up(link, Some(GATEWAY_MAC), MTU)?;
        networks::ensure_inside(links, request.address.network, self.host)?;
        links.address(link, IpAddr::V6(GATEWAY), 64)?;
        links.address(link, IpAddr::V4(GATEWAY_V4), 32)?;
        links.route_v6(
            link,
            (machine_prefix(request.address), MACHINE_PREFIX_LEN),
            us,
        )?;
        links.route_v4(link, request.ipv4)
    }
}

/// What every host's namespace has. Runs inside.
fn ensure_inside(host: HostId, nft: &nft::Session) -> Result<(), NetError> {
    for scope in ["all", "default"] {
        let v4 = |key: &str, value| sysctl::set(&format!("ipv4/conf/{scope}/{key}"), value);
        let v6 = |key: &str, value| sysctl::set(&format!("ipv6/conf/{scope}/{key}"), value);
        v4("accept_redirects", "0")?;
        v4("send_redirects", "0")?;
        v4("accept_source_route", "0")?;
        v4("rp_filter", "1")?;
        v6("disable_ipv6", "0")?;
        v6("accept_ra", "0")?;
        v6("accept_redirects", "0")?;
        v6("accept_dad", "0")?;
        // No link-local addresses but ours: they are the same on every link.
        v6("addr_gen_mode", "1")?;
    }
    sysctl::set("ipv4/ip_forward", "1")?;
    sysctl::set("ipv6/conf/all/forwarding", "1")?;
    // Whoever is in here may ask for echoes: the mesh's probes.
    sysctl::set("ipv4/ping_group_range", "0 2147483647")?;
    nft.apply("set up the guards", &guard::base(host))?;
    let links = Links::open()?;
    links.loopback_up()?;
    links.address("lo", IpAddr::V6(RESOLVER), 128)?;
    // What is not attached here must not leave by the default route; the mesh's is better.
    links.unreachable_v6(SIX_PN.0, SIX_PN.1)?;
    networks::ensure_inside(&links, HOST_PLANE, host)
}

fn is_there(name: LinkName) -> bool {
    links::index(&name.to_string()).is_some()
}

/// Runs inside the host's namespace.
fn ensure_tap(links: &Links, name: LinkName, owner_uid: u32) -> Result<(), NetError> {
    let link = name.to_string();
    let open = || match sys::open_tap(&link) {
        // Somebody has it open, so it is there: a VMM that outlived us.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(error) => Err(error),
        Ok(tap) => sys::keep_tap(&tap, owner_uid),
    };
    let opened = match open() {
        // A link of another kind.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && is_there(name) => {
            links.delete(&link)?;
            open()
        }
        other => other,
    };
    opened.map_err(|source| NetError::Tap { link, source })
}

/// Runs inside the host's namespace; `path` is the machine's.
fn add_machine_veth(links: &Links, name: LinkName, path: &PathBuf) -> Result<(), NetError> {
    let near = &name.to_string();
    links.delete(near)?;
    netns::enter(path, || Links::open()?.delete(MACHINE_LINK))??;
    let netns = fs::File::open(path).map_err(|source| NetError::Namespace {
        action: "open",
        path: path.clone(),
        source,
    })?;
    links.add_veth(
        &End {
            name: near,
            mac: GATEWAY_MAC,
            netns: None,
        },
        &End {
            name: MACHINE_LINK,
            mac: name.mac(),
            netns: Some(netns.as_fd()),
        },
    )
}

/// Configures the machine's own end of a veth pair. Runs inside the machine's namespace.
fn ensure_far_end(request: &Attach) -> Result<(), NetError> {
    for scope in ["all", "default", MACHINE_LINK] {
        for (key, value) in [
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("accept_dad", "0"),
        ] {
            sysctl::set(&format!("ipv6/conf/{scope}/{key}"), value)?;
        }
    }
    // The namespace is the machine's own, so low ports and ping need no privilege.
    sysctl::set("ipv4/ip_unprivileged_port_start", "0")?;
    sysctl::set("ipv4/ping_group_range", "0 2147483647")?;
    let links = Links::open()?;
    links.loopback_up()?;
    links.set_up(MACHINE_LINK, None, MTU)?;
    links.address(MACHINE_LINK, IpAddr::V6(request.address.addr()), 128)?;
    links.address(MACHINE_LINK, IpAddr::V4(request.ipv4), 32)?;
    links.default_route(MACHINE_LINK, IpAddr::V6(GATEWAY))?;
    links.default_route(MACHINE_LINK, IpAddr::V4(GATEWAY_V4))
}

/// Runs inside the host's namespace.
fn machine_links() -> Result<Vec<LinkName>, NetError> {
    let names = links::names()?;
    Ok(names
        .iter()
        .filter(|name| *name != EGRESS_LINK)
        .filter_map(|n| n.parse().ok())
        .collect())
}

fn machine_namespaces(host: HostId) -> Result<Vec<String>, NetError> {
    let entries = match fs::read_dir(NETNS_DIR) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(NetError::Namespace {
                action: "list",
                path: NETNS_DIR.into(),
                source,
            });
        }
        Ok(entries) => entries,
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| is_machine_netns(host, name)).collect())
}
