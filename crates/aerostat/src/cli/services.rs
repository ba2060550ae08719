//! `aerostat service …`

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::str::FromStr;

use clap::Subcommand;
use types::service::{Backend, Protocol, Service, ServicePort, ServiceSpec, Target};
use types::{AppName, MachineId};

use super::output::{self, Table};
use super::{Context, complete};

#[derive(Debug, Subcommand)]
pub(super) enum Services {
    /// List the services of an app
    #[command(visible_alias = "ls")]
    List {
        /// App that it is of
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
        app: AppName,
    },
    /// Show a service
    Show {
        name: String,
        /// App that it is of
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
        app: AppName,
    },
    /// Make a service, or make it what this says
    Set(Set),
    /// Remove a service
    #[command(visible_alias = "rm")]
    Remove {
        name: String,
        /// App that it is of
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
        app: AppName,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    name: String,
    /// App that it is of
    #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true, add = complete::apps())]
    app: AppName,
    /// Port of the service, and after a colon that of its backends if it is another (80:8080)
    #[arg(long, short)]
    port: Vec<PortPair>,
    /// Machine that answers while it is started
    #[arg(long, short)]
    machine: Vec<MachineId>,
    /// Address of the app's network that answers
    #[arg(long)]
    address: Vec<Ipv6Addr>,
    /// Further name that leads to it, seen from its network
    #[arg(long = "dns-name")]
    dns_names: Vec<String>,
    /// Give it no address: its names lead to its backends
    #[arg(long)]
    headless: bool,
}

/// `80` or `80:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortPair {
    port: u16,
    target_port: u16,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a port as 80, or as 80:8080 if its backends listen on another")]
struct InvalidPort;

impl FromStr for PortPair {
    type Err = InvalidPort;
    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (port, target) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| text.parse().ok().filter(|port| *port != 0);
        Ok(Self {
            port: number(port).ok_or(InvalidPort)?,
            target_port: number(target).ok_or(InvalidPort)?,
        })
    }
}

impl Services {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List { app } => {
                let services = client.list_services(&app).await?.services;
                let first = format!(
                    "app {app} has no services; the first: aerostat service set NAME --app {app} \
                     --port 80 --machine ID"
                );
                let table = || table(&services);
                output::print_list(
                    context.format,
                    &services,
                    table,
                    || names(&services),
                    &first,
                )
            }
            Self::Show { name, app } => print(context, &client.service(&app, &name).await?),
            Self::Remove { name, app } => {
                let service = client.service(&app, &name).await?;
                client.delete_service(&app, &name).await?;
                let told = format!("service {name} of {app} removed");
                output::changed(context.format, &service, &name, &told)
            }
            Self::Set(set) => {
                let (app, name, spec) = set.into_spec();
                print(context, &client.put_service(&app, &name, &spec).await?)
            }
        }
    }
}

impl Set {
    fn into_spec(self) -> (AppName, String, ServiceSpec) {
        let ports = self.port.into_iter().map(|pair| ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: pair.port,
            target_port: pair.target_port,
        });
        let machines = self.machine.into_iter().map(Target::Machine);
        let targets = machines.chain(self.address.into_iter().map(Target::Address));
        let backends = targets.map(|target| Backend {
            target,
            ports: BTreeMap::new(),
            hostname: String::new(),
        });
        let spec = ServiceSpec {
            ports: ports.collect(),
            backends: backends.collect(),
            dns_names: self.dns_names,
            headless: self.headless,
        };
        (self.app, self.name, spec)
    }
}

fn print(context: &Context, service: &Service) -> anyhow::Result<()> {
    let list = std::slice::from_ref(service);
    output::print(context.format, service, || table(list), || names(list))
}

fn names(services: &[Service]) -> Vec<String> {
    services
        .iter()
        .map(|service| service.name.clone())
        .collect()
}

fn table(services: &[Service]) -> Table {
    let mut table = Table::new(&["NAME", "APP", "ADDRESS", "PORTS", "BACKENDS"]);
    for service in services {
        let address = service.vip.map(|vip| vip.to_string());
        let ports = service.spec.ports.iter().map(port);
        table.row([
            service.name.clone(),
            service.app.to_string(),
            address.unwrap_or_else(|| "none".into()),
            ports.collect::<Vec<_>>().join(","),
            service.spec.backends.len().to_string(),
        ]);
    }
    table
}

fn port(port: &ServicePort) -> String {
    match port.target_port {
        0 => port.port.to_string(),
        target if target == port.port => target.to_string(),
        target => format!("{}:{target}", port.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_lead_to_another() {
        let pair = |port, target_port| Ok(PortPair { port, target_port });
        assert_eq!("80".parse(), pair(80, 80));
        assert_eq!("80:8080".parse(), pair(80, 8080));
        for text in ["", "0", "80:", ":80", "80:0", "http", "70000"] {
            assert_eq!(text.parse::<PortPair>(), Err(InvalidPort), "{text}");
        }
    }
}
