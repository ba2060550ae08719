//! Hosts of the fleet, WireGuard peers of its gateways, and what the mesh says of itself: bodies
//! of the Machines API beyond Fly's.

use std::net::{Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HostId, NetworkId, OrgSlug};

/// A WireGuard public key as people write it: 32 bytes in base64.
pub type PublicKeyText = String;

/// A host of the fleet, as everybody in it may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRecord {
    pub id: HostId,
    /// For people.
    pub name: String,
    pub region: String,
    /// Of the mesh.
    pub public_key: PublicKeyText,
    /// Where its mesh is reached on the underlay.
    pub endpoint: SocketAddr,
    /// Its gateway, if it has one.
    pub gateway: Option<GatewayRecord>,
    /// X.509, PEM: issued by the fleet to this id, over the host's signing key and `public_key`.
    pub certificate: String,
    pub joined_at: Timestamp,
}

/// How clients outside reach a host's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayRecord {
    pub public_key: PublicKeyText,
    pub endpoint: SocketAddr,
}

/// `GET /v1/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostList {
    pub hosts: Vec<HostSummary>,
}

/// A host, and what is thought of it here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostSummary {
    #[serde(flatten)]
    pub host: HostRecord,
    pub status: HostStatus,
}

/// `host_status` of a machine, in Fly's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostStatus {
    #[default]
    Ok,
    /// Suspected, or not heard of yet.
    Unknown,
    /// Silent for so long that others count it out.
    Unreachable,
}

impl HostStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
        }
    }
}

/// `POST /v1/hosts/tokens`: an invitation for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateJoinToken {
    /// Seconds for which it can be used.
    pub ttl_s: u64,
    /// Where the newcomer finds this fleet; `None`: what this host is advertised as.
    pub address: Option<SocketAddr>,
}

impl Default for CreateJoinToken {
    fn default() -> Self {
        Self {
            ttl_s: 3600,
            address: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinToken {
    /// For `aerostat join`. Whoever has it may join, once.
    pub token: String,
    pub expires_at: Timestamp,
}

/// `POST /v1/orgs/{org}/wireguard/peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateWireGuardPeer {
    /// Unique in the organisation; also its DNS label.
    pub name: String,
    /// Network of the organisation; empty: its default.
    pub network: String,
    /// The client's, made by the client.
    pub public_key: PublicKeyText,
    /// The host whose gateway it uses; `None`: the one that is asked.
    pub gateway: Option<HostId>,
}

/// A WireGuard peer that may come to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireGuardPeer {
    pub name: String,
    pub org: OrgSlug,
    pub network: String,
    pub network_id: NetworkId,
    pub public_key: PublicKeyText,
    /// The host whose gateway it uses.
    pub gateway: HostId,
    /// Its first address; it owns the /120.
    pub address: Ipv6Addr,
    pub created_at: Timestamp,
}

/// A peer and the way to its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireGuardPeerAnswer {
    #[serde(flatten)]
    pub peer: WireGuardPeer,
    pub gateway_record: GatewayRecord,
    /// Where it asks for names: `<net>::3`.
    pub resolver: Ipv6Addr,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireGuardPeerList {
    pub peers: Vec<WireGuardPeer>,
}

/// `GET /v1/mesh`: how this host sees the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeshStatus {
    pub host: HostId,
    pub public_key: PublicKeyText,
    /// UDP port of the mesh on the underlay.
    pub port: u16,
    pub peers: Vec<MeshPeer>,
    /// Packets that were dropped since the start, by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// Another host, as the mesh of this one sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeshPeer {
    pub id: HostId,
    pub name: String,
    pub status: HostStatus,
    /// Where it last spoke from.
    pub endpoint: Option<SocketAddr>,
    /// Age of the session, in seconds; `None`: no session.
    pub handshake_age_s: Option<f64>,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    /// Of the last probes (at most a minute), the part that was not answered, in percent.
    pub loss_percent: Option<f64>,
    /// Median of the last probes, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// How long ago the catalog heard this host's own word, in seconds.
    pub word_age_s: Option<f64>,
}
