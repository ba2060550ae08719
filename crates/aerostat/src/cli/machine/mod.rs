//! `aerostat machine …`: a file for each group of verbs.
//!
//! Every verb begins by finding its machines ([`find`]), and those that change something end by
//! waiting until the machine has come to rest ([`settle`]): what a command says when it returns is
//! true then. `--detach` gives up the waiting and nothing else.

use clap::{Args, Subcommand};
use types::AppName;

use super::{Context, complete};

mod change;
mod config;
mod copy;
mod events;
mod exec;
mod find;
mod inspect;
mod lease;
mod list;
mod logs;
mod metadata;
mod mounts;
mod run;
mod settle;
mod status;
mod update;
mod wait;
mod why;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Machines {
    /// Boot an image as a new machine, and show how it starts
    Run(Box<run::Run>),
    /// Make a machine and do not start it
    Create(Box<run::Create>),
    /// List machines
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Show machines as they are now
    #[command(visible_alias = "show")]
    Status(status::Status),
    /// Print what containers wrote
    Logs(logs::Logs),
    /// Run a command in a machine
    Exec(exec::Exec),
    /// Open a shell in a machine
    #[command(visible_alias = "ssh")]
    Console(exec::Console),
    /// Connect to a machine's own process
    Attach(exec::Attach),
    /// Start machines that are stopped, suspended or failed
    Start(change::Start),
    /// Stop machines: a signal, time to end, then a kill
    Stop(change::Stop),
    /// Write machines' memory to disk and free it; a start goes on where they stood
    Suspend(change::Suspend),
    /// Let suspended machines go on
    Resume(change::Resume),
    /// Stop machines and start them again, as one step
    Restart(change::Restart),
    /// Send a signal to the processes of machines
    Signal(change::Signal),
    /// Send SIGKILL to the processes of machines
    Kill(change::Kill),
    /// Destroy machines
    #[command(visible_alias = "rm")]
    Destroy(change::Destroy),
    /// Change a machine's configuration; one that runs starts again with it
    Update(Box<update::Update>),
    /// Make a new machine like another
    Clone(Box<update::Clone>),
    /// Wait until machines are in a state
    Wait(wait::Wait),
    /// What happened to a machine, newest first
    Events(events::Events),
    /// Explain why a machine is as it is
    Why(why::Why),
    /// Copy files into and out of a machine
    Cp(copy::Copy),
    /// List the processes in a machine
    Ps(inspect::Ps),
    /// Show what machines use
    Stats(inspect::Stats),
    /// Take machines out of their services
    Cordon(change::Cordon),
    /// Put machines back into their services
    Uncordon(change::Uncordon),
    /// Show or change the metadata of a machine
    Metadata(metadata::Metadata),
    /// List the versions of a machine's configuration, newest first
    Versions(metadata::Versions),
    /// Keep others from changing a machine for a while
    #[command(subcommand)]
    Lease(lease::Leases),
}

/// The app that machines are looked for in.
#[derive(Debug, Args)]
pub(in crate::cli) struct InApp {
    /// App to look in [default: all of them]
    #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
    app: Option<AppName>,
}

impl Machines {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Run(command) => command.run(context).await,
            Self::Create(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Status(command) => command.run(context).await,
            Self::Logs(command) => command.run(context).await,
            Self::Exec(command) => command.run(context).await,
            Self::Console(command) => command.run(context).await,
            Self::Attach(command) => command.run(context).await,
            Self::Start(command) => command.run(context).await,
            Self::Stop(command) => command.run(context).await,
            Self::Suspend(command) => command.run(context).await,
            Self::Resume(command) => command.run(context).await,
            Self::Restart(command) => command.run(context).await,
            Self::Signal(command) => command.run(context).await,
            Self::Kill(command) => command.run(context).await,
            Self::Destroy(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
            Self::Clone(command) => command.run(context).await,
            Self::Wait(command) => command.run(context).await,
            Self::Events(command) => command.run(context).await,
            Self::Why(command) => command.run(context).await,
            Self::Cp(command) => command.run(context).await,
            Self::Ps(command) => command.run(context).await,
            Self::Stats(command) => command.run(context).await,
            Self::Cordon(command) => command.run(context).await,
            Self::Uncordon(command) => command.run(context).await,
            Self::Metadata(command) => command.run(context).await,
            Self::Versions(command) => command.run(context).await,
            Self::Lease(command) => command.run(context).await,
        }
    }
}
