//! `aerostat secret …`
//!
//! A value that stands in the command is seen by everybody who can list processes, and kept by the
//! shell. That is for whoever types it; standard input and files are the other ways.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use types::AppName;
use types::secret::{AppSecret, UpdateSecrets, UpdatedSecrets};

use super::Context;
use super::output::{self, Table};

/// All secrets of an app together are smaller.
const INPUT_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// Set secrets of an app; its machines get them at their next boot
    Set(Set),
    /// Set secrets from lines of NAME=VALUE on standard input
    Import {
        /// App that has them
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true)]
        app: AppName,
    },
    /// List names, digests and ages; never values
    #[command(visible_alias = "ls")]
    List {
        /// App that has them
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true)]
        app: AppName,
    },
    /// Remove secrets of an app
    Unset {
        /// Names of secrets
        #[arg(required = true)]
        name: Vec<String>,
        /// App that has them
        #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true)]
        app: AppName,
    },
    /// Seal all secrets of the fleet with a new key, and forget the old one
    RotateKey,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Values that stand in the command are seen in lists of processes. Rather:
  aerostat secret set --app web DATABASE_URL=- < file
  aerostat secret set --app web --from-env-file .env")]
pub(super) struct Set {
    /// App that has them
    #[arg(long, short, env = "AEROSTAT_APP", hide_env_values = true)]
    app: AppName,
    /// NAME=VALUE, or NAME=- for standard input
    #[arg(value_name = "NAME=VALUE", required_unless_present = "from_env_file")]
    pair: Vec<Pair>,
    /// A file with lines of NAME=VALUE
    #[arg(long, value_name = "FILE")]
    from_env_file: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    name: String,
    value: String,
}

/// Without the value.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as NAME=VALUE, or as NAME=- to read the value from standard input")]
struct InvalidPair;

impl FromStr for Pair {
    type Err = InvalidPair;
    fn from_str(text: &str) -> Result<Self, InvalidPair> {
        let (name, value) = text.split_once('=').ok_or(InvalidPair)?;
        let (name, value) = (name.to_owned(), value.to_owned());
        if name.is_empty() {
            Err(InvalidPair)
        } else {
            Ok(Self { name, value })
        }
    }
}

impl Secrets {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::Set(set) => {
                let (app, body) = set.into_body()?;
                changed(context, &client.update_secrets(&app, &body).await?)
            }
            Self::Import { app } => {
                let values = lines(&stdin()?)?;
                anyhow::ensure!(!values.is_empty(), "standard input has no NAME=VALUE");
                let body = UpdateSecrets { values };
                changed(context, &client.update_secrets(&app, &body).await?)
            }
            Self::List { app } => print(context, &client.secrets(&app, false).await?.secrets),
            Self::Unset { name, app } => {
                let values = name.into_iter().map(|name| (name, None)).collect();
                let body = UpdateSecrets { values };
                changed(context, &client.update_secrets(&app, &body).await?)
            }
            Self::RotateKey => {
                let rotated = client.rotate_secrets_key().await?;
                if !context.format.is_table() {
                    let names = || vec![rotated.key.clone()];
                    return output::print(context.format, &rotated, || Table::new(&[]), names);
                }
                eprintln!(
                    "{} secrets are sealed with key {}",
                    rotated.resealed, rotated.key
                );
                Ok(())
            }
        }
    }
}

impl Set {
    fn into_body(self) -> anyhow::Result<(AppName, UpdateSecrets)> {
        let mut values = match &self.from_env_file {
            Some(path) => {
                let text = fs::read_to_string(path);
                lines(&text.with_context(|| format!("cannot read {}", path.display()))?)
                    .with_context(|| format!("cannot use {}", path.display()))?
            }
            None => BTreeMap::new(),
        };
        if self.pair.iter().filter(|pair| pair.value == "-").count() > 1 {
            bail!("only one value can come from standard input; use `aerostat secret import`");
        }
        for Pair { name, value } in self.pair {
            let value = match value.as_str() {
                "-" => {
                    let text = stdin()?;
                    // That of `echo`; a value that ends in one is set with two.
                    text.strip_suffix('\n').map_or(text.clone(), str::to_owned)
                }
                _ => value,
            };
            values.insert(name, Some(value));
        }
        Ok((self.app, UpdateSecrets { values }))
    }
}

fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let stdin = std::io::stdin().lock();
    let read = stdin.take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.context("cannot read standard input")?;
    Ok(text)
}

/// Lines of `NAME=VALUE`, as `docker run --env-file` and shells write them: empty ones and those
/// that begin with `#` say nothing, `export` may stand before, and quotes are taken away.
fn lines(text: &str) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        // The line itself is not shown: it may hold a value.
        let wrong = || format!("line {} is not NAME=VALUE", number + 1);
        let (name, value) = line.split_once('=').with_context(wrong)?;
        let value = value.trim();
        let quoted = |mark: char| value.strip_prefix(mark)?.strip_suffix(mark);
        let value = match (quoted('"'), quoted('\'')) {
            (Some(inner), _) => inner.replace("\\n", "\n").replace("\\\"", "\""),
            (None, Some(inner)) => inner.to_owned(),
            (None, None) => value.to_owned(),
        };
        values.insert(name.trim().to_owned(), Some(value));
    }
    Ok(values)
}

fn changed(context: &Context, answer: &UpdatedSecrets) -> anyhow::Result<()> {
    if context.format.is_table() {
        eprintln!(
            "version {}; machines get it at their next boot (`aerostat machine restart`)",
            answer.version
        );
        return Ok(());
    }
    let names = || answer.secrets.iter().map(|s| s.name.clone()).collect();
    output::print(context.format, answer, || Table::new(&[]), names)
}

fn print(context: &Context, secrets: &[AppSecret]) -> anyhow::Result<()> {
    let table = || {
        let mut table = Table::new(&["NAME", "DIGEST", "CREATED", "UPDATED"]);
        for secret in secrets {
            let at = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
            table.row([
                secret.name.clone(),
                secret.digest.chars().take(16).collect(),
                at(secret.created_at),
                at(secret.updated_at),
            ]);
        }
        table
    };
    let names = || secrets.iter().map(|secret| secret.name.clone()).collect();
    output::print(context.format, &secrets, table, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_is_read_as_shells_write_it() {
        let text = "# a comment\n\nA=1\nexport B='two words'\nC=\"line\\nbreak\"\n D = x=y \n";
        let values = lines(text).unwrap();
        let value = |name: &str| values[name].as_deref().unwrap();
        assert_eq!(value("A"), "1");
        assert_eq!(value("B"), "two words");
        assert_eq!(value("C"), "line\nbreak");
        assert_eq!(value("D"), "x=y");
        let error = format!("{:#}", lines("A=1\nhunter2\n").unwrap_err());
        assert_eq!(error, "line 2 is not NAME=VALUE");
    }

    #[test]
    fn a_pair_hides_its_value() {
        let pair: Pair = "A=hunter2=x".parse().unwrap();
        assert_eq!(pair.value, "hunter2=x");
        assert_eq!(format!("{pair:?}"), "A=…");
        assert_eq!("A".parse::<Pair>(), Err(InvalidPair));
        assert_eq!("=x".parse::<Pair>(), Err(InvalidPair));
    }
}
