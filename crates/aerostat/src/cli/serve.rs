//! `aerostat serve`: the daemon, in the foreground.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Context, need_root};
use crate::app;
use crate::drain::Drain;

/// How long roles may take to finish what they are doing.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// What to log: a level, or tracing's filter directives
    #[arg(
        long,
        env = "AEROSTAT_LOG",
        hide_env_values = true,
        default_value = "info,hickory_server=warn"
    )]
    log: String,
}

impl Serve {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        need_root("aerostat serve")?;
        let filter = EnvFilter::try_new(&self.log)
            .with_context(|| format!("`{}` is no log filter", self.log))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
        let config = context.config()?;
        let drain = Drain::new();
        let _running = app::start(&config, &context.paths, &drain).await?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let drained = drain.token();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // A role that cannot go on drains the others.
            () = drained.cancelled() => {}
        }
        tracing::info!("stopping; machines go on running");
        if let Err(late) = drain.finish(DRAIN_TIMEOUT).await {
            tracing::warn!(?late, "some tasks did not end in time");
        }
        if let Some(task) = drain.panicked() {
            anyhow::bail!("task `{task}` has panicked; machines go on running, start it again");
        }
        Ok(())
    }
}
