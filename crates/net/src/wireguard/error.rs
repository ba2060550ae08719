//! What can go wrong when an engine starts or is told of a peer.

use std::io;
use std::net::SocketAddr;

use super::peer::PeerId;

#[derive(Debug, thiserror::Error)]
pub enum WireGuardError {
    #[error("cannot open TUN device {link}")]
    OpenTun { link: String, source: io::Error },
    #[error("cannot configure TUN device {link}")]
    ConfigureTun { link: String, source: io::Error },
    #[error("cannot listen for WireGuard on UDP {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot start a thread for WireGuard")]
    Thread { source: io::Error },
    #[error("peer {other:?} has the public key that peer {peer:?} is to have")]
    KeyTaken { peer: PeerId, other: PeerId },
    #[error("peer {peer:?} is to have our own public key")]
    OwnKey { peer: PeerId },
    #[error("peer {peer:?} is to have a public key that nobody's private key belongs to")]
    WeakKey { peer: PeerId },
}

impl WireGuardError {
    /// What the kernel said, if it was the kernel that refused.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::OpenTun { source, .. }
            | Self::ConfigureTun { source, .. }
            | Self::Listen { source, .. }
            | Self::Thread { source } => Some(source.kind()),
            Self::KeyTaken { .. } | Self::OwnKey { .. } | Self::WeakKey { .. } => None,
        }
    }
}
