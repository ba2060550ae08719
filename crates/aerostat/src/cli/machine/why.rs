//! `aerostat machine why`: the story of a machine from what was recorded, in the order in which it
//! happened, ending in what it is now, because of what, and what comes next.
//!
//! [`tell`] is a function of the recorded facts and the time. It asks nobody and guesses nothing:
//! what was not recorded is not told.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use types::machine::{
    Event, Health, Machine, MachineState, Placement, PlacementBid, RestartPolicy,
};

use super::events::by;
use super::find::{Found, One};
use super::list;
use super::settle::{ended, last_exit, next_step, reason};
use crate::cli::Context;
use crate::cli::output::{self, Table, took};
use crate::cli::style::Paint;
use crate::cli::terminal;
use page::text;

mod page;

/// What the API gives at once.
const EVENTS_MAX: u32 = 50;

#[derive(Debug, Args)]
pub(in crate::cli) struct Why {
    #[command(flatten)]
    one: One,
}

/// The facts, in order; `-o json` shows them.
#[derive(Debug, Serialize)]
struct Story {
    app: String,
    machine: String,
    name: String,
    history: Vec<Chapter>,
    now: Now,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Chapter {
    at: Timestamp,
    event: String,
    /// `user` or `worker`.
    by: String,
    text: String,
    /// More to it: bids, for example.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<types::machine::ExitEvent>,
}

/// What it is now, and why.
#[derive(Debug, PartialEq, Serialize)]
struct Now {
    state: MachineState,
    because: String,
    next: String,
    /// Commands that may help, the likeliest first.
    #[serde(rename = "try", skip_serializing_if = "Vec::is_empty")]
    try_: Vec<String>,
}

impl Why {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find_past(&client).await?;
        let events = client
            .events(&found.app, &found.machine.id, EVENTS_MAX)
            .await?;
        let story = tell(&found, &events, Timestamp::now());
        if context.format.is_table() {
            let width = terminal::size().map_or(usize::MAX, |size| size.width.into());
            return output::write(text(&story, Paint::stdout(), width).as_bytes());
        }
        let names = || vec![story.machine.clone()];
        output::print(context.format, &story, || Table::new(&[]), names)
    }
}

/// `events` are newest first, as the API has them.
fn tell(found: &Found, events: &[Event], now: Timestamp) -> Story {
    let history: Vec<_> = events
        .iter()
        .rev()
        .map(|event| chapter(&found.machine, event))
        .collect();
    Story {
        app: found.app.to_string(),
        machine: found.machine.id.to_string(),
        name: found.machine.name.clone(),
        history,
        now: now_because(found, events, now),
    }
}

fn chapter(machine: &Machine, event: &Event) -> Chapter {
    let request = event.request.clone().unwrap_or_default();
    let who = by(event);
    let asked = who == "user";
    let message = match request.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let text = match (event.kind.as_str(), event.status.as_str()) {
        ("launch", _) => format!(
            "created from image {}, {}, class {}",
            list::image(machine),
            list::size(machine),
            machine.isolation
        ),
        ("pull", _) => match request.message.as_str() {
            "" => "its image is being pulled".to_owned(),
            message => message.to_owned(),
        },
        ("start", "failed") => format!("could not start{message}"),
        ("start", "started") => format!("runs{message}"),
        ("start", "suspended") => format!("could not go on, and stays suspended{message}"),
        ("start", _) if asked => format!("was asked to start{message}"),
        ("start", _) => format!("starts{message}"),
        ("restart", _) if asked => format!("was asked to restart{message}"),
        ("restart", _) => format!("starts again by its policy, time {}", request.restart_count),
        ("exit", _) => match &request.exit_event {
            Some(exit) if exit.requested_stop => format!("{}, as asked{message}", ended(exit)),
            Some(exit) => format!("{}, unasked{message}", ended(exit)),
            None => "ended".to_owned(),
        },
        (kind @ ("stop" | "suspend" | "update" | "destroy" | "cordon" | "uncordon"), status)
            if asked =>
        {
            match status == "destroyed" {
                true => "is destroyed".to_owned(),
                false => format!("was asked to {kind}{message}"),
            }
        }
        ("destroy", _) => format!("is destroyed{message}"),
        ("suspend", "started") => format!("goes on running{message}"),
        ("suspend", "suspended") => format!("is suspended: its memory is on disk{message}"),
        (kind, status) => format!("{kind}: {status}{message}"),
    };
    let placement = request.placement.clone();
    Chapter {
        at: Timestamp::from_millisecond(event.timestamp).unwrap_or_default(),
        event: event.kind.clone(),
        by: who.to_owned(),
        text,
        details: placement.iter().flat_map(bids).collect(),
        placement,
        exit: request.exit_event,
    }
}

fn bids(placement: &Placement) -> Vec<String> {
    let Some(won) = placement.bids.iter().find(|bid| bid.won) else {
        return Vec::new();
    };
    let asked = match placement.bids.len() {
        1 => "one host was asked".to_owned(),
        n => format!("{n} hosts were asked"),
    };
    let took = took(i64::try_from(placement.took_ms).unwrap_or(i64::MAX));
    let mut lines = vec![format!("{asked}, and {} won in {took}:", won.host)];
    lines.extend(placement.bids.iter().map(|bid| {
        let PlacementBid {
            host,
            region,
            won,
            refusal,
            offer,
        } = bid;
        let (word, rest) = match (won, refusal.as_str()) {
            (true, _) => ("won", offer),
            (false, "") => ("offered", offer),
            (false, _) => ("refused", refusal),
        };
        format!("  {host} ({region})  {word:<7}  {rest}")
            .trim_end()
            .to_owned()
    }));
    lines
}

fn now_because(found: &Found, events: &[Event], now: Timestamp) -> Now {
    let machine = &found.machine;
    let name = format!("{}/{}", found.app, machine.name);
    let newest = events.first();
    let asked = |kind: &str| newest.is_some_and(|event| event.kind == kind && by(event) == "user");
    let (because, next, try_) = match machine.state {
        MachineState::Created => (
            "it was made and never asked to start".to_owned(),
            "nothing, until somebody starts it".to_owned(),
            vec![format!("aerostat machine start {name}")],
        ),
        MachineState::Starting => starting(machine, events),
        MachineState::Started => running(machine, &name, events, now),
        MachineState::Suspended => (
            "it was suspended; its memory is on disk".to_owned(),
            "a start goes on where it stood".to_owned(),
            vec![format!("aerostat machine resume {name}")],
        ),
        MachineState::Stopped => stopped(found, events),
        MachineState::Failed => {
            let why = reason(events).unwrap_or_else(|| "no reason was recorded".to_owned());
            let try_ = vec![
                next_step(&why, found),
                format!("aerostat machine start {name}"),
            ];
            (
                why,
                "nothing, until somebody starts it again".to_owned(),
                try_,
            )
        }
        MachineState::Destroyed => {
            let because = match machine.config.auto_destroy && !asked("destroy") {
                true => "it ended, and was made to be destroyed then (--rm)",
                false => "somebody destroyed it",
            };
            let next = "nothing; it is only remembered".to_owned();
            (because.to_owned(), next, Vec::new())
        }
        // It ended by itself; only what is left of it is still being removed.
        MachineState::Stopping if newest.is_some_and(|event| event.kind == "exit") => {
            stopped(found, events)
        }
        MachineState::Suspending
        | MachineState::Stopping
        | MachineState::Restarting
        | MachineState::Updating
        | MachineState::Destroying => {
            let who = newest.map_or("somebody", by);
            let kind = newest.map_or("it", |event| event.kind.as_str());
            let limit = machine
                .config
                .stop_config
                .as_ref()
                .and_then(|stop| stop.timeout);
            let limit = limit.map_or(5, |limit| limit.0.as_secs());
            (
                format!("of the newest event, `{kind}` by the {who}"),
                format!("it is over at the latest when its {limit} s to stop have passed"),
                Vec::new(),
            )
        }
    };
    Now {
        state: machine.state,
        because,
        next,
        try_,
    }
}

type Reasons = (String, String, Vec<String>);

fn starting(machine: &Machine, events: &[Event]) -> Reasons {
    let says = machine.containers.iter().find(|c| !c.message.is_empty());
    if let Some(container) = says {
        return (
            container.message.clone(),
            "it goes on by itself".to_owned(),
            Vec::new(),
        );
    }
    match events.first() {
        Some(event) if event.kind == "exit" => (
            format!(
                "it {}, and its policy starts it again",
                last_exit(events).map_or_else(|| "ended".to_owned(), ended)
            ),
            "it starts again after a pause that doubles each time".to_owned(),
            Vec::new(),
        ),
        Some(_) | None => (
            "it is booting".to_owned(),
            "it runs, or fails when its boot takes too long".to_owned(),
            Vec::new(),
        ),
    }
}

fn running(machine: &Machine, name: &str, events: &[Event], now: Timestamp) -> Reasons {
    let failing: Vec<_> = machine
        .checks
        .iter()
        .filter(|check| check.status == Health::Critical)
        .collect();
    let since = events
        .iter()
        .find(|event| event.kind == "start" && event.status == "started")
        .map(|event| took(now.as_millisecond() - event.timestamp));
    let since = since.map_or_else(String::new, |since| format!(" for {since}"));
    let restarts = match list::restarts(machine) {
        0 => String::new(),
        1 => ", after a restart by its policy".to_owned(),
        n => format!(", after {n} restarts by its policy"),
    };
    let mut because = format!("it started and has run{since}{restarts}");
    let mut next = "nothing is due".to_owned();
    let mut try_ = Vec::new();
    if let Some(check) = failing.first() {
        because += &format!("; its check {} fails: {}", check.name, check.output.trim());
        if failing.iter().any(|check| check.readiness) {
            next = "services leave it out until the check passes".to_owned();
        }
        try_.push(format!("aerostat machine logs {name}"));
    }
    if machine.cordoned {
        because += "; it is cordoned";
        next = "services leave it out until it is uncordoned".to_owned();
        try_.push(format!("aerostat machine uncordon {name}"));
    }
    if !["ok", ""].contains(&machine.host_status.as_str()) {
        because += &format!(
            "; its host is {}: this is what it last said",
            machine.host_status
        );
        next = "known when the host is heard again".to_owned();
        try_.push("aerostat mesh status".to_owned());
    }
    (because, next, try_)
}

fn stopped(found: &Found, events: &[Event]) -> Reasons {
    let machine = &found.machine;
    let name = format!("{}/{}", found.app, machine.name);
    let start = format!("aerostat machine start {name}");
    let next = match machine.config.schedule {
        Some(schedule) => format!("it starts by its schedule, {schedule:?}").to_lowercase(),
        None => "nothing, until somebody starts it".to_owned(),
    };
    let Some(exit) = last_exit(events) else {
        return ("somebody stopped it".to_owned(), next, vec![start]);
    };
    if exit.requested_stop {
        return (
            format!("somebody stopped it; it {}", ended(exit)),
            next,
            vec![start],
        );
    }
    let restart = machine.config.restart.clone().unwrap_or_default();
    let failed = exit.exit_code != 0;
    let policy = match restart.policy {
        RestartPolicy::No => "its policy is to leave it so".to_owned(),
        RestartPolicy::OnFailure if !failed => {
            "its policy starts it again only after a failure".to_owned()
        }
        RestartPolicy::OnFailure | RestartPolicy::Always => format!(
            "it had been started again {} times, which is all that its policy allows",
            list::restarts(machine)
        ),
    };
    let why = ended(exit);
    let mut try_ = vec![start];
    if failed {
        try_.insert(0, next_step(&why, found));
    }
    (format!("it {why}, and {policy}"), next, try_)
}

#[cfg(test)]
mod tests;
