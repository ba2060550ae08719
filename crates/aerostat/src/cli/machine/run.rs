//! `aerostat machine run` and `create`: pull, place, boot, and what came of it.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use client::Client;
use types::api::{CreateApp, CreateMachine, PullImage};
use types::machine::{Machine, MachineConfig, MachineState};
use types::{AppName, ImageRef};

use super::config::{Flags, Where};
use super::exec::{Past, attach};
use super::find::Found;
use super::list;
use super::mounts::find_volumes;
use super::settle::{Outcome, failure, goes_on, outcome, settle, started, unless_interrupted};
use crate::cli::output;
use crate::cli::progress::{Progress, pull};
use crate::cli::{CommandEnded, Context, Refused, complete};

/// How long a program has to run before it is said that it does.
const SECOND_LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    what: What,
    /// Do not wait until it runs
    #[arg(short, long)]
    detach: bool,
    /// Keep its standard input open, and connect this one to it
    #[arg(short = 'i', long, conflicts_with = "detach")]
    stdin: bool,
    /// Give it a terminal, and connect this one to it
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, Args)]
struct What {
    /// Image to boot, such as nginx or registry.example.com/app:1.2
    #[arg(required_unless_present = "machine_config", add = complete::images())]
    image: Option<ImageRef>,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    flags: Flags,
    /// When to fetch the image from its registry: if it is missing here, always for a newer one
    /// of that name, or never
    #[arg(long, value_enum, default_value_t)]
    pull: Pull,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Pull {
    #[default]
    Missing,
    Always,
    Never,
}

impl What {
    fn config(&self) -> anyhow::Result<MachineConfig> {
        let mut config = self.flags.new_config()?;
        if let Some(image) = &self.image {
            config.image = image.to_string();
        }
        if !self.command.is_empty() {
            config.init.cmd.clone_from(&self.command);
        }
        Ok(config)
    }

    async fn create(
        &self,
        client: &Client,
        config: MachineConfig,
        skip_launch: bool,
        progress: &mut Progress,
    ) -> anyhow::Result<Found> {
        let app = &self.place.app;
        if let Some(image) = &self.image {
            self.fetch(client, image, progress).await?;
        }
        let made = ensure_app(client, app).await?;
        let machine = self.create_in(client, config, skip_launch).await;
        progress.clear();
        if machine.is_err() && made == Made::Now {
            // What was refused leaves nothing. Whoever put something in meanwhile keeps it.
            let _ = client.delete_app(app, false).await;
        } else if made == Made::Now {
            eprintln!("app {app} created");
        }
        Ok(Found {
            app: app.clone(),
            machine: machine?,
        })
    }

    async fn create_in(
        &self,
        client: &Client,
        mut config: MachineConfig,
        skip_launch: bool,
    ) -> anyhow::Result<Machine> {
        let app = &self.place.app;
        find_volumes(client, app, &self.place.region, &mut config).await?;
        let body = CreateMachine {
            name: self.place.name.clone(),
            region: self.place.region.clone(),
            config,
            skip_launch,
            ..CreateMachine::default()
        };
        Ok(client.create_machine(app, &body).await?)
    }

    /// Fetches the image first, because here it can be seen how far that is.
    async fn fetch(
        &self,
        client: &Client,
        image: &ImageRef,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let reference = image.to_string();
        let present = match client.images().await {
            Ok(images) => images.iter().any(|here| {
                here.reference == reference || image.digest.as_ref() == Some(&here.digest)
            }),
            // An API that does not tell its images pulls by itself.
            Err(error) if error.status().is_some() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match (self.pull, present) {
            (Pull::Never, false) => Err(Refused(format!(
                "image {reference} is not on this host; to fetch it: aerostat image pull {reference}"
            ))
            .into()),
            _ if image.is_local() && (present || is_elsewhere(client).await) => Ok(()),
            _ if image.is_local() => Err(Refused(format!(
                "there is no image {reference}, and no registry has it: \
                 those of `localhost/` are imported\n  \
                 next: aerostat image list\n  \
                 or bring it here: aerostat image import <PATH> {reference}"
            ))
            .into()),
            (Pull::Missing, false) | (Pull::Always, _) => {
                let body = PullImage {
                    reference,
                    plain_http: false,
                };
                pull(client, &body, progress).await.map(drop)
            }
            (Pull::Missing | Pull::Never, true) => Ok(()),
        }
    }
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let mut progress = Progress::new();
        let config = self.what.config()?;
        let found = self
            .what
            .create(&client, config, true, &mut progress)
            .await?;
        let (name, id) = (&found.machine.name, &found.machine.id);
        let told = format!(
            "{name} created\n  start it: aerostat machine start {}/{name}",
            found.app
        );
        output::changed(context.format, &found, id.as_str(), &told)
    }
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let interactive = self.stdin || self.tty;
        let mut config = self.what.config()?;
        config.init.tty |= self.tty && std::io::stdin().is_terminal();
        config.init.stdin |= self.stdin;
        let mut progress = Progress::new();
        let create = self
            .what
            .create(&client, config, interactive, &mut progress);
        let mut found = unless_interrupted(create, || {
            "nothing was created; a pull that had begun goes on: aerostat image list".to_owned()
        })
        .await?;
        if self.detach {
            let told = format!("{} is starting", found.machine.name);
            return output::changed(context.format, &found, found.machine.id.as_str(), &told);
        }
        if interactive {
            return self.connect(&client, found).await;
        }
        let (app, name, id) = (&found.app, &found.machine.name, &found.machine.id);
        let told = goes_on(app, name, id);
        let machine = settle(&client, &found, &mut progress);
        found.machine = unless_interrupted(machine, || told).await?;
        if found.machine.state == MachineState::Started {
            // Who ran a program that ends at once was not served by "started".
            tokio::time::sleep(SECOND_LOOK).await;
            found.machine = client.machine(&found.app, &found.machine.id).await?;
        }
        report(context, &client, &found, &mut progress).await
    }

    /// Starts the machine and connects this terminal to it. What it wrote before the connection
    /// stood is in its log.
    async fn connect(&self, client: &Client, mut found: Found) -> anyhow::Result<()> {
        client.start_machine(&found.app, &found.machine.id).await?;
        found.machine = settle(client, &found, &mut Progress::new()).await?;
        let name = found.machine.name.clone();
        match outcome(&found.machine) {
            Outcome::Started { .. } => {}
            Outcome::Ended | Outcome::Resting => {
                return super::logs::replay(client, &found).await;
            }
            Outcome::Failed { why } => return Err(failure(client, &found, &why).await),
        }
        let ended = attach(client, &found, None, self.stdin, Past::Show).await;
        match &ended {
            Err(error) if !error.is::<CommandEnded>() => {
                eprintln!("{}", goes_on(&found.app, &name, &found.machine.id));
            }
            Ok(()) | Err(_) => {}
        }
        ended
    }
}

/// Says how the start went: to people where the machine is and how to look into it, to programs
/// its id.
pub(super) async fn report(
    context: &Context,
    client: &Client,
    found: &Found,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let machine = &found.machine;
    let outcome = outcome(machine);
    if let Outcome::Failed { why } = &outcome {
        return Err(failure(client, found, why).await);
    }
    let told = started(machine, &outcome);
    if !context.format.is_table() {
        progress.done(&told);
        let table = || list::table(context, std::slice::from_ref(found));
        return output::print(context.format, found, table, || {
            vec![machine.id.to_string()]
        });
    }
    if !std::io::stdout().is_terminal() {
        eprintln!("{told} at {} ({})", machine.private_ip, machine.isolation);
        return output::line(machine.id.as_str());
    }
    progress.done(&told);
    let name = match found.app.as_str() {
        "default" => machine.name.clone(),
        app => format!("{app}/{}", machine.name),
    };
    output::line(&format!(
        "  id        {}\n  address   {}\n  class     {}\n  logs      aerostat machine logs -f {name}\n  \
         shell     aerostat machine console {name}",
        machine.id, machine.private_ip, machine.isolation
    ))
}

/// Whether there are other hosts, one of which may have an image that this one has not.
async fn is_elsewhere(client: &Client) -> bool {
    // Who may not see the hosts leaves it to the machine to say.
    let hosts = client.hosts().await;
    hosts.map_or(true, |list| list.hosts.len() > 1)
}

/// Since when an app is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Before,
    Now,
}

async fn ensure_app(client: &Client, app: &AppName) -> anyhow::Result<Made> {
    match client.app(app).await {
        Err(error) if error.is_not_found() => {}
        answer => return Ok(answer.map(|_| Made::Before)?),
    }
    let body = CreateApp {
        name: app.to_string(),
        org_slug: "personal".into(),
        ..CreateApp::default()
    };
    client.create_app(&body).await?;
    Ok(Made::Now)
}
