//! WireGuard peers. A peer's row stands under its public key, because that is what a gateway knows
//! of a stranger; its name leads to the key.

use jiff::Timestamp;
use net::wireguard::PublicKey;
use store::Set;
use types::fleet::{HostRecord, PublicKeyText, WireGuardPeer};
use types::sixpn::peer_addr;
use types::{HostId, NetworkId, OrgSlug};

use super::DEFAULT_NETWORK;
use super::apps::ensure_network;
use super::command::{Decision, Reply};
use super::error::Refused;
use super::rows::{self, NewPeer, PEERS, Rows, put};

pub(super) fn create(rows: &Rows, new: NewPeer, now: Timestamp) -> Result<Decision, Refused> {
    let NewPeer {
        name, org, network, ..
    } = new;
    if !rows.has(&rows::org_key(&org)) {
        return Err(Refused::OrgNotFound { slug: org });
    }
    let key: PublicKey = new.public_key.parse().map_err(|_| Refused::PublicKey)?;
    let public_key = key.to_string();
    let gateway: Option<HostRecord> = rows.read(&rows::host_key(new.gateway));
    let gateway = gateway.ok_or(Refused::HostNotFound { id: new.gateway })?;
    if gateway.gateway.is_none() {
        return Err(Refused::NoGateway { id: gateway.id });
    }
    // The default network may have to be made; a name that is not known is more likely a mistake.
    let other = !network.is_empty() && network != DEFAULT_NETWORK;
    if other && !rows.has(&rows::network_key(&org, &network)) {
        return Err(Refused::NetworkNotFound { org, name: network });
    }
    let (network, mut writes) = ensure_network(rows, &org, &network)?;
    if let Some(present) = rows.peer(&org, &name) {
        let same = present.public_key == public_key
            && present.gateway == gateway.id
            && present.network_id == network.id;
        return if same {
            Ok(Decision::new(Reply::Peer(present), []))
        } else {
            Err(Refused::PeerNameTaken { org, name })
        };
    }
    let row_key = rows::peer_key(&public_key).ok_or(Refused::PublicKey)?;
    if rows.has(&row_key) || is_of_a_host(rows, &public_key) {
        return Err(Refused::PublicKeyTaken);
    }
    let (index, last) = next_index(rows, network.id, gateway.id)?;
    writes.push(last);
    let peer = WireGuardPeer {
        address: peer_addr(network.id, gateway.id, index),
        name,
        org,
        network: network.name,
        network_id: network.id,
        public_key,
        gateway: gateway.id,
        created_at: now,
    };
    let name_key = rows::peer_name_key(&peer.org, &peer.name);
    writes.extend([put(name_key, &peer.public_key), put(row_key, &peer)]);
    Ok(Decision::new(Reply::Peer(peer), writes))
}

pub(super) fn delete(rows: &Rows, org: OrgSlug, name: String) -> Result<Decision, Refused> {
    let name_key = rows::peer_name_key(&org, &name);
    let Some(public_key) = rows.read::<PublicKeyText>(&name_key) else {
        return Err(Refused::PeerNotFound { org, name });
    };
    let row = rows::peer_key(&public_key).map(Set::remove);
    let writes: Vec<_> = row.into_iter().chain([Set::remove(name_key)]).collect();
    Ok(Decision::new(Reply::Done, writes))
}

fn is_of_a_host(rows: &Rows, public_key: &str) -> bool {
    rows.hosts().iter().any(|host| {
        let gateway = host.gateway.as_ref().map(|gateway| &*gateway.public_key);
        host.public_key == public_key || gateway == Some(public_key)
    })
}

/// The next index of this network and gateway that nobody has, and the write that remembers it.
/// Upwards from the last, and round, so that an address rests for as long as possible.
fn next_index(rows: &Rows, network: NetworkId, gateway: HostId) -> Result<(u8, Set), Refused> {
    let last_key = rows::peer_index_last_key(network, gateway);
    let last: u8 = rows.read(&last_key).unwrap_or(0);
    let peers: Vec<WireGuardPeer> = rows.list(PEERS);
    let taken = |index: u8| {
        let address = peer_addr(network, gateway, index);
        peers.iter().any(|peer| peer.address == address)
    };
    let index = (1..=u8::MAX)
        .map(|step| match last.checked_add(step) {
            Some(index) => index,
            None => last.wrapping_add(step).wrapping_add(1),
        })
        .find(|index| !taken(*index))
        .ok_or(Refused::PeersExhausted { gateway, network })?;
    Ok((index, put(last_key, &index)))
}
