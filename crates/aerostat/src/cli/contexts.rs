//! `aerostat context …`: hosts elsewhere, by name, in `$XDG_CONFIG_HOME/aerostat/contexts.json`.
//! The file holds tokens, so that only its owner may read it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::Client;
use serde::{Deserialize, Serialize};

use super::output::{self, Table};
use super::{Context, Refused};
use crate::files::write_whole;

/// The context that stands for the host that a command runs on.
const HERE: &str = "here";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List contexts; the one in use has a star
    #[command(visible_alias = "ls")]
    List,
    /// Use a context from now on
    Use {
        /// Its name, or `here` for the host that commands run on
        name: String,
    },
    /// Add a host, or change it
    Add(Add),
    /// Forget a context
    #[command(visible_alias = "rm")]
    Remove { name: String },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    name: String,
    /// Its Machines API, such as http://127.0.0.1:4280 of a tunnel
    url: String,
    /// File with its token, - for standard input [default: AEROSTAT_API_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Remote>,
}

#[derive(Serialize, Deserialize)]
struct Remote {
    url: String,
    token: String,
}

/// Shows where to, never the token.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// One row, without the token.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    url: String,
    current: bool,
}

fn file() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match (set("XDG_CONFIG_HOME"), set("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => PathBuf::from(home).join(".config"),
        (None, None) => {
            anyhow::bail!("there is neither XDG_CONFIG_HOME nor HOME, where contexts would be")
        }
    };
    Ok(folder.join("aerostat/contexts.json"))
}

impl Contexts {
    /// The file, or nothing where there is none.
    pub(super) fn load() -> anyhow::Result<Self> {
        let Ok(path) = file() else {
            return Ok(Self::default());
        };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is no file of contexts; remove it", path.display()))
    }

    fn save(&self) -> anyhow::Result<()> {
        let path = file()?;
        let cannot = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(cannot)?;
        }
        write_whole(&path, 0o600, serde_json::to_string_pretty(self)?.as_bytes())
            .with_context(cannot)
    }

    /// URL and token of a context.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<(String, String)> {
        let remote = self.contexts.get(name).ok_or_else(|| {
            Refused(format!(
                "there is no context `{name}`; to add it: aerostat context add {name} URL"
            ))
        })?;
        Ok((remote.url.clone(), remote.token.clone()))
    }

    /// URL and token of the context in use, unless that is the host itself.
    pub(super) fn current(&self) -> anyhow::Result<Option<(String, String)>> {
        match &self.current {
            Some(name) => self.get(name).map(Some),
            None => Ok(None),
        }
    }
}

impl Command {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut contexts = Contexts::load()?;
        match self {
            Self::List => {}
            Self::Use { name } if name == HERE => contexts.current = None,
            Self::Use { name } => {
                contexts.get(&name)?;
                contexts.current = Some(name);
            }
            Self::Add(add) => {
                if add.name == HERE {
                    return Err(Refused(format!("`{HERE}` is the host itself already")).into());
                }
                // Only to learn now that it is no address.
                Client::tcp(&add.url, "").map_err(|error| Refused(error.to_string()))?;
                let token = token(add.token_file)?;
                let remote = Remote {
                    url: add.url,
                    token,
                };
                contexts.contexts.insert(add.name, remote);
            }
            Self::Remove { name } => {
                contexts.get(&name)?;
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
            }
        }
        contexts.save()?;
        print(context, &contexts)
    }
}

fn token(file: Option<PathBuf>) -> anyhow::Result<String> {
    let text = match file {
        None => std::env::var("AEROSTAT_API_TOKEN").unwrap_or_default(),
        Some(path) if path.as_os_str() == "-" => {
            io::read_to_string(io::stdin()).context("cannot read standard input")?
        }
        Some(path) => {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    Ok(text.trim().to_owned())
}

fn print(context: &Context, contexts: &Contexts) -> anyhow::Result<()> {
    let here = Row {
        name: HERE.into(),
        url: context.paths.socket().display().to_string(),
        current: contexts.current.is_none(),
    };
    let others = contexts.contexts.iter().map(|(name, remote)| Row {
        name: name.clone(),
        url: remote.url.clone(),
        current: contexts.current.as_ref() == Some(name),
    });
    let rows: Vec<_> = std::iter::once(here).chain(others).collect();
    let table = || {
        let mut table = Table::new(&["NAME", "USED", "API"]);
        for row in &rows {
            let star = if row.current { "*" } else { "" };
            table.row([row.name.clone(), star.to_owned(), row.url.clone()]);
        }
        table
    };
    let names = || rows.iter().map(|row| row.name.clone()).collect();
    output::print(context.format, &rows, table, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_found_by_name_and_its_token_is_never_shown() {
        let text = r#"{"current": "lab", "contexts": {"lab": {"url": "http://lab:4280", "token": "s3cret"}}}"#;
        let contexts: Contexts = serde_json::from_str(text).unwrap();
        let (url, token) = contexts.current().unwrap().unwrap();
        assert_eq!((&*url, &*token), ("http://lab:4280", "s3cret"));
        assert!(contexts.get("home").is_err());
        assert!(!format!("{contexts:?}").contains("s3cret"));
    }
}
