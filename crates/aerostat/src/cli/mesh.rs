//! `aerostat mesh …`

use clap::Subcommand;
use types::fleet::{MeshPeer, MeshStatus};

use super::Context;
use super::output::{self, Format, Table};

#[derive(Debug, Subcommand)]
pub(super) enum Mesh {
    /// Show the other hosts as this one sees them: sessions, traffic, loss and round trip of the
    /// last minute, and the age of each host's own word
    Status,
}

impl Mesh {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Status => print(context, &context.client()?.mesh().await?),
        }
    }
}

fn print(context: &Context, mesh: &MeshStatus) -> anyhow::Result<()> {
    let names = || mesh.peers.iter().map(|peer| peer.id.to_string()).collect();
    output::print(context.format, mesh, || table(&mesh.peers), names)?;
    match context.format {
        Format::Table | Format::Wide => output::line(&dropped(mesh)),
        Format::Json | Format::Yaml | Format::Name => Ok(()),
    }
}

fn table(peers: &[MeshPeer]) -> Table {
    let mut table = Table::new(&[
        "HOST",
        "NAME",
        "STATUS",
        "ENDPOINT",
        "HANDSHAKE",
        "RX",
        "TX",
        "LOSS",
        "RTT",
        "WORD",
    ]);
    for peer in peers {
        table.row([
            peer.id.to_string(),
            peer.name.clone(),
            peer.status.as_str().to_owned(),
            shown(peer.endpoint, |endpoint| endpoint.to_string()),
            shown(peer.handshake_age_s, ago),
            output::size(peer.rx_bytes),
            output::size(peer.tx_bytes),
            shown(peer.loss_percent, |loss| format!("{loss:.1} %")),
            shown(peer.round_trip_ms, |time| format!("{time:.2} ms")),
            shown(peer.word_age_s, ago),
        ]);
    }
    table
}

/// What there is to show, or that there is nothing.
fn shown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn ago(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0}s ago"),
        ..7200.0 => format!("{:.0}m ago", seconds / 60.0),
        _ => format!("{:.0}h ago", seconds / 3600.0),
    }
}

fn dropped(mesh: &MeshStatus) -> String {
    let some: Vec<_> = mesh
        .drops
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(reason, packets)| format!("{packets} {}", reason.replace('_', " ")))
        .collect();
    if some.is_empty() {
        "packets dropped: none".to_owned()
    } else {
        format!("packets dropped: {}", some.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn ages_and_drops_read_well() {
        assert_eq!(ago(3.4), "3s ago");
        assert_eq!(ago(600.0), "10m ago");
        let mut mesh = MeshStatus {
            host: types::HostId::new(2),
            public_key: String::new(),
            port: 51821,
            peers: Vec::new(),
            drops: BTreeMap::from([("malformed".to_owned(), 0)]),
        };
        assert_eq!(dropped(&mesh), "packets dropped: none");
        mesh.drops.insert("foreign_source".to_owned(), 3);
        assert_eq!(dropped(&mesh), "packets dropped: 3 foreign source");
    }
}
