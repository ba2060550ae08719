//! Names from the catalog.

use std::sync::Arc;

use types::{AppName, MachineId, NetworkId};

use super::{Named, Names};
use crate::catalog::{Catalog, Entry};

impl Names for Catalog {
    fn app(&self, network: NetworkId, app: &AppName) -> Vec<Named> {
        self.started(app, network)
            .iter()
            .filter_map(named)
            .collect()
    }

    fn machine(&self, network: NetworkId, id: &MachineId) -> Option<Named> {
        self.started_machine(id, network).as_ref().and_then(named)
    }

    fn all(&self, network: NetworkId) -> Vec<Named> {
        self.started_in(network).iter().filter_map(named).collect()
    }
}

/// `None` as long as the machine has no address.
fn named(entry: &Arc<Entry>) -> Option<Named> {
    Some(Named {
        id: entry.machine.id.clone(),
        app: entry.app.clone(),
        region: entry.machine.region.clone(),
        address: entry.machine.private_ip.parse().ok()?,
    })
}
