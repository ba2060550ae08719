//! The way in for clients outside, and what it asks of the directory and the resolver.

use std::net::SocketAddr;

use types::fleet::PublicKeyText;

use super::blocking;
use super::fleet::Fleet;
use crate::config::{Config, Paths};
use crate::dns;
use crate::drain::Drain;
use crate::gateway::{self, BoxError, Gateway};

/// Starts the gateway. Returns the address that it listens on.
pub(super) async fn start(
    config: &Config,
    paths: &Paths,
    fleet: &Fleet,
    resolver: dns::Handle,
    drain: &Drain,
) -> anyhow::Result<SocketAddr> {
    let gateway_config = gateway::Config {
        host: fleet.host(),
        key: fleet.identity.gateway_key.clone(),
        listen: config.gateway_listen,
        net: fleet.net.clone(),
        initiations: paths.data_dir.join("initiations"),
        idle: None,
    };
    let directory = fleet.directory.clone();
    let look_up = move |key: PublicKeyText| {
        let directory = directory.clone();
        async move { directory.peer_by_key(&key).await.map_err(BoxError::from) }
    };
    let on_network = move |network| {
        let resolver = resolver.clone();
        async move {
            resolver
                .serve_network(network)
                .await
                .map_err(BoxError::from)
        }
    };
    let gateway = blocking(move || Gateway::start(gateway_config, look_up, on_network)).await?;
    let listens = SocketAddr::new(config.gateway_listen.ip(), gateway.handle().port());
    drain.spawn("gateway", gateway.run(drain.token()));
    Ok(listens)
}
