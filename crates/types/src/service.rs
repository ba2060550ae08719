//! Services of the Machines API: a name and an address for a group of machines.
//!
//! A service has a VIP in its app's network, ports, and backends. The proxy on every host answers
//! the VIP for the machines of that host, and DNS has its names; whoever makes the service writes
//! its backends.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AppName, MachineId, NetworkId};

/// Longest name of a service, in bytes: that of a DNS name.
pub const SERVICE_NAME_BYTES_MAX: usize = 253;
/// Ports of one service. Kubernetes users stay far below.
pub const SERVICE_PORTS_MAX: usize = 100;
/// Backends of one service: as many as Kubernetes keeps in ten endpoint slices.
pub const SERVICE_BACKENDS_MAX: usize = 1000;

/// `PUT /v1/apps/{app}/services/{name}`: what a service is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServiceSpec {
    pub ports: Vec<ServicePort>,
    pub backends: Vec<Backend>,
    /// Names beside its own (`<service>.svc.<app>.flycast`) that lead to it, seen from its
    /// network; without a final dot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// No VIP: its names lead to the backends themselves.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
}

/// What is answered on the VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default)]
    pub protocol: Protocol,
    /// On the VIP.
    pub port: u16,
    /// On backends that do not say otherwise; 0: the same.
    #[serde(default)]
    pub target_port: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
}

/// One that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    #[serde(flatten)]
    pub target: Target,
    /// Its own port for a port of the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, u16>,
    /// For names of single backends of a headless service: `<hostname>.<name of the service>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A machine of the same network; it takes part while it is started.
    Machine(MachineId),
    /// An address of the same network.
    Address(Ipv6Addr),
}

/// A service that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    pub name: String,
    pub app: AppName,
    pub network_id: NetworkId,
    /// `None` if it is headless.
    pub vip: Option<Ipv6Addr>,
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

/// `GET /v1/apps/{app}/services`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceList {
    pub services: Vec<Service>,
}

impl Backend {
    /// The port that stands behind `port` of the service.
    pub fn port(&self, port: &ServicePort) -> u16 {
        let own = self.ports.get(&port.port).copied();
        own.unwrap_or(match port.target_port {
            0 => port.port,
            target => target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_people_write_it() {
        let spec: ServiceSpec = serde_json::from_str(
            r#"{"ports": [{"port": 80, "target_port": 8080}, {"port": 9}],
                "backends": [{"machine": "0123456789abcd"},
                             {"address": "fdaa:0:7:a7b:2:1:1:2", "ports": {"80": 81}}]}"#,
        )
        .unwrap();
        let [first, second] = &spec.backends[..] else {
            panic!("two backends")
        };
        assert_eq!(
            first.target,
            Target::Machine("0123456789abcd".parse().unwrap())
        );
        let ports = |of: &Backend| spec.ports.iter().map(|p| of.port(p)).collect::<Vec<_>>();
        assert_eq!(ports(first), [8080, 9]);
        assert_eq!(ports(second), [81, 9]);
    }
}
