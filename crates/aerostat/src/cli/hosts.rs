//! `aerostat host …`

use std::net::SocketAddr;

use clap::Subcommand;
use jiff::SignedDuration;
use types::fleet::{CreateJoinToken, HostSummary};

use super::output::{self, Table};
use super::{Context, Refused};

#[derive(Debug, Subcommand)]
pub(super) enum Hosts {
    /// List the hosts of this fleet
    #[command(visible_alias = "ls")]
    List,
    /// Forget a host that is gone for good, with its machines and the peers of its gateway
    #[command(visible_alias = "rm")]
    Remove {
        /// Its number or its name
        #[arg(value_name = "NUMBER|NAME")]
        host: String,
        /// Even if it is up; it is no longer heard from then on
        #[arg(long)]
        force: bool,
    },
    /// Invitations for hosts that are to join this fleet
    #[command(subcommand, visible_alias = "tokens")]
    Token(Tokens),
}

#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    /// Make a token that lets one host join, once
    Create {
        /// How long it can be used, such as 30m or 1h
        #[arg(long, default_value = "1h", value_parser = seconds)]
        ttl: u64,
        /// Where the newcomer finds this host [default: its advertised address]
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
    },
}

impl Hosts {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List => print(context, &client.hosts().await?.hosts),
            Self::Remove { host, force } => {
                let hosts = client.hosts().await?.hosts;
                let found = find(&hosts, &host)?;
                client.remove_host(found.host.id, force).await?;
                let told = format!(
                    "host {} (number {}) is no longer of this fleet",
                    found.host.name,
                    found.host.id.number()
                );
                output::changed(context.format, found, &found.host.name, &told)
            }
            Self::Token(Tokens::Create { ttl, address }) => {
                let body = CreateJoinToken {
                    ttl_s: ttl,
                    address,
                };
                let made = client.create_join_token(&body).await?;
                if !context.format.is_table() {
                    let names = || vec![made.token.clone()];
                    return output::print(context.format, &made, || Table::new(&[]), names);
                }
                let until = made.expires_at;
                eprintln!("On the host that is to join, before {until}:");
                eprintln!("  aerostat join TOKEN && aerostat up");
                output::line(&made.token)
            }
        }
    }
}

/// The host of this number, or else of this name.
fn find<'a>(hosts: &'a [HostSummary], wanted: &str) -> Result<&'a HostSummary, Refused> {
    let number = |found: &&HostSummary| found.host.id.number().to_string() == wanted;
    let name = |found: &&HostSummary| found.host.name == wanted;
    let found = hosts.iter().find(number);
    found.or_else(|| hosts.iter().find(name)).ok_or_else(|| {
        Refused(format!(
            "there is no host `{wanted}`; `aerostat host list` shows the hosts that there are"
        ))
    })
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration: SignedDuration = text.parse().map_err(|_| "try 30m or 1h".to_owned())?;
    match u64::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        Ok(_) | Err(_) => Err("it must be 1 s or more".to_owned()),
    }
}

fn print(context: &Context, hosts: &[HostSummary]) -> anyhow::Result<()> {
    let table = || {
        let mut table = Table::new(&[
            "NUMBER", "NAME", "REGION", "STATUS", "ENDPOINT", "GATEWAY", "JOINED",
        ]);
        for HostSummary { host, status } in hosts {
            let gateway = host.gateway.as_ref();
            table.row([
                host.id.number().to_string(),
                host.name.clone(),
                host.region.clone(),
                status.as_str().to_owned(),
                host.endpoint.to_string(),
                gateway.map_or_else(|| "-".to_owned(), |gateway| gateway.endpoint.to_string()),
                host.joined_at.strftime("%Y-%m-%d %H:%M").to_string(),
            ]);
        }
        table
    };
    let names = || hosts.iter().map(|found| found.host.name.clone()).collect();
    output::print(context.format, &hosts, table, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_its_number_or_its_name() {
        let host = |number: u16, name: &str| HostSummary {
            host: types::fleet::HostRecord {
                id: types::HostId::new(number),
                name: name.into(),
                region: "local".into(),
                public_key: String::new(),
                endpoint: "192.0.2.1:51821".parse().unwrap(),
                gateway: None,
                certificate: String::new(),
                joined_at: jiff::Timestamp::UNIX_EPOCH,
            },
            status: types::fleet::HostStatus::Ok,
        };
        let hosts = [host(2, "3"), host(3, "fra-1")];
        let number = |wanted: &str| find(&hosts, wanted).unwrap().host.id.number();
        assert_eq!((number("2"), number("3"), number("fra-1")), (2, 3, 3));
        assert!(find(&hosts, "4").is_err());
    }

    #[test]
    fn a_lifetime_is_written_as_people_write_it() {
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("90s"), Ok(90));
        for text in ["", "soon", "0s", "-1h"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
