//! Apps and networks.

use jiff::Timestamp;
use store::Set;
use types::{AppName, NetworkId, OrgSlug};

use super::DEFAULT_NETWORK;
use super::command::{Decision, Reply};
use super::error::Refused;
use super::rows::{self, App, NETWORK_ID_LAST, Network, NewApp, Rows, put};

/// Longest name of a network, in bytes.
const NETWORK_NAME_BYTES_MAX: usize = 63;

pub(super) fn create(rows: &Rows, new: NewApp, now: Timestamp) -> Result<Decision, Refused> {
    if !rows.has(&rows::org_key(&new.org)) {
        return Err(Refused::OrgNotFound { slug: new.org });
    }
    if rows.has(&rows::app_key(&new.name)) {
        return Err(Refused::AppNameTaken { name: new.name });
    }
    let (network, mut writes) = ensure_network(rows, &new.org, &new.network)?;
    let app = App {
        id: format!("{:016x}", rand::random::<u64>()),
        name: new.name,
        org: new.org,
        network: network.name,
        network_id: network.id,
        created_at: now,
        role: new.role,
        creation_key: new.creation_key,
    };
    writes.push(put(rows::app_key(&app.name), &app));
    Ok(Decision::new(Reply::App(app), writes))
}

/// The services and secrets of an app go with it; its network stays.
pub(super) fn delete(rows: &Rows, name: AppName) -> Result<Decision, Refused> {
    let key = rows::app_key(&name);
    if !rows.has(&key) {
        return Err(Refused::AppNotFound { name });
    }
    let services = rows.all(&rows::services_of(&name)).into_iter();
    let services = services.map(|(key, _)| Set::remove(key));
    let writes: Vec<_> = services
        .chain([Set::remove(key), super::secrets::remove(&name)])
        .collect();
    Ok(Decision::new(Reply::Done, writes))
}

/// The organisation's network of this name, and what has to be written if it is new.
pub(super) fn ensure_network(
    rows: &Rows,
    org: &OrgSlug,
    name: &str,
) -> Result<(Network, Vec<Set>), Refused> {
    let name = if name.is_empty() {
        DEFAULT_NETWORK
    } else {
        name
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > NETWORK_NAME_BYTES_MAX || !name.bytes().all(plain) {
        let name = name.chars().take(80).collect();
        return Err(Refused::NetworkName { name });
    }
    let key = rows::network_key(org, name);
    if let Some(network) = rows.read(&key) {
        return Ok((network, Vec::new()));
    }
    let last: u32 = rows.read(NETWORK_ID_LAST).unwrap_or(0);
    let network = Network {
        id: NetworkId::try_from(last + 1).map_err(|_| Refused::NetworksExhausted)?,
        org: org.clone(),
        name: name.to_owned(),
    };
    let writes = vec![
        put(NETWORK_ID_LAST.to_owned(), &network.id),
        put(key, &network),
    ];
    Ok((network, writes))
}
