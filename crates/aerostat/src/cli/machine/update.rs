//! `aerostat machine update` and `clone`: a configuration that is there, with changes.

use anyhow::Context as _;
use clap::Args;
use sha2::Digest as _;
use types::ImageRef;
use types::api::{CreateMachine, UpdateMachine};
use types::machine::MachineConfig;

use super::config::Flags;
use super::find::{Found, One};
use super::mounts::find_volumes;
use super::run::report;
use super::settle::{goes_on, settle, unless_interrupted};
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::style::{Colour, Paint};
use crate::cli::{Context, Refused, complete};

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    one: One,
    /// Another image
    #[arg(long, add = complete::images())]
    image: Option<ImageRef>,
    /// Command and arguments instead of those that it has
    #[arg(last = true)]
    command: Vec<String>,
    /// Go back to the configuration of this version; `machine versions` lists them
    #[arg(long, value_name = "VERSION", conflicts_with = "machine_config")]
    to_version: Option<String>,
    /// Leave it stopped
    #[arg(long)]
    skip_start: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it runs
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Clone {
    #[command(flatten)]
    one: One,
    /// Name of the new machine, unique in the app [default: made up]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    name: String,
    /// Region to place it in [default: that of the first]
    #[arg(short, long)]
    region: Option<String>,
    /// Do not wait until it runs
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Update {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let mut found = self.one.find(&client).await?;
        let (app, id) = (found.app.clone(), found.machine.id.clone());
        let before = found.machine.config.clone();
        let mut config = match &self.to_version {
            None => before.clone(),
            Some(wanted) => {
                let versions = client.versions(&app, &id).await?;
                let version = versions.into_iter().find(|v| v.version == *wanted);
                let version = version.ok_or_else(|| {
                    Refused(format!(
                        "there is no version {wanted} of it; `aerostat machine versions {id}` \
                         lists them"
                    ))
                })?;
                version.user_config
            }
        };
        self.flags.apply(&mut config)?;
        if !self.dry_run {
            find_volumes(&client, &app, &found.machine.region, &mut config).await?;
        }
        if let Some(image) = &self.image {
            config.image = image.to_string();
        }
        if !self.command.is_empty() {
            config.init.cmd.clone_from(&self.command);
        }
        let changes = changes(&before, &config)?;
        if changes.is_empty() {
            eprintln!("nothing to change; what can be: aerostat machine update --help");
            let name = &found.machine.name;
            return output::changed(
                context.format,
                &found,
                id.as_str(),
                &format!("{name} as it was"),
            );
        }
        let paint = Paint::stderr();
        for (sign, text) in &changes {
            let colour = if *sign == '+' {
                Colour::Green
            } else {
                Colour::Red
            };
            eprintln!("  {}", paint.paint(colour, &format!("{sign} {text}")));
        }
        if self.dry_run {
            eprintln!("this is what would change; nothing was changed");
            return output::changed(context.format, &found, id.as_str(), "");
        }
        let body = UpdateMachine {
            config,
            skip_launch: self.skip_start,
            // Somebody else's change in between must not be undone by this one.
            current_version: Some(found.machine.version.to_string()),
            ..UpdateMachine::default()
        };
        found.machine = client.update_machine(&app, &id, &body).await?;
        finish(context, &client, found, self.detach).await
    }
}

impl Clone {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let source = self.one.find(&client).await?;
        let mut config = source.machine.config.clone();
        if !config.mounts.is_empty() {
            eprintln!("without its volumes: one has one machine; mount others with --volume");
            config.mounts.clear();
        }
        self.flags.apply(&mut config)?;
        let region = self.region.unwrap_or(source.machine.region);
        find_volumes(&client, &source.app, &region, &mut config).await?;
        let body = CreateMachine {
            name: self.name,
            region,
            config,
            ..CreateMachine::default()
        };
        let machine = client.create_machine(&source.app, &body).await?;
        let found = Found {
            app: source.app,
            machine,
        };
        finish(context, &client, found, self.detach).await
    }
}

async fn finish(
    context: &Context,
    client: &client::Client,
    mut found: Found,
    detach: bool,
) -> anyhow::Result<()> {
    let (app, name, id) = (&found.app, &found.machine.name, &found.machine.id);
    if detach {
        let told = format!("{name} ({id}) is {}", found.machine.state);
        return output::changed(context.format, &found, id.as_str(), &told);
    }
    let told = goes_on(app, name, id);
    let mut progress = Progress::new();
    let machine = settle(client, &found, &mut progress);
    found.machine = unless_interrupted(machine, || told).await?;
    report(context, client, &found, &mut progress).await
}

/// What differs, as lines of `path: value` that go (`-`) and come (`+`).
fn changes(before: &MachineConfig, after: &MachineConfig) -> anyhow::Result<Vec<(char, String)>> {
    let flat = |config: &MachineConfig| {
        let mut lines = std::collections::BTreeMap::new();
        let value = serde_json::to_value(config).context("cannot compare configurations")?;
        flatten("", &value, &mut lines);
        anyhow::Ok(lines)
    };
    let (before, after) = (flat(before)?, flat(after)?);
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            changes.extend(old.map(|value| ('-', format!("{key}: {value}"))));
            changes.extend(new.map(|value| ('+', format!("{key}: {value}"))));
        }
    }
    Ok(changes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn flatten(
    path: &str,
    value: &serde_json::Value,
    lines: &mut std::collections::BTreeMap<String, String>,
) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(&path, value, lines);
            }
        }
        // What a file holds is not for the terminal; whether it is another can be seen.
        serde_json::Value::Array(files) if path == "files" => {
            for file in files {
                let text = file.to_string();
                let digest = format!("{:.12}", hex(&sha2::Sha256::digest(text.as_bytes())));
                let name = file["guest_path"].as_str().unwrap_or_default();
                lines.insert(format!("files.{name}"), digest);
            }
        }
        _ => {
            lines.insert(path.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_says_what_goes_and_what_comes() {
        let mut before = MachineConfig {
            image: "nginx:1".into(),
            ..MachineConfig::default()
        };
        before.env.insert("A".into(), "1".into());
        let mut after = before.clone();
        after.image = "nginx:2".into();
        after.env.insert("B".into(), "2".into());
        let changes = changes(&before, &after).unwrap();
        let text: Vec<_> = changes.iter().map(|(s, t)| format!("{s} {t}")).collect();
        assert_eq!(
            text,
            [
                r#"+ env.B: "2""#,
                r#"- image: "nginx:1""#,
                r#"+ image: "nginx:2""#
            ]
        );
    }
}
