//! Completion in shells: of words from the command tree, and of names from the API that answers
//! now. A shell waits for it, so that the API has a moment and is not missed.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{CompleteEnv, Shell};
use client::{Client, MachineFilter};
use futures::future::join_all;
use types::machine::MachineState;

use super::{output, target, tree};

/// The variable by which a shell's script asks this program to complete.
const VARIABLE: &str = "AEROSTAT_COMPLETE";
/// What the API may take.
const PATIENCE: Duration = Duration::from_millis(800);

/// Answers a shell that asks for completion; does not return then.
pub(super) fn answer() {
    CompleteEnv::with_factory(tree::command)
        .var(VARIABLE)
        .complete();
}

/// Prints the script that makes a shell ask.
pub(super) fn script(shell: Shell) -> anyhow::Result<()> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Elvish => &Elvish,
        Shell::PowerShell => &Powershell,
        other => anyhow::bail!("there is no completion for {other} yet; there is bash, zsh, fish"),
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "aerostat", "aerostat", "aerostat", &mut script)?;
    output::write(&script)
}

/// Names of machines; of the others what tells them from each other.
pub(super) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, async |client| {
            let apps = client.apps(None).await?.apps;
            let filter = MachineFilter::default();
            let lists = apps.iter().map(|app| client.machines(&app.name, &filter));
            let lists = join_all(lists).await;
            let machines = lists.into_iter().flatten().flat_map(|list| list.machines);
            let named = machines.flat_map(|machine| {
                let told = format!("{} {}", machine.state, machine.config.image);
                // Ids are for those who began to write one.
                let id = (!current.is_empty()).then(|| (machine.id.to_string(), told.clone()));
                std::iter::once((machine.name, told)).chain(id)
            });
            Ok(named.collect())
        })
    })
}

pub(super) fn apps() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, async |client| {
            let apps = client.apps(None).await?.apps.into_iter();
            let named = apps.map(|app| {
                let told = format!("{} machines", app.machine_count);
                (app.name.to_string(), told)
            });
            Ok(named.collect())
        })
    })
}

pub(super) fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, async |client| {
            let images = client.images().await?.into_iter();
            let named = images.map(|image| (image.reference, output::size(image.size_bytes)));
            Ok(named.collect())
        })
    })
}

pub(super) fn states() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy();
        let states = MachineState::ALL.map(MachineState::as_str).into_iter();
        let states = states.filter(|state| state.starts_with(&*current));
        states.map(CompletionCandidate::new).collect()
    })
}

/// What the API answers in time and begins with `current`; nothing where there is no API.
fn candidates(
    current: &OsStr,
    ask: impl AsyncFn(Client) -> Result<Vec<(String, String)>, client::Error>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(runtime), Ok(client)) = (runtime, target::of_environment()) else {
        return Vec::new();
    };
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(client)).await });
    let Ok(Ok(named)) = asked else {
        return Vec::new();
    };
    named
        .into_iter()
        .filter(|(name, _)| name.starts_with(&*current))
        .map(|(name, told)| CompletionCandidate::new(name).help(Some(told.into())))
        .collect()
}
