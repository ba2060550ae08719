//! The life of a machine, in both classes that this test can have anywhere: created, reached by
//! address and name, kept from other networks, looked into, outliving its daemon, stopped,
//! destroyed, and nothing left.

use client::{Client, MachineFilter, WaitFor, WaitQuery};
use testbed::{Host, Snapshot, fail, skip, succeed};
use types::api::{CreateApp, CreateMachine, Exec, LogQuery, StopMachine};
use types::machine::{ContainerState, Machine, MachineConfig, MachineState};
use types::{AppName, IsolationClass, MachineId};

const IMAGE: &str = "localhost/hello:1";

#[test]
fn life_of_a_machine_in_class_container() {
    life_of_a_machine(IsolationClass::Container);
}

#[test]
fn life_of_a_machine_in_class_emulated() {
    life_of_a_machine(IsolationClass::Emulated);
}

fn life_of_a_machine(class: IsolationClass) {
    // One at a time: the snapshots are of the whole machine.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = Snapshot::take();
    let host = Host::new();
    host.up();
    let doctor = host.aerostat(&["doctor", "-o", "json"]).output().unwrap();
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).unwrap();
    let check = checks
        .iter()
        .find(|c| c["name"] == format!("class {class}"))
        .unwrap();
    if check["verdict"] != "ok" {
        return skip(
            &format!("life_of_a_machine in class {class}"),
            &check["detail"].to_string(),
        );
    }
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(live(&host, class));
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

async fn live(host: &Host, class: IsolationClass) {
    let client = host.client();
    let web = app(&client, "web", "").await;
    let other = app(&client, "other", "elsewhere").await;
    let server = run(&client, &web, class, "server").await;
    let peer = run(&client, &web, class, "peer").await;
    let stranger = run(&client, &other, class, "stranger").await;

    assert_eq!(server.isolation, class);
    assert!(
        server.private_ip.starts_with("fdaa:"),
        "{}",
        server.private_ip
    );
    let by_address = format!("http://[{}]:8080/", server.private_ip);
    assert!(fetched(&client, &web, &peer, &by_address).await.is_ok());
    let by_machine = format!("http://{}.vm.web.internal:8080/", server.id);
    assert!(fetched(&client, &web, &peer, &by_machine).await.is_ok());
    assert!(
        fetched(&client, &web, &peer, "http://web.internal:8080/")
            .await
            .is_ok()
    );

    // Another network neither reaches it nor knows its name.
    assert!(
        fetched(&client, &other, &stranger, &by_address)
            .await
            .is_err()
    );
    assert!(
        fetched(&client, &other, &stranger, &by_machine)
            .await
            .is_err()
    );

    look_inside(&client, &web, &server).await;
    outlive_the_daemon(host, &web, &server, &peer).await;
    let client = host.client();
    stop_and_start(&client, &web, &server).await;

    for (app, machine) in [(&web, &server), (&web, &peer), (&other, &stranger)] {
        client
            .destroy_machine(app, &machine.id, true)
            .await
            .unwrap();
        wait(&client, app, &machine.id, MachineState::Destroyed).await;
        let machine = client
            .machines(app, &MachineFilter::default())
            .await
            .unwrap();
        assert!(
            machine
                .machines
                .iter()
                .all(|m| m.state == MachineState::Destroyed)
                || app == &web
        );
    }
    assert!(
        client
            .machines(&web, &MachineFilter::default())
            .await
            .unwrap()
            .machines
            .is_empty()
    );
    client.delete_app(&web, false).await.unwrap();
    let gone = client.app(&web).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
}

async fn app(client: &Client, name: &str, network: &str) -> AppName {
    let body = CreateApp {
        name: name.into(),
        org_slug: "personal".into(),
        network: network.into(),
        ..CreateApp::default()
    };
    client.create_app(&body).await.unwrap().name
}

async fn run(client: &Client, app: &AppName, class: IsolationClass, name: &str) -> Machine {
    let body = CreateMachine {
        name: name.into(),
        config: MachineConfig {
            image: IMAGE.into(),
            isolation: Some(class),
            ..MachineConfig::default()
        },
        ..CreateMachine::default()
    };
    let machine = client.create_machine(app, &body).await.unwrap();
    wait(client, app, &machine.id, MachineState::Started).await;
    // The guest is ready before its containers have started.
    loop {
        let machine = client.machine(app, &machine.id).await.unwrap();
        assert_eq!(machine.state, MachineState::Started, "{machine:#?}");
        if machine
            .containers
            .iter()
            .all(|c| c.state == ContainerState::Started)
        {
            return machine;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn wait(client: &Client, app: &AppName, id: &MachineId, state: MachineState) {
    let mut query = WaitQuery::state(state);
    query.until = WaitFor::States(vec![state]);
    if let Err(error) = client.wait_machine(app, id, &query).await {
        let events = client.events(app, id, 50).await;
        panic!("machine {id} is not {state}: {error}; {events:#?}");
    }
}

async fn sh(client: &Client, app: &AppName, machine: &Machine, script: &str) -> (i32, String) {
    let body = Exec {
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        timeout: Some(50),
        ..Exec::default()
    };
    let answer = client.exec(app, &machine.id, &body).await.unwrap();
    (
        answer.exit_code,
        format!("{}{}", answer.stdout, answer.stderr),
    )
}

/// Fetches a page from inside `machine`; tries for a while, since a server that was started is
/// not yet one that listens.
async fn fetched(
    client: &Client,
    app: &AppName,
    machine: &Machine,
    url: &str,
) -> Result<String, String> {
    let script =
        format!("for i in 1 2 3 4; do timeout 3 wget -qO- {url} && exit 0; sleep 1; done; exit 1");
    match sh(client, app, machine, &script).await {
        (0, page) => Ok(page),
        (_, why) => Err(why),
    }
}

async fn look_inside(client: &Client, app: &AppName, machine: &Machine) {
    let (code, text) = sh(client, app, machine, "echo out; echo err >&2; exit 7").await;
    assert_eq!(code, 7);
    assert!(text.contains("out") && text.contains("err"), "{text}");
    let (_, address) = sh(client, app, machine, "ip -6 addr show dev eth0").await;
    assert!(address.contains(&machine.private_ip), "{address}");
    let (_, names) = sh(client, app, machine, "cat /etc/resolv.conf").await;
    assert!(names.contains("fdaa::3"), "{names}");

    // busybox's httpd logs each request to standard error.
    sh(
        client,
        app,
        machine,
        "wget -qO- http://[::1]:8080/ >/dev/null",
    )
    .await;
    let mut log = String::new();
    let mut lines = client
        .logs(app, &machine.id, &LogQuery::default())
        .await
        .unwrap();
    while let Some(line) = lines.recv().await {
        log.push_str(&String::from_utf8_lossy(&line.unwrap().bytes));
    }
    assert!(log.contains("8080") || log.contains("response"), "{log}");
}

/// The daemon is killed and comes back: the machine has noticed nothing.
async fn outlive_the_daemon(host: &Host, app: &AppName, machine: &Machine, peer: &Machine) {
    let uptime = "cut -d. -f1 /proc/uptime; cat /tmp/mark";
    let client = host.client();
    let (_, _) = sh(&client, app, machine, "echo before >/tmp/mark").await;
    host.kill_daemon();
    host.up();
    let client = host.client();
    let after = client.machine(app, &machine.id).await.unwrap();
    assert_eq!(after.state, MachineState::Started);
    assert_eq!(after.private_ip, machine.private_ip);
    assert_eq!(after.containers[0].state, ContainerState::Started);
    assert_eq!(
        after.containers[0].started_at,
        machine.containers[0].started_at
    );
    let (_, text) = sh(&client, app, machine, uptime).await;
    assert!(text.contains("before"), "{text}");
    let by_name = format!("http://{}.vm.web.internal:8080/", machine.id);
    assert!(fetched(&client, app, peer, &by_name).await.is_ok());
}

async fn stop_and_start(client: &Client, app: &AppName, machine: &Machine) {
    client
        .stop_machine(app, &machine.id, &StopMachine::default())
        .await
        .unwrap();
    wait(client, app, &machine.id, MachineState::Stopped).await;
    let events = client.events(app, &machine.id, 20).await.unwrap();
    let exit = events
        .iter()
        .find(|event| event.kind == "exit")
        .expect("an exit event");
    let exit = exit
        .request
        .as_ref()
        .and_then(|r| r.exit_event.as_ref())
        .expect("how it ended");
    assert!(exit.requested_stop, "{exit:?}");
    client.start_machine(app, &machine.id).await.unwrap();
    wait(client, app, &machine.id, MachineState::Started).await;
}

#[test]
fn bad_input_is_refused_with_the_next_thing_to_try() {
    let host = Host::new();
    host.up();
    // Twice is once.
    assert!(
        host.up()
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("export KUBECONFIG=")
    );
    let (code, text) = fail(&mut host.aerostat(&["machine", "run", "localhost/none:1"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("localhost/none:1"), "{text}");
    let (code, text) = fail(&mut host.aerostat(&["machine", "run", "--memroy", "1", "x"]));
    assert_eq!(code, 2, "{text}");
    let (code, _) = fail(&mut host.aerostat(&["machine", "run", "--memory", "99999999", IMAGE]));
    assert_eq!(code, 1);
    let (code, text) = fail(&mut host.aerostat(&["machine", "show", "nobody"]));
    assert_eq!(code, 1);
    assert!(text.contains("aerostat machine list"), "{text}");
    let names = succeed(&mut host.aerostat(&["image", "list", "-o", "name"]));
    assert_eq!(names.trim(), IMAGE);

    // A port that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let second = Host::new();
    std::fs::write(
        second.folder().join("aerostat.toml"),
        format!(
            "host_number = 4095\napi_listen = \"{port}\"\nkubernetes_listen = \"127.0.0.1:0\"\n"
        ),
    )
    .unwrap();
    let (code, text) = fail(&mut second.aerostat(&["up"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(&port.port().to_string()), "{text}");
}

#[test]
fn a_token_opens_the_api_over_tcp_and_nothing_else_does() {
    let host = Host::new();
    host.up();
    let (address, token) = host.api();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = format!("http://{address}");
        let client = Client::tcp(&url, token).unwrap();
        client.apps(None).await.unwrap();
        let stranger = Client::tcp(&url, "guess").unwrap();
        assert_eq!(stranger.apps(None).await.unwrap_err().status(), Some(401));
    });
    let exports = succeed(&mut host.aerostat(&["env"]));
    assert!(
        exports.contains(&format!("export FLY_FLAPS_BASE_URL=http://{address}")),
        "{exports}"
    );
}
