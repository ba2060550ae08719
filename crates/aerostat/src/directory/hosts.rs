//! Hosts, and the numbers that are their ids.
//!
//! A number is given to a key before its host is known, because the host's certificate names both.
//! Until its record is there, a number that somebody asks for by name may be given to another key:
//! a joining that failed must not keep it for ever. The record then decides: it is refused unless
//! the number is still its key's.

use store::Set;
use types::HostId;
use types::fleet::{HostRecord, PublicKeyText, WireGuardPeer};

use super::command::{Decision, Reply};
use super::error::Refused;
use super::rows::{self, HOST_NUMBER_LAST, HOST_NUMBERS, PEERS, Rows, put};

/// 0 and 1 are never given out.
const HOST_NUMBER_MIN: u16 = 2;

pub(super) fn put_host(rows: &Rows, record: HostRecord) -> Result<Decision, Refused> {
    let key = rows::host_key(record.id);
    let number_key = rows::host_number_key(record.id);
    let present: Option<HostRecord> = rows.read(&key);
    let given_to: Option<PublicKeyText> = rows.read(&number_key);
    let owner = present.as_ref().map(|host| &host.public_key);
    if owner
        .or(given_to.as_ref())
        .is_some_and(|key| *key != record.public_key)
    {
        return Err(Refused::HostTaken { id: record.id });
    }
    if present.as_ref() == Some(&record) {
        return Ok(Decision::new(Reply::Done, []));
    }
    let writes = [put(number_key, &record.public_key), put(key, &record)];
    Ok(Decision::new(Reply::Done, writes))
}

/// The peers of its gateway go with it: their addresses are of this host.
pub(super) fn remove(rows: &Rows, id: HostId) -> Result<Decision, Refused> {
    let key = rows::host_key(id);
    if !rows.has(&key) {
        return Err(Refused::HostNotFound { id });
    }
    let mut writes = vec![Set::remove(key), Set::remove(rows::host_number_key(id))];
    let peers: Vec<WireGuardPeer> = rows.list(PEERS);
    for peer in peers.iter().filter(|peer| peer.gateway == id) {
        writes.push(Set::remove(rows::peer_name_key(&peer.org, &peer.name)));
        writes.extend(rows::peer_key(&peer.public_key).map(Set::remove));
    }
    Ok(Decision::new(Reply::Done, writes))
}

/// A key that asks again gets the number that it has.
pub(super) fn allocate(
    rows: &Rows,
    wanted: Option<u16>,
    public_key: PublicKeyText,
) -> Result<Decision, Refused> {
    let has = |number: u16| rows.read(&rows::host_number_key(HostId::new(number)));
    let free = |number: u16| {
        let owner: Option<PublicKeyText> = has(number);
        owner.is_none() && !rows.has(&rows::host_key(HostId::new(number)))
    };
    if let Some(number) = wanted {
        let id = HostId::new(number);
        if number < HOST_NUMBER_MIN {
            return Err(Refused::HostNumber { number });
        }
        let record: Option<HostRecord> = rows.read(&rows::host_key(id));
        if record.is_some_and(|host| host.public_key != public_key) {
            return Err(Refused::HostTaken { id });
        }
        let write = put(rows::host_number_key(id), &public_key);
        return Ok(Decision::new(Reply::Host(id), [write]));
    }
    if let Some(id) = given(rows, &public_key) {
        return Ok(Decision::new(Reply::Host(id), []));
    }
    let last: u16 = rows.read(HOST_NUMBER_LAST).unwrap_or(HOST_NUMBER_MIN - 1);
    // Upwards from the last, and round, so that a number rests for as long as possible.
    let upwards = last.saturating_add(1).max(HOST_NUMBER_MIN)..=u16::MAX;
    let number = upwards
        .chain(HOST_NUMBER_MIN..=last.max(HOST_NUMBER_MIN))
        .find(|number| free(*number))
        .ok_or(Refused::HostNumbersExhausted)?;
    let id = HostId::new(number);
    let writes = [
        put(HOST_NUMBER_LAST.to_owned(), &number),
        put(rows::host_number_key(id), &public_key),
    ];
    Ok(Decision::new(Reply::Host(id), writes))
}

/// The number that this key was given.
fn given(rows: &Rows, public_key: &str) -> Option<HostId> {
    rows.all(HOST_NUMBERS).into_iter().find_map(|(key, value)| {
        let owner: PublicKeyText = rows::decode(&key, &value)?;
        let number = u16::from_str_radix(key.strip_prefix(HOST_NUMBERS)?, 16).ok()?;
        (owner == public_key).then(|| HostId::new(number))
    })
}
