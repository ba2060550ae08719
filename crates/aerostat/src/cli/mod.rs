//! The command line: noun, then verb. Data goes to standard output, everything else to standard
//! error; exit code 0 is done, 1 refused, 2 wrong usage or failure.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use client::Client;

use crate::config::{Config, Paths};
use output::Format;

mod apps;
mod doctor;
mod down;
mod env;
mod hosts;
mod images;
mod join;
mod machines;
mod mesh;
mod output;
mod serve;
mod services;
mod style;
mod terminal;
mod up;
mod wireguard;

/// Turns Linux servers into a cloud: OCI images boot as machines on a private IPv6 network, and
/// kubectl drives them with no nodes to manage.
#[derive(Debug, Parser)]
#[command(name = "aerostat", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    paths: Paths,
    /// How to print data
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  aerostat up                             start everything on this host
  eval \"$(aerostat env)\"                  let kubectl and Fly clients find it
  kubectl run web --image=localhost/hello:1
  kubectl get pods -o wide";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this host, in the background
    Up(up::Up),
    /// Stop everything on this host and take away what it left in the kernel
    Down(down::Down),
    /// Run everything on this host in the foreground (what `up` starts)
    Serve(serve::Serve),
    /// Say what this host can and cannot do, and what to do about it
    Doctor,
    /// Print shell exports so that kubectl and Fly clients find this host
    Env,
    /// Make this host one of an existing fleet, before its first `up`
    Join(join::Join),
    /// Hosts of the fleet, and tokens that let others join
    #[command(subcommand, visible_alias = "hosts")]
    Host(hosts::Hosts),
    /// Machines: run, list, look into, stop, destroy
    #[command(subcommand, visible_alias = "machines", alias = "m")]
    Machine(machines::Machines),
    /// Images on this host
    #[command(subcommand, visible_alias = "images")]
    Image(images::Images),
    /// Apps: named groups of machines
    #[command(subcommand, visible_alias = "apps")]
    App(apps::Apps),
    /// WireGuard peers: clients outside that may come in
    #[command(subcommand, visible_alias = "wg")]
    Wireguard(wireguard::WireGuard),
    /// The encrypted mesh between the hosts of the fleet
    #[command(subcommand)]
    Mesh(mesh::Mesh),
    /// Services: a name and an address for a group of machines
    #[command(subcommand, visible_alias = "services")]
    Service(services::Services),
    /// Print a completion script for a shell
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// A request that was understood and declined; exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// A command of the machine's ended with this code, and so shall we.
#[derive(Debug, thiserror::Error)]
#[error("the command ended with exit code {0}")]
struct CommandEnded(u8);

/// What every command gets.
#[derive(Debug)]
struct Context {
    paths: Paths,
    format: Format,
}

impl Context {
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.paths.config)?)
    }

    /// A client of this host, or of the one that `FLY_FLAPS_BASE_URL` names.
    fn client(&self) -> anyhow::Result<Client> {
        let (url, token) = (
            std::env::var("FLY_FLAPS_BASE_URL"),
            std::env::var("FLY_API_TOKEN"),
        );
        match (url, self.paths.socket().exists()) {
            (Ok(url), false) => Ok(Client::tcp(&url, token.unwrap_or_default())?),
            (Ok(_) | Err(_), _) => Ok(Client::unix(self.paths.socket())),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context {
        paths: cli.paths,
        format: cli.output,
    };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    if let Command::Completion { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "aerostat", &mut script);
        return output::write(&script);
    }
    // The daemon has work for every core; a command waits for one connection.
    let mut runtime = match &command {
        Command::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Up(up) => up.run(context).await,
            Command::Down(down) => down.run(context).await,
            Command::Serve(serve) => serve.run(context).await,
            Command::Doctor => doctor::run(context).await,
            Command::Env => env::run(context),
            Command::Join(join) => join.run(context).await,
            Command::Host(hosts) => hosts.run(context).await,
            Command::Machine(machines) => machines.run(context).await,
            Command::Image(images) => images.run(context).await,
            Command::App(apps) => apps.run(context).await,
            Command::Wireguard(wireguard) => wireguard.run(context).await,
            Command::Mesh(mesh) => mesh.run(context).await,
            Command::Service(services) => services.run(context).await,
            Command::Completion { .. } => Ok(()),
        }
    })
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(CommandEnded(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let red = if std::io::stderr().is_terminal() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!("{}error:{} {error:#}", red.0, red.1);
    let api = error.downcast_ref::<client::Error>();
    if let Some(client::Error::Api { body, .. }) = api
        && !body.details.hint.is_empty()
        && !error.to_string().contains(&body.details.hint)
    {
        eprintln!("hint: {}", body.details.hint);
    }
    let refused = error.downcast_ref::<Refused>().is_some()
        || api
            .and_then(client::Error::status)
            .is_some_and(|status| (400..500).contains(&status));
    ExitCode::from(if refused { 1 } else { 2 })
}

/// An error unless this process may change namespaces and mounts.
fn need_root(what: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    anyhow::bail!("{what} needs root, for namespaces, mounts and links; try it with sudo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
