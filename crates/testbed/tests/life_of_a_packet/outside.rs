//! Clients outside: one that was invited, and those that were not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use testbed::{
    WireGuardClient, eventually, initiation, resolve, succeed, who_answers, wireguard_keys, within,
};

use crate::{GATEWAY, SERVICE, World};

/// Connected, and the service's address as it was told.
pub(crate) struct Client {
    pub(crate) netns: String,
    pub(crate) dns: Ipv6Addr,
    pub(crate) vip: Ipv6Addr,
    _tunnel: WireGuardClient,
}

impl Client {
    /// Who answers for the service now.
    ///
    /// # Errors
    /// What went wrong, for `eventually`.
    pub(crate) fn asks(&self) -> Result<String, String> {
        who_answers(&self.netns, self.vip, 80).map_err(|error| error.to_string())
    }

    /// Asks until each of `names` has answered, and nobody else does any more.
    pub(crate) fn hears(&self, names: &BTreeSet<String>) {
        let mut heard = BTreeSet::new();
        eventually("every pod to answer", || {
            heard.insert(self.asks()?);
            match heard.is_superset(names) {
                true => Ok(()),
                false => Err(format!("{heard:?} of {names:?}")),
            }
        });
    }
}

/// A wg-quick file for a new peer of the gateway.
fn invited(world: &World<'_>, name: &str) -> String {
    let words = ["wireguard", "create", name, "--network", "kubernetes"];
    succeed(&mut world.host(GATEWAY).aerostat(&words))
}

/// The client's first packet is what installs it.
pub(crate) fn a_client_reaches_every_pod_by_name(world: &World<'_>) -> Client {
    let pods = world.pods_until("three pods or four", |pods| pods.len() >= 3);
    let hosts: BTreeSet<u16> = pods.iter().map(crate::Pod::host).collect();
    assert!(
        hosts.len() >= 2,
        "the market puts all on one host: {pods:#?}"
    );

    let netns = world.fleet.underlay().client();
    let tunnel = WireGuardClient::connect(&netns, &invited(world, "laptop"));
    let dns = tunnel.dns.expect("the file says where to ask for names");
    let vip = eventually("the service's name", || {
        let found = resolve(&netns, dns, SERVICE).map_err(|error| error.to_string())?;
        found
            .first()
            .copied()
            .ok_or_else(|| "it is not known".to_owned())
    });
    let client = Client {
        netns,
        dns,
        vip,
        _tunnel: tunnel,
    };
    client.hears(&pods.iter().map(|pod| pod.name.clone()).collect());
    // And each without the service, on whichever host.
    for pod in &pods {
        let name = who_answers(&client.netns, pod.address, 8080).expect("the pod answers");
        assert_eq!(name, pod.name);
    }
    client
}

/// Whoever sends `packet` to the gateway: what comes back, if anything does.
fn told(netns: &str, gateway: IpAddr, packet: &[u8]) -> Option<Vec<u8>> {
    within(netns, || {
        let socket = UdpSocket::bind("[::]:0").expect("a port");
        let timeout = Some(Duration::from_secs(1));
        socket.set_read_timeout(timeout).expect("a timeout");
        let to = SocketAddr::new(gateway, 51820);
        socket.send_to(packet, to).expect("it leaves");
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer).ok()?;
        Some(answer[..length].to_vec())
    })
}

pub(crate) fn strangers_get_no_session(world: &World<'_>) {
    let underlay = world.fleet.underlay();
    let (netns, gateway) = (underlay.client(), underlay.address(GATEWAY));
    let file = invited(world, "phone");
    let first = initiation(&netns, &file);

    let mut wrong_mac1 = first.clone();
    wrong_mac1[120] ^= 1;
    assert_eq!(told(&netns, gateway, &wrong_mac1), None, "a wrong mac1");
    let answer = eventually("the answer to an initiation", || {
        told(&netns, gateway, &first).ok_or_else(|| "nothing comes".to_owned())
    });
    assert_eq!((answer.len(), answer[0]), (92, 2), "no response");
    assert_eq!(told(&netns, gateway, &first), None, "a replayed initiation");
    for cut in [0, 1, 4, 147] {
        assert_eq!(told(&netns, gateway, &first[..cut]), None, "{cut} bytes");
    }

    let (private, _) = wireguard_keys();
    let lines = file
        .lines()
        .map(|line| match line.starts_with("PrivateKey") {
            true => format!("PrivateKey = {private}"),
            false => line.to_owned(),
        });
    let unknown: Vec<String> = lines.collect();
    let packet = initiation(&netns, &unknown.join("\n"));
    assert_eq!(
        told(&netns, gateway, &packet),
        None,
        "a key that nobody knows"
    );
}
