//! The command line: noun, then verb. Data goes to standard output, everything else to standard
//! error; exit code 0 is done, 1 refused, 2 wrong usage or failure. [`tree`] adds to what clap
//! derives what all commands share: groups, examples and the width of help.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{FromArgMatches as _, Parser, Subcommand};
use client::Client;
use jiff::Timestamp;

use crate::config::{Config, Paths};
use output::Format;
use style::{Colour, Paint};

mod apps;
mod clusters;
mod complete;
mod contexts;
mod doctor;
mod down;
mod env;
mod hosts;
mod images;
mod join;
mod kernel;
mod kubeconfig;
mod kubernetes;
mod machine;
mod mesh;
mod output;
mod progress;
mod secret;
mod serve;
mod services;
mod style;
mod target;
mod terminal;
mod token;
mod tree;
mod up;
mod volumes;
mod wireguard;

/// Turns Linux servers into a cloud: OCI images boot as machines on a private IPv6 network, and
/// kubectl drives them with no nodes to manage.
#[derive(Debug, Parser)]
#[command(
    name = "aerostat",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    paths: Paths,
    /// How to print data
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        global = true,
        hide_possible_values = true,
        value_name = "table|wide|json|yaml|name",
        hide_default_value = true
    )]
    output: Format,
    /// Host to speak to, of `aerostat context list`
    #[arg(long, env = "AEROSTAT_CONTEXT", hide_env_values = true, global = true)]
    context: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this host, in the background
    Up(up::Up),
    /// Stop everything on this host, and remove its traces in the kernel
    Down(down::Down),
    /// Run everything on this host in the foreground (what `up` starts)
    Serve(serve::Serve),
    /// Say what this host can and cannot do, and what to do about it
    Doctor(doctor::Doctor),
    /// Print shell exports so that kubectl and Fly clients find this host
    Env,
    /// Make this host one of an existing fleet, before its first `up`
    Join(join::Join),
    /// Hosts of the fleet, and tokens that let others join
    #[command(subcommand, visible_alias = "hosts")]
    Host(hosts::Hosts),
    /// Machines: run, list, look into, stop, destroy
    #[command(subcommand, visible_alias = "machines", alias = "m")]
    Machine(machine::Machines),
    /// Images on this host
    #[command(subcommand, visible_alias = "images")]
    Image(images::Images),
    /// Kernels of virtual machines: build the small one, choose
    #[command(subcommand, visible_alias = "kernels")]
    Kernel(kernel::Kernels),
    /// Apps: named groups of machines
    #[command(subcommand, visible_alias = "apps")]
    App(apps::Apps),
    /// WireGuard peers: clients outside that may come in
    #[command(subcommand, visible_alias = "wg")]
    Wireguard(wireguard::WireGuard),
    /// The encrypted mesh between the hosts of the fleet
    #[command(subcommand)]
    Mesh(mesh::Mesh),
    /// Kubernetes clusters of this host
    #[command(subcommand, visible_alias = "clusters")]
    K8s(clusters::Clusters),
    /// Run the Kubernetes control plane alone, in the foreground
    Kubernetes(Box<kubernetes::Kubernetes>),
    /// Services: a name and an address for a group of machines
    #[command(subcommand, visible_alias = "services")]
    Service(services::Services),
    /// Secrets of apps, which machines get at their boots
    #[command(subcommand, visible_alias = "secrets")]
    Secret(secret::Secrets),
    /// Tokens of the Machines API: make, restrict, list, revoke
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::Tokens),
    /// Volumes: file systems that outlive machines
    #[command(subcommand, visible_alias = "volumes", alias = "vol")]
    Volume(volumes::Volumes),
    /// Hosts elsewhere that commands may speak to
    #[command(subcommand, visible_alias = "contexts")]
    Context(contexts::Command),
    /// Print a script for a shell that completes commands and names
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// List every command
    Commands,
}

/// A request that was understood and declined; exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// A command of the machine's ended with this code, and so shall we.
#[derive(Debug, thiserror::Error)]
#[error("the command ended with exit code {0}")]
struct CommandEnded(u8);

/// The error has been told already; this is the exit code.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
struct Reported(u8);

/// What every command gets.
#[derive(Debug)]
struct Context {
    paths: Paths,
    format: Format,
    remote: Option<String>,
}

impl Context {
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.paths.config)?)
    }

    /// A client of the API that this command speaks to; see [`target`].
    fn client(&self) -> anyhow::Result<Client> {
        target::of_paths(&self.paths, self.remote.as_deref())
    }

    /// A moment as a cell of a table: its age, or where exactness was asked for, RFC 3339.
    fn time(&self, at: Timestamp) -> String {
        match self.format {
            Format::Table => output::age(Timestamp::now().as_millisecond(), at.as_millisecond()),
            Format::Wide | Format::Json | Format::Yaml | Format::Name => at.to_string(),
        }
    }

    /// A moment in a sentence.
    fn ago(&self, at: Timestamp) -> String {
        match self.format {
            Format::Table => format!("{} ago", self.time(at)),
            Format::Wide | Format::Json | Format::Yaml | Format::Name => self.time(at),
        }
    }

    #[cfg(test)]
    fn of_tests() -> Self {
        Self {
            paths: Paths {
                data_dir: "/none".into(),
                run_dir: "/none".into(),
                config: "/none".into(),
                guest_dir: None,
            },
            format: Format::Table,
            remote: None,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    complete::answer();
    let matches = tree::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let context = Context {
        paths: cli.paths,
        format: cli.output,
        remote: cli.context,
    };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(report(&error)),
    }
}

fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    // The daemon has work for every core; a command waits for one connection.
    let mut runtime = match &command {
        Command::Serve(_) | Command::Kubernetes(_) => tokio::runtime::Builder::new_multi_thread(),
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
            Command::Doctor(doctor) => doctor.run(context).await,
            Command::Env => env::run(context),
            Command::Join(join) => join.run(context).await,
            Command::Host(hosts) => hosts.run(context).await,
            Command::Machine(machines) => machines.run(context).await,
            Command::Image(images) => images.run(context).await,
            Command::Kernel(kernels) => kernels.run(context),
            Command::App(apps) => apps.run(context).await,
            Command::Wireguard(wireguard) => wireguard.run(context).await,
            Command::K8s(clusters) => clusters.run(context).await,
            Command::Kubernetes(kubernetes) => kubernetes.run(context).await,
            Command::Mesh(mesh) => mesh.run(context).await,
            Command::Service(services) => services.run(context).await,
            Command::Secret(secrets) => secrets.run(context).await,
            Command::Token(tokens) => tokens.run(context).await,
            Command::Volume(volumes) => volumes.run(context).await,
            Command::Context(contexts) => contexts.run(context),
            Command::Completion { shell } => complete::script(shell),
            Command::Commands => tree::list(context),
        }
    })
}

/// Tells an error, with the next thing to try, and returns the exit code that it stands for.
fn report(error: &anyhow::Error) -> u8 {
    if let Some(CommandEnded(code)) = error.downcast_ref() {
        return *code;
    }
    if let Some(Reported(code)) = error.downcast_ref() {
        return *code;
    }
    let word = Paint::stderr().paint(Colour::Red, "error:");
    eprintln!("{word} {error:#}");
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
    if refused { 1 } else { 2 }
}

/// Asks on a terminal whether to go on; `yes` has answered already.
///
/// # Errors
/// [`Refused`] if the answer is no, or nobody can be asked.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Refused(format!(
            "{question} To answer without a terminal, add --yes"
        ))
        .into());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Refused("nothing was done".into()).into()),
    }
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
    fn a_refusal_and_a_failure_have_codes_of_their_own() {
        assert_eq!(report(&Refused("no".into()).into()), 1);
        assert_eq!(report(&anyhow::anyhow!("broken")), 2);
        assert_eq!(report(&CommandEnded(7).into()), 7);
    }
}
