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

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Api, ListOptions};
use crate::object;
use crate::resource::{Resource, SERVICES};
use crate::status::{Cause, Status};

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
        Self((0..=HOLDS).map(|_| Arc::default()).collect())
    }
}

/// The name is held as long as this lives, and so are the ports of nodes if one was given.
#[derive(Debug)]
pub(crate) struct Held {
    _places: Vec<OwnedMutexGuard<()>>,
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
        let at = hasher.finish() % HOLDS as u64;
        let at = usize::try_from(at).unwrap_or_default();
        Held {
            _places: vec![Arc::clone(&self.holds.0[at]).lock_owned().await],
        }
    }

    /// Writes an address into a Service that is about to be stored and is to have one.
    pub(super) async fn give_address(
        &self,
        resource: &Resource,
        object: &mut Value,
    ) -> Result<Option<Held>, Status> {
        if !resource.is(&SERVICES) {
            return Ok(None);
        }
        self.warn_of_unbuilt(object);
        let (held, is_settled) = self.hold_for_address(object).await?;
        if is_settled {
            return Ok(held);
        }
        let (namespace, name) = (object::namespace(object), object::name(object));
        if self.store.get(&resource.key(namespace, name)).is_some() {
            return Err(Status::already_exists(resource, name));
        }
        self.allocate(object).await?;
        Ok(held)
    }

    /// [`Api::give_address`] for a Service that is there: one that was an ExternalName has none.
    pub(super) async fn give_later_address(
        &self,
        object: &mut Value,
    ) -> Result<Option<Held>, Status> {
        let (held, is_settled) = self.hold_for_address(object).await?;
        if !is_settled {
            self.allocate(object).await?;
        }
        Ok(held)
    }

    /// Gives a Service its node ports, and holds its name if it is to get an address too. Says
    /// whether it has one, or wants none.
    async fn hold_for_address(&self, object: &mut Value) -> Result<(Option<Held>, bool), Status> {
        let ports = self.give_node_ports(object).await?;
        let has = object::text(object, &["spec", "clusterIP"]);
        if !has.is_empty() || object["spec"]["type"] == "ExternalName" {
            return Ok((ports, true));
        }
        let (namespace, name) = (object::namespace(object), object::name(object));
        let mut held = self.hold_service(namespace.unwrap_or_default(), name).await;
        if let Some(mut ports) = ports {
            held._places.append(&mut ports._places);
        }
        Ok((Some(held), false))
    }

    async fn allocate(&self, object: &mut Value) -> Result<(), Status> {
        let Some(cluster_ips) = &self.cluster_ips else {
            let why = "this server has no addresses for Services; only headless ones can be made";
            return Err(Status::unavailable(why));
        };
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
        Ok(())
    }
}

/// Where ports of nodes are given from, as upstream.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Everybody who gives ports of nodes holds this place.
const NODE_PORTS_PLACE: usize = HOLDS;

impl Api {
    /// Writes the ports of nodes into a Service that is to have some, and checks those it chose.
    pub(super) async fn give_node_ports(&self, object: &mut Value) -> Result<Option<Held>, Status> {
        let spec = &object["spec"];
        let wants = match object::text(spec, &["type"]) {
            "NodePort" => true,
            "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
            _ => false,
        };
        let ports = object::items(spec, &["ports"]);
        let chosen: Vec<_> = ports.iter().map(node_port).collect();
        if chosen.iter().all(|port| port.is_some() || !wants) && chosen.iter().all(Option::is_none)
        {
            return Ok(None);
        }
        let place = Arc::clone(&self.holds.0[NODE_PORTS_PLACE]);
        let held = Held {
            _places: vec![place.lock_owned().await],
        };
        let mut used = self.used_node_ports(object::uid(object)).await?;
        let mut causes = Vec::new();
        for (index, port) in chosen.iter().enumerate() {
            let Some(port) = port else { continue };
            // One number may serve a port of every protocol.
            if !NODE_PORTS.contains(port) || !used.insert(*port) {
                let why = if NODE_PORTS.contains(port) {
                    "provided port is already allocated".to_owned()
                } else {
                    format!(
                        "provided port is not in the valid range. The range of valid ports is \
                         {}-{}",
                        NODE_PORTS.start(),
                        NODE_PORTS.end()
                    )
                };
                let field = format!("spec.ports[{index}].nodePort");
                causes.push(Cause::invalid(field, &json!(port), &why));
            }
        }
        if !causes.is_empty() {
            return Err(Status::invalid(&SERVICES, object::name(object), causes));
        }
        if wants {
            let ports = object["spec"]["ports"].as_array_mut();
            for port in ports.into_iter().flatten() {
                if node_port(port).is_none() {
                    port["nodePort"] = free_port(&mut used)?.into();
                }
            }
        }
        Ok(Some(held))
    }

    /// What a Service asks for and the proxy does not do yet is stored and told.
    fn warn_of_unbuilt(&self, object: &Value) {
        let spec = &object["spec"];
        let kind = object::text(spec, &["type"]);
        if matches!(kind, "NodePort" | "LoadBalancer") {
            self.warn(format!(
                "spec.type: a Service of type {kind} answers at its cluster IP only; ports of nodes \
                 and load balancers are not built yet"
            ));
        }
        let mut ports = object::items(spec, &["ports"]).iter();
        if let Some(port) = ports.find(|port| port["protocol"] != "TCP") {
            let protocol = object::text(port, &["protocol"]);
            self.warn(format!(
                "spec.ports: ports of protocol {protocol} are not built yet, only TCP is"
            ));
        }
        if spec["sessionAffinity"] == "ClientIP" {
            self.warn("spec.sessionAffinity: session affinity is not built yet");
        }
        if !object::items(spec, &["externalIPs"]).is_empty() {
            self.warn("spec.externalIPs: external addresses are not built yet");
        }
    }

    /// Ports of nodes that other Services have.
    async fn used_node_ports(&self, own_uid: &str) -> Result<HashSet<u16>, Status> {
        let all = self
            .list_with(&SERVICES, None, &ListOptions::default())
            .await?;
        let others = all.items.iter().filter(|one| object::uid(one) != own_uid);
        let ports = others.flat_map(|one| object::items(one, &["spec", "ports"]));
        Ok(ports.filter_map(node_port).collect())
    }
}

fn node_port(port: &Value) -> Option<u16> {
    let number = port.get("nodePort")?.as_u64().filter(|port| *port != 0)?;
    u16::try_from(number).ok()
}

fn free_port(used: &mut HashSet<u16>) -> Result<u16, Status> {
    let first = rand::random_range(NODE_PORTS);
    let mut candidates = (first..=*NODE_PORTS.end()).chain(*NODE_PORTS.start()..first);
    let free = candidates.find(|port| !used.contains(port));
    let free = free.ok_or_else(|| Status::internal("no port of the nodes is free"))?;
    used.insert(free);
    Ok(free)
}
