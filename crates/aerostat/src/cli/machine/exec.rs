//! Commands in machines: `exec`, `console` and `attach`.

use std::io::IsTerminal as _;

use clap::Args;
use client::ExecParams;
use types::api::Exec as ExecBody;

use super::find::One;
use crate::cli::output::{self, Table};
use crate::cli::terminal::{self, Detach};
use crate::cli::{CommandEnded, Context};

/// A login shell, the best that the image has.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l";

#[derive(Debug, Args)]
pub(in crate::cli) struct Exec {
    #[command(flatten)]
    one: One,
    /// Container to run it in [default: the only one]
    #[arg(short, long)]
    container: Option<String>,
    /// Connect standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Seconds it may take; only with -o json
    #[arg(long)]
    timeout: Option<u32>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Console {
    #[command(flatten)]
    one: One,
    /// Container to look into [default: the only one]
    #[arg(short, long)]
    container: Option<String>,
    /// Program to run instead of bash or sh
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Attach {
    #[command(flatten)]
    one: One,
    /// Container to connect to [default: the only one]
    #[arg(short, long)]
    container: Option<String>,
    /// Only look on: do not connect standard input
    #[arg(long)]
    no_stdin: bool,
}

impl Exec {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        if !context.format.is_table() {
            let body = ExecBody {
                command: self.command,
                container: self.container,
                timeout: self.timeout,
                ..ExecBody::default()
            };
            let answer = client.exec(&found.app, &found.machine.id, &body).await?;
            output::print(context.format, &answer, || Table::new(&[]), Vec::new)?;
            return match answer.exit_code {
                0 => Ok(()),
                code => Err(CommandEnded(u8::try_from(code).unwrap_or(u8::MAX)).into()),
            };
        }
        let params = ExecParams {
            container: self.container,
            command: self.command,
            stdin: self.stdin,
            tty: self.tty,
            size: self.tty.then(terminal::size).flatten(),
        };
        let io = client
            .exec_stream(&found.app, &found.machine.id, &params)
            .await?;
        terminal::relay(io, self.stdin, self.tty, Detach::Never).await
    }
}

impl Console {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        let command = match self.command.is_empty() {
            true => ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec(),
            false => self.command,
        };
        let tty = std::io::stdin().is_terminal();
        let params = ExecParams {
            container: self.container,
            command,
            stdin: true,
            tty,
            size: tty.then(terminal::size).flatten(),
        };
        let io = client
            .exec_stream(&found.app, &found.machine.id, &params)
            .await?;
        terminal::relay(io, true, tty, Detach::Never).await
    }
}

impl Attach {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        attach(&client, &found, self.container, !self.no_stdin, Past::Skip).await
    }
}

/// What a process wrote before somebody is connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    Skip,
    Show,
}

/// Connects this terminal to a container's own process until that ends, or Ctrl-P Ctrl-Q.
pub(super) async fn attach(
    client: &client::Client,
    found: &super::find::Found,
    container: Option<String>,
    stdin: bool,
    past: Past,
) -> anyhow::Result<()> {
    let config = &found.machine.config;
    let of_container = config.containers.iter().find(|one| match &container {
        Some(name) => one.name == *name,
        None => true,
    });
    let wanted = of_container.map_or(config.init.tty, |one| one.tty);
    let tty = wanted && std::io::stdin().is_terminal();
    let detach = match stdin && tty {
        true => {
            let name = &found.machine.name;
            eprintln!("connected to {name}; Ctrl-P Ctrl-Q leaves it running");
            Detach::OnKeys
        }
        false => Detach::Never,
    };
    if past == Past::Show {
        super::logs::replay(client, found).await?;
    }
    let params = ExecParams {
        container,
        command: Vec::new(),
        stdin,
        tty,
        size: tty.then(terminal::size).flatten(),
    };
    let io = client
        .attach(&found.app, &found.machine.id, &params)
        .await?;
    terminal::relay(io, stdin, tty, detach).await
}
