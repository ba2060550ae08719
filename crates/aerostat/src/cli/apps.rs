//! `aerostat app …`

use clap::Subcommand;
use types::AppName;
use types::api::{App, CreateApp};

use super::Context;
use super::output::{self, Table};

#[derive(Debug, Subcommand)]
pub(super) enum Apps {
    /// List apps
    #[command(visible_alias = "ls")]
    List,
    /// Create an app
    Create {
        name: AppName,
        /// Private network of its machines; apps of different networks cannot reach each other
        #[arg(long, default_value = "")]
        network: String,
    },
    /// Show an app
    Show { name: AppName },
    /// Destroy an app
    Destroy {
        name: AppName,
        /// Its machines too
        #[arg(long)]
        force: bool,
    },
}

impl Apps {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List => print(context, &client.apps(None).await?.apps),
            Self::Show { name } => print(context, &[client.app(&name).await?]),
            Self::Create { name, network } => {
                let body = CreateApp {
                    name: name.to_string(),
                    org_slug: "personal".into(),
                    network,
                    ..CreateApp::default()
                };
                print(context, &[client.create_app(&body).await?])
            }
            Self::Destroy { name, force } => Ok(client.delete_app(&name, force).await?),
        }
    }
}

fn print(context: &Context, apps: &[App]) -> anyhow::Result<()> {
    let table = || {
        let mut table = Table::new(&["NAME", "ORGANISATION", "NETWORK", "MACHINES", "STATUS"]);
        for app in apps {
            let network = format!("{} (fdaa:0:{}::/48)", app.network, app.network_id);
            table.row([
                app.name.to_string(),
                app.organization.slug.to_string(),
                network,
                app.machine_count.to_string(),
                app.status.clone(),
            ]);
        }
        table
    };
    let names = || apps.iter().map(|app| app.name.to_string()).collect();
    output::print(context.format, &apps, table, names)
}
