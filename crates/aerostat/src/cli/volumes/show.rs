//! Volumes and snapshots as tables.

use client::Client;
use jiff::Timestamp;
use serde::Serialize;
use types::AppName;
use types::volume::{Volume, VolumeSnapshot};

use super::super::Context;
use super::super::output::{self, Table};
use super::everywhere;

/// A volume with what belongs to it.
#[derive(Debug, Serialize)]
struct Detailed {
    app: AppName,
    #[serde(flatten)]
    volume: Volume,
    snapshots: Vec<VolumeSnapshot>,
}

/// A volume and its app.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    app: &'a AppName,
    #[serde(flatten)]
    volume: &'a Volume,
}

pub(super) async fn list(
    context: &Context,
    client: &Client,
    app: Option<AppName>,
) -> anyhow::Result<()> {
    let volumes = everywhere(client, app.as_ref()).await?;
    let first = "there are no volumes yet; the first: aerostat volume create NAME --app APP";
    output::print_list(
        context.format,
        &listed(&volumes),
        || table(&volumes),
        || names(&volumes),
        first,
    )
}

pub(super) fn print(context: &Context, volumes: &[(AppName, Volume)]) -> anyhow::Result<()> {
    output::print(
        context.format,
        &listed(volumes),
        || table(volumes),
        || names(volumes),
    )
}

pub(super) async fn one(
    context: &Context,
    client: &Client,
    app: &AppName,
    volume: Volume,
) -> anyhow::Result<()> {
    let snapshots = client.snapshots(app, &volume.id).await?;
    let (app, name) = (app.clone(), volume.id.to_string());
    let detailed = Detailed {
        app,
        volume,
        snapshots,
    };
    output::print(
        context.format,
        &detailed,
        || details(&detailed),
        || vec![name],
    )
}

fn listed(volumes: &[(AppName, Volume)]) -> Vec<Listed<'_>> {
    let each = volumes.iter();
    each.map(|(app, volume)| Listed { app, volume }).collect()
}

fn names(volumes: &[(AppName, Volume)]) -> Vec<String> {
    volumes.iter().map(|(_, v)| v.id.to_string()).collect()
}

fn table(volumes: &[(AppName, Volume)]) -> Table {
    let heading = [
        "ID", "NAME", "APP", "STATE", "SIZE", "USED", "REGION", "HOST", "MACHINE", "AGE",
    ];
    let mut table = Table::new(&heading).wide(&["ON DISK", "BACKUPS", "RETENTION"]);
    for (app, volume) in volumes {
        let machine = volume.attached_machine_id.as_ref();
        let backups = match volume.auto_backup_enabled {
            true => "daily",
            false => "off",
        };
        table.row([
            volume.id.to_string(),
            volume.name.clone(),
            app.to_string(),
            volume.state.to_string(),
            format!("{} GB", volume.size_gb),
            used(volume),
            volume.region.clone(),
            volume.zone.clone(),
            machine.map_or_else(|| "none".into(), ToString::to_string),
            age(volume.created_at),
            output::size(volume.bytes_used),
            backups.into(),
            format!("{} d", volume.snapshot_retention),
        ]);
    }
    table
}

/// How much of the file system is taken.
fn used(volume: &Volume) -> String {
    match volume.blocks {
        0 => "unknown".into(),
        blocks => {
            let used = blocks.saturating_sub(volume.blocks_free);
            format!("{}%", used.saturating_mul(100) / blocks)
        }
    }
}

fn details(detailed: &Detailed) -> Table {
    let volume = &detailed.volume;
    let mut table = Table::new(&["VOLUME", volume.id.as_str()]);
    let machine = volume.attached_machine_id.as_ref();
    for (name, value) in [
        ("name", volume.name.clone()),
        ("app", detailed.app.to_string()),
        ("state", volume.state.to_string()),
        (
            "size",
            format!("{} GB, {} used", volume.size_gb, used(volume)),
        ),
        ("on disk", output::size(volume.bytes_used)),
        ("region", volume.region.clone()),
        ("host", volume.zone.clone()),
        (
            "machine",
            machine.map_or_else(|| "none".into(), ToString::to_string),
        ),
        ("created", volume.created_at.to_string()),
        ("daily snapshots", volume.auto_backup_enabled.to_string()),
        ("kept for", format!("{} days", volume.snapshot_retention)),
    ] {
        table.row([name.into(), value]);
    }
    for snapshot in &detailed.snapshots {
        let told = format!("{}, {}", snapshot.created_at, snapshot.status.as_str());
        table.row([format!("snapshot {}", snapshot.id), told]);
    }
    table
}

pub(super) fn snapshots(
    context: &Context,
    volume: &Volume,
    snapshots: &[VolumeSnapshot],
) -> anyhow::Result<()> {
    let table = || {
        let heading = ["ID", "STATUS", "SIZE", "ON DISK", "KEPT FOR", "AGE"];
        let mut table = Table::new(&heading).wide(&["DIGEST"]);
        for snapshot in snapshots {
            table.row([
                snapshot.id.to_string(),
                snapshot.status.as_str().into(),
                output::size(snapshot.volume_size),
                output::size(snapshot.size),
                format!("{} d", snapshot.retention_days),
                age(snapshot.created_at),
                snapshot.digest.clone(),
            ]);
        }
        table
    };
    let names = || snapshots.iter().map(|s| s.id.to_string()).collect();
    let first = format!(
        "there are no snapshots; the first: aerostat volume snapshot create {}",
        volume.id
    );
    output::print_list(context.format, snapshots, table, names, &first)
}

fn age(at: Timestamp) -> String {
    output::age(Timestamp::now().as_millisecond(), at.as_millisecond())
}
