//! The node of a region: what a scheduler sees of the machines that can be had there.
//!
//! It is no host. Its size is what the hosts of the region have together, as the Machines API says,
//! and whether a pod really fits is answered by placement when the machine is asked for. In this cluster it carries no taint, so
//! that ordinary charts schedule.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use client::Client;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, info, warn};
use types::api::Region;

use super::ProviderConfig;
use crate::api::{Api, Part, Patch};
use crate::object;
use crate::resource::{LEASES, NODES};
use crate::status::Status;
use crate::time;

/// As kubelets do it: the lease tells that the node is alive, its status is written less often.
const LEASE_RENEW: Duration = Duration::from_secs(10);
const LEASE_DURATION_S: u32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Renewals between two writes of the node's status: five minutes, as a kubelet's
/// `nodeStatusReportFrequency`.
const STATUS_EVERY: u32 = 30;

/// What the node says of itself.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub name: String,
    /// Address that pods see as their host's. May be empty.
    pub address: String,
    /// Size of the region as long as the Machines API does not tell it, in this and the next two.
    pub cpus: u32,
    pub memory_mib: u64,
    pub storage_mib: u64,
    /// Pods on each host.
    pub pods_max: u32,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    pub kernel_version: String,
    pub os_image: String,
    /// Version of Kubernetes whose pods it can run: `v1.36.0`.
    pub kubelet_version: String,
    /// Version of Aerostat.
    pub runtime_version: String,
    /// Labels beside those that every node has.
    pub labels: BTreeMap<String, String>,
    /// Put on when they are not there; those of others stay.
    pub taints: Vec<Taint>,
}

/// What keeps pods away that do not tolerate it. Written as kubelets take it: `key=value:Effect` or
/// `key:Effect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    key: String,
    value: String,
    effect: &'static str,
}

/// Why something is no taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no taint: want key=value:Effect with NoSchedule, PreferNoSchedule or NoExecute")]
pub struct InvalidTaint(String);

impl FromStr for Taint {
    type Err = InvalidTaint;

    fn from_str(text: &str) -> Result<Self, InvalidTaint> {
        let invalid = || InvalidTaint(text.to_owned());
        let (what, effect) = text.rsplit_once(':').ok_or_else(invalid)?;
        let (key, value) = what.split_once('=').unwrap_or((what, ""));
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let effect = effects.into_iter().find(|one| *one == effect);
        let effect = effect.filter(|_| !key.is_empty()).ok_or_else(invalid)?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect,
        })
    }
}

impl Taint {
    fn to_json(&self) -> Value {
        let mut taint = json!({"key": self.key, "effect": self.effect});
        if !self.value.is_empty() {
            taint["value"] = self.value.as_str().into();
        }
        taint
    }

    fn is(&self, taint: &Value) -> bool {
        taint["key"] == self.key.as_str() && taint["effect"] == self.effect
    }
}

/// The node's taints with those that are configured; `None` if they are all there.
fn tainted(node: &Value, config: &ProviderConfig) -> Option<Value> {
    let present = object::items(node, &["spec", "taints"]);
    let missing = config.node.taints.iter();
    let missing = missing.filter(|wanted| !present.iter().any(|taint| wanted.is(taint)));
    let missing: Vec<_> = missing.map(Taint::to_json).collect();
    (!missing.is_empty()).then(|| [present, &missing].concat().into())
}

/// What the node announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    cpus: u32,
    memory_mib: u64,
    storage_mib: u64,
    pods: u32,
}

impl Size {
    fn configured(node: &NodeConfig) -> Self {
        Self {
            cpus: node.cpus,
            memory_mib: node.memory_mib,
            storage_mib: node.storage_mib,
            pods: node.pods_max,
        }
    }

    /// What a region says that its hosts have together; as configured where it says nothing.
    fn of_region(node: &NodeConfig, region: &Region) -> Self {
        let Some(capacity) = region.capacity else {
            return Self::configured(node);
        };
        Self {
            cpus: capacity.cpus,
            memory_mib: capacity.memory_mb,
            storage_mib: capacity.disk_mb,
            pods: node
                .pods_max
                .saturating_mul(region.hosts.unwrap_or(1).max(1)),
        }
    }
}

/// The size of the region now; `None` if the Machines API does not say.
async fn measure(client: &Client, config: &ProviderConfig) -> Option<Size> {
    match client.regions().await {
        Ok(listed) => {
            let mut regions = listed.regions.iter();
            let region = regions.find(|region| region.code == config.region)?;
            Some(Size::of_region(&config.node, region))
        }
        Err(error) => {
            debug!(region = config.region, %error, "size of the region not found out");
            None
        }
    }
}

/// Creates the node and keeps it alive.
pub(super) async fn keep(api: &Api, client: &Client, config: &ProviderConfig) {
    let mut size = Size::configured(&config.node);
    let mut interval = tokio::time::interval(LEASE_RENEW);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renewals = 0u32;
    loop {
        interval.tick().await;
        let measured = measure(client, config).await.unwrap_or(size);
        let report = renewals.is_multiple_of(STATUS_EVERY) || measured != size;
        let result = async {
            let node = ensure(api, config, measured, report).await?;
            renew(api, config, &node).await
        };
        match result.await {
            Ok(()) => {
                renewals = renewals.wrapping_add(1);
                size = measured;
            }
            // The next tick is soon enough: a lease lasts four of them.
            Err(error) => warn!(node = config.node.name, %error, "node not kept alive"),
        }
    }
}

/// The node, created if it is missing; its status is written if it is new or `report` says so.
async fn ensure(
    api: &Api,
    config: &ProviderConfig,
    size: Size,
    report: bool,
) -> Result<Value, Status> {
    let name = &config.node.name;
    let node = match api.get(&NODES, None, name).await {
        Ok(node) if !report => return Ok(node),
        Ok(node) => {
            // Labels are ours to keep; those of others stay.
            let mut patch = json!({"metadata": {"labels": labels(config)}});
            let taints = tainted(&node, config);
            let same = labels_are(&node, config) && taints.is_none();
            if let Some(taints) = taints {
                patch["spec"] = json!({"taints": taints});
            }
            let patch = Patch::Merge(patch);
            if same {
                node
            } else {
                api.patch(&NODES, Part::Object, None, name, &patch).await?
            }
        }
        Err(status) if status.is_not_found() => {
            let mut node = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": labels(config)},
                "spec": {"providerID": format!("aerostat://{}", config.region)},
            });
            if let Some(taints) = tainted(&node, config) {
                node["spec"]["taints"] = taints;
            }
            let node = api.create(&NODES, None, node).await?;
            info!(node = name, "node created");
            node
        }
        Err(status) => return Err(status),
    };
    let mut reported = node.clone();
    reported["status"] = status(config, size, &node["status"], Timestamp::now());
    object::meta_mut(&mut reported).remove("resourceVersion");
    api.update_status(&NODES, None, reported).await
}

fn labels(config: &ProviderConfig) -> Value {
    let mut labels = json!({
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "node-role.kubernetes.io/agent": "",
        "kubernetes.io/hostname": config.node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": config.node.architecture,
        "topology.kubernetes.io/region": config.region,
        "topology.kubernetes.io/zone": config.region,
    });
    for (key, value) in &config.node.labels {
        labels[key] = value.as_str().into();
    }
    labels
}

fn labels_are(node: &Value, config: &ProviderConfig) -> bool {
    let wanted = labels(config);
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.all(|(key, value)| object::label(node, key) == value.as_str())
}

fn status(config: &ProviderConfig, size: Size, old: &Value, now: Timestamp) -> Value {
    let node = &config.node;
    let size = json!({
        "cpu": size.cpus.to_string(),
        "memory": format!("{}Mi", size.memory_mib),
        "ephemeral-storage": format!("{}Mi", size.storage_mib),
        "pods": size.pods.to_string(),
    });
    let mut addresses = vec![json!({"type": "Hostname", "address": node.name})];
    if !node.address.is_empty() {
        addresses.insert(0, json!({"type": "InternalIP", "address": node.address}));
    }
    json!({
        "capacity": size,
        "allocatable": size,
        "addresses": addresses,
        "conditions": conditions(old, now),
        "nodeInfo": {
            "architecture": node.architecture,
            "operatingSystem": "linux",
            "kernelVersion": node.kernel_version,
            "osImage": node.os_image,
            "containerRuntimeVersion": format!("aerostat://{}", node.runtime_version),
            "kubeletVersion": node.kubelet_version,
            "kubeProxyVersion": "",
            "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}

fn conditions(old: &Value, now: Timestamp) -> Value {
    let all = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "placement answers per machine",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "placement answers per machine",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "every machine has its own processes",
        ),
        (
            "NetworkUnavailable",
            "False",
            "RouteCreated",
            "every machine has its own address",
        ),
        (
            "Ready",
            "True",
            "KubeletReady",
            "the provider of this region is running",
        ),
    ];
    let old = old.get("conditions").and_then(Value::as_array);
    let conditions = all.map(|(kind, status, reason, message)| {
        let mut before = old.into_iter().flatten();
        let since = before
            .find(|before| before["type"] == kind && before["status"] == status)
            .map(|before| before["lastTransitionTime"].clone());
        let since = since.unwrap_or_else(|| time::seconds(now).into());
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": time::seconds(now), "lastTransitionTime": since})
    });
    conditions.to_vec().into()
}

async fn renew(api: &Api, config: &ProviderConfig, node: &Value) -> Result<(), Status> {
    let name = &config.node.name;
    let now = time::micros(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now}}));
    let namespace = Some(LEASE_NAMESPACE);
    match api
        .patch(&LEASES, Part::Object, namespace, name, &patch)
        .await
    {
        Ok(_) => return Ok(()),
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status),
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [{
            "apiVersion": "v1", "kind": "Node", "name": name, "uid": object::uid(node)}]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": now},
    });
    api.create(&LEASES, namespace, lease).await?;
    debug!(node = name, "lease created");
    Ok(())
}
