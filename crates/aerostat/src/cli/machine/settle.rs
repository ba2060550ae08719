//! Waiting until a machine has come to rest, and saying what came of it.

use std::time::{Duration, Instant};

use client::{Client, WaitFor, WaitQuery};
use types::MachineId;
use types::api::LogQuery;
use types::machine::{ContainerState, Event, ExitEvent, Machine, MachineState};

use super::find::Found;
use crate::cli::output::took;
use crate::cli::progress::Progress;
use crate::cli::{CommandEnded, Refused};

/// How often a terminal is told what goes on.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Between the guest's word that it is ready and the start of its containers there are
/// milliseconds, under emulation some hundred.
const CONTAINERS_LOOK: Duration = Duration::from_millis(10);
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last lines of a machine that failed: they are a help, not the matter.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
/// How many of them.
const LOG_LINES: u64 = 10;

/// The exit code of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Waits until the machine is in a state that lasts. Takes any time: the worker has deadlines.
pub(super) async fn settle(
    client: &Client,
    found: &Found,
    progress: &mut Progress,
) -> anyhow::Result<Machine> {
    let (app, id) = (&found.app, &found.machine.id);
    let mut query = WaitQuery::state(MachineState::Started);
    query.until = WaitFor::Settled;
    let wait = async {
        loop {
            match client.wait_machine(app, id, &query).await {
                Err(error) if error.status() == Some(408) => {}
                Err(error) if error.is_not_found() => return Ok(()),
                answer => return answer.map(drop),
            }
        }
    };
    tokio::pin!(wait);
    loop {
        tokio::select! {
            answer = &mut wait => break answer?,
            () = tokio::time::sleep(LOOK_EVERY), if progress.is_live() => {
                if let Ok(machine) = client.machine(app, id).await {
                    progress.now(&stage(&machine));
                }
            }
        }
    }
    progress.clear();
    let deadline = Instant::now() + CONTAINERS_TIMEOUT;
    loop {
        let machine = client.machine(app, id).await?;
        if !is_opening(&machine) || Instant::now() >= deadline {
            return Ok(machine);
        }
        tokio::time::sleep(CONTAINERS_LOOK).await;
    }
}

/// Whether the machine runs and its containers are about to: an `exec` would come too early.
fn is_opening(machine: &Machine) -> bool {
    let mut containers = machine.containers.iter();
    let mut configs = machine.config.containers.iter();
    machine.state == MachineState::Started
        && containers.any(|container| container.state == ContainerState::Created)
        // These wait for each other for as long as they like.
        && configs.all(|config| config.depends_on.is_empty())
}

/// Runs `work` unless somebody presses Ctrl-C, who is then told what goes on without them.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    told: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\n{}", told());
            Err(CommandEnded(INTERRUPTED).into())
        }
    }
}

/// What a machine that is on its way is doing.
fn stage(machine: &Machine) -> String {
    let name = &machine.name;
    let waits = machine.containers.iter().find(|c| !c.message.is_empty());
    match waits {
        Some(container) => format!("{name}: {}", container.message),
        None => match machine.state {
            MachineState::Starting => format!("{name}: booting, class {}", machine.isolation),
            state => format!("{name}: {state}"),
        },
    }
}

/// How a start went.
#[derive(Debug, PartialEq)]
pub(in crate::cli) enum Outcome {
    /// It runs. Milliseconds since it was asked for, as the worker saw it.
    Started {
        took_ms: Option<i64>,
    },
    /// It ran to its end already, and all is well.
    Ended,
    /// It never was asked to run, or somebody else stopped it.
    Resting,
    Failed {
        why: String,
    },
}

pub(super) fn outcome(machine: &Machine) -> Outcome {
    match machine.state {
        MachineState::Started => Outcome::Started {
            took_ms: start_took(&machine.events),
        },
        MachineState::Failed => Outcome::Failed {
            why: reason(&machine.events).unwrap_or_else(|| "no reason was recorded".into()),
        },
        MachineState::Stopping
        | MachineState::Stopped
        | MachineState::Destroying
        | MachineState::Destroyed => match last_exit(&machine.events) {
            Some(exit) if exit.requested_stop => Outcome::Resting,
            Some(exit) if exit.exit_code == 0 => Outcome::Ended,
            Some(exit) => Outcome::Failed {
                why: format!("it {}", ended(exit)),
            },
            None => Outcome::Resting,
        },
        MachineState::Starting => match last_exit(&machine.events) {
            Some(exit) if !exit.requested_stop => Outcome::Failed {
                why: format!("it {}, and its policy starts it again", ended(exit)),
            },
            Some(_) | None => Outcome::Resting,
        },
        MachineState::Created
        | MachineState::Suspending
        | MachineState::Suspended
        | MachineState::Restarting
        | MachineState::Updating => Outcome::Resting,
    }
}

/// From the newest request of a user to the start that followed it. Events are newest first.
fn start_took(events: &[Event]) -> Option<i64> {
    let started = events
        .iter()
        .position(|event| event.kind == "start" && event.status == "started")?;
    let asked = events[started..]
        .iter()
        .find(|event| event.source == "user")?;
    Some(events[started].timestamp - asked.timestamp)
}

/// The newest reason that the worker gave.
pub(super) fn reason(events: &[Event]) -> Option<String> {
    let failed = events.iter().filter(|event| event.status == "failed");
    let mut reasons = failed.filter_map(|event| event.request.as_ref());
    let reason = reasons.find(|request| !request.message.is_empty());
    reason.map(|request| request.message.clone())
}

pub(super) fn last_exit(events: &[Event]) -> Option<&ExitEvent> {
    let mut exits = events.iter().filter_map(|event| event.request.as_ref());
    exits.find_map(|request| request.exit_event.as_ref())
}

/// How it ended, as the end of a sentence.
pub(super) fn ended(exit: &ExitEvent) -> String {
    if exit.oom_killed {
        return "was killed because it was out of memory".to_owned();
    }
    let signal = [exit.guest_signal, exit.signal, exit.exit_code - 128];
    let signal = signal.into_iter().find(|signal| *signal > 0);
    let name = signal.and_then(|signal| nix::sys::signal::Signal::try_from(signal).ok());
    match name {
        Some(name) => format!(
            "was ended by {} (exit code {})",
            name.as_str(),
            exit.exit_code
        ),
        None => format!("ended with exit code {}", exit.exit_code),
    }
}

/// What to try after a failure, by its reason.
pub(super) fn next_step(why: &str, found: &Found) -> String {
    let Found { app, machine } = found;
    let image = super::list::image(machine);
    let name = format!("{app}/{}", machine.name);
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["out of memory"]) {
        let memory = machine.config.guest.clone().unwrap_or_default().memory_mb;
        return format!("aerostat machine update {name} --memory {}", memory * 2);
    }
    if has(&["No such file", "not found in", "no command", "cannot start"])
        && has(&["exec", "start"])
    {
        return format!("aerostat machine run {image} -it -- sh   (look for the program)");
    }
    if has(&["not ready in time"]) {
        return format!(
            "aerostat machine logs {name}, or a class that boots faster: aerostat doctor"
        );
    }
    if has(&["exit code", "was ended by"]) {
        return format!("aerostat machine logs {name}");
    }
    format!("aerostat machine why {name}")
}

/// An error that says why a machine does not run, with its last words and what to try.
pub(super) async fn failure(client: &Client, found: &Found, why: &str) -> anyhow::Error {
    let name = &found.machine.name;
    let mut text = format!("machine {name} ({}) does not run: {why}", found.machine.id);
    let lines = last_lines(client, found).await;
    if !lines.is_empty() {
        text.push_str("\nits last lines:");
        for line in &lines {
            text.push_str(&format!("\n  | {line}"));
        }
    }
    text.push_str(&format!("\nnext: {}", next_step(why, found)));
    let gone = [MachineState::Destroyed, MachineState::Destroying];
    if !gone.contains(&found.machine.state) {
        let app = &found.app;
        text.push_str(&format!(
            "\nor remove it: aerostat machine destroy {app}/{name}"
        ));
    }
    Refused(text).into()
}

async fn last_lines(client: &Client, found: &Found) -> Vec<String> {
    let read = async {
        let query = LogQuery {
            container: found.machine.containers.first().map(|c| c.name.clone()),
            tail: Some(LOG_LINES),
            ..LogQuery::default()
        };
        let mut lines = Vec::new();
        if let Ok(mut log) = client.logs(&found.app, &found.machine.id, &query).await {
            while let Some(Ok(line)) = log.recv().await {
                let text = String::from_utf8_lossy(&line.bytes);
                lines.push(text.replace(char::is_control, " ").trim_end().to_owned());
            }
        }
        lines
    };
    tokio::time::timeout(LOG_TIMEOUT, read)
        .await
        .unwrap_or_default()
}

/// What people are told about a machine that was asked to run.
pub(super) fn started(machine: &Machine, outcome: &Outcome) -> String {
    let name = &machine.name;
    match outcome {
        Outcome::Started { took_ms: Some(ms) } => format!("{name} started in {}", took(*ms)),
        Outcome::Started { took_ms: None } => format!("{name} runs"),
        Outcome::Ended => format!("{name} ran to its end, with exit code 0"),
        Outcome::Resting => format!("{name} is {}", machine.state),
        Outcome::Failed { why } => format!("{name} does not run: {why}"),
    }
}

/// What to say to somebody who no longer waits.
pub(super) fn goes_on(app: &types::AppName, name: &str, id: &MachineId) -> String {
    format!(
        "{name} ({id}) goes on in the background\n  see:    aerostat machine status {id} --app {app}\n  \
         remove: aerostat machine destroy {id} --app {app} --force"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::find::tests::found;
    use super::*;

    fn events(value: serde_json::Value) -> Vec<Event> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_time_of_a_start_counts_from_the_last_request() {
        let events = events(json!([
            {"id": "4", "type": "start", "status": "started", "source": "flyd", "timestamp": 1034},
            {"id": "3", "type": "start", "status": "starting", "source": "user", "timestamp": 1000},
            {"id": "2", "type": "exit", "status": "stopped", "source": "flyd", "timestamp": 900},
            {"id": "1", "type": "launch", "status": "created", "source": "user", "timestamp": 1},
        ]));
        assert_eq!(start_took(&events), Some(34));
    }

    #[test]
    fn an_end_is_told_with_its_signal_or_lack_of_memory() {
        let exit = |value| serde_json::from_value::<ExitEvent>(value).unwrap();
        assert_eq!(
            ended(&exit(json!({"exit_code": 3}))),
            "ended with exit code 3"
        );
        assert_eq!(
            ended(&exit(json!({"exit_code": 143, "guest_signal": 15}))),
            "was ended by SIGTERM (exit code 143)"
        );
        let oom = exit(json!({"exit_code": 137, "oom_killed": true}));
        assert_eq!(ended(&oom), "was killed because it was out of memory");
    }

    #[test]
    fn a_machine_that_ended_at_once_is_well_only_with_exit_code_zero() {
        let mut machine = found("shop", "abc0000000000a", "job").machine;
        machine.state = MachineState::Stopped;
        let exit = |code: i32| {
            events(
                json!([{"id": "1", "type": "exit", "status": "stopped", "source": "flyd",
                "timestamp": 1, "request": {"exit_event": {"exit_code": code}}}]),
            )
        };
        machine.events = exit(0);
        assert_eq!(outcome(&machine), Outcome::Ended);
        machine.events = exit(2);
        let why = "it ended with exit code 2".to_owned();
        assert_eq!(outcome(&machine), Outcome::Failed { why });
    }

    #[test]
    fn lack_of_memory_is_answered_with_more_of_it() {
        let found = found("shop", "abc0000000000a", "job");
        assert_eq!(
            next_step("it was killed because it was out of memory", &found),
            "aerostat machine update shop/job --memory 512"
        );
    }
}
