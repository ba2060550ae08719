//! The daemon is killed with `kill -9` before and after each step of a machine's life that
//! outlives it, and so are the processes that keep a machine. Afterwards every machine that was
//! acknowledged is there once, and a full inventory of the host shows nothing that was left.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use client::{Client, MachineFilter, WaitFor, WaitQuery};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::{Host, Snapshot, command_line, eventually, skip, succeed};
use tokio::runtime::Runtime;
use types::api::{CreateApp, CreateMachine, StopMachine};
use types::machine::{Machine, MachineConfig, MachineState, Restart, RestartPolicy};
use types::{AppName, IsolationClass, MachineId};

const IMAGE: &str = "localhost/hello:1";

/// In the order in which the life below reaches them.
const POINTS: &[&str] = &[
    "create.before",
    "create.after",
    "prepare.before",
    "prepare.after",
    "record-booting.before",
    "record-booting.after",
    "attach.before",
    "attach.after",
    "boot.before",
    "boot.after",
    "adopt.before",
    "record-started.before",
    "record-started.after",
    "record-stopping.before",
    "record-stopping.after",
    "signal.before",
    "signal.after",
    "record-clearing.before",
    "record-clearing.after",
    "clear.before",
    "clear.between",
    "clear.after",
    "record-stopped.before",
    "record-stopped.after",
    "record-destroying.before",
    "record-destroying.after",
    "forget.before",
    "forget.between",
    "forget.after",
    "record-destroyed.before",
    "record-destroyed.after",
];

/// Those that a suspension adds.
const SUSPENSION_POINTS: &[&str] = &[
    "record-suspending.before",
    "record-suspending.after",
    "suspend.before",
    "suspend.after",
    "record-suspended.before",
    "record-suspended.after",
    "discard.before",
    "discard.after",
];

/// What was acknowledged of the machine.
#[derive(Debug, Default)]
struct Acknowledged {
    created: Option<MachineId>,
    end: End,
}

/// How far the machine's destruction has come.
#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    NotAsked,
    Asked,
    Acknowledged,
}

#[test]
fn a_daemon_that_is_killed_at_any_step_loses_and_leaves_nothing() {
    kill_at(IsolationClass::Container, POINTS);
}

#[test]
fn a_daemon_that_is_killed_while_it_suspends_loses_and_leaves_nothing() {
    kill_at(IsolationClass::Emulated, SUSPENSION_POINTS);
}

fn kill_at(class: IsolationClass, points: &[&str]) {
    let _turn = turn();
    let runtime = Runtime::new().unwrap();
    let before = Snapshot::take();
    let host = Host::new();
    host.up();
    if !is_offered(&host, class) {
        return skip(
            "crash points",
            &format!("class {class} is not offered here"),
        );
    }
    let app = runtime.block_on(app(&host.client()));
    let clean = Inventory::take(&host, &before);
    for point in points {
        let began = Instant::now();
        host.kill_daemon();
        succeed(host.aerostat(&["up"]).env("AEROSTAT_CRASH_AT", point));
        let mut acknowledged = Acknowledged::default();
        let ended = runtime.block_on(live(&host.client(), &app, class, &mut acknowledged));
        let error = ended.expect_err("the daemon lives on: nothing reached the point");
        host.await_daemon_end();
        host.up();
        runtime.block_on(judge(&host.client(), &app, &acknowledged, point));
        is_clean(&host, &before, &clean, &format!("after {point}"));
        eprintln!("killed at {point}: {error}; {:?}", began.elapsed());
    }
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// One at a time: the snapshots are of the whole machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_clean(host: &Host, before: &Snapshot, clean: &Inventory, when: &str) {
    eventually(&format!("a clean host {when}"), || {
        let left = Inventory::take(host, before).beyond(clean);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind: {left:#?}"))
        }
    });
}

#[test]
fn a_machine_whose_shim_or_vmm_is_killed_ends_and_leaves_nothing() {
    let _turn = turn();
    let runtime = Runtime::new().unwrap();
    for class in [IsolationClass::Container, IsolationClass::Emulated] {
        let before = Snapshot::take();
        let host = Host::new();
        host.up();
        if !is_offered(&host, class) {
            skip(
                "kill -9 of the body",
                &format!("class {class} is not offered here"),
            );
            continue;
        }
        let app = runtime.block_on(app(&host.client()));
        let clean = Inventory::take(&host, &before);
        let victims: &[(&str, bool)] = match class {
            IsolationClass::Emulated => &[("qemu-system", false), (" shim ", true)],
            IsolationClass::Container | IsolationClass::Microvm => {
                &[(" shim ", false), (" shim ", true)]
            }
        };
        for (victim, with_daemon) in victims {
            let machine = runtime.block_on(run(&host.client(), &app, class)).unwrap();
            let pids = processes_of(&host, victim);
            assert!(!pids.is_empty(), "machine {} has a `{victim}`", machine.id);
            if *with_daemon {
                host.kill_daemon();
            }
            for (pid, _) in pids {
                // A shim has several processes; the first one's end may be that of the others.
                let _ = kill(pid, Signal::SIGKILL);
            }
            if *with_daemon {
                host.up();
            }
            let client = host.client();
            runtime.block_on(async {
                wait(&client, &app, &machine.id, MachineState::Stopped).await;
                let events = client.events(&app, &machine.id, 20).await.unwrap();
                let exit = events.iter().find(|event| event.kind == "exit");
                let request = exit.expect("an exit").request.clone().unwrap();
                let exit = request.exit_event.unwrap();
                assert_eq!((exit.exit_code, exit.requested_stop), (137, false));
                client
                    .destroy_machine(&app, &machine.id, false)
                    .await
                    .unwrap();
            });
            is_clean(&host, &before, &clean, &format!("without its {victim}"));
        }
        host.down();
    }
}

/// A machine's life. Ends with an error when the daemon does not answer any more.
async fn live(
    client: &Client,
    app: &AppName,
    class: IsolationClass,
    acknowledged: &mut Acknowledged,
) -> Result<(), client::Error> {
    let id = match run(client, app, class).await {
        Ok(machine) => machine.id,
        // The creation may have been acknowledged before the daemon died.
        Err((created, error)) => {
            acknowledged.created = created;
            return Err(error);
        }
    };
    acknowledged.created = Some(id.clone());
    if class == IsolationClass::Emulated {
        client.suspend_machine(app, &id).await?;
        let suspended = until(MachineState::Suspended);
        client.wait_machine(app, &id, &suspended).await?;
        client.start_machine(app, &id).await?;
        let started = until(MachineState::Started);
        client.wait_machine(app, &id, &started).await?;
    }
    client
        .stop_machine(app, &id, &StopMachine::default())
        .await?;
    client
        .wait_machine(app, &id, &until(MachineState::Stopped))
        .await?;
    acknowledged.end = End::Asked;
    client.destroy_machine(app, &id, false).await?;
    acknowledged.end = End::Acknowledged;
    client
        .wait_machine(app, &id, &until(MachineState::Destroyed))
        .await?;
    // What is recorded last is published before the daemon dies.
    for _ in 0..50 {
        client.machines(app, &MachineFilter::default()).await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Looks at what the daemon that was started again knows, and destroys it.
async fn judge(client: &Client, app: &AppName, acknowledged: &Acknowledged, point: &str) {
    let listed = client
        .machines(app, &MachineFilter::default())
        .await
        .unwrap();
    let listed = listed.machines;
    assert!(
        listed.len() <= 1,
        "{point}: one machine was asked for: {listed:#?}"
    );
    match (&acknowledged.created, &acknowledged.end) {
        (Some(id), End::NotAsked) => {
            assert_eq!(listed.len(), 1, "{point}: {id} was acknowledged");
            assert_eq!(listed[0].id, *id, "{point}");
        }
        // It may just be going.
        (_, End::Acknowledged) => assert!(
            listed
                .iter()
                .all(|machine| machine.state == MachineState::Destroying),
            "{point}: its end was acknowledged: {listed:#?}"
        ),
        (Some(_), End::Asked) | (None, End::NotAsked | End::Asked) => {}
    }
    for machine in listed {
        if machine.state == MachineState::Destroying {
            continue;
        }
        // Nothing that was begun hangs: it runs, or it rests.
        let settled = WaitQuery {
            until: WaitFor::Settled,
            ..until(MachineState::Started)
        };
        client
            .wait_machine(app, &machine.id, &settled)
            .await
            .unwrap();
        let now = client.machine(app, &machine.id).await.unwrap();
        let fine = matches!(
            now.state,
            MachineState::Started | MachineState::Suspended | MachineState::Stopped
        );
        assert!(fine, "{point}: {now:#?}");
        client
            .destroy_machine(app, &machine.id, true)
            .await
            .unwrap();
        wait(client, app, &machine.id, MachineState::Destroyed).await;
    }
}

/// A machine that was seen to run; or whether it was created, and what went wrong.
async fn run(
    client: &Client,
    app: &AppName,
    class: IsolationClass,
) -> Result<Machine, (Option<MachineId>, client::Error)> {
    let body = CreateMachine {
        config: MachineConfig {
            image: IMAGE.into(),
            isolation: Some(class),
            restart: Some(Restart {
                policy: RestartPolicy::No,
                max_retries: None,
            }),
            ..MachineConfig::default()
        },
        ..CreateMachine::default()
    };
    let created = client.create_machine(app, &body).await;
    let machine = created.map_err(|error| (None, error))?;
    let started = client
        .wait_machine(app, &machine.id, &until(MachineState::Started))
        .await;
    match started {
        Ok(_) => Ok(machine),
        Err(error) => Err((Some(machine.id), error)),
    }
}

fn until(state: MachineState) -> WaitQuery {
    let mut query = WaitQuery::state(state);
    query.until = WaitFor::States(vec![state]);
    query
}

async fn wait(client: &Client, app: &AppName, id: &MachineId, state: MachineState) {
    if let Err(error) = client.wait_machine(app, id, &until(state)).await {
        let events = client.events(app, id, 50).await;
        panic!("machine {id} is not {state}: {error}; {events:#?}");
    }
}

async fn app(client: &Client) -> AppName {
    let body = CreateApp {
        name: "web".into(),
        org_slug: "personal".into(),
        ..CreateApp::default()
    };
    client.create_app(&body).await.unwrap().name
}

fn is_offered(host: &Host, class: IsolationClass) -> bool {
    let output = host.aerostat(&["doctor", "-o", "json"]).output().unwrap();
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let name = format!("class {class}");
    checks
        .iter()
        .any(|c| c["name"] == name.as_str() && c["verdict"] == "ok")
}

/// Processes of a host's machines with a word in their command line.
fn processes_of(host: &Host, word: &str) -> Vec<(Pid, String)> {
    let folder = host.folder().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let command = command_line(&entry.path());
        // A VMM names no path of the host's; its working directory or its parent does.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let id = format!("aerostat-{}", host.id());
        let is_ours = [&command, &environment]
            .iter()
            .any(|text| text.contains(&folder))
            || cgroup.contains(&id);
        if is_ours && command.contains(word) {
            found.push((Pid::from_raw(pid), command));
        }
    }
    found
}

/// What a host has in the kernel and on disk, without process ids.
#[derive(Debug)]
struct Inventory(BTreeSet<String>);

impl Inventory {
    fn take(host: &Host, before: &Snapshot) -> Self {
        let mut found: BTreeSet<String> = Snapshot::take()
            .since(before, host)
            .into_iter()
            // Those of other hosts' machines do not tell whose they are.
            .filter(|thing| !thing.starts_with("process "))
            .collect();
        let processes = processes_of(host, "");
        found.extend(
            processes
                .into_iter()
                .map(|(_, command)| format!("process {command}")),
        );
        for part in ["run/machines", "data/machines"] {
            list(&host.folder().join(part), &mut found);
        }
        Self(found)
    }

    fn beyond(&self, clean: &Self) -> Vec<String> {
        self.0.difference(&clean.0).cloned().collect()
    }
}

/// Everything directly in a directory: one entry for each machine.
fn list(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        found.insert(format!("file {}", entry.path().display()));
    }
}
