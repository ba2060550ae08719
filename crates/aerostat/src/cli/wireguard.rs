//! `aerostat wireguard …`: clients outside that may come in through a gateway.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use client::Client;
use net::wireguard::PrivateKey;
use types::fleet::{CreateWireGuardPeer, WireGuardPeer, WireGuardPeerAnswer};
use types::sixpn::MTU;
use types::{HostId, OrgSlug};

use super::output::{self, Table};
use super::{Context, Refused};

/// Less than the 30 s after which impatient firewalls forget a UDP flow, and what Fly's files have.
const KEEPALIVE_S: u16 = 15;

#[derive(Debug, Subcommand)]
pub(super) enum WireGuard {
    /// Make a key pair and a peer, and print a file for wg-quick
    Create {
        /// Name of the peer [default: one that nobody has]
        name: Option<String>,
        #[command(flatten)]
        org: Org,
        /// Network that the peer gets into [default: the organisation's default]
        #[arg(long, default_value = "", hide_default_value = true)]
        network: String,
        /// Host whose gateway it uses, by number or name [default: the one that is asked]
        #[arg(long, value_name = "HOST")]
        gateway: Option<String>,
        /// Write the file here, for its owner only, instead of printing it
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// List peers
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Remove a peer; what it has open ends within seconds
    #[command(visible_alias = "rm")]
    Remove {
        name: String,
        #[command(flatten)]
        org: Org,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Org {
    /// Organisation of the peer
    #[arg(long, default_value = "personal")]
    org: OrgSlug,
}

impl WireGuard {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List { org } => {
                let peers = client.wireguard_peers(&org.org).await?.peers;
                let first = "there are no peers yet; the first: aerostat wireguard create NAME";
                let names = || peers.iter().map(|peer| peer.name.clone()).collect();
                output::print_list(context.format, &peers, || table(&peers), names, first)
            }
            Self::Remove { name, org } => {
                client.delete_wireguard_peer(&org.org, &name).await?;
                let removed = serde_json::json!({"name": name, "removed": true});
                output::changed(
                    context.format,
                    &removed,
                    &name,
                    &format!("peer {name} removed"),
                )
            }
            Self::Create {
                name,
                org,
                network,
                gateway,
                file,
            } => {
                let gateway = match gateway {
                    Some(text) => Some(find_host(&client, &text).await?),
                    None => None,
                };
                let key = PrivateKey::generate().context("cannot make a key")?;
                let body = CreateWireGuardPeer {
                    name: name.unwrap_or_else(new_name),
                    network,
                    public_key: key.public().to_string(),
                    gateway,
                };
                // Before the peer is made: nobody could use it without its key.
                let file = file.map(|path| Ok::<_, anyhow::Error>((create_new(&path)?, path)));
                let file = file.transpose()?;
                let made = client.create_wireguard_peer(&org.org, &body).await;
                match (made, file) {
                    (Ok(answer), None) => print_new(context, &answer, &config(&answer, &key)),
                    (Ok(answer), Some((mut opened, path))) => {
                        let text = config(&answer, &key);
                        let written = opened.write_all(text.as_bytes());
                        let written = written.and_then(|()| opened.sync_all());
                        written.with_context(|| format!("cannot write {}", path.display()))?;
                        eprintln!("{} is for `wg-quick up`", path.display());
                        print(context, &answer.peer)
                    }
                    (Err(error), file) => {
                        if let Some((_, path)) = file {
                            let _ = fs::remove_file(path);
                        }
                        Err(error.into())
                    }
                }
            }
        }
    }
}

/// Lower-case letters and digits, as a DNS label wants them.
fn new_name() -> String {
    format!("peer-{:08x}", rand::random::<u32>())
}

async fn find_host(client: &Client, text: &str) -> anyhow::Result<HostId> {
    let hosts = client.hosts().await?.hosts;
    let mut hosts = hosts.into_iter().map(|found| found.host);
    let found = hosts.find(|host| host.name == text || host.id.number().to_string() == text);
    let Some(host) = found else {
        bail!(Refused(format!(
            "there is no host `{text}`; `aerostat host list` shows those that are there"
        )));
    };
    Ok(host.id)
}

fn create_new(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(Refused(format!(
                "{} exists already, and may hold the only copy of a key; choose another --file",
                path.display()
            )))
        }
        file => file.with_context(|| format!("cannot make {}", path.display())),
    }
}

/// For `wg-quick`: wg-quick(8), wg(8).
fn config(answer: &WireGuardPeerAnswer, key: &PrivateKey) -> String {
    let WireGuardPeerAnswer {
        peer,
        gateway_record: gateway,
        resolver,
    } = answer;
    let network = u128::from(peer.address) >> 80 << 80;
    format!(
        "\
[Interface]
PrivateKey = {}
Address = {}/120
DNS = {resolver}
MTU = {MTU}

[Peer]
PublicKey = {}
AllowedIPs = {}/48
Endpoint = {}
PersistentKeepalive = {KEEPALIVE_S}
",
        key.to_base64(),
        peer.address,
        gateway.public_key,
        std::net::Ipv6Addr::from(network),
        gateway.endpoint,
    )
}

fn print_new(context: &Context, answer: &WireGuardPeerAnswer, config: &str) -> anyhow::Result<()> {
    if context.format.is_table() {
        return output::write(config.as_bytes());
    }
    #[derive(serde::Serialize)]
    struct New<'a> {
        #[serde(flatten)]
        answer: &'a WireGuardPeerAnswer,
        config: &'a str,
    }
    let names = || vec![answer.peer.name.clone()];
    let new = New { answer, config };
    output::print(context.format, &new, || Table::new(&[]), names)
}

fn print(context: &Context, peer: &WireGuardPeer) -> anyhow::Result<()> {
    let table = || table(std::slice::from_ref(peer));
    output::print(context.format, peer, table, || vec![peer.name.clone()])
}

fn table(peers: &[WireGuardPeer]) -> Table {
    let mut table = Table::new(&["NAME", "NETWORK", "GATEWAY", "ADDRESS", "PUBLIC KEY"]);
    for peer in peers {
        table.row([
            peer.name.clone(),
            peer.network.clone(),
            peer.gateway.number().to_string(),
            peer.address.to_string(),
            peer.public_key.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use types::NetworkId;
    use types::fleet::GatewayRecord;
    use types::sixpn::{network_resolver, peer_addr};

    use super::*;

    #[test]
    fn the_file_is_what_wg_quick_reads() {
        let network_id = NetworkId::try_from(0x22b7).unwrap();
        let host = HostId::new(3);
        let key = PrivateKey::from_bytes([7; 32]);
        let answer = WireGuardPeerAnswer {
            peer: WireGuardPeer {
                name: "laptop".into(),
                org: "personal".parse().unwrap(),
                network: "default".into(),
                network_id,
                public_key: key.public().to_string(),
                gateway: host,
                address: peer_addr(network_id, host, 1),
                created_at: jiff::Timestamp::UNIX_EPOCH,
            },
            gateway_record: GatewayRecord {
                public_key: "GATEWAY".into(),
                endpoint: "[2001:db8::1]:51820".parse().unwrap(),
            },
            resolver: network_resolver(network_id),
        };
        let text = config(&answer, &key);
        for line in [
            "Address = fdaa:0:22b7:a7b:3:0:a:102/120",
            "DNS = fdaa:0:22b7::3",
            "MTU = 1420",
            "AllowedIPs = fdaa:0:22b7::/48",
            "Endpoint = [2001:db8::1]:51820",
            "PersistentKeepalive = 15",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_file_that_exists_is_not_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg.conf");
        let made = create_new(&path).unwrap().metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        assert!(create_new(&path).unwrap_err().is::<Refused>());
    }
}
