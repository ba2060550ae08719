//! `aerostat machine wait`

use std::time::{Duration, Instant};

use clap::Args;
use client::{Client, WaitFor, WaitQuery};
use types::machine::MachineState;

use super::find::{Found, Many};
use crate::cli::output;
use crate::cli::{Context, Refused, complete};

/// What one request may wait.
const ONE_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(in crate::cli) struct Wait {
    #[command(flatten)]
    many: Many,
    /// State to wait for, any of several, or `settled`: any that lasts
    #[arg(short, long, default_value = "started", value_delimiter = ',', add = complete::states())]
    state: Vec<String>,
    /// Seconds to wait, together
    #[arg(short, long, default_value_t = 60)]
    timeout: u64,
}

/// A state by its name.
pub(super) fn state(text: &str) -> Result<MachineState, String> {
    let known = MachineState::ALL.map(MachineState::as_str).join(", ");
    MachineState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| format!("`{text}` is no state of a machine; there are {known}"))
}

impl Wait {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let until = match &self.state[..] {
            [one] if one == "settled" => WaitFor::Settled,
            states => {
                let states = states.iter().map(|text| state(text));
                WaitFor::States(states.collect::<Result<_, _>>().map_err(Refused)?)
            }
        };
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let client = context.client()?;
        let mut reached = Vec::new();
        for found in self.many.find(&client, "wait for").await? {
            reached.push(wait(&client, found, &until, deadline, self.timeout).await?);
        }
        let table = || super::list::table(context, &reached);
        let names = || super::list::ids(&reached);
        match &reached[..] {
            [one] if !self.many.is_plural() => output::print(context.format, one, table, names),
            all => output::print(context.format, &all, table, names),
        }
    }
}

async fn wait(
    client: &Client,
    mut found: Found,
    until: &WaitFor,
    deadline: Instant,
    timeout: u64,
) -> anyhow::Result<Found> {
    let (app, id) = (&found.app, &found.machine.id);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut query = WaitQuery::state(MachineState::Started);
        query.until = until.clone();
        query.timeout = left.clamp(Duration::from_secs(1), ONE_WAIT);
        match client.wait_machine(app, id, &query).await {
            Err(error) if error.status() == Some(408) => {
                if Instant::now() >= deadline {
                    let machine = client.machine(app, id).await?;
                    return Err(Refused(format!(
                        "machine {} is {} after {timeout} s; the reason: aerostat machine why {id}",
                        machine.name, machine.state
                    ))
                    .into());
                }
            }
            answer => {
                answer?;
                found.machine = client.machine(app, id).await?;
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_state_is_answered_with_those_that_are() {
        assert_eq!(state("suspended"), Ok(MachineState::Suspended));
        assert!(state("running").unwrap_err().contains("started"));
    }
}
