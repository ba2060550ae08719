//! Addresses of Services: given when a Service is made, before it is stored.
//!
//! ```text
//!   create ──hold(name)── exists? ── allocate ── store ──> (let go)
//!   sweep  ──hold(name)── exists? ── give back ─────────> (let go)
//! ```
//!
//! The address and the Service are in two stores, and a crash may leave an address without a
//! Service; whoever gives back what no Service has holds the name meanwhile, so that it never
//! takes the address of a Service that is just being made.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Api;
use crate::object;
use crate::resource::{Resource, SERVICES};
use crate::status::Status;

/// Whoever gives Services their addresses.
pub trait ClusterIps: fmt::Debug + Send + Sync {
    /// The address of this Service. Asked again for the same namespace and name, it is the same.
    fn allocate<'a>(
        &'a self,
        service: &'a Value,
    ) -> BoxFuture<'a, Result<Ipv6Addr, ClusterIpError>>;
}

/// Why a Service got no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot allocate an address for the Service")]
pub struct ClusterIpError {
    /// Whether the same may succeed later.
    pub is_retryable: bool,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Names that can be held at a time. Two names that share a place only wait for each other.
const HOLDS: usize = 64;

/// Who is busy with which name.
#[derive(Debug, Clone)]
pub(super) struct Holds(Arc<[Arc<Mutex<()>>]>);

impl Default for Holds {
    fn default() -> Self {
        Self((0..HOLDS).map(|_| Arc::default()).collect())
    }
}

/// The name is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    _place: OwnedMutexGuard<()>,
}

impl Api {
    /// The same API, whose Services get their addresses from here. Without it only headless ones
    /// can be made.
    pub fn with_cluster_ips(mut self, cluster_ips: Arc<dyn ClusterIps>) -> Self {
        self.cluster_ips = Some(cluster_ips);
        self
    }

    /// Waits until nobody else makes or sweeps the Service of this name.
    pub(crate) async fn hold_service(&self, namespace: &str, name: &str) -> Held {
        let mut hasher = DefaultHasher::new();
        (namespace, name).hash(&mut hasher);
        let at = hasher.finish() % self.holds.0.len() as u64;
        let at = usize::try_from(at).unwrap_or_default();
        Held {
            _place: Arc::clone(&self.holds.0[at]).lock_owned().await,
        }
    }

    /// Writes an address into a Service that is about to be stored and is to have one.
    pub(super) async fn give_address(
        &self,
        resource: &Resource,
        object: &mut Value,
    ) -> Result<Option<Held>, Status> {
        let has = object::text(object, &["spec", "clusterIP"]);
        if !resource.is(&SERVICES) || !has.is_empty() {
            return Ok(None);
        }
        let Some(cluster_ips) = &self.cluster_ips else {
            let why = "this server has no addresses for Services; only headless ones can be made";
            return Err(Status::unavailable(why));
        };
        let (namespace, name) = (object::namespace(object), object::name(object));
        let held = self.hold_service(namespace.unwrap_or_default(), name).await;
        if self.store.get(&resource.key(namespace, name)).is_some() {
            return Err(Status::already_exists(resource, name));
        }
        let address = cluster_ips.allocate(object).await.map_err(|error| {
            let why = types::chain(&error);
            if error.is_retryable {
                Status::unavailable(why)
            } else {
                Status::internal(why)
            }
        })?;
        let spec = object::map_mut(object, "spec");
        spec.insert("clusterIP".into(), json!(address));
        spec.insert("clusterIPs".into(), json!([address]));
        Ok(Some(held))
    }
}
