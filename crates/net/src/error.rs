//! What can go wrong between us and the kernel's network.

use std::io;
use std::path::PathBuf;

/// A change to the kernel's network that failed. Repeating the whole operation is always sound.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot {action} network namespace {path}")]
    Namespace {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot start a thread for network namespace {path}")]
    Thread { path: PathBuf, source: io::Error },
    #[error("cannot open a netlink socket")]
    Netlink { source: io::Error },
    #[error("cannot {action} link {link}")]
    Link {
        action: &'static str,
        link: String,
        source: rtnetlink::Error,
    },
    #[error("link {link} is missing")]
    NoLink { link: String, source: io::Error },
    #[error("cannot list links")]
    ListLinks { source: io::Error },
    #[error("cannot open tap {link}")]
    Tap { link: String, source: io::Error },
    #[error("cannot {action} {path}")]
    Sysctl {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{address} is no VIP")]
    NotVip { address: std::net::Ipv6Addr },
    #[error("cannot use libnftables; Debian has it in package libnftables1")]
    NftLibrary { source: io::Error },
    #[error("nftables refused to {action}: {complaint}")]
    Nft {
        action: &'static str,
        complaint: String,
    },
    #[error("nftables printed something else than its JSON")]
    NftJson { source: serde_json::Error },
}
