//! `aerostat join`: makes this host one of a fleet, before it is up for the first time.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Serialize;
use types::AppName;

use super::output::{self, Table};
use super::{Context, Refused, need_root};
use crate::app::Lock;
use crate::config::Config;
use crate::fleet::join::{Application, JoinError, join};
use crate::fleet::{Identity, Token};

#[derive(Debug, clap::Args)]
pub(super) struct Join {
    /// What `aerostat host token create` printed on a host of the fleet
    token: Token,
    /// This host's name in the fleet [default: its hostname]
    #[arg(long)]
    name: Option<String>,
    /// This host's number, 2 or more [default: host_number of the configuration, or a free one]
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..))]
    number: Option<u16>,
    /// Address at which other hosts reach this one [default: `advertise` of the configuration, or
    /// the one that it reaches the fleet from]
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
}

/// `-o json`.
#[derive(Debug, Serialize)]
struct Joined {
    fleet: String,
    number: u16,
    name: String,
    region: String,
    authority: u16,
}

impl Join {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        need_root("aerostat join")?;
        let config = context.config()?;
        let application = self.application(&config)?;
        // Held until the end, so that no daemon founds a fleet meanwhile.
        let _lock = Lock::acquire(&context.paths)?;
        let folder = context.paths.fleet();
        if let Some(identity) = Identity::load(&folder)? {
            return Err(Refused(format!(
                "this host is number {} (`{}`) of fleet {:.16} already; to leave that fleet, with \
                 everything that is on this host: aerostat down --purge",
                identity.host.number(),
                identity.name,
                identity.fleet
            ))
            .into());
        }
        let identity = join(&folder, &application, Timestamp::now)
            .await
            .map_err(|error| match error {
                JoinError::Refused(refusal) => {
                    Refused(format!("the fleet refuses: {refusal}")).into()
                }
                error => anyhow::Error::from(error),
            })?;
        tell(context, &identity)
    }

    fn application(&self, config: &Config) -> anyhow::Result<Application> {
        let number = match (self.number, config.host_number) {
            (Some(asked), Some(configured)) if asked != configured => bail!(
                "--number {asked} contradicts host_number = {configured} of the configuration"
            ),
            (asked, configured) => asked.or(configured),
        };
        let mesh_port = config.mesh_listen.port();
        if mesh_port == 0 {
            bail!("mesh_listen of the configuration needs a port: other hosts have to know it");
        }
        Ok(Application {
            token: self.token.clone(),
            number,
            name: match &self.name {
                Some(name) => name.clone(),
                None => host_name()?,
            },
            region: config.region.clone(),
            advertise: self.advertise.or(config.advertise),
            mesh_port,
            gateway_port: Some(config.gateway_listen.port()).filter(|port| *port != 0),
        })
    }
}

/// The first label of this host's name.
fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the hostname")?;
    let name = name.to_string_lossy().to_lowercase();
    let label = name.split('.').next().unwrap_or_default();
    if label.parse::<AppName>().is_err() {
        bail!("the hostname `{name}` cannot be a name in a fleet; choose one with --name");
    }
    Ok(label.to_owned())
}

fn tell(context: &Context, identity: &Identity) -> anyhow::Result<()> {
    if context.format.is_table() {
        return output::line(&format!(
            "This host is number {} of fleet {:.16}, by the name of {}.\n\
             What to do next: aerostat up",
            identity.host.number(),
            identity.fleet,
            identity.name
        ));
    }
    let joined = Joined {
        fleet: identity.fleet.clone(),
        number: identity.host.number(),
        name: identity.name.clone(),
        region: identity.region.clone(),
        authority: identity.authority.number(),
    };
    let names = || vec![identity.name.clone()];
    output::print(context.format, &joined, || Table::new(&[]), names)
}
