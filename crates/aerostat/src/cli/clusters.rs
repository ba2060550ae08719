//! `aerostat k8s …`

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use types::cluster::{
    Cluster, ClusterKeys, ClusterName, ClusterSettings, CreateCluster, RotateKeys, RotatedKeys,
};

use super::kubeconfig::{self, Merged};
use super::output::{self, Table};
use super::{Context, Refused, confirm};
use crate::app::Lock;
use crate::clusters;

#[derive(Debug, Subcommand)]
pub(super) enum Clusters {
    /// List the clusters of this host
    #[command(visible_alias = "ls")]
    List,
    /// Make a cluster of its own: a control plane, and a network for its pods
    Create {
        name: ClusterName,
        /// Where its API listens [default: loopback, at a free port]
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// TOML file with settings, as in the table kubernetes_api of the configuration: audit log,
        /// OIDC issuer, fixed tokens, labels and taints of the node
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Print the kubeconfig of a cluster's administrator, or put it into yours
    Kubeconfig(Kubeconfig),
    /// Make new keys of a cluster while it runs, or take the old ones away
    RotateKeys {
        /// secrets: what Secrets are sealed with; tokens: what service accounts' tokens are signed
        /// with; certificates: those of authority, server and administrator
        keys: ClusterKeys,
        #[arg(default_value = "default")]
        name: ClusterName,
        /// Make none; take the old ones away, and with them what they alone have signed or sealed
        #[arg(long)]
        drop_old: bool,
        /// With --drop-old: do not ask
        #[arg(short, long, requires = "drop_old")]
        yes: bool,
    },
    /// Delete a cluster with its pods and its data
    #[command(visible_alias = "rm")]
    Delete {
        name: ClusterName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Write state and keys of a cluster into one file, while it goes on
    Backup {
        #[arg(default_value = "default")]
        name: ClusterName,
        /// A new file, or - for standard output. It holds keys: keep it as a secret
        #[arg(long, short)]
        file: PathBuf,
    },
    /// Bring a cluster back from a backup, while nothing runs on this host
    Restore {
        #[arg(default_value = "default")]
        name: ClusterName,
        /// What `k8s backup` wrote
        #[arg(long, short)]
        file: PathBuf,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Kubeconfig {
    #[arg(default_value = "default")]
    name: ClusterName,
    /// Add it to your kubeconfig ($KUBECONFIG or ~/.kube/config) and use it from now on
    #[arg(long)]
    merge: bool,
    /// With --merge: do not ask
    #[arg(short, long, requires = "merge")]
    yes: bool,
}

impl Clusters {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let clusters = context.client()?.clusters().await?.clusters;
                let none =
                    "there are no clusters on this host; the first: aerostat k8s create NAME";
                output::print_list(
                    context.format,
                    &clusters,
                    || table(context, &clusters),
                    || names(&clusters),
                    none,
                )
            }
            Self::Create {
                name,
                listen,
                settings,
            } => {
                let settings = settings.as_deref().map(read_settings).transpose()?;
                let body = CreateCluster {
                    name,
                    listen,
                    settings: settings.unwrap_or_default(),
                };
                let cluster = context.client()?.create_cluster(&body).await?;
                let name = &cluster.name;
                let told = format!(
                    "cluster {name} answers at https://{}; use it: aerostat k8s kubeconfig {name} --merge",
                    cluster.listen
                );
                output::changed(context.format, &cluster, name.as_str(), &told)
            }
            Self::Kubeconfig(wanted) => wanted.run(context).await,
            Self::RotateKeys {
                keys,
                name,
                drop_old,
                yes,
            } => {
                if drop_old {
                    confirm(&format!("Take away the old {keys} keys of {name}?"), yes)?;
                }
                let body = RotateKeys { keys, drop_old };
                let done = context.client()?.rotate_cluster_keys(&name, &body).await?;
                let told = rotated(&name, &done, drop_old);
                output::changed(context.format, &done, name.as_str(), &told)
            }
            Self::Delete { name, yes } => {
                confirm(
                    &format!("Delete cluster {name} with all its pods and data?"),
                    yes,
                )?;
                context.client()?.delete_cluster(&name).await?;
                let told = format!("cluster {name} deleted");
                output::changed(context.format, &name, name.as_str(), &told)
            }
            Self::Backup { name, file } => back_up(context, &name, &file).await,
            Self::Restore { name, file, yes } => restore(context, &name, &file, yes).await,
        }
    }
}

impl Kubeconfig {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let text = context.client()?.kubeconfig(&self.name).await?;
        let named = kubeconfig::named(&text, &self.name)?;
        if !self.merge {
            return output::write(named.as_bytes());
        }
        let path = kubeconfig::users_file()?;
        let question = format!(
            "Add the context `{}` to {} and use it from now on?",
            kubeconfig::entry_name(&self.name),
            path.display()
        );
        confirm(&question, self.yes)?;
        let Merged { kept } = kubeconfig::merge_into(&path, &named)?;
        let mut told = format!("{} has it now", path.display());
        if let Some(kept) = kept {
            told += &format!("; as it was: {}", kept.display());
        }
        output::changed(context.format, &self.name, self.name.as_str(), &told)
    }
}

fn read_settings(file: &Path) -> anyhow::Result<ClusterSettings> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let settings = toml::from_str(&text);
    settings.with_context(|| format!("{} does not hold settings of a cluster", file.display()))
}

fn rotated(name: &ClusterName, done: &RotatedKeys, drop_old: bool) -> String {
    let RotatedKeys {
        keys,
        ids,
        resealed,
    } = done;
    let ids = ids.join(", ");
    match (keys, drop_old) {
        (ClusterKeys::Secrets, false) => format!(
            "cluster {name}: {resealed} Secrets sealed with a new key; keys: {ids}; an hour from now \
             take the old ones away: aerostat k8s rotate-keys secrets {name} --drop-old"
        ),
        (ClusterKeys::Tokens, false) => format!(
            "cluster {name}: a new key signs; keys: {ids}; when the last token of the old ones has \
             ended: aerostat k8s rotate-keys tokens {name} --drop-old"
        ),
        (ClusterKeys::Certificates, _) => format!(
            "cluster {name}: {ids}; those of before are good until they end; the administrator's: \
             aerostat k8s kubeconfig {name} --merge"
        ),
        (ClusterKeys::Secrets | ClusterKeys::Tokens, true) => {
            format!("cluster {name}: the old keys are gone; left: {ids}")
        }
    }
}

async fn back_up(context: &Context, name: &ClusterName, file: &Path) -> anyhow::Result<()> {
    let mut archive = context.client()?.back_up_cluster(name).await?;
    if file == Path::new("-") {
        while let Some(piece) = archive.next().await {
            output::write(&piece?)?;
        }
        return Ok(());
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    let written = async {
        while let Some(piece) = archive.next().await {
            new.write_all(&piece?)?;
        }
        new.sync_all()?;
        anyhow::Ok(new.metadata()?.len())
    };
    let bytes = match written.await {
        Ok(bytes) => bytes,
        Err(error) => {
            // Half a backup would be taken for one.
            std::fs::remove_file(file).ok();
            return Err(error.context("the backup was not written"));
        }
    };
    let told = format!(
        "cluster {name} backed up to {} ({})",
        file.display(),
        output::size(bytes)
    );
    output::changed(context.format, name, name.as_str(), &told)
}

async fn restore(
    context: &Context,
    name: &ClusterName,
    file: &Path,
    yes: bool,
) -> anyhow::Result<()> {
    File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !context.config()?.kubernetes_etcd.is_empty() {
        let why = "the clusters of this host are in an etcd, which has snapshots of its own";
        return Err(Refused(why.into()).into());
    }
    if Lock::is_held(&context.paths)? {
        let why = "a cluster cannot be replaced while it runs; `aerostat down` first";
        return Err(Refused(why.into()).into());
    }
    let _lock = Lock::acquire(&context.paths)?;
    confirm(
        &format!("Replace cluster {name} by what {} holds?", file.display()),
        yes,
    )?;
    let old = clusters::restore(&context.paths, name, file).await?;
    let mut told = format!("cluster {name} is as it was backed up; `aerostat up` starts it");
    if let Some(old) = old {
        told += &format!("; what it was before: {}", old.display());
    }
    output::changed(context.format, name, name.as_str(), &told)
}

fn names(clusters: &[Cluster]) -> Vec<String> {
    clusters.iter().map(|one| one.name.to_string()).collect()
}

fn table(context: &Context, clusters: &[Cluster]) -> Table {
    let heading = ["NAME", "STATE", "API", "APP", "AGE"];
    let mut table = Table::new(&heading).wide(&["KUBECONFIG", "REASON"]);
    for cluster in clusters {
        table.row([
            cluster.name.to_string(),
            cluster.state.to_string(),
            format!("https://{}", cluster.listen),
            cluster.app.to_string(),
            context.time(cluster.created_at),
            cluster.kubeconfig.clone(),
            cluster.reason.clone().unwrap_or_default(),
        ]);
    }
    table
}
