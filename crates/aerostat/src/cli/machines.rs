//! `aerostat machine …`

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::{Client, MachineFilter, WaitQuery};
use jiff::Timestamp;
use types::api::{CreateApp, CreateMachine, LogQuery, StopMachine};
use types::machine::{Duration, Guest, Init, Machine, MachineConfig, MachineState};
use types::machine::{Restart, RestartPolicy};
use types::{AppName, ImageRef, IsolationClass, MachineId};

use super::output::{self, Table};
use super::terminal;
use super::{Context, Refused};

#[derive(Debug, Subcommand)]
pub(super) enum Machines {
    /// Boot an image as a new machine
    Run(Run),
    /// List machines
    #[command(visible_alias = "ls")]
    List {
        /// Only this app's
        #[arg(short, long)]
        app: Option<AppName>,
    },
    /// Show a machine and what happened to it
    Show(One),
    /// What happened to a machine, newest first
    Events(One),
    /// Start a stopped machine
    Start(One),
    /// Stop a machine: signal, grace, kill
    Stop {
        #[command(flatten)]
        one: One,
        /// Seconds until it is killed
        #[arg(long)]
        timeout: Option<u64>,
        /// SIGINT unless the machine says otherwise
        #[arg(long)]
        signal: Option<String>,
    },
    /// Wait until a machine is in a state
    Wait {
        #[command(flatten)]
        one: One,
        #[arg(long, default_value = "started")]
        state: String,
        /// Seconds, 1 to 60
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Destroy a machine
    #[command(visible_alias = "rm")]
    Destroy {
        #[command(flatten)]
        one: One,
        /// Also while it runs
        #[arg(long)]
        force: bool,
    },
    /// Print what a machine's containers wrote
    Logs(Logs),
    /// Run a command in a machine
    Exec(Exec),
}

/// A machine by id or name.
#[derive(Debug, Args)]
pub(super) struct One {
    /// Id or name
    machine: String,
    /// App to look in; all of them unless given
    #[arg(short, long)]
    app: Option<AppName>,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    image: ImageRef,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
    /// App to put it in; made if it is missing
    #[arg(short, long, default_value = "default")]
    app: AppName,
    #[arg(long, default_value = "")]
    name: String,
    /// Isolation class: microvm, emulated or container
    #[arg(long)]
    isolation: Option<IsolationClass>,
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// MiB
    #[arg(long, default_value_t = 256)]
    memory: u32,
    /// NAME=VALUE; may be repeated
    #[arg(short, long, value_parser = variable)]
    env: Vec<(String, String)>,
    /// no, on-failure or always
    #[arg(long, value_parser = restart_policy)]
    restart: Option<RestartPolicy>,
    /// Destroy the machine when it ends
    #[arg(long)]
    rm: bool,
    /// Do not wait until it has started
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    #[command(flatten)]
    one: One,
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as lines are written
    #[arg(short, long)]
    follow: bool,
    /// Only this many of the last lines
    #[arg(long)]
    tail: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    #[command(flatten)]
    one: One,
    #[arg(short, long)]
    container: Option<String>,
    /// Connect standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "must be no, on-failure or always".to_owned())
}

fn state(text: &str) -> Result<MachineState, Refused> {
    let known = MachineState::ALL.map(MachineState::as_str).join(", ");
    MachineState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            Refused(format!(
                "`{text}` is no state of a machine; there are {known}"
            ))
        })
}

impl Machines {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::Run(run) => run.run(context, &client).await,
            Self::List { app } => list(context, &client, app).await,
            Self::Show(one) => print(context, &[one.find(&client).await?.1]),
            Self::Events(one) => events(context, &client, &one).await,
            Self::Start(one) => {
                let (app, machine) = one.find(&client).await?;
                client.start_machine(&app, &machine.id).await?;
                Ok(())
            }
            Self::Stop {
                one,
                timeout,
                signal,
            } => {
                let (app, machine) = one.find(&client).await?;
                let timeout = timeout.map(|s| Duration(std::time::Duration::from_secs(s)));
                client
                    .stop_machine(&app, &machine.id, &StopMachine { signal, timeout })
                    .await?;
                Ok(())
            }
            Self::Wait {
                one,
                state: wanted,
                timeout,
            } => {
                let (app, machine) = one.find(&client).await?;
                let mut query = WaitQuery::state(state(&wanted)?);
                query.timeout = std::time::Duration::from_secs(timeout.clamp(1, 60));
                client.wait_machine(&app, &machine.id, &query).await?;
                Ok(())
            }
            Self::Destroy { one, force } => {
                let (app, machine) = one.find(&client).await?;
                client.destroy_machine(&app, &machine.id, force).await?;
                Ok(())
            }
            Self::Logs(logs) => logs.run(&client).await,
            Self::Exec(exec) => exec.run(&client).await,
        }
    }
}

impl One {
    /// Looks the machine up, over all apps if none was named.
    async fn find(&self, client: &Client) -> anyhow::Result<(AppName, Machine)> {
        let apps = match &self.app {
            Some(app) => vec![app.clone()],
            None => client
                .apps(None)
                .await?
                .apps
                .into_iter()
                .map(|app| app.name)
                .collect(),
        };
        let id = self.machine.parse::<MachineId>().ok();
        let mut found = Vec::new();
        for app in apps {
            for machine in client
                .machines(&app, &MachineFilter::default())
                .await?
                .machines
            {
                if Some(&machine.id) == id.as_ref() || machine.name == self.machine {
                    found.push((app.clone(), machine));
                }
            }
        }
        match found.len() {
            0 => Err(Refused(format!(
                "there is no machine `{}`; `aerostat machine list` shows those that are",
                self.machine
            ))
            .into()),
            1 => Ok(found.remove(0)),
            n => Err(Refused(format!(
                "{n} machines are called `{}`; name the app with --app, or use the id",
                self.machine
            ))
            .into()),
        }
    }
}

impl Run {
    async fn run(self, context: &Context, client: &Client) -> anyhow::Result<()> {
        ensure_app(client, &self.app).await?;
        let body = CreateMachine {
            name: self.name,
            config: MachineConfig {
                image: self.image.to_string(),
                env: self.env.into_iter().collect::<BTreeMap<_, _>>(),
                init: Init {
                    cmd: self.command,
                    ..Init::default()
                },
                guest: Some(Guest {
                    cpus: self.cpus,
                    memory_mb: self.memory,
                    ..Guest::default()
                }),
                isolation: self.isolation,
                restart: self.restart.map(|policy| Restart {
                    policy,
                    max_retries: None,
                }),
                auto_destroy: self.rm,
                ..MachineConfig::default()
            },
            ..CreateMachine::default()
        };
        let mut machine = client.create_machine(&self.app, &body).await?;
        if !self.detach {
            eprintln!("machine {} created, waiting for it to start", machine.id);
            machine = wait_settled(client, &self.app, machine).await?;
        }
        print(context, &[machine])
    }
}

/// Waits until the machine has started, or came to rest elsewhere.
async fn wait_settled(client: &Client, app: &AppName, machine: Machine) -> anyhow::Result<Machine> {
    let mut query = WaitQuery::state(MachineState::Started);
    query.until = client::WaitFor::Settled;
    query.version = Some(machine.version.clone());
    loop {
        let answer = client.wait_machine(app, &machine.id, &query).await;
        match answer {
            Ok(_) => break,
            Err(error) if error.status() == Some(408) => eprintln!("still waiting"),
            Err(error) if error.is_not_found() => break,
            Err(error) => return Err(error.into()),
        }
    }
    let machine = client.machine(app, &machine.id).await?;
    if machine.state == MachineState::Failed {
        let why = machine
            .events
            .iter()
            .find_map(|event| event.request.as_ref());
        let why = why.map_or("see its events", |request| &request.message);
        return Err(Refused(format!("machine {} did not start: {why}", machine.id)).into());
    }
    Ok(machine)
}

async fn ensure_app(client: &Client, app: &AppName) -> anyhow::Result<()> {
    match client.app(app).await {
        Err(error) if error.is_not_found() => {}
        answer => return Ok(answer.map(drop)?),
    }
    let body = CreateApp {
        name: app.to_string(),
        org_slug: "personal".into(),
        ..CreateApp::default()
    };
    client.create_app(&body).await?;
    eprintln!("app {app} created");
    Ok(())
}

async fn list(context: &Context, client: &Client, app: Option<AppName>) -> anyhow::Result<()> {
    let apps = match app {
        Some(app) => vec![app],
        None => client
            .apps(None)
            .await?
            .apps
            .into_iter()
            .map(|app| app.name)
            .collect(),
    };
    let mut machines = Vec::new();
    for app in apps {
        machines.extend(
            client
                .machines(&app, &MachineFilter::default())
                .await?
                .machines,
        );
    }
    print(context, &machines)
}

/// The state; of a machine whose host is not heard of, the last that it was known in.
fn state_shown(machine: &Machine) -> String {
    match machine.host_status.as_str() {
        "ok" | "" => machine.state.to_string(),
        status => format!("{} (host {status})", machine.state),
    }
}

fn print(context: &Context, machines: &[Machine]) -> anyhow::Result<()> {
    let now = Timestamp::now().as_millisecond();
    let table = || {
        let heading = ["ID", "NAME", "STATE", "CLASS", "IMAGE", "ADDRESS", "AGE"];
        let mut table = Table::new(&heading);
        for machine in machines {
            let image = match machine.config.containers.first() {
                Some(container) if machine.config.image.is_empty() => &container.image,
                Some(_) | None => &machine.config.image,
            };
            table.row([
                machine.id.to_string(),
                machine.name.clone(),
                state_shown(machine),
                machine.isolation.to_string(),
                image.clone(),
                machine.private_ip.clone(),
                output::age(now, machine.created_at.as_millisecond()),
            ]);
        }
        table
    };
    let names = || {
        machines
            .iter()
            .map(|machine| machine.id.to_string())
            .collect()
    };
    match machines {
        [machine] if !context.format.is_table() => {
            output::print(context.format, machine, table, names)
        }
        _ => output::print(context.format, &machines, table, names),
    }
}

async fn events(context: &Context, client: &Client, one: &One) -> anyhow::Result<()> {
    let (app, machine) = one.find(client).await?;
    let events = client.events(&app, &machine.id, 50).await?;
    let now = Timestamp::now().as_millisecond();
    let table = || {
        let mut table = Table::new(&["AGE", "EVENT", "STATE", "SOURCE", "DETAIL"]);
        for event in &events {
            let detail = event
                .request
                .as_ref()
                .map(|request| match &request.exit_event {
                    Some(exit) if exit.oom_killed => "killed: out of memory".to_owned(),
                    Some(exit) => format!("exit code {}", exit.exit_code),
                    None => request.message.clone(),
                });
            table.row([
                output::age(now, event.timestamp),
                event.kind.clone(),
                event.status.clone(),
                event.source.clone(),
                detail.unwrap_or_default(),
            ]);
        }
        table
    };
    output::print(context.format, &events, table, || {
        events.iter().map(|event| event.kind.clone()).collect()
    })
}

impl Logs {
    async fn run(self, client: &Client) -> anyhow::Result<()> {
        let (app, machine) = self.one.find(client).await?;
        let query = LogQuery {
            container: self.container,
            follow: self.follow,
            tail: self.tail,
            ..LogQuery::default()
        };
        let mut lines = client.logs(&app, &machine.id, &query).await?;
        while let Some(line) = lines.recv().await {
            let line = line.context("the log broke off")?;
            if line.channel == types::api::channel::STDERR {
                output::write_error(&line.bytes)?;
            } else {
                output::write(&line.bytes)?;
            }
        }
        Ok(())
    }
}

impl Exec {
    async fn run(self, client: &Client) -> anyhow::Result<()> {
        let (app, machine) = self.one.find(client).await?;
        let params = client::ExecParams {
            container: self.container,
            command: self.command,
            stdin: self.stdin,
            tty: self.tty,
            size: self.tty.then(terminal::size).flatten(),
        };
        let io = client.exec_stream(&app, &machine.id, &params).await?;
        terminal::relay(io, self.stdin, self.tty).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_checked() {
        assert_eq!(
            variable("A=b=c").unwrap(),
            ("A".to_owned(), "b=c".to_owned())
        );
        assert!(variable("A").is_err());
        assert_eq!(restart_policy("on-failure"), Ok(RestartPolicy::OnFailure));
        assert!(restart_policy("never").is_err());
        assert!(state("running").unwrap_err().0.contains("started"));
    }
}
