//! Names from the catalog.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use types::service::Service;
use types::{AppName, MachineId, NetworkId};

use super::services::Services;
use super::{Backend, Named, Names, Offered};
use crate::catalog::{Catalog, Entry};

/// Machines and services of the catalog, for [`bind`](super::bind).
#[derive(Debug)]
pub struct CatalogNames {
    catalog: Catalog,
    services: watch::Receiver<Arc<Vec<Service>>>,
    /// Of the services that were there last, made anew when they change.
    index: Mutex<Arc<Services>>,
}

impl CatalogNames {
    pub fn new(catalog: Catalog) -> Self {
        Self {
            services: catalog.services(),
            index: Mutex::default(),
            catalog,
        }
    }

    fn index(&self) -> Arc<Services> {
        let services = Arc::clone(&self.services.borrow());
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if !index.are(&services) {
            *index = Arc::new(Services::new(services));
        }
        Arc::clone(&index)
    }
}

impl Names for CatalogNames {
    fn app(&self, network: NetworkId, app: &AppName) -> Vec<Named> {
        self.catalog
            .started(app, network)
            .iter()
            .filter_map(named)
            .collect()
    }

    fn machine(&self, network: NetworkId, id: &MachineId) -> Option<Named> {
        let entry = self.catalog.started_machine(id, network);
        entry.as_ref().and_then(named)
    }

    fn all(&self, network: NetworkId) -> Vec<Named> {
        let entries = self.catalog.started_in(network);
        entries.iter().filter_map(named).collect()
    }

    fn service(&self, network: NetworkId, name: &str) -> Option<Offered> {
        let index = self.index();
        let service = index.get(network, name)?;
        let backends = match service.vip {
            // Its own address is the answer; who stands behind it is the proxy's affair.
            Some(_) => vec![],
            None => self.backends(service),
        };
        Some(Offered {
            vip: service.vip,
            ports: service.spec.ports.clone(),
            backends,
        })
    }
}

impl CatalogNames {
    fn backends(&self, service: &Service) -> Vec<Backend> {
        let backends = service.spec.backends.iter().filter_map(|backend| {
            Some(Backend {
                address: self.catalog.backend(service.network_id, &backend.target)?,
                hostname: backend.hostname.to_ascii_lowercase(),
                ports: service
                    .spec
                    .ports
                    .iter()
                    .map(|port| backend.port(port))
                    .collect(),
            })
        });
        backends.collect()
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
