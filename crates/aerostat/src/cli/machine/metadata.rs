//! `aerostat machine metadata` and `versions`.

use std::collections::BTreeMap;

use clap::Args;
use types::api::{MachineVersion, UpdateMetadata};

use super::find::One;
use crate::cli::Context;
use crate::cli::output::{self, Table};

#[derive(Debug, Args)]
pub(in crate::cli) struct Metadata {
    #[command(flatten)]
    one: One,
    /// What to set, or KEY- to remove it; nothing: only show
    #[arg(value_name = "KEY=VALUE|KEY-", value_parser = change)]
    changes: Vec<Change>,
}

/// A key, and its new value or none.
type Change = (String, Option<String>);

#[derive(Debug, Args)]
pub(in crate::cli) struct Versions {
    #[command(flatten)]
    one: One,
}

fn change(text: &str) -> Result<Change, String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err("must be KEY=VALUE to set it, or KEY- to remove it".to_owned()),
    }
}

impl Metadata {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        let (app, id) = (&found.app, &found.machine.id);
        if !self.changes.is_empty() {
            let body = UpdateMetadata {
                metadata: self.changes.into_iter().collect(),
                ..UpdateMetadata::default()
            };
            client.update_metadata(app, id, &body).await?;
        }
        let metadata: BTreeMap<_, _> = client.metadata(app, id).await?;
        let table = || {
            let mut table = Table::new(&["KEY", "VALUE"]);
            for (key, value) in &metadata {
                table.row([key.clone(), value.clone()]);
            }
            table
        };
        if metadata.is_empty() && context.format.is_table() {
            let name = &found.machine.name;
            eprintln!("there is none yet; the first: aerostat machine metadata {name} KEY=VALUE");
            return Ok(());
        }
        let names = || metadata.keys().cloned().collect();
        output::print(context.format, &metadata, table, names)
    }
}

impl Versions {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        let versions = client.versions(&found.app, &found.machine.id).await?;
        let names = || versions.iter().map(|v| v.version.clone()).collect();
        output::print(
            context.format,
            &versions,
            || table(context, &versions),
            names,
        )
    }
}

fn table(context: &Context, versions: &[MachineVersion]) -> Table {
    let mut table = Table::new(&["VERSION", "CREATED", "IMAGE", "CPUS", "MEMORY"]);
    for version in versions {
        let config = &version.user_config;
        let guest = config.guest.clone().unwrap_or_default();
        let image = match config.containers.first() {
            Some(container) if config.image.is_empty() => &container.image,
            Some(_) | None => &config.image,
        };
        table.row([
            version.version.clone(),
            version
                .created_at
                .map_or_else(|| "-".to_owned(), |time| context.time(time)),
            image.clone(),
            guest.cpus.to_string(),
            output::size(u64::from(guest.memory_mb) << 20),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_set_with_a_value_and_removed_with_a_dash() {
        assert_eq!(change("a=b=c"), Ok(("a".into(), Some("b=c".into()))));
        assert_eq!(change("a=-"), Ok(("a".into(), Some("-".into()))));
        assert_eq!(change("a-"), Ok(("a".into(), None)));
        for text in ["", "a", "=b", "-"] {
            assert!(change(text).is_err(), "{text}");
        }
    }
}
