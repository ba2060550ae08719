//! `aerostat token …`

use std::io::Read as _;

use anyhow::Context as _;
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use types::token::{CreateToken, Scope, Token, Verb};
use types::{AppName, MachineId, OrgSlug};

use super::Context;
use super::output::{self, Table};
use crate::tokens::{attenuate, inspect};

/// No token is longer; what is, is something else.
const STDIN_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    /// Make a token; it is printed once
    Create(Create),
    /// Make a narrower token from one; needs no server
    Attenuate(Attenuate),
    /// Say what a token says; needs no server, and does not tell whether it is good
    Inspect {
        /// The token; - or nothing reads it from standard input
        #[arg(default_value = "-", hide_default_value = true)]
        token: String,
    },
    /// List the tokens that were made
    #[command(visible_alias = "ls")]
    List,
    /// Make a token void, and all that were made from it
    Revoke {
        /// Its id, or the revocation id of one of its blocks (`token inspect`)
        id: String,
    },
}

/// What a token is restricted to. Nothing said is no restriction.
#[derive(Debug, clap::Args)]
struct Restrictions {
    /// Organisation that it is for; may be repeated
    #[arg(long)]
    org: Vec<OrgSlug>,
    /// App that it is for; may be repeated
    #[arg(long, short)]
    app: Vec<AppName>,
    /// Machine that it is for; may be repeated
    #[arg(long)]
    machine: Vec<MachineId>,
    /// What it may do: read, write, exec, secrets or admin; may be repeated
    #[arg(long)]
    verb: Vec<Verb>,
}

impl Restrictions {
    fn into_scope(self, expires_at: Option<Timestamp>) -> Scope {
        Scope {
            orgs: self.org,
            apps: self.app,
            machines: self.machine,
            verbs: self.verb,
            expires_at,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    restrictions: Restrictions,
    /// How long it is good for, such as 8h or 90d
    #[arg(long, default_value = "30d", value_parser = seconds)]
    ttl: u64,
    /// What to call it in lists
    #[arg(long, default_value = "")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Attenuate {
    /// The token; - or nothing reads it from standard input
    #[arg(default_value = "-", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    restrictions: Restrictions,
    /// How long the narrower one is good for at most, such as 1h
    #[arg(long, value_parser = seconds)]
    ttl: Option<u64>,
}

impl Tokens {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Attenuate(wanted) => wanted.run(context),
            Self::Inspect { token } => {
                let said = inspect(&given(token)?)?;
                let table = || {
                    let mut table = Table::new(&["BLOCK", "SAYS", "REVOCATION ID"]);
                    for (at, (block, id)) in
                        said.blocks.iter().zip(&said.revocation_ids).enumerate()
                    {
                        let says = block.trim().replace('\n', " ");
                        table.row([at.to_string(), says, id.clone()]);
                    }
                    table
                };
                output::print(context.format, &said, table, || said.revocation_ids.clone())
            }
            Self::List => print(context, &context.client()?.tokens().await?.tokens),
            Self::Revoke { id } => {
                context.client()?.revoke_token(&id).await?;
                eprintln!("revoked; every host refuses it from now on");
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let body = CreateToken {
            name: self.name,
            scope: self.restrictions.into_scope(None),
            ttl_s: Some(self.ttl),
        };
        let made = context.client()?.create_token(&body).await?;
        if !context.format.is_table() {
            let names = || vec![made.details.id.clone()];
            return output::print(context.format, &made, || Table::new(&[]), names);
        }
        let until = made.details.scope.expires_at;
        let until = until.map_or_else(String::new, |at| format!(", good until {at}"));
        eprintln!("token {}{until}; it is not shown again:", made.details.id);
        output::line(&made.token)
    }
}

impl Attenuate {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let ttl = self
            .ttl
            .map(|s| SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX)));
        let expires_at = ttl
            .map(|ttl| Timestamp::now().saturating_add(ttl))
            .transpose()?;
        let scope = self.restrictions.into_scope(expires_at);
        anyhow::ensure!(
            !scope.is_everything(),
            "this takes nothing away; say what it is to be restricted to (--app, --verb, --ttl, …)"
        );
        let token = attenuate(&given(self.token)?, &scope)?;
        if context.format.is_table() {
            return output::line(&token);
        }
        let made = serde_json::json!({ "token": token });
        output::print(
            context.format,
            &made,
            || Table::new(&[]),
            || vec![token.clone()],
        )
    }
}

/// The token itself, or what standard input says.
fn given(token: String) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let stdin = std::io::stdin().lock();
    let read = stdin.take(STDIN_BYTES_MAX).read_to_string(&mut text);
    read.context("cannot read a token from standard input")?;
    Ok(text.trim().to_owned())
}

/// `8h`, and `90d`, which Go's durations have not.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "try 8h or 90d".to_owned();
    let seconds = match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(days) => days.ok().and_then(|days| days.checked_mul(86_400)),
        None => {
            let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
            u64::try_from(duration.as_secs()).ok()
        }
    };
    seconds.filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

fn print(context: &Context, tokens: &[Token]) -> anyhow::Result<()> {
    let table = || {
        let mut table = Table::new(&["ID", "NAME", "FOR", "VERBS", "EXPIRES", "STATE"]);
        for token in tokens {
            let expires = token.scope.expires_at;
            let over = expires.is_some_and(|at| at < Timestamp::now());
            let state = match (token.revoked_at, over) {
                (Some(_), _) => "revoked",
                (None, true) => "expired",
                (None, false) => "good",
            };
            table.row([
                token.id.clone(),
                token.name.clone(),
                whom(&token.scope),
                joined(&token.scope.verbs),
                expires.map_or_else(
                    || "never".into(),
                    |at| at.strftime("%Y-%m-%d %H:%M").to_string(),
                ),
                state.to_owned(),
            ]);
        }
        table
    };
    let names = || tokens.iter().map(|token| token.id.clone()).collect();
    output::print(context.format, &tokens, table, names)
}

fn whom(scope: &Scope) -> String {
    match (
        scope.machines.as_slice(),
        scope.apps.as_slice(),
        scope.orgs.as_slice(),
    ) {
        ([], [], []) => "everything".into(),
        ([], [], orgs) => joined(orgs),
        ([], apps, _) => joined(apps),
        (machines, ..) => joined(machines),
    }
}

fn joined<T: ToString>(names: &[T]) -> String {
    match names {
        [] => "all".into(),
        names => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            names.join(",")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_may_be_in_days() {
        assert_eq!(seconds("90d"), Ok(90 * 86_400));
        assert_eq!(seconds("1h30m"), Ok(5400));
        for wrong in ["", "d", "0d", "-1h", "soon", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
