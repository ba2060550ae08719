//! Services: each Service of the cluster is a service of the Machines API, and nothing else.
//!
//! ```text
//!   create Service ──> Api ──ClusterIps──> service without backends: its VIP is the clusterIP
//!   Services, EndpointSlices (Api) ──watch──> spec (pure) ──> service with backends ──> proxy, DNS
//! ```
//!
//! `<service>.<namespace>` names a service of the app, so either side is the key to the other.
//! Everything is derived from the two lists: at the start, and every few minutes, both are
//! compared, and a service that no Service has is taken away.

#[cfg(test)]
mod fake;
pub(crate) mod kubernetes;
mod spec;
mod sync;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use client::{Client, Error};
use futures::future::BoxFuture;
use serde_json::Value;
use types::AppName;
use types::service::{Service, ServiceSpec};

use crate::api::{ClusterIpError, ClusterIps};
use crate::object;

pub use kubernetes::{Among, Door, FRONT_PROXY, Kubernetes, keep as keep_kubernetes};
pub use sync::run;

/// What is asked of the services of one app.
pub trait Services: fmt::Debug + Send + Sync {
    /// Makes the service, or makes it so; it keeps its VIP.
    fn put<'a>(
        &'a self,
        name: &'a str,
        spec: &'a ServiceSpec,
    ) -> BoxFuture<'a, Result<Service, Error>>;

    /// A service that is not there is no error.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    fn list(&self) -> BoxFuture<'_, Result<Vec<Service>, Error>>;
}

/// The services of an app, asked over the Machines API.
#[derive(Debug, Clone)]
pub struct AppServices {
    client: Client,
    app: AppName,
}

impl AppServices {
    /// `app` is the one that the provider's machines belong to; it makes the app.
    pub fn new(client: Client, app: AppName) -> Self {
        Self { client, app }
    }
}

impl Services for AppServices {
    fn put<'a>(
        &'a self,
        name: &'a str,
        spec: &'a ServiceSpec,
    ) -> BoxFuture<'a, Result<Service, Error>> {
        Box::pin(self.client.put_service(&self.app, name, spec))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match self.client.delete_service(&self.app, name).await {
                Err(error) if error.is_not_found() => Ok(()),
                done => done,
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Service>, Error>> {
        Box::pin(async move {
            let listed = self.client.list_services(&self.app).await?;
            Ok(listed.services)
        })
    }
}

/// Gives Services the VIPs of services.
#[derive(Debug, Clone)]
pub struct Vips(pub Arc<dyn Services>);

impl ClusterIps for Vips {
    fn allocate<'a>(
        &'a self,
        service: &'a Value,
    ) -> BoxFuture<'a, Result<Ipv6Addr, ClusterIpError>> {
        Box::pin(async move {
            // Who answers is told when the Service is there.
            let wanted = spec::spec(service, &[]);
            let name = name(
                object::namespace(service).unwrap_or_default(),
                object::name(service),
            );
            let made = self.0.put(&name, &wanted).await;
            let made = made.map_err(|error| ClusterIpError {
                is_retryable: error.is_retryable() || error.is_not_found(),
                source: error.into(),
            })?;
            made.vip.ok_or_else(|| ClusterIpError {
                is_retryable: false,
                source: format!("service {name} has no VIP").into(),
            })
        })
    }
}

/// What a Service is called among the services of the app.
fn name(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}")
}

/// Namespace and name of the Service that a service is called after, if it is.
fn split(name: &str) -> Option<(&str, &str)> {
    let (service, namespace) = name.split_once('.')?;
    let is_ours = !service.is_empty() && !namespace.is_empty() && !namespace.contains('.');
    is_ours.then_some((namespace, service))
}
