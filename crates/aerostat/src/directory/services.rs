//! Services, and the VIPs that are given to them.
//!
//! The number of a VIP is the next of its network, and none is ever given out again: a client that
//! kept the address of a service that has gone must not reach another. There are four thousand
//! million in each network.

use store::Set;
use types::AppName;
use types::service::{Service, ServiceSpec};
use types::sixpn::vip;

use super::command::{Decision, Reply};
use super::error::Refused;
use super::rows::{self, Rows, put};

/// A service keeps its VIP for as long as it is there and not headless.
pub(super) fn put_service(
    rows: &Rows,
    app: AppName,
    name: String,
    spec: ServiceSpec,
) -> Result<Decision, Refused> {
    let Some(found) = rows.app(&app) else {
        return Err(Refused::AppNotFound { name: app });
    };
    let key = rows::service_key(&app, &name);
    let present: Option<Service> = rows.read(&key);
    let mut writes = Vec::new();
    let had = present.as_ref().and_then(|service| service.vip);
    let address = match (spec.headless, had) {
        (true, _) => None,
        (false, Some(address)) => Some(address),
        (false, None) => {
            let network = found.network_id;
            let last_key = rows::vip_last_key(network);
            let last: u32 = rows.read(&last_key).unwrap_or(0);
            let number = last.checked_add(1);
            let number = number.ok_or(Refused::VipsExhausted { network })?;
            writes.push(put(last_key, &number));
            Some(vip(network, number))
        }
    };
    let service = Service {
        name,
        app,
        network_id: found.network_id,
        vip: address,
        spec,
    };
    if present.as_ref() != Some(&service) {
        writes.push(put(key, &service));
    }
    Ok(Decision::new(Reply::Service(service), writes))
}

pub(super) fn delete(rows: &Rows, app: AppName, name: String) -> Result<Decision, Refused> {
    let key = rows::service_key(&app, &name);
    if !rows.has(&key) {
        return Err(Refused::ServiceNotFound { app, name });
    }
    Ok(Decision::new(Reply::Done, [Set::remove(key)]))
}
