//! The rows of the directory: their types, their keys, and reading them.

use bytes::Bytes;
use jiff::Timestamp;
use net::wireguard::PublicKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{Set, Store};
use types::fleet::{HostRecord, PublicKeyText, WireGuardPeer};
use types::service::Service;
use types::{AppName, HostId, NetworkId, OrgSlug};

/// Everything of the directory is under this; the version of the rows is part of it.
pub(super) const PREFIX: &str = "directory/v1/";
pub(super) const ORGS: &str = "directory/v1/orgs/";
pub(super) const APPS: &str = "directory/v1/apps/";
pub(super) const NETWORKS: &str = "directory/v1/networks/";
pub(super) const NETWORK_ID_LAST: &str = "directory/v1/network-id-last";
pub(super) const HOSTS: &str = "directory/v1/hosts/";
pub(super) const HOST_NUMBERS: &str = "directory/v1/host-numbers/";
pub(super) const HOST_NUMBER_LAST: &str = "directory/v1/host-number-last";
pub(super) const JOIN_TOKENS: &str = "directory/v1/join-tokens/";
pub(super) const SERVICES: &str = "directory/v1/services/";
pub(super) const PEERS: &str = "directory/v1/wireguard-peers/";
pub(super) const TOKEN_KEYS: &str = "directory/v1/token-keys/";
pub(super) const API_TOKENS: &str = "directory/v1/tokens/";
pub(super) const REVOCATIONS: &str = "directory/v1/token-revocations/";
pub(super) const SECRETS: &str = "directory/v1/secrets/";
const VIP_LAST: &str = "directory/v1/vip-last/";
const PEER_NAMES: &str = "directory/v1/wireguard-names/";
const PEER_INDEX_LAST: &str = "directory/v1/wireguard-index-last/";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Org {
    pub slug: OrgSlug,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Never reused, unlike the name.
    pub id: String,
    pub name: AppName,
    pub org: OrgSlug,
    /// Name of its network within the organisation.
    pub network: String,
    pub network_id: NetworkId,
    pub created_at: Timestamp,
    /// A word of its creator's.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub role: String,
    /// Digests of the key and body of a request that may be repeated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creation_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub org: OrgSlug,
    pub name: String,
}

/// What an app is asked to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewApp {
    pub name: AppName,
    pub org: OrgSlug,
    /// Made if the organisation has none of this name.
    pub network: String,
    #[serde(default)]
    pub role: String,
    #[serde(default)]
    pub creation_key: Option<String>,
}

/// What a WireGuard peer is asked to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewPeer {
    /// Unique in the organisation.
    pub name: String,
    pub org: OrgSlug,
    /// Empty: the organisation's default.
    pub network: String,
    pub public_key: PublicKeyText,
    /// The host whose gateway it uses.
    pub gateway: HostId,
}

/// An invitation, by the hash of its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JoinTokenRow {
    pub(super) expires_at: Timestamp,
    /// The key of the host that used it. That host may use it again, because it may not have heard
    /// the answer.
    pub(super) redeemed_by: Option<PublicKeyText>,
}

pub(super) fn org_key(slug: &OrgSlug) -> String {
    format!("{ORGS}{slug}")
}

pub(super) fn app_key(name: &AppName) -> String {
    format!("{APPS}{name}")
}

pub(super) fn network_key(org: &OrgSlug, name: &str) -> String {
    format!("{NETWORKS}{org}/{name}")
}

pub(super) fn host_key(host: HostId) -> String {
    format!("{HOSTS}{host}")
}

pub(super) fn host_number_key(host: HostId) -> String {
    format!("{HOST_NUMBERS}{host}")
}

pub(super) fn join_token_key(hash: &[u8; 32]) -> String {
    format!("{JOIN_TOKENS}{}", hex(hash))
}

pub(super) fn token_key_key(id: u32) -> String {
    format!("{TOKEN_KEYS}{id:08x}")
}

pub(super) fn api_token_key(id: &str) -> String {
    format!("{API_TOKENS}{id}")
}

/// `id` is that of a token or of one of its blocks.
pub(super) fn revocation_key(id: &str) -> String {
    format!("{REVOCATIONS}{id}")
}

pub(super) fn secrets_key(app: &AppName) -> String {
    format!("{SECRETS}{app}")
}

pub(super) fn services_of(app: &AppName) -> String {
    format!("{SERVICES}{app}/")
}

pub(super) fn service_key(app: &AppName, name: &str) -> String {
    format!("{SERVICES}{app}/{name}")
}

pub(super) fn vip_last_key(network: NetworkId) -> String {
    format!("{VIP_LAST}{network}")
}

/// `None` if the text is no key.
pub(super) fn peer_key(public_key: &str) -> Option<String> {
    let PublicKey(bytes) = public_key.parse().ok()?;
    Some(format!("{PEERS}{}", hex(&bytes)))
}

pub(super) fn peer_name_key(org: &OrgSlug, name: &str) -> String {
    format!("{PEER_NAMES}{org}/{name}")
}

pub(super) fn peer_index_last_key(network: NetworkId, gateway: HostId) -> String {
    format!("{PEER_INDEX_LAST}{network}/{gateway}")
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row to write.
pub(super) fn put<T: Serialize>(key: String, row: &T) -> Set {
    // Rows are our own types: no maps with other keys than strings, no failing serialisers.
    let value: Bytes = serde_json::to_vec(row).expect("a row is JSON").into();
    Set::put(key, value)
}

/// A row that this version cannot read is treated as absent and said so: better one app missing
/// than no directory.
pub(super) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match serde_json::from_slice(value) {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(key, %error, "directory row cannot be read");
            None
        }
    }
}

/// The rows as they are in this host's store.
#[derive(Debug, Clone)]
pub(super) struct Rows(pub(super) Store);

impl Rows {
    pub(super) fn read<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let entry = self.0.get(key)?;
        decode(key, &entry.value)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    pub(super) fn list<T: DeserializeOwned>(&self, prefix: &str) -> Vec<T> {
        let rows = self.all(prefix).into_iter();
        rows.filter_map(|(key, value)| decode(&key, &value))
            .collect()
    }

    /// Keys and values under `prefix`, as of one moment.
    pub(super) fn all(&self, prefix: &str) -> Vec<(std::sync::Arc<str>, Bytes)> {
        // A list of what is now cannot be of a revision that is no longer kept.
        let Ok(range) = self.0.range(prefix, None, usize::MAX, None) else {
            return Vec::new();
        };
        let entries = range.entries.into_iter();
        entries.map(|(key, entry)| (key, entry.value)).collect()
    }

    pub(super) fn app(&self, name: &AppName) -> Option<App> {
        self.read(&app_key(name))
    }

    pub(super) fn hosts(&self) -> Vec<HostRecord> {
        self.list(HOSTS)
    }

    pub(super) fn services(&self) -> Vec<Service> {
        self.list(SERVICES)
    }

    pub(super) fn peer(&self, org: &OrgSlug, name: &str) -> Option<WireGuardPeer> {
        let public_key: PublicKeyText = self.read(&peer_name_key(org, name))?;
        self.read(&peer_key(&public_key)?)
    }
}
