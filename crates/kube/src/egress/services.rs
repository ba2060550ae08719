//! The way to services: Service and EndpointSlices are read, and an endpoint is dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rand::seq::SliceRandom;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Dialer, ResolveError, ServiceResolver, Stream};
use crate::api::{Api, Selector};
use crate::controllers::SERVICE_LABEL;
use crate::object;
use crate::resource::{ENDPOINT_SLICES, SERVICES};

/// An endpoint that does not answer may be one of several.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Endpoints that are tried before the caller is told.
const DIALS_MAX: usize = 3;

/// Dials the endpoints of services.
#[derive(Debug)]
pub struct ClusterServices {
    api: Api,
    dialer: Arc<dyn Dialer>,
}

impl ClusterServices {
    pub fn new(api: Api, dialer: Arc<dyn Dialer>) -> Self {
        Self { api, dialer }
    }

    async fn addresses(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let none = || ResolveError::NoService {
            name: name.to_owned(),
        };
        let service = self.api.get(&SERVICES, Some(namespace), name).await;
        let service = service.map_err(|_| none())?;
        let ports = object::items(&service, &["spec", "ports"]);
        let found = ports.iter().find(|one| one["port"] == port);
        let found = found.ok_or_else(|| ResolveError::NoPort {
            name: name.to_owned(),
            port,
        })?;
        let label = format!("{SERVICE_LABEL}={name}");
        let selector = Selector::parse(&ENDPOINT_SLICES, &label, "").map_err(|_| none())?;
        let slices = self
            .api
            .list(&ENDPOINT_SLICES, Some(namespace), &selector)
            .await;
        let (slices, _) = slices.map_err(|_| none())?;
        Ok(ready(&slices, object::text(found, &["name"])))
    }
}

/// Addresses of the ready endpoints behind a port, by its name.
fn ready(slices: &[Value], port_name: &str) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for slice in slices {
        let mut ports = object::items(slice, &["ports"]).iter();
        let port = ports.find(|port| object::text(port, &["name"]) == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else {
            continue;
        };
        for endpoint in object::items(slice, &["endpoints"]) {
            // What is not said is true: manual slices may leave conditions out.
            if endpoint["conditions"]["ready"] != false {
                let texts = object::items(endpoint, &["addresses"]).iter();
                let ips = texts.filter_map(|text| text.as_str()?.parse::<IpAddr>().ok());
                addresses.extend(ips.map(|ip| SocketAddr::new(ip, port)));
            }
        }
    }
    addresses
}

impl ServiceResolver for ClusterServices {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, Result<Box<dyn Stream>, ResolveError>> {
        Box::pin(in_time(to, self.dialer.dial(to)))
    }

    fn connect<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, ResolveError>> {
        Box::pin(async move {
            let mut addresses = self.addresses(namespace, name, port).await?;
            addresses.shuffle(&mut rand::rng());
            let mut last = ResolveError::NoEndpoints {
                name: name.to_owned(),
            };
            for address in addresses.into_iter().take(DIALS_MAX) {
                match self.dial(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

async fn in_time<S>(
    address: SocketAddr,
    dial: impl Future<Output = std::io::Result<S>>,
) -> Result<S, ResolveError> {
    let failed = |source| ResolveError::Dial { address, source };
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, dial).await;
    let late = |_| failed(std::io::ErrorKind::TimedOut.into());
    dialled.map_err(late)?.map_err(failed)
}

/// A host outside the cluster, by name or address.
pub(super) async fn dial_host(host: &str, port: u16) -> Result<Box<dyn Stream>, ResolveError> {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], port));
    let failed = |source| ResolveError::Dial {
        address: unspecified,
        source,
    };
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(failed)?;
    let mut last = failed(std::io::ErrorKind::NotFound.into());
    for address in found.take(DIALS_MAX) {
        match in_time(address, TcpStream::connect(address)).await {
            Ok(stream) => {
                // Small questions must not wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_that_are_ready_are_found_by_the_name_of_the_port() {
        let slice = json!({"ports": [{"name": "https", "port": 8443}, {"name": "http", "port": 80}],
            "endpoints": [
                {"addresses": ["fdaa::1"], "conditions": {"ready": true}},
                {"addresses": ["fdaa::2"], "conditions": {"ready": false}},
                {"addresses": ["fdaa::3"]}]});
        let found = ready(&[slice], "https");
        let texts: Vec<_> = found.iter().map(SocketAddr::to_string).collect();
        assert_eq!(texts, ["[fdaa::1]:8443", "[fdaa::3]:8443"]);
        assert!(ready(&[], "https").is_empty());
    }
}
