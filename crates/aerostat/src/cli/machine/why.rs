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
use crate::cli::style::{Colour, Paint};
use crate::cli::terminal;

/// What the API gives at once.
const EVENTS_MAX: u32 = 50;
/// Room for the time since the event before.
const TIME_COLUMNS: usize = 12;
/// As many rounds of the same are told one by one; more are summed up.
const ROUNDS_MAX: usize = 3;

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

/// The story for people.
fn text(story: &Story, paint: Paint, width: usize) -> String {
    let from = story.history.first();
    let from = from.map_or_else(String::new, |first| {
        format!(", from {} on", clock(first.at))
    });
    let name = paint.paint(Colour::Bold, &story.name);
    let mut text = format!("{name} ({}) of app {}{from}\n\n", story.machine, story.app);
    let mut before: Option<Timestamp> = None;
    for line in fold(&story.history) {
        let chapter = match line {
            Line::Chapter(chapter) => chapter,
            Line::Rounds { rounds, until } => {
                text += &format!(
                    "            … the same {rounds} times more, until {}\n",
                    clock(until)
                );
                before = Some(until);
                continue;
            }
        };
        let when = match before {
            None => took(0),
            Some(before) => {
                let ms = chapter.at.as_millisecond() - before.as_millisecond();
                format!("+{}", took(ms))
            }
        };
        let who = match chapter.by.as_str() {
            "worker" => String::new(),
            who => format!("  ({who})"),
        };
        let words = chapter.text.replace(char::is_control, " ");
        let words = wrap(&words, width, TIME_COLUMNS + 2);
        let when = paint.paint(Colour::Dim, &format!("{when:>TIME_COLUMNS$}"));
        text += &format!("{when}  {words}{}\n", paint.paint(Colour::Dim, &who));
        for detail in &chapter.details {
            text += &format!("{:>14}{}\n", "", detail.replace(char::is_control, " "));
        }
        before = Some(chapter.at);
    }
    let Now {
        state,
        because,
        next,
        try_,
    } = &story.now;
    let coloured = crate::cli::style::of_state(state.as_str()).map_or_else(
        || state.to_string(),
        |colour| paint.paint(colour, state.as_str()),
    );
    let because = because.replace(char::is_control, " ");
    let because = format!("{state}, because {because}");
    let because = wrap(&because, width, 6).replacen(state.as_str(), &coloured, 1);
    text += &format!("\nnow:  {because}\nnext: {}\n", wrap(next, width, 6));
    for command in try_ {
        text += &format!("try:  {command}\n");
    }
    text
}

/// Lines of at most `width`, of which all but the first begin after `indent`; so may the first.
fn wrap(text: &str, width: usize, indent: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            lines += &format!("\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines += word;
        used += length;
    }
    lines
}

/// Date and time to the second, in UTC.
fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

enum Line<'a> {
    Chapter(&'a Chapter),
    /// Rounds like the one before.
    Rounds {
        rounds: usize,
        until: Timestamp,
    },
}

/// A machine that falls over again and again tells the same few events each time. Rounds of up to
/// four events that repeat more than [`ROUNDS_MAX`] times are summed up.
fn fold(history: &[Chapter]) -> Vec<Line<'_>> {
    let alike = |a: &Chapter, b: &Chapter| {
        let words = |chapter: &Chapter| {
            let text = &chapter.text;
            text.trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned()
        };
        a.event == b.event && a.by == b.by && words(a) == words(b)
    };
    let mut lines = Vec::new();
    let mut at = 0;
    while at < history.len() {
        let best = (1..=4)
            .map(|size| {
                let mut rounds = 1;
                while at + (rounds + 1) * size <= history.len()
                    && (0..size).all(|i| alike(&history[at + i], &history[at + rounds * size + i]))
                {
                    rounds += 1;
                }
                (rounds, size)
            })
            .find(|(rounds, _)| *rounds > ROUNDS_MAX);
        match best {
            Some((rounds, size)) => {
                lines.extend(history[at..at + size].iter().map(Line::Chapter));
                at += rounds * size;
                lines.push(Line::Rounds {
                    rounds: rounds - 1,
                    until: history[at - 1].at,
                });
            }
            None => {
                lines.push(Line::Chapter(&history[at]));
                at += 1;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests;
