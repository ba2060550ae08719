//! The verbs that change how machines run. Several machines are changed at once; one that cannot
//! be is reported, and the others go on.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use client::{Client, Restart as RestartHow};
use futures::{StreamExt as _, stream};
use types::api::StopMachine;
use types::machine::MachineState;

use super::find::{Found, Many};
use super::settle::{Outcome, failure, goes_on, outcome, settle, started, unless_interrupted};
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::{Context, Refused, Reported, report};

/// Machines that are changed at a time.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(in crate::cli) struct Start {
    #[command(flatten)]
    many: Many,
    /// Do not wait until they run
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Stop {
    #[command(flatten)]
    many: Many,
    /// Seconds until they are killed [default: what the machine says, or 5]
    #[arg(short, long)]
    timeout: Option<u64>,
    /// First signal [default: what the machine says, or SIGINT]
    #[arg(short, long)]
    signal: Option<String>,
    /// Do not wait until they have stopped
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Suspend {
    #[command(flatten)]
    many: Many,
    /// Do not wait until they are suspended
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Resume {
    #[command(flatten)]
    many: Many,
    /// Do not wait until they run
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restart {
    #[command(flatten)]
    many: Many,
    /// Seconds until they are killed [default: what the machine says, or 5]
    #[arg(short, long)]
    timeout: Option<u64>,
    /// First signal [default: what the machine says, or SIGINT]
    #[arg(short, long)]
    signal: Option<String>,
    /// Kill them without asking
    #[arg(short, long)]
    force: bool,
    /// Do not wait until they run again
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Signal {
    #[command(flatten)]
    many: Many,
    /// SIGHUP, HUP or a number
    #[arg(short, long)]
    signal: String,
    /// Only this container
    #[arg(short, long)]
    container: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Kill {
    #[command(flatten)]
    many: Many,
    /// Only this container
    #[arg(short, long)]
    container: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Destroy {
    #[command(flatten)]
    many: Many,
    /// Also while they run
    #[arg(short, long)]
    force: bool,
    /// Do not wait until they are gone
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Cordon {
    #[command(flatten)]
    many: Many,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Uncordon {
    #[command(flatten)]
    many: Many,
}

/// What became of one machine.
struct Done {
    found: Found,
    told: String,
}

impl Start {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let detach = self.detach;
        each(context, &self.many, "start", async |client, found| {
            client.start_machine(&found.app, &found.machine.id).await?;
            running(client, found, detach, "is starting").await
        })
        .await
    }
}

impl Resume {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let detach = self.detach;
        each(context, &self.many, "resume", async |client, found| {
            let machine = &found.machine;
            if machine.state != MachineState::Suspended {
                return Err(Refused(format!(
                    "machine {} is {}, not suspended; to boot it: aerostat machine start {}",
                    machine.name, machine.state, machine.id
                ))
                .into());
            }
            client.start_machine(&found.app, &machine.id).await?;
            running(client, found, detach, "is resuming").await
        })
        .await
    }
}

impl Restart {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let how = RestartHow {
            signal: self.signal,
            timeout: self.timeout.map(Duration::from_secs),
            force: self.force,
        };
        let detach = self.detach;
        each(context, &self.many, "restart", async |client, found| {
            client
                .restart_machine(&found.app, &found.machine.id, &how)
                .await?;
            running(client, found, detach, "is restarting").await
        })
        .await
    }
}

impl Stop {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let timeout = self.timeout.map(Duration::from_secs);
        let body = StopMachine {
            id: None,
            signal: self.signal,
            timeout: timeout.map(types::machine::Duration),
        };
        let detach = self.detach;
        each(context, &self.many, "stop", async |client, found| {
            client
                .stop_machine(&found.app, &found.machine.id, &body)
                .await?;
            resting(client, found, detach, "is stopping").await
        })
        .await
    }
}

impl Suspend {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let detach = self.detach;
        each(context, &self.many, "suspend", async |client, found| {
            client
                .suspend_machine(&found.app, &found.machine.id)
                .await?;
            resting(client, found, detach, "is being suspended").await
        })
        .await
    }
}

impl Signal {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        signal(context, &self.many, &self.signal, self.container.as_deref()).await
    }
}

impl Kill {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        signal(context, &self.many, "SIGKILL", self.container.as_deref()).await
    }
}

async fn signal(
    context: &Context,
    many: &Many,
    signal: &str,
    container: Option<&str>,
) -> anyhow::Result<()> {
    each(context, many, "signal", async |client, found| {
        client
            .signal_machine(&found.app, &found.machine.id, signal, container)
            .await?;
        let told = format!("{} got {signal}", found.machine.name);
        Ok(Done { found, told })
    })
    .await
}

impl Destroy {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (force, detach) = (self.force, self.detach);
        each(context, &self.many, "destroy", async |client, found| {
            let destroyed = client
                .destroy_machine(&found.app, &found.machine.id, force)
                .await;
            match destroyed {
                Err(error) if !force && error.code() == Some("failed_precondition") => {
                    return Err(Refused(format!(
                        "machine {} is {}; to destroy it all the same, add --force",
                        found.machine.name, found.machine.state
                    ))
                    .into());
                }
                answer => answer?,
            };
            resting(client, found, detach, "is being destroyed").await
        })
        .await
    }
}

impl Cordon {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        each(context, &self.many, "cordon", async |client, found| {
            client.cordon_machine(&found.app, &found.machine.id).await?;
            now(client, found, "is cordoned: services leave it out").await
        })
        .await
    }
}

impl Uncordon {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        each(context, &self.many, "uncordon", async |client, found| {
            client
                .uncordon_machine(&found.app, &found.machine.id)
                .await?;
            now(client, found, "is back in its services").await
        })
        .await
    }
}

/// The machine after a change that takes no time.
async fn now(client: &Client, mut found: Found, told: &str) -> anyhow::Result<Done> {
    found.machine = client.machine(&found.app, &found.machine.id).await?;
    let told = format!("{} {told}", found.machine.name);
    Ok(Done { found, told })
}

/// Waits until the machine runs; an error if it does not.
async fn running(
    client: &Client,
    mut found: Found,
    detach: bool,
    told: &str,
) -> anyhow::Result<Done> {
    if detach {
        return now(client, found, told).await;
    }
    found.machine = settle(client, &found, &mut Progress::new()).await?;
    let outcome = outcome(&found.machine);
    if let Outcome::Failed { why } = &outcome {
        return Err(failure(client, &found, why).await);
    }
    let told = started(&found.machine, &outcome);
    Ok(Done { found, told })
}

/// Waits until the machine is at rest.
async fn resting(
    client: &Client,
    mut found: Found,
    detach: bool,
    told: &str,
) -> anyhow::Result<Done> {
    if detach {
        return now(client, found, told).await;
    }
    found.machine = settle(client, &found, &mut Progress::new()).await?;
    let machine = &found.machine;
    let told = match machine.state {
        // A suspension that does not work leaves the machine as it was, and says why.
        MachineState::Started => {
            let newest = machine.events.iter().find(|event| event.kind == "suspend");
            let why = newest.and_then(|event| event.request.as_ref());
            let why = why.map_or("it still runs", |request| request.message.as_str());
            return Err(Refused(format!(
                "machine {} runs: {why}; its story: aerostat machine why {}",
                machine.name, machine.id
            ))
            .into());
        }
        state => format!("{} is {state}", machine.name),
    };
    Ok(Done { found, told })
}

/// Does `change` to each machine, several at a time. Each is told when it is done, on terminals as
/// it happens; the exit code is that of the worst.
async fn each(
    context: &Context,
    many: &Many,
    verb: &str,
    change: impl AsyncFn(&Client, Found) -> anyhow::Result<Done>,
) -> anyhow::Result<()> {
    let client = context.client()?;
    let machines = many.find(&client, verb).await?;
    if machines.is_empty() {
        eprintln!("there are no machines to {verb}");
    }
    let (mut done, mut worst) = (Vec::new(), 0);
    let names: Vec<_> = machines
        .iter()
        .map(|found| goes_on(&found.app, &found.machine.name, &found.machine.id))
        .collect();
    let all = async {
        let mut changes = stream::iter(machines)
            .map(|found| change(&client, found))
            .buffered(AT_ONCE);
        while let Some(one) = changes.next().await {
            match one {
                Ok(one) if context.format.is_table() => {
                    let id = one.found.machine.id.as_str();
                    output::changed(context.format, &one.found, id, &one.told)?;
                }
                Ok(one) => done.push(one.found),
                Err(error) => worst = worst.max(report(&error)),
            }
        }
        Ok(())
    };
    unless_interrupted(all, || names.join("\n")).await?;
    if !context.format.is_table() {
        print(context, many, &done)?;
    }
    match worst {
        0 => Ok(()),
        code => Err(Reported(code).into()),
    }
}

fn print(context: &Context, many: &Many, done: &[Found]) -> anyhow::Result<()> {
    let names = || super::list::ids(done);
    let table = || super::list::table(context, done);
    match done {
        [one] if !many.is_plural() => output::print(context.format, one, table, names),
        [] if !many.is_plural() => Ok(()),
        _ => output::print(context.format, &done, table, names),
    }
    .context("cannot print what was changed")
}
