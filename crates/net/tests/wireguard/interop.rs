//! Debian's wireguard-go at the other end.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use net::wireguard::{Backend, Offloads, PrivateKey, PublicKey};
use types::SixPn;

use crate::world::{World, endpoint, in_world, machine, peer, run};

pub(crate) struct WireGuardGo {
    child: Child,
    link: String,
    /// Which it leaves behind when it is killed.
    socket: String,
}

impl Drop for WireGuardGo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Its control sockets are named after the link, all in one directory of the whole machine.
fn link(begins: usize) -> String {
    format!("wgi{}{begins}", std::process::id())
}

fn start(world: &World, side: usize, link: &str, keys: &[PrivateKey; 2]) -> WireGuardGo {
    start_with(world, side, link, &keys[side], keys[1 - side].public())
}

/// A client of an engine on the other side.
pub(crate) fn start_client(
    world: &World,
    side: usize,
    key: &PrivateKey,
    gateway: PublicKey,
) -> WireGuardGo {
    static CLIENTS: AtomicU16 = AtomicU16::new(2);
    let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
    start_with(world, side, &link(number.into()), key, gateway)
}

fn start_with(
    world: &World,
    side: usize,
    link: &str,
    key: &PrivateKey,
    other: PublicKey,
) -> WireGuardGo {
    let name = world.name(side);
    let child = Command::new("ip")
        .args(["netns", "exec", name, "wireguard-go", "-f", link])
        .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
        .env("WG_PROCESS_FOREGROUND", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = WireGuardGo {
        child,
        link: link.to_owned(),
        socket: format!("/var/run/wireguard/{link}.sock"),
    };
    for _ in 0..200 {
        if std::path::Path::new(&child.socket).exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let config = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\n[Peer]\nPublicKey = {other}\nEndpoint = {}\nAllowedIPs = fdaa::/16\n",
        key.to_base64(),
        endpoint(1 - side),
    );
    let mut wg = Command::new("ip")
        .args(["netns", "exec", name, "wg", "setconf", link, "/dev/stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wg.stdin
        .take()
        .unwrap()
        .write_all(config.as_bytes())
        .unwrap();
    assert!(wg.wait().unwrap().success(), "wg setconf");
    run(&format!("ip -n {name} link set {link} mtu 1420 up"));
    child.address(world, side, machine(side));
    run(&format!("ip -n {name} route replace fdaa::/16 dev {link}"));
    child
}

impl WireGuardGo {
    pub(crate) fn address(&self, world: &World, side: usize, address: SixPn) {
        let (name, link) = (world.name(side), &self.link);
        run(&format!(
            "ip -n {name} address add {address}/128 dev {link} nodad"
        ));
    }

    pub(crate) fn set_endpoint(&self, world: &World, side: usize, peer: PublicKey, at: SocketAddr) {
        let (name, link) = (world.name(side), &self.link);
        run(&format!(
            "ip netns exec {name} wg set {link} peer {peer} endpoint {at}"
        ));
    }
}

/// The side in `begins` sends the first packet.
fn understand_each_other(test: &str, begins: usize) {
    in_world(test, &["wireguard-go", "wg"], |world| {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let engine = world.engine(0, &keys[0], Offloads::default());
        let mut other = peer(1, &keys[1]);
        if begins == 1 {
            // We learn where they are.
            other.endpoint = None;
        }
        engine.ensure_peer(&other).unwrap();
        let _other = start(world, 1, &link(begins), &keys);
        world.assert_ping(begins, machine(1 - begins));
        world.assert_ping(1 - begins, machine(begins));
        let seen = &engine.peers()[0];
        assert_eq!(seen.endpoint, Some(endpoint(1)));
        assert!(seen.last_handshake.is_some());
    });
}

#[test]
fn wireguard_go_answers_us() {
    understand_each_other("interop_we_begin", 0);
}

#[test]
fn wireguard_go_is_answered_by_us() {
    understand_each_other("interop_they_begin", 1);
}
