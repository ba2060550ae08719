//! Somebody outside with Debian's own tools: wireguard-go and `wg`, set up as wg-quick does it.

use std::io::Write as _;
use std::net::{Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::{eventually, inside, succeed, within};

/// Keys of wg-quick's files that `wg setconf` does not know.
const WG_QUICK_KEYS: [&str; 3] = ["Address", "DNS", "MTU"];

/// wireguard-go's control sockets are all in one folder, so links of concurrent tests must differ.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A client that is disconnected when it is dropped.
#[derive(Debug)]
pub struct WireGuardClient {
    child: Child,
    netns: String,
    link: String,
    /// Where it asks for names.
    pub dns: Option<Ipv6Addr>,
}

impl WireGuardClient {
    /// Connects from a namespace, as a wg-quick file says.
    ///
    /// # Panics
    /// If a program is missing or the file makes no sense.
    pub fn connect(netns: &str, file: &str) -> Self {
        let client = Self::start(netns, file);
        client.route(file);
        client
    }

    /// Shakes hands as the file says; nothing goes through it yet.
    fn start(netns: &str, file: &str) -> Self {
        let link = format!(
            "wgt{}{}",
            std::process::id() % 1_000_000,
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let child = inside(netns, "wireguard-go")
            .args(["-f", &link])
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
            .env("WG_PROCESS_FOREGROUND", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("wireguard-go runs");
        let dns = values(file, "DNS").find_map(|text| text.parse().ok());
        let client = Self {
            child,
            netns: netns.to_owned(),
            link,
            dns,
        };
        eventually("wireguard-go", || {
            let there = client.socket().exists();
            there.then_some(()).ok_or_else(|| "no socket yet".into())
        });
        client.configure(file);
        client
    }

    fn configure(&self, file: &str) {
        let is_plain = |line: &&str| {
            let key = line.split('=').next().unwrap_or_default().trim();
            !WG_QUICK_KEYS.contains(&key)
        };
        let lines: Vec<&str> = file.lines().filter(is_plain).collect();
        let mut wg = inside(&self.netns, "wg")
            .args(["setconf", &self.link, "/dev/stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("wg runs");
        let mut stdin = wg.stdin.take().expect("it is piped");
        stdin
            .write_all((lines.join("\n") + "\n").as_bytes())
            .expect("wg reads");
        drop(stdin);
        assert!(wg.wait().expect("wg ends").success(), "wg setconf: {file}");
        let mtu = values(file, "MTU").next().unwrap_or("1420");
        self.ip(&format!("link set {} mtu {mtu} up", self.link));
    }

    fn route(&self, file: &str) {
        let link = &self.link;
        for address in values(file, "Address") {
            self.ip(&format!("address add {address} dev {link} nodad"));
        }
        for network in values(file, "AllowedIPs") {
            self.ip(&format!("route replace {network} dev {link}"));
        }
    }

    fn ip(&self, words: &str) {
        let words = format!("-n {} {words}", self.netns);
        succeed(Command::new("ip").args(words.split_whitespace()));
    }

    fn socket(&self) -> PathBuf {
        Path::new("/var/run/wireguard").join(format!("{}.sock", self.link))
    }

    /// Whether it has ever had a session.
    ///
    /// # Panics
    /// If `wg` cannot be asked.
    pub fn has_session(&self) -> bool {
        let shown =
            succeed(inside(&self.netns, "wg").args(["show", &self.link, "latest-handshakes"]));
        let last = shown.split_whitespace().last();
        last.is_some_and(|seconds| seconds != "0")
    }
}

impl Drop for WireGuardClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}

/// The first message that a client with this wg-quick file sends: a handshake initiation, 148
/// bytes, which nobody but the caller has seen.
///
/// # Panics
/// If none comes.
pub fn initiation(netns: &str, file: &str) -> Vec<u8> {
    let socket = within(netns, || UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let here = socket.local_addr().expect("an address");
    let lines = file
        .lines()
        .map(|line| match line.trim().split('=').next() {
            Some(key) if key.trim() == "Endpoint" => {
                format!("Endpoint = {here}\nPersistentKeepalive = 1")
            }
            Some(key) if key.trim() == "PersistentKeepalive" => String::new(),
            Some(_) | None => line.to_owned(),
        });
    let file: Vec<String> = lines.collect();
    let _client = WireGuardClient::start(netns, &file.join("\n"));
    let timeout = Some(Duration::from_secs(20));
    socket.set_read_timeout(timeout).expect("a timeout");
    let mut packet = [0; 2048];
    let length = socket.recv(&mut packet).expect("an initiation");
    assert_eq!((length, packet[0]), (148, 1), "it is no initiation");
    packet[..length].to_vec()
}

/// A new key pair: private, public.
///
/// # Panics
/// If `wg` is missing.
pub fn wireguard_keys() -> (String, String) {
    let private = succeed(Command::new("wg").arg("genkey")).trim().to_owned();
    let mut wg = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("wg runs");
    let mut stdin = wg.stdin.take().expect("it is piped");
    stdin.write_all(private.as_bytes()).expect("wg reads");
    drop(stdin);
    let output = wg.wait_with_output().expect("wg ends");
    let public = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (private, public)
}

/// The values of a key, which may be several, by commas.
fn values<'a>(file: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = file.lines().filter_map(move |line| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == key).then_some(value)
    });
    lines.flat_map(|value| value.split(',')).map(str::trim)
}
