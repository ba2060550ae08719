//! `aerostat machine events`

use clap::Args;
use jiff::Timestamp;
use types::machine::Event;

use super::find::One;
use super::settle::ended;
use crate::cli::Context;
use crate::cli::output::{self, Table};

#[derive(Debug, Args)]
pub(in crate::cli) struct Events {
    #[command(flatten)]
    one: One,
    /// How many, 50 at most
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=50))]
    limit: u32,
}

impl Events {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find_past(&client).await?;
        let events = client
            .events(&found.app, &found.machine.id, self.limit)
            .await?;
        let names = || events.iter().map(|event| event.kind.clone()).collect();
        output::print(context.format, &events, || table(context, &events), names)
    }
}

fn table(context: &Context, events: &[Event]) -> Table {
    let heading = ["WHEN", "EVENT", "STATE", "BY", "DETAIL"];
    let mut table = Table::new(&heading).wide(&["ID"]);
    for event in events {
        table.row([
            context.time(Timestamp::from_millisecond(event.timestamp).unwrap_or_default()),
            event.kind.clone(),
            event.status.clone(),
            by(event).to_owned(),
            detail(event),
            event.id.clone(),
        ]);
    }
    table
}

/// Who wanted it; the API says `flyd` for the worker, as Fly's clients expect.
pub(super) fn by(event: &Event) -> &str {
    match event.source.as_str() {
        "flyd" => "worker",
        source => source,
    }
}

pub(super) fn detail(event: &Event) -> String {
    let Some(request) = &event.request else {
        return String::new();
    };
    let mut parts = Vec::new();
    if let Some(exit) = &request.exit_event {
        parts.push(ended(exit));
        if exit.requested_stop {
            parts.push("as asked".to_owned());
        }
    }
    if !request.message.is_empty() {
        parts.push(request.message.clone());
    }
    if let Some(placement) = &request.placement {
        let won = placement.bids.iter().find(|bid| bid.won);
        let host = won.map_or("this host", |bid| bid.host.as_str());
        let asked = placement.bids.len();
        parts.push(format!("placed on {host}, {asked} asked"));
    }
    if request.restart_count > 0 {
        parts.push(format!("restart {}", request.restart_count));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exit_is_told_in_words() {
        let event: Event = serde_json::from_value(json!({
            "id": "1", "type": "exit", "status": "stopped", "source": "flyd", "timestamp": 1,
            "request": {"restart_count": 2, "exit_event": {"exit_code": 143, "guest_signal": 15,
                "requested_stop": true}},
        }))
        .unwrap();
        assert_eq!(
            detail(&event),
            "was ended by SIGTERM (exit code 143); as asked; restart 2"
        );
        assert_eq!(by(&event), "worker");
    }
}
