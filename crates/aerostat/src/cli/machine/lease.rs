//! `aerostat machine lease …`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use types::api::{AcquireLease, Lease};

use super::find::One;
use crate::cli::Context;
use crate::cli::output::{self, Table};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Leases {
    /// Who holds a machine's lease, and until when
    Show(One),
    /// Take a machine's lease, or hold it for longer with its nonce
    Acquire(Acquire),
    /// Give a machine's lease back
    Release(Release),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Acquire {
    #[command(flatten)]
    one: One,
    /// Seconds
    #[arg(long, default_value_t = 120)]
    ttl: u64,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Nonce of the lease that is to last longer
    #[arg(long)]
    nonce: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Release {
    #[command(flatten)]
    one: One,
    /// What `lease acquire` printed
    #[arg(long)]
    nonce: String,
}

impl Leases {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::Show(one) => {
                let found = one.find(&client).await?;
                let lease = client.lease(&found.app, &found.machine.id).await?;
                print(context, &lease)
            }
            Self::Acquire(command) => {
                let found = command.one.find(&client).await?;
                let body = AcquireLease {
                    ttl: Some(command.ttl),
                    description: command.description,
                };
                let (app, id) = (&found.app, &found.machine.id);
                let nonce = command.nonce.as_deref();
                let lease = client.acquire_lease(app, id, &body, nonce).await?;
                eprintln!(
                    "until {} only requests with this nonce change {}",
                    expires(&lease),
                    found.machine.name
                );
                print(context, &lease)
            }
            Self::Release(command) => {
                let found = command.one.find(&client).await?;
                let (app, id) = (&found.app, &found.machine.id);
                let done = client.release_lease(app, id, &command.nonce).await?;
                let told = format!("the lease of {} is given back", found.machine.name);
                output::changed(context.format, &done, id.as_str(), &told)
            }
        }
    }
}

fn expires(lease: &Lease) -> Timestamp {
    Timestamp::from_second(lease.expires_at).unwrap_or_default()
}

fn print(context: &Context, lease: &Lease) -> anyhow::Result<()> {
    let table = || {
        let heading = ["NONCE", "OWNER", "EXPIRES", "DESCRIPTION"];
        let mut table = Table::new(&heading).wide(&["VERSION"]);
        table.row([
            lease.nonce.clone(),
            lease.owner.clone(),
            expires(lease).to_string(),
            lease.description.clone(),
            lease.version.clone(),
        ]);
        table
    };
    output::print(context.format, lease, table, || vec![lease.nonce.clone()])
}
