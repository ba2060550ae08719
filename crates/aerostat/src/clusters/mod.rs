//! The Kubernetes clusters of this host. A cluster is a control plane in this process and an app
//! with a network of its own, whose machines are the cluster's pods: tenants with a cluster each
//! share neither objects nor addresses.
//!
//! ```text
//!   DATA/kubernetes/                 the cluster `default`: store.db, pki/, kubeconfig
//!   DATA/kubernetes/clusters/NAME/   every other one: the same, and cluster.json
//! ```
//!
//! `cluster.json` is written before a cluster is started and again before it is deleted, so that
//! the next start of the daemon goes on with either.

mod backup;
mod control_plane;
mod door;
mod keys;
mod record;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tracing::{error, info, warn};
use types::cluster::{
    Cluster, ClusterName, ClusterSettings, ClusterState, CreateCluster, RotateKeys, RotatedKeys,
};
use types::{AppName, IsolationClass};

use crate::config::{Config, Paths};
use crate::drain::Drain;
use crate::files::private_folder;
use crate::worker::Capacity;

pub(crate) use backup::RestoreError;
pub(crate) use control_plane::{ControlPlane, bind, start as start_control_plane};
pub(crate) use door::Inside;
use keys::Keyring;
use record::Record;

/// The app whose machines are the pods of the cluster `default`.
const DEFAULT_APP: &str = "kubernetes";
/// How long the tasks of one cluster may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Each is a control plane in this process.
const CLUSTERS_MAX: usize = 64;

/// Why something was not done to a cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("there is no cluster `{0}` on this host")]
    NotFound(ClusterName),
    #[error("there is a cluster `{0}` already")]
    Exists(ClusterName),
    #[error("the cluster `default` is part of the host; set kubernetes = false to go without it")]
    IsDefault,
    #[error("this host has {CLUSTERS_MAX} clusters, which is all it can have")]
    TooMany,
    #[error("the cluster `{0}` does not run")]
    NotRunning(ClusterName),
    #[error("cannot listen on {address} for the Kubernetes API")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the cluster was not started: {reason}")]
    NotStarted { reason: String },
    #[error("the pods of cluster `{name}` cannot be removed")]
    Pods {
        name: ClusterName,
        source: client::Error,
    },
    #[error("cannot use {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("the cluster was not backed up")]
    Backup(#[source] Box<store::CopyError>),
    #[error("the setting {key} {reason}")]
    Settings { key: &'static str, reason: String },
    #[error("the keys of the cluster stay as they are: {why}")]
    KeysStay { why: &'static str },
    #[error("the keys of the cluster were not changed")]
    Keys(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What clusters need of their host.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) client: Client,
    pub(crate) capacity: Capacity,
    pub(crate) classes: BTreeSet<IsolationClass>,
    pub(crate) inside: Inside,
}

/// The clusters of this host. Cloning gives another handle.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    around: Surroundings,
    drain: Drain,
    /// Held while something changes, so that changes come one after the other.
    clusters: Mutex<BTreeMap<ClusterName, Entry>>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Running {
        store: store::Store,
        // Far larger than the rest.
        keys: Box<Keyring>,
        drain: Drain,
    },
    Failed {
        reason: String,
    },
}

impl Clusters {
    /// Starts the cluster `default`, if it has a port, and all others that there were.
    ///
    /// # Errors
    /// If `default` cannot be started. Another one that cannot is shown as failed.
    pub(crate) async fn start(
        around: Surroundings,
        default: Option<TcpListener>,
        drain: &Drain,
    ) -> anyhow::Result<Self> {
        let clusters = Self {
            shared: Arc::new(Shared {
                around,
                drain: drain.clone(),
                clusters: Mutex::default(),
            }),
        };
        let mut all = BTreeMap::new();
        if let Some(listener) = default {
            let dir = clusters.dir(&ClusterName::default_cluster());
            let settings = clusters.shared.around.config.kubernetes_api.clone();
            let record = Record::of_default(&dir, listener.local_addr()?, settings)?;
            let life = clusters.run(&record, listener).await?;
            all.insert(record.name.clone(), Entry { record, life });
        }
        for record in record::all(&clusters.folder())? {
            let entry = clusters.recover(record).await;
            all.extend(entry.map(|entry| (entry.record.name.clone(), entry)));
        }
        *clusters.shared.clusters.lock().await = all;
        Ok(clusters)
    }

    /// What the last daemon left of a cluster: goes on with its deletion, or starts it.
    async fn recover(&self, record: Record) -> Option<Entry> {
        let name = record.name.clone();
        if record.is_deleting {
            match self.remove(&record).await {
                Ok(()) => return None,
                Err(error) => {
                    let reason = types::chain(&error);
                    error!(cluster = %name, reason, "a cluster is not deleted yet");
                    return Some(Entry {
                        record,
                        life: Life::Failed { reason },
                    });
                }
            }
        }
        let started = match TcpListener::bind(record.listen).await {
            Ok(listener) => self.run(&record, listener).await,
            Err(source) => Err(anyhow::Error::new(ClusterError::Listen {
                address: record.listen,
                source,
            })),
        };
        let life = started.unwrap_or_else(|error| {
            let reason = format!("{error:#}");
            error!(cluster = %name, reason, "a cluster does not start");
            Life::Failed { reason }
        });
        Some(Entry { record, life })
    }

    pub(crate) async fn list(&self) -> Vec<Cluster> {
        let clusters = self.shared.clusters.lock().await;
        clusters.values().map(|entry| self.shown(entry)).collect()
    }

    pub(crate) async fn get(&self, name: &ClusterName) -> Result<Cluster, ClusterError> {
        let clusters = self.shared.clusters.lock().await;
        let entry = clusters.get(name);
        entry
            .map(|entry| self.shown(entry))
            .ok_or_else(|| ClusterError::NotFound(name.clone()))
    }

    /// Makes a cluster. It answers when this returns.
    pub(crate) async fn create(&self, wanted: CreateCluster) -> Result<Cluster, ClusterError> {
        let mut clusters = self.shared.clusters.lock().await;
        let name = wanted.name;
        if name.is_default() || clusters.contains_key(&name) {
            return Err(ClusterError::Exists(name));
        }
        if clusters.len() >= CLUSTERS_MAX {
            return Err(ClusterError::TooMany);
        }
        settings::check(&wanted.settings).map_err(|error| ClusterError::Settings {
            key: error.key,
            reason: error.reason,
        })?;
        let address = wanted
            .listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let refused = |source| ClusterError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let record = Record {
            name: name.clone(),
            listen: listener.local_addr().map_err(refused)?,
            created_at: Timestamp::now(),
            is_deleting: false,
            settings: wanted.settings,
        };
        record.write(&self.dir(&name))?;
        let life = match self.run(&record, listener).await {
            Ok(life) => life,
            Err(error) => {
                if let Err(error) = record::forget(&self.dir(&name)) {
                    warn!(cluster = %name, error = %types::chain(&error), "something is left of a cluster");
                }
                let reason = format!("{error:#}");
                return Err(ClusterError::NotStarted { reason });
            }
        };
        info!(cluster = %name, listen = %record.listen, "cluster created");
        let entry = Entry { record, life };
        let shown = self.shown(&entry);
        clusters.insert(name, entry);
        Ok(shown)
    }

    /// Deletes a cluster with its pods and all its data.
    pub(crate) async fn delete(&self, name: &ClusterName) -> Result<(), ClusterError> {
        if name.is_default() {
            return Err(ClusterError::IsDefault);
        }
        let mut clusters = self.shared.clusters.lock().await;
        let entry = clusters
            .get_mut(name)
            .ok_or_else(|| ClusterError::NotFound(name.clone()))?;
        entry.record.is_deleting = true;
        entry.record.write(&self.dir(name))?;
        let reason = "it is being deleted".to_owned();
        let life = std::mem::replace(&mut entry.life, Life::Failed { reason });
        if let Life::Running { drain, .. } = life
            && let Err(late) = drain.finish(DRAIN_TIMEOUT).await
        {
            warn!(cluster = %name, ?late, "some tasks did not end in time");
        }
        let record = entry.record.clone();
        match self.remove(&record).await {
            Ok(()) => {
                clusters.remove(name);
                info!(cluster = %name, "cluster deleted");
                Ok(())
            }
            Err(error) => {
                let reason = types::chain(&error);
                entry.life = Life::Failed { reason };
                Err(error)
            }
        }
    }

    /// Pods and data of a cluster that does not run.
    async fn remove(&self, record: &Record) -> Result<(), ClusterError> {
        let name = record.name.clone();
        match self
            .shared
            .around
            .client
            .delete_app(&app_of(&name), true)
            .await
        {
            Ok(()) => {}
            Err(error) if error.status() == Some(404) => {}
            Err(source) => return Err(ClusterError::Pods { name, source }),
        }
        record::forget(&self.dir(&name))
    }

    /// The kubeconfig of the cluster's administrator.
    pub(crate) async fn kubeconfig(&self, name: &ClusterName) -> Result<String, ClusterError> {
        self.get(name).await?;
        let path = self.dir(name).join("kubeconfig");
        tokio::fs::read_to_string(&path)
            .await
            .map_err(|source| ClusterError::Disk { path, source })
    }

    /// Writes a backup of a running cluster into a new file; see [`backup`].
    pub(crate) async fn back_up(&self, name: &ClusterName) -> Result<std::fs::File, ClusterError> {
        let store = {
            let clusters = self.shared.clusters.lock().await;
            match clusters.get(name).map(|entry| &entry.life) {
                Some(Life::Running { store, .. }) => store.clone(),
                Some(Life::Failed { .. }) => return Err(ClusterError::NotRunning(name.clone())),
                None => return Err(ClusterError::NotFound(name.clone())),
            }
        };
        backup::write(&store, &self.dir(name)).await
    }

    /// Makes new keys of a running cluster, or takes the old ones away; see [`keys`].
    pub(crate) async fn rotate(
        &self,
        name: &ClusterName,
        wanted: &RotateKeys,
    ) -> Result<RotatedKeys, ClusterError> {
        // Held, so that nobody else does the same in the middle of it.
        let clusters = self.shared.clusters.lock().await;
        match clusters.get(name).map(|entry| &entry.life) {
            Some(Life::Running { keys, .. }) => keys.rotate(wanted).await,
            Some(Life::Failed { .. }) => Err(ClusterError::NotRunning(name.clone())),
            None => Err(ClusterError::NotFound(name.clone())),
        }
    }

    async fn run(&self, record: &Record, listener: TcpListener) -> anyhow::Result<Life> {
        let around = &self.shared.around;
        let dir = self.dir(&record.name);
        private_folder(&dir)?;
        let host = (around.capacity, around.classes.clone());
        let client = around.client.clone();
        let mut plane = ControlPlane::new(&around.config, &record.name, dir, client, host)
            .with_settings(record.settings.clone());
        plane.inside = Some(around.inside.clone());
        let drain = Drain::new();
        let started = start_control_plane(plane, listener, &drain).await;
        let (store, keys) = match started {
            Ok(started) => started,
            Err(error) => {
                // What was started ends; nothing of it is waited for.
                drain.token().cancel();
                return Err(error);
            }
        };
        self.end_with_host(drain.clone());
        let keys = Box::new(keys);
        Ok(Life::Running { store, keys, drain })
    }

    /// A cluster ends with the daemon, and a panic in it ends the daemon, as anybody's does.
    fn end_with_host(&self, drain: Drain) {
        let host = self.shared.drain.clone();
        let (stopping, ended) = (host.token(), drain.token());
        self.shared.drain.spawn("kubernetes cluster", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = ended.cancelled() => {}
            }
            if let Err(late) = drain.finish(DRAIN_TIMEOUT).await {
                warn!(?late, "some tasks did not end in time");
            }
            if let Some(task) = drain.panicked() {
                panic!("task `{task}` of a cluster has panicked");
            }
        });
    }

    fn folder(&self) -> PathBuf {
        self.shared.around.paths.kubernetes().join("clusters")
    }

    fn dir(&self, name: &ClusterName) -> PathBuf {
        dir(&self.shared.around.paths, name)
    }

    fn shown(&self, entry: &Entry) -> Cluster {
        let record = &entry.record;
        let (state, reason) = match &entry.life {
            _ if record.is_deleting => (ClusterState::Deleting, None),
            Life::Running { .. } => (ClusterState::Running, None),
            Life::Failed { reason } => (ClusterState::Failed, Some(reason.clone())),
        };
        Cluster {
            name: record.name.clone(),
            state,
            reason,
            listen: record.listen,
            app: app_of(&record.name),
            kubeconfig: self
                .dir(&record.name)
                .join("kubeconfig")
                .display()
                .to_string(),
            created_at: record.created_at,
        }
    }
}

/// Where a cluster has its data.
pub(crate) fn dir(paths: &Paths, name: &ClusterName) -> PathBuf {
    if name.is_default() {
        return paths.kubernetes();
    }
    paths.kubernetes().join("clusters").join(name.as_str())
}

/// Brings a cluster back from a backup, while no daemon runs; one that is not there is made. What
/// it was before is kept under the path that is returned.
pub(crate) async fn restore(
    paths: &Paths,
    name: &ClusterName,
    file: &Path,
) -> Result<Option<PathBuf>, RestoreError> {
    let dir = dir(paths, name);
    let old = backup::restore(file, &dir).await?;
    let record = || -> Result<(), ClusterError> {
        if name.is_default() || record::read(&dir)?.is_some() {
            return Ok(());
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let free = std::net::TcpListener::bind(address).and_then(|free| free.local_addr());
        let listen = free.map_err(|source| ClusterError::Listen { address, source })?;
        let record = Record {
            name: name.clone(),
            listen,
            created_at: Timestamp::now(),
            is_deleting: false,
            settings: ClusterSettings::default(),
        };
        record.write(&dir)
    };
    record().map_err(|error| RestoreError::Record(Box::new(error)))?;
    Ok(old)
}

/// The app, and the network, of a cluster's pods.
pub(crate) fn app_of(name: &ClusterName) -> AppName {
    let text = if name.is_default() {
        DEFAULT_APP.to_owned()
    } else {
        format!("{DEFAULT_APP}-{name}")
    };
    text.parse().unwrap_or_else(|error| {
        unreachable!("a label behind a label is the name of an app: {error}")
    })
}

/// An error that names the path it is about.
fn disk(path: &Path) -> impl FnOnce(io::Error) -> ClusterError + '_ {
    move |source| ClusterError::Disk {
        path: path.to_owned(),
        source,
    }
}
