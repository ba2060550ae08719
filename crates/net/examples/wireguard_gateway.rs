//! A WireGuard engine that lets in every key that knocks, for `bench/gateway.sh`: runs until its
//! input ends.
//!
//! `wireguard_gateway LINK LISTEN PRIVATE_KEY LOOKUP_MS`. On its input, `remove` removes all
//! peers and `add` adds all that have ever been here; each is acknowledged by a line. Addresses
//! and routes are the caller's.

use std::collections::HashMap;
use std::error::Error;
use std::io::BufRead as _;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net::wireguard::{
    Backend as _, DropReason, Engine, EngineConfig, Offloads, PeerConfig, PeerId, Policy,
    PublicKey, Tun, Underlay,
};

const MTU: u16 = 1420;

/// The first peer has all addresses: what is measured is how it gets in.
struct First;

impl Policy for First {
    fn route(&self, _: Ipv6Addr, _: Ipv6Addr) -> Result<PeerId, DropReason> {
        Ok(PeerId(0))
    }

    fn allow(&self, _: PeerId, _: Ipv6Addr, _: Ipv6Addr) -> Result<(), DropReason> {
        Ok(())
    }
}

fn peer(public_key: PublicKey, id: PeerId) -> PeerConfig {
    PeerConfig {
        id,
        public_key,
        endpoint: None,
        keepalive_s: None,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [link, listen, key, lookup_ms] = arguments.as_slice() else {
        return Err("LINK LISTEN PRIVATE_KEY LOOKUP_MS".into());
    };
    let lookup = Duration::from_millis(lookup_ms.parse()?);
    let offloads = Offloads::default();
    let config = EngineConfig {
        private_key: key.parse()?,
        tun: Tun::open(link, MTU, offloads)?,
        underlay: Underlay::bind(listen.parse()?, offloads)?,
    };
    let (engine, mut knocks) = Engine::start_with_door(config, First)?;
    let engine = Arc::new(engine);
    let known: Arc<Mutex<HashMap<PublicKey, PeerId>>> = Arc::default();
    let (admitting, keys) = (Arc::clone(&engine), Arc::clone(&known));
    std::thread::spawn(move || {
        while let Some(knock) = knocks.blocking_recv() {
            std::thread::sleep(lookup);
            let id = {
                let mut keys = keys.lock().unwrap_or_else(|error| error.into_inner());
                let next = PeerId(u32::try_from(keys.len()).unwrap_or(u32::MAX));
                *keys.entry(knock.public_key).or_insert(next)
            };
            if let Err(error) = admitting.admit(&peer(knock.public_key, id)) {
                eprintln!("{error}");
            }
        }
    });
    for line in std::io::stdin().lock().lines() {
        let known = known.lock().unwrap_or_else(|error| error.into_inner());
        for (key, id) in known.iter() {
            match line.as_deref() {
                Ok("add") => engine.ensure_peer(&peer(*key, *id))?,
                Ok(_) | Err(_) => drop(engine.remove_peer(*id)),
            }
        }
        eprintln!("{} peers, {:?}", engine.peers().len(), engine.drops());
    }
    Ok(())
}
