//! From the fleet's hosts to WireGuard peers: what has to change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use net::wireguard::PublicKey;
use types::HostId;
use types::fleet::HostRecord;

/// Another host, as the directory says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) key: PublicKey,
    pub(super) endpoint: SocketAddr,
}

/// A record that cannot be a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("`{text}` is no WireGuard key")]
    BadKey { text: String },
    #[error("its public key is that of host {other}")]
    KeyTaken { other: HostId },
    #[error("there is another host of this id")]
    IdTaken,
    #[error("nothing can be sent to {endpoint}")]
    NoEndpoint { endpoint: SocketAddr },
}

/// What the peers are to be, and which records are of no use.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) hosts: BTreeMap<HostId, Known>,
    pub(super) unusable: Vec<(HostId, Unusable)>,
}

/// The other hosts of the fleet as seen by host `us`, which has key `own`. Of two that claim the
/// same, the one that joined first has it.
pub(super) fn wanted(us: HostId, own: PublicKey, records: &[HostRecord]) -> Wanted {
    let mut wanted = Wanted::default();
    let mut keys = BTreeMap::from([(own, us)]);
    let mut records: Vec<_> = records.iter().filter(|record| record.id != us).collect();
    records.sort_by_key(|record| (record.joined_at, record.id));
    for record in records {
        match usable(record, &keys, &wanted.hosts) {
            Ok(known) => {
                keys.insert(known.key, record.id);
                wanted.hosts.insert(record.id, known);
            }
            Err(why) => wanted.unusable.push((record.id, why)),
        }
    }
    wanted
}

fn usable(
    record: &HostRecord,
    keys: &BTreeMap<PublicKey, HostId>,
    hosts: &BTreeMap<HostId, Known>,
) -> Result<Known, Unusable> {
    let text = &record.public_key;
    let key = text.parse().map_err(|_| Unusable::BadKey {
        text: text.chars().take(60).collect(),
    })?;
    if let Some(&other) = keys.get(&key) {
        return Err(Unusable::KeyTaken { other });
    }
    if hosts.contains_key(&record.id) {
        return Err(Unusable::IdTaken);
    }
    let endpoint = record.endpoint;
    if endpoint.port() == 0 || endpoint.ip().is_unspecified() || endpoint.ip().is_multicast() {
        return Err(Unusable::NoEndpoint { endpoint });
    }
    Ok(Known {
        name: record.name.clone(),
        key,
        endpoint,
    })
}

/// What leads from the peers that there are to those that there are to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Those that are gone, and those whose key is another: their sessions mean nothing any more.
    /// All of them before any is added, since keys may change hands.
    pub(super) remove: BTreeSet<HostId>,
    /// New ones, and those whose key or endpoint is another. Not those that are as they were: a
    /// peer that has moved is followed, and must not be sent back to where it was.
    pub(super) ensure: BTreeSet<HostId>,
}

pub(super) fn changes(from: &BTreeMap<HostId, Known>, to: &BTreeMap<HostId, Known>) -> Changes {
    let same_key = |id: &HostId, known: &Known| to.get(id).is_some_and(|new| new.key == known.key);
    let gone = from.iter().filter(|(id, known)| !same_key(id, known));
    let is_same = |id: &HostId, new: &Known| {
        from.get(id)
            .is_some_and(|old| old.key == new.key && old.endpoint == new.endpoint)
    };
    let fresh = to.iter().filter(|(id, new)| !is_same(id, new));
    Changes {
        remove: gone.map(|(id, _)| *id).collect(),
        ensure: fresh.map(|(id, _)| *id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const US: u16 = 2;

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    fn record(number: u16, key: PublicKey) -> HostRecord {
        HostRecord {
            id: HostId::new(number),
            name: format!("host-{number}"),
            region: "local".into(),
            public_key: key.to_string(),
            endpoint: SocketAddr::from(([192, 0, 2, 1], number)),
            gateway: None,
            certificate: String::new(),
            joined_at: Timestamp::from_second(number.into()).unwrap(),
        }
    }

    fn peers(records: &[HostRecord]) -> Wanted {
        wanted(HostId::new(US), key(US.to_le_bytes()[0]), records)
    }

    fn ids(numbers: &[u16]) -> BTreeSet<HostId> {
        numbers.iter().map(|&number| HostId::new(number)).collect()
    }

    #[test]
    fn a_host_is_not_its_own_peer() {
        let found = peers(&[record(US, key(2)), record(3, key(3))]);
        assert!(found.hosts.into_keys().eq(ids(&[3])));
        assert_eq!(found.unusable, []);
    }

    #[test]
    fn what_cannot_be_a_peer_is_left_out_and_the_others_are_not() {
        let mut broken = record(4, key(4));
        broken.public_key = "no key".into();
        let mut nowhere = record(7, key(7));
        nowhere.endpoint = "[::]:51821".parse().unwrap();
        let thief = record(5, key(3));
        let double = record(3, key(9));
        let ours = record(6, key(2));
        let found = peers(&[broken, thief, ours, record(3, key(3)), double, nowhere]);
        assert!(found.hosts.keys().copied().eq(ids(&[3])));
        assert_eq!(found.hosts[&HostId::new(3)].key, key(3));
        let other = HostId::new(3);
        let us = HostId::new(US);
        let why: BTreeMap<_, _> = found.unusable.into_iter().collect();
        assert_eq!(why[&HostId::new(5)], Unusable::KeyTaken { other });
        assert_eq!(why[&HostId::new(6)], Unusable::KeyTaken { other: us });
        assert_eq!(why[&HostId::new(3)], Unusable::IdTaken);
        assert!(matches!(why[&HostId::new(4)], Unusable::BadKey { .. }));
        assert!(matches!(why[&HostId::new(7)], Unusable::NoEndpoint { .. }));
    }

    #[test]
    fn peers_come_change_and_go() {
        let old = peers(&[record(3, key(3)), record(4, key(4)), record(5, key(5))]).hosts;
        let mut moved = record(4, key(4));
        moved.endpoint.set_port(9);
        let new = peers(&[record(3, key(3)), moved, record(6, key(6))]).hosts;
        let expected = Changes {
            remove: ids(&[5]),
            ensure: ids(&[4, 6]),
        };
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&new, &new), Changes::default());
    }

    #[test]
    fn keys_may_change_hands() {
        let old = peers(&[record(3, key(3)), record(4, key(4))]).hosts;
        let new = peers(&[record(3, key(4)), record(4, key(3))]).hosts;
        let expected = Changes {
            remove: ids(&[3, 4]),
            ensure: ids(&[3, 4]),
        };
        assert_eq!(changes(&old, &new), expected);
    }
}
