//! `aerostat app …`

use clap::Subcommand;
use types::AppName;
use types::api::{App, CreateApp};

use super::output::{self, Table};
use super::{Context, complete, confirm};

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
    Show {
        #[arg(add = complete::apps())]
        name: AppName,
    },
    /// Destroy an app
    #[command(visible_alias = "rm")]
    Destroy {
        #[arg(add = complete::apps())]
        name: AppName,
        /// Its machines too
        #[arg(short, long)]
        force: bool,
        /// With --force: do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Apps {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List => {
                let apps = client.apps(None).await?.apps;
                let first = "there are no apps yet; the first: aerostat app create NAME";
                output::print_list(
                    context.format,
                    &apps,
                    || table(context, &apps),
                    || names(&apps),
                    first,
                )
            }
            Self::Show { name } => print(context, &client.app(&name).await?),
            Self::Create { name, network } => {
                let body = CreateApp {
                    name: name.to_string(),
                    org_slug: "personal".into(),
                    network,
                    ..CreateApp::default()
                };
                print(context, &client.create_app(&body).await?)
            }
            Self::Destroy { name, force, yes } => {
                let app = client.app(&name).await?;
                if force && app.machine_count > 0 {
                    let count = app.machine_count;
                    confirm(&format!("Destroy {name} with its {count} machines?"), yes)?;
                }
                client.delete_app(&name, force).await?;
                let told = format!("app {name} destroyed");
                output::changed(context.format, &app, name.as_str(), &told)
            }
        }
    }
}

fn print(context: &Context, app: &App) -> anyhow::Result<()> {
    let list = std::slice::from_ref(app);
    output::print(context.format, app, || table(context, list), || names(list))
}

fn names(apps: &[App]) -> Vec<String> {
    apps.iter().map(|app| app.name.to_string()).collect()
}

fn table(context: &Context, apps: &[App]) -> Table {
    let heading = [
        "NAME",
        "ORGANISATION",
        "NETWORK",
        "MACHINES",
        "STATUS",
        "AGE",
    ];
    let mut table = Table::new(&heading).wide(&["ID", "VOLUMES"]);
    for app in apps {
        table.row([
            app.name.to_string(),
            app.organization.slug.to_string(),
            format!("{} (fdaa:0:{}::/48)", app.network, app.network_id),
            app.machine_count.to_string(),
            app.status.clone(),
            context.time(app.created_at),
            app.id.clone(),
            app.volume_count.to_string(),
        ]);
    }
    table
}
