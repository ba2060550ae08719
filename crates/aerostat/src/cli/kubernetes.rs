//! `aerostat kubernetes`: the control plane of the cluster `default`, in a process of its own.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use types::IsolationClass;
use types::cluster::ClusterName;

use super::{Context, Refused};
use crate::app::{Endpoints, capacity};
use crate::clusters;
use crate::drain::Drain;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Kubernetes {
    /// Where its API listens [default: as configured]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Keys, kubeconfig and state [default: DATA_DIR/kubernetes]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// An etcd that has the state, as http://host:port; may be repeated [default: as configured]
    #[arg(long, value_name = "URL")]
    etcd: Vec<String>,
    /// What to log: a level, or tracing's filter directives
    #[arg(
        long,
        env = "AEROSTAT_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    log: String,
}

impl Kubernetes {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log)
            .with_context(|| format!("`{}` is no log filter", self.log))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
        let mut config = context.config()?;
        if let Some(listen) = self.listen {
            config.kubernetes_listen = listen;
        }
        if !self.etcd.is_empty() {
            config.kubernetes_etcd.clone_from(&self.etcd);
        }
        let name = ClusterName::default_cluster();
        let dir = match self.dir {
            Some(dir) => dir,
            None => {
                let here = Endpoints::read(&context.paths)?;
                if here.is_some_and(|here| here.kubernetes.is_some()) {
                    let why = "the host's own process runs this control plane; set kubernetes = \
                               false in the configuration, or name another --dir and --listen";
                    return Err(Refused(why.into()).into());
                }
                clusters::dir(&context.paths, &name)
            }
        };
        let drain = Drain::new();
        let listener = clusters::bind(config.kubernetes_listen).await?;
        let address = listener.local_addr()?;
        let capacity = capacity(&context.paths.data_dir)?;
        // What hosts offer is theirs to say; a pod that asks for something else is refused there.
        let host = (capacity, IsolationClass::ALL.into_iter().collect());
        let plane = clusters::ControlPlane::new(&config, &name, dir, context.client()?, host);
        clusters::start_control_plane(plane, listener, &drain).await?;
        tracing::info!(%address, "the control plane answers");
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let drained = drain.token();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = drained.cancelled() => {}
        }
        if let Err(late) = drain.finish(DRAIN_TIMEOUT).await {
            tracing::warn!(?late, "some tasks did not end in time");
        }
        if let Some(task) = drain.panicked() {
            anyhow::bail!("task `{task}` has panicked; start it again");
        }
        Ok(())
    }
}
