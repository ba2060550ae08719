//! `aerostat volume …`

mod show;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use client::Client;
use types::volume::{CreateVolume, UpdateVolume, Volume};
use types::{AppName, OrgSlug, SnapshotId, VolumeId};

use super::output;
use super::{Context, Refused, complete, confirm};

#[derive(Debug, Subcommand)]
pub(super) enum Volumes {
    /// Create an empty volume
    Create(Create),
    /// List volumes
    #[command(visible_alias = "ls")]
    List {
        /// Only this app's
        #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
        app: Option<AppName>,
    },
    /// Show a volume and its snapshots
    Show(One),
    /// Let a volume grow; one in use grows when its machine starts again
    Extend {
        #[command(flatten)]
        one: One,
        /// New size in GB
        #[arg(short, long)]
        size: u64,
    },
    /// Change when snapshots are taken, and for how long they are kept
    Update {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        keep: Keep,
    },
    /// Delete a volume that no machine has; its snapshots are kept
    #[command(visible_alias = "rm")]
    Destroy {
        #[command(flatten)]
        one: One,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a volume that begins with what another one holds now
    Fork {
        #[command(flatten)]
        one: One,
        /// Its name [default: that of the other]
        #[arg(short, long)]
        name: Option<String>,
        /// Size in GB [default: that of the other]
        #[arg(short, long)]
        size: Option<u64>,
    },
    /// Make a volume that begins with what a snapshot holds
    Restore(Restore),
    /// Snapshots: a volume as it was at one moment
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(Snapshots),
}

#[derive(Debug, Subcommand)]
pub(super) enum Snapshots {
    /// Take a snapshot
    Create(One),
    /// List the snapshots of a volume, oldest first
    #[command(visible_alias = "ls")]
    List(One),
}

/// A volume of the command line.
#[derive(Debug, Args)]
pub(super) struct One {
    /// Id, or the name where the app has one volume of that name
    volume: String,
    /// App to look in; all of them unless given
    #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
    app: Option<AppName>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Lower-case letters, digits, underscores and dashes; several volumes may share one
    name: String,
    /// App that gets the volume
    #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
    app: AppName,
    /// GB
    #[arg(short, long, default_value_t = 1)]
    size: u64,
    /// Region to place it in [default: any]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    region: String,
    #[command(flatten)]
    keep: Keep,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Id of the snapshot
    snapshot: SnapshotId,
    /// App that gets the volume
    #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
    app: AppName,
    /// Name of the volume
    #[arg(short, long)]
    name: String,
    /// Size in GB [default: that of the snapshot's volume]
    #[arg(short, long)]
    size: Option<u64>,
}

/// What becomes of snapshots.
#[derive(Debug, Args)]
pub(super) struct Keep {
    /// Whether a snapshot is taken every day
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    backups: Option<bool>,
    /// Days for which snapshots are kept, 1 to 60
    #[arg(long, value_name = "DAYS")]
    retention: Option<u32>,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("must be on or off".into()),
    }
}

impl Volumes {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = &context.client()?;
        match self {
            Self::Create(create) => {
                let app = create.app.clone();
                made(context, client, &app, create.into_body()).await
            }
            Self::List { app } => show::list(context, client, app).await,
            Self::Show(one) => {
                let (app, volume) = one.find(client).await?;
                show::one(context, client, &app, volume).await
            }
            Self::Extend { one, size } => {
                let (app, volume) = one.find(client).await?;
                let extended = client.extend_volume(&app, &volume.id, size).await?;
                let told = match extended.needs_restart {
                    true => format!(
                        "volume {} has {size} GB when its machine starts again",
                        volume.id
                    ),
                    false => format!("volume {} has {size} GB", volume.id),
                };
                output::changed(context.format, &extended, volume.id.as_str(), &told)
            }
            Self::Update { one, keep } => {
                let (app, volume) = one.find(client).await?;
                let body = UpdateVolume {
                    snapshot_retention: keep.retention,
                    auto_backup_enabled: keep.backups,
                };
                let updated = client.update_volume(&app, &volume.id, &body).await?;
                show::print(context, &[(app, updated)])
            }
            Self::Destroy { one, yes } => {
                let (app, volume) = one.find(client).await?;
                let id = volume.id.clone();
                let question = format!(
                    "Delete volume {id} ({}, {} GB) of app {app} with all that it holds?",
                    volume.name, volume.size_gb
                );
                confirm(&question, yes)?;
                let deleted = client.delete_volume(&app, &id).await?;
                let told = format!("volume {id} {}", deleted.state);
                output::changed(context.format, &deleted, id.as_str(), &told)
            }
            Self::Fork { one, name, size } => {
                let (app, volume) = one.find(client).await?;
                let body = CreateVolume {
                    name: name.unwrap_or(volume.name),
                    size_gb: size,
                    source_volume_id: Some(volume.id),
                    ..CreateVolume::default()
                };
                made(context, client, &app, body).await
            }
            Self::Restore(restore) => {
                let app = restore.app.clone();
                made(context, client, &app, restore.into_body()).await
            }
            Self::Snapshot(snapshots) => snapshots.run(context, client).await,
        }
    }
}

impl Snapshots {
    async fn run(self, context: &Context, client: &Client) -> anyhow::Result<()> {
        match self {
            Self::Create(one) => {
                let (app, volume) = one.find(client).await?;
                let snapshot = client.create_snapshot(&app, &volume.id).await?;
                let told = format!("snapshot {} of volume {}", snapshot.id, volume.id);
                output::changed(context.format, &snapshot, snapshot.id.as_str(), &told)
            }
            Self::List(one) => {
                let (app, volume) = one.find(client).await?;
                let snapshots = client.snapshots(&app, &volume.id).await?;
                show::snapshots(context, &volume, &snapshots)
            }
        }
    }
}

impl Create {
    fn into_body(self) -> CreateVolume {
        CreateVolume {
            name: self.name,
            region: self.region,
            size_gb: Some(self.size),
            snapshot_retention: self.keep.retention,
            auto_backup_enabled: self.keep.backups,
            ..CreateVolume::default()
        }
    }
}

impl Restore {
    fn into_body(self) -> CreateVolume {
        CreateVolume {
            name: self.name,
            size_gb: self.size,
            snapshot_id: Some(self.snapshot),
            ..CreateVolume::default()
        }
    }
}

async fn made(
    context: &Context,
    client: &Client,
    app: &AppName,
    body: CreateVolume,
) -> anyhow::Result<()> {
    let volume = client.create_volume(app, &body).await?;
    let told = format!(
        "volume {} ({}, {} GB) is {}",
        volume.id, volume.name, volume.size_gb, volume.state
    );
    output::changed(context.format, &volume, volume.id.as_str(), &told)
}

impl One {
    /// The volume, and the app that it is of.
    async fn find(&self, client: &Client) -> anyhow::Result<(AppName, Volume)> {
        if let (Some(app), Ok(id)) = (&self.app, self.volume.parse::<VolumeId>()) {
            return Ok((app.clone(), client.volume(app, &id).await?));
        }
        let volumes = everywhere(client, self.app.as_ref()).await?;
        let is_meant = |(_, volume): &(AppName, Volume)| {
            volume.id.as_str() == self.volume || volume.name == self.volume
        };
        let mut found: Vec<_> = volumes.into_iter().filter(is_meant).collect();
        match (found.pop(), found.len()) {
            (Some(found), 0) => Ok(found),
            (Some((_, one)), more) => Err(Refused(format!(
                "there are {} volumes `{}`; name one by its id, such as {}",
                more + 1,
                self.volume,
                one.id
            ))
            .into()),
            (None, _) => Err(Refused(format!(
                "there is no volume `{}`; `aerostat volume list` shows those that there are",
                self.volume
            ))
            .into()),
        }
    }
}

/// The volumes of one app, or of all. Says which hosts are missing.
async fn everywhere(
    client: &Client,
    app: Option<&AppName>,
) -> anyhow::Result<Vec<(AppName, Volume)>> {
    let mut missing = BTreeSet::new();
    let mut volumes = Vec::new();
    if let Some(app) = app {
        let list = client.volumes(app).await?;
        missing.extend(list.hosts_missing);
        volumes.extend(list.volumes.into_iter().map(|volume| (app.clone(), volume)));
    } else {
        let apps = client.apps(None).await?.apps;
        let orgs: BTreeSet<OrgSlug> = apps.into_iter().map(|app| app.organization.slug).collect();
        for org in orgs {
            let mut cursor = None;
            loop {
                let page = client.org_volumes(&org, cursor.as_deref()).await?;
                missing.extend(page.hosts_missing);
                for volume in page.volumes {
                    volumes.push((volume.app_name.parse()?, volume.volume));
                }
                if page.next_cursor.is_empty() {
                    break;
                }
                cursor = Some(page.next_cursor);
            }
        }
        volumes.sort_by(|(a, v), (b, w)| (a, &v.name, &v.id).cmp(&(b, &w.name, &w.id)));
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().collect();
        eprintln!(
            "volumes of hosts that did not answer are missing: {}",
            missing.join(", ")
        );
    }
    Ok(volumes)
}
