//! `aerostat down`: ends the daemon and every machine, and takes away what they left in the
//! kernel. What is on disk stays: `aerostat up` goes on from there.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use net::HostNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use types::{BootId, MachineId};
use vmm::{Local, Vmm as _};

use super::{Context, need_root};
use crate::app::{self, Endpoints, Lock};

/// How long the daemon may take to end before it is killed.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(super) struct Down {
    /// Seconds that machines have to end by themselves before they are killed
    #[arg(long, default_value_t = 5)]
    grace: u64,
    /// Delete the data too: machines, images, the control plane
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Down {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        need_root("aerostat down")?;
        let config = context.config()?;
        if self.purge && !self.yes && !confirmed(context)? {
            bail!("nothing was done");
        }
        end_daemon(context).await?;
        // Held until the end, so that nothing starts while this takes things away.
        let lock = Lock::acquire(&context.paths)?;
        let host = app::host_id(&config, &context.paths)?;
        self.end_machines(&app::local_vmm(&config, &context.paths, host))
            .await?;
        tokio::task::spawn_blocking(move || HostNet::remove(host)).await??;
        let left = tokio::task::spawn_blocking(move || HostNet::inventory(host)).await??;
        if !left.is_empty() {
            bail!(
                "these are left and could not be removed: {}",
                left.join(", ")
            );
        }
        drop(lock);
        remove(&context.paths.run_dir)?;
        if self.purge {
            remove(&context.paths.data_dir)?;
        }
        eprintln!("aerostat is down; nothing of it runs on this host");
        Ok(())
    }

    async fn end_machines(&self, vmm: &Local) -> anyhow::Result<()> {
        let grace = Duration::from_secs(self.grace);
        let present = vmm.present().await?;
        let boots = present
            .into_iter()
            .filter_map(|(machine, boot)| Some((machine, boot?)));
        let mut ends = tokio::task::JoinSet::new();
        for (machine, boot) in boots {
            let vmm = vmm.clone();
            ends.spawn(async move { end_machine(&vmm, &machine, boot, grace).await });
        }
        while let Some(end) = ends.join_next().await {
            end.context("ending a machine was cut off")??;
        }
        Ok(())
    }
}

async fn end_machine(
    vmm: &Local,
    machine: &MachineId,
    boot: BootId,
    grace: Duration,
) -> anyhow::Result<()> {
    // One that does not answer any more is killed like one that does not end in time.
    if vmm.stop(machine, boot, None, grace).await.is_ok()
        && let Ok(mut reports) = vmm.reports(machine, boot, 0).await
    {
        let over = async { while reports.recv().await.is_some() {} };
        let _ = tokio::time::timeout(grace + Duration::from_secs(3), over).await;
    }
    vmm.kill(machine, boot)
        .await
        .with_context(|| format!("cannot end machine {machine}"))
}

async fn end_daemon(context: &Context) -> anyhow::Result<()> {
    let Some(endpoints) = Endpoints::read(&context.paths)? else {
        return Ok(());
    };
    let pid = Pid::from_raw(endpoints.pid);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if Lock::is_held(&context.paths)? {
            kill(pid, signal).ok();
        }
        let deadline = Instant::now() + DAEMON_TIMEOUT;
        while Lock::is_held(&context.paths)? && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    if Lock::is_held(&context.paths)? {
        bail!("the daemon (pid {pid}) does not end, not even killed");
    }
    Ok(())
}

fn confirmed(context: &Context) -> anyhow::Result<bool> {
    use std::io::IsTerminal as _;
    if !io::stdin().is_terminal() {
        bail!(
            "--purge deletes {}; say --yes",
            context.paths.data_dir.display()
        );
    }
    eprint!(
        "Delete everything in {}? [y/N] ",
        context.paths.data_dir.display()
    );
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn remove(folder: &std::path::Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
