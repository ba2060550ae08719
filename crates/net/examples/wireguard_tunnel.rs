//! One end of a tunnel between two hosts, for `bench/wireguard.sh`: runs until it is killed.
//!
//! `wireguard_tunnel LINK LISTEN HOST PRIVATE_KEY PEER_HOST PEER_PUBLIC_KEY PEER_ENDPOINT`, hosts
//! by number. Addresses and routes are the caller's.

use std::error::Error;

use net::wireguard::{
    Backend, Engine, EngineConfig, Offloads, PeerConfig, SixPnPolicy, Tun, Underlay,
};
use types::HostId;

const MTU: u16 = 1420;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [link, listen, host, key, peer_host, peer_key, peer_endpoint] = arguments.as_slice() else {
        return Err("LINK LISTEN HOST PRIVATE_KEY PEER_HOST PEER_PUBLIC_KEY PEER_ENDPOINT".into());
    };
    let offloads = Offloads::default();
    let config = EngineConfig {
        private_key: key.parse()?,
        tun: Tun::open(link, MTU, offloads)?,
        underlay: Underlay::bind(listen.parse()?, offloads)?,
    };
    let policy = SixPnPolicy::by_host_field(HostId::new(host.parse()?));
    let engine = Engine::start(config, policy)?;
    engine.ensure_peer(&PeerConfig {
        id: HostId::new(peer_host.parse()?).into(),
        public_key: peer_key.parse()?,
        endpoint: Some(peer_endpoint.parse()?),
        keepalive_s: None,
    })?;
    loop {
        std::thread::park();
    }
}
