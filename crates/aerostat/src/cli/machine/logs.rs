//! `aerostat machine logs`: of one container as it is, of several merged and named.

use anyhow::Context as _;
use clap::Args;
use client::{Client, MachineFilter};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;
use types::api::{LogLine, LogQuery, channel};

use super::InApp;
use super::find::{Found, inventory, pick};
use crate::cli::output::{self, Format};
use crate::cli::style::{Colour, Paint};
use crate::cli::{Context, Refused, complete};

/// Lines that wait to be printed: a slow terminal is felt by those who read the logs.
const LINES_MAX: usize = 64;

#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    /// Machines; with --app and none, every one of the app
    #[arg(value_name = "MACHINE", add = complete::machines())]
    machines: Vec<String>,
    #[command(flatten)]
    scope: InApp,
    /// Only this container [default: all of them]
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as lines are written
    #[arg(short, long)]
    follow: bool,
    /// Only this many of the last lines
    #[arg(short = 'n', long)]
    tail: Option<u64>,
    /// Only what is younger: 90s, 10m, 2h, or a time such as 2026-11-21T17:00:00Z
    #[arg(long, value_parser = since)]
    since: Option<Timestamp>,
    /// The run before the current one
    #[arg(short, long)]
    previous: bool,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
}

/// Where lines come from.
#[derive(Debug, Clone)]
struct Source {
    found: Found,
    container: Option<String>,
    /// How it is called beside others; empty alone.
    label: String,
}

/// A line as `-o json` shows it, one object in a line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    machine: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    time: String,
    stream: &'static str,
    text: String,
}

/// A moment, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: SignedDuration = text
        .parse()
        .map_err(|_| "try 10m, 2h, or 2026-11-21T17:00:00Z".to_owned())?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|_| "that is too long ago".to_owned())
}

impl Logs {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let sources = self.sources(&client).await?;
        let query = LogQuery {
            follow: self.follow,
            tail: self.tail,
            since_ms: self.since.map(Timestamp::as_millisecond),
            previous: self.previous,
            ..LogQuery::default()
        };
        let (sender, mut lines) = mpsc::channel(LINES_MAX);
        for (number, source) in sources.iter().enumerate() {
            let query = LogQuery {
                container: source.container.clone(),
                ..query.clone()
            };
            let (app, id) = (&source.found.app, &source.found.machine.id);
            let mut log = client.logs(app, id, &query).await?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Some(line) = log.recv().await {
                    if sender.send((number, line)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        while let Some((number, line)) = lines.recv().await {
            let line = line.context("the log broke off; try again with --follow")?;
            self.print(context, &sources[number], number, &line)?;
        }
        Ok(())
    }

    async fn sources(&self, client: &Client) -> anyhow::Result<Vec<Source>> {
        let app = self.scope.app.as_ref();
        let all = inventory(client, app, &MachineFilter::default()).await?;
        let found: Vec<Found> = match (&self.machines[..], app) {
            ([], None) => {
                return Err(
                    Refused("name a machine, or an app with --app for all of its".into()).into(),
                );
            }
            ([], Some(_)) => all,
            (wanted, _) => wanted
                .iter()
                .map(|wanted| pick(wanted, &all).cloned())
                .collect::<Result<_, _>>()?,
        };
        let mut sources = Vec::new();
        for found in found {
            let names: Vec<_> = found.machine.containers.iter().map(|c| &c.name).collect();
            let containers = match (&self.container, names.len()) {
                (Some(name), _) => vec![Some(name.clone())],
                (None, 0 | 1) => vec![None],
                (None, _) => names.into_iter().cloned().map(Some).collect(),
            };
            for container in containers {
                let label = match &container {
                    Some(name) if self.container.is_none() => {
                        format!("{}/{name}", found.machine.name)
                    }
                    Some(_) | None => found.machine.name.clone(),
                };
                sources.push(Source {
                    found: found.clone(),
                    container,
                    label,
                });
            }
        }
        if let [only] = &mut sources[..] {
            only.label.clear();
        }
        Ok(sources)
    }

    fn print(
        &self,
        context: &Context,
        source: &Source,
        number: usize,
        line: &LogLine,
    ) -> anyhow::Result<()> {
        let time = Timestamp::from_nanosecond(line.unix_ns.into()).unwrap_or_default();
        if matches!(context.format, Format::Json | Format::Yaml) {
            let text = String::from_utf8_lossy(&line.bytes);
            let line = Line {
                machine: source.found.machine.id.as_str(),
                container: source.container.as_deref(),
                time: time.to_string(),
                stream: match line.channel {
                    channel::STDERR => "stderr",
                    _ => "stdout",
                },
                text: text.trim_end_matches('\n').to_owned(),
            };
            return output::line(&serde_json::to_string(&line)?);
        }
        let mut bytes = Vec::new();
        if !source.label.is_empty() {
            let colour = [Colour::Green, Colour::Yellow, Colour::Bold][number % 3];
            let label = format!("{} |", source.label);
            bytes.extend(Paint::stdout().paint(colour, &label).bytes());
            bytes.push(b' ');
        }
        if self.timestamps || context.format == Format::Wide {
            bytes.extend(format!("{time} ").bytes());
        }
        bytes.extend_from_slice(&line.bytes);
        if line.channel == channel::STDERR {
            output::write_error(&bytes)
        } else {
            output::write(&bytes)
        }
    }
}

/// The question of a program to its terminal where the cursor is. Asked in the past, the answer
/// would be taken for something typed.
const CURSOR_QUESTION: &str = "\x1b[6n";

/// Prints what the machine wrote so far.
pub(super) async fn replay(client: &Client, found: &Found) -> anyhow::Result<()> {
    let query = LogQuery::default();
    let mut log = client.logs(&found.app, &found.machine.id, &query).await?;
    while let Some(line) = log.recv().await {
        let line = line.context("the log broke off")?;
        let text = String::from_utf8_lossy(&line.bytes).replace(CURSOR_QUESTION, "");
        match line.channel {
            channel::STDERR => output::write_error(text.as_bytes())?,
            _ => output::write(text.as_bytes())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let time = since("2026-11-21T17:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-21T17:00:00Z");
        assert!(since("10m").unwrap() < Timestamp::now());
        assert!(since("yesterday").unwrap_err().contains("10m"));
    }
}
