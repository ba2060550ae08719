//! The life of a volume: written in a machine of one class, read in one of the other, larger after
//! a restart, as it was in a snapshot, and never in two machines.

use client::{Client, WaitQuery};
use testbed::{Host, Snapshot, skip};
use types::api::{CreateApp, CreateMachine, Exec, StopMachine};
use types::machine::{ContainerState, Machine, MachineConfig, MachineState, Mount};
use types::volume::{CreateVolume, VolumeState};
use types::{AppName, IsolationClass, VolumeId};

const IMAGE: &str = "localhost/hello:1";
const TEST: &str = "life_of_a_volume";

#[test]
fn life_of_a_volume() {
    let before = Snapshot::take();
    let host = Host::new();
    host.up();
    let doctor = host.aerostat(&["doctor", "-o", "json"]).output().unwrap();
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).unwrap();
    let offers = |class: &IsolationClass| {
        let name = format!("class {class}");
        let offered = checks
            .iter()
            .any(|c| c["name"] == name && c["verdict"] == "ok");
        if !offered {
            skip(TEST, &format!("{name} is not offered here"));
        }
        offered
    };
    let classes = [IsolationClass::Container, IsolationClass::Emulated];
    let classes: Vec<_> = classes.into_iter().filter(offers).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(live(&host, &classes));
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

async fn live(host: &Host, classes: &[IsolationClass]) {
    let client = host.client();
    let app = CreateApp {
        name: "db".into(),
        org_slug: "personal".into(),
        ..CreateApp::default()
    };
    let app = client.create_app(&app).await.unwrap().name;
    let volume = create(&client, &app, named("data")).await;
    let mut text = "nothing".to_owned();
    for class in classes {
        let machine = run(&client, &app, *class, &volume).await;
        if text != "nothing" {
            assert_eq!(sh(&client, &app, &machine, "cat /data/mark").await, text);
        }
        let next = format!("written in {class}");
        sh(
            &client,
            &app,
            &machine,
            &format!("echo -n '{next}' >/data/mark; sync"),
        )
        .await;
        text = next;

        let body = machine_of(*class, &volume);
        let second = client.create_machine(&app, &body).await.unwrap_err();
        assert_eq!(second.status(), Some(409), "{second}");
        let kept = client.delete_volume(&app, &volume).await.unwrap_err();
        assert_eq!(kept.status(), Some(409), "{kept}");

        // It grows in the machine, and keeps what it holds.
        let size_gb = client.volume(&app, &volume).await.unwrap().size_gb + 1;
        let extended = client.extend_volume(&app, &volume, size_gb).await.unwrap();
        let inside = "cat /data/mark; echo; df -k /data | tail -1 | awk '{print $2}'";
        match extended.needs_restart {
            false => is_grown(&sh(&client, &app, &machine, inside).await, &text, size_gb),
            // ext4 grows in place for those with CAP_SYS_RESOURCE.
            true => skip(
                TEST,
                &format!("a volume does not grow in use, in class {class}"),
            ),
        }
        host.kill_daemon();
        host.up();
        let client = host.client();
        stop(&client, &app, &machine).await;
        client.start_machine(&app, &machine.id).await.unwrap();
        started(&client, &app, &machine).await;
        is_grown(&sh(&client, &app, &machine, inside).await, &text, size_gb);

        // A copy of what it holds now, which what comes later does not change.
        stop(&client, &app, &machine).await;
        let snapshot = client.create_snapshot(&app, &volume).await.unwrap();
        client.start_machine(&app, &machine.id).await.unwrap();
        started(&client, &app, &machine).await;
        sh(&client, &app, &machine, "echo -n later >/data/mark; sync").await;
        let restore = CreateVolume {
            snapshot_id: Some(snapshot.id),
            ..named("restored")
        };
        let restored = create(&client, &app, restore).await;
        let other = run(&client, &app, *class, &restored).await;
        assert_eq!(sh(&client, &app, &other, "cat /data/mark").await, text);
        assert_eq!(sh(&client, &app, &machine, "cat /data/mark").await, "later");
        text = "later".into();
        for machine in [&other, &machine] {
            client
                .destroy_machine(&app, &machine.id, true)
                .await
                .unwrap();
            wait(&client, &app, machine, MachineState::Destroyed).await;
        }
        client.delete_volume(&app, &restored).await.unwrap();
    }
    let listed = host.json(&["volume", "list", "--app", "db"]).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    host.client().delete_app(&app, true).await.unwrap();
    let left = std::fs::read_dir(host.folder().join("data/volumes")).unwrap();
    assert_eq!(left.count(), 0);
}

fn is_grown(seen: &str, text: &str, size_gb: u64) {
    let (mark, kib) = seen.trim().split_once('\n').unwrap();
    assert_eq!(mark, text);
    let kib: u64 = kib.trim().parse().unwrap();
    assert!(kib > (size_gb << 20) * 9 / 10, "{kib} KiB of {size_gb} GB");
}

fn named(name: &str) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        ..CreateVolume::default()
    }
}

async fn create(client: &Client, app: &AppName, body: CreateVolume) -> VolumeId {
    let volume = client.create_volume(app, &body).await.unwrap();
    assert_eq!(volume.state, VolumeState::Created);
    volume.id
}

fn machine_of(class: IsolationClass, volume: &VolumeId) -> CreateMachine {
    let mount = Mount {
        volume: volume.to_string(),
        path: "/data".into(),
        ..Mount::default()
    };
    CreateMachine {
        config: MachineConfig {
            image: IMAGE.into(),
            isolation: Some(class),
            mounts: vec![mount],
            ..MachineConfig::default()
        },
        ..CreateMachine::default()
    }
}

async fn run(client: &Client, app: &AppName, class: IsolationClass, volume: &VolumeId) -> Machine {
    let body = machine_of(class, volume);
    let machine = client.create_machine(app, &body).await.unwrap();
    started(client, app, &machine).await;
    machine
}

async fn started(client: &Client, app: &AppName, machine: &Machine) {
    wait(client, app, machine, MachineState::Started).await;
    // The guest is ready before its containers have started.
    loop {
        let machine = client.machine(app, &machine.id).await.unwrap();
        assert_eq!(machine.state, MachineState::Started, "{machine:#?}");
        let mut containers = machine.containers.iter();
        if containers.all(|c| c.state == ContainerState::Started) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn stop(client: &Client, app: &AppName, machine: &Machine) {
    let stop = StopMachine::default();
    client.stop_machine(app, &machine.id, &stop).await.unwrap();
    wait(client, app, machine, MachineState::Stopped).await;
}

async fn wait(client: &Client, app: &AppName, machine: &Machine, state: MachineState) {
    let waited = client
        .wait_machine(app, &machine.id, &WaitQuery::state(state))
        .await;
    if let Err(error) = waited {
        let machine = client.machine(app, &machine.id).await;
        panic!("{error}: {machine:#?}");
    }
}

async fn sh(client: &Client, app: &AppName, machine: &Machine, script: &str) -> String {
    let exec = Exec {
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..Exec::default()
    };
    let answer = client.exec(app, &machine.id, &exec).await.unwrap();
    assert_eq!(answer.exit_code, 0, "{script}: {answer:?}");
    answer.stdout
}
