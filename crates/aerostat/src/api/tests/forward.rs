//! Two hosts: whatever is asked of one for a machine of the other is done.

use std::time::{Duration, Instant};

use client::{ExecInput, ExecOutput, ExecParams, WaitQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use types::api::{CreateMachine, Exec, ExecStatus, LogQuery, StopMachine};
use types::fleet::HostStatus;
use types::machine::{Machine, MachineState};
use types::{AppName, HostId};

use super::fixture::{Fleet, Server, body};
use crate::rpc::API_PORT;

struct Two {
    fleet: Fleet,
    here: Server,
    there: Server,
    app: AppName,
}

async fn two() -> Two {
    let fleet = Fleet::default();
    let here = fleet.host(2, "local").await;
    let there = fleet.host(3, "fra").await;
    fleet.tell(&here, &there);
    fleet.tell(&there, &here);
    let app = here.app("web").await;
    Two {
        fleet,
        here,
        there,
        app,
    }
}

impl Two {
    /// A machine of the other host, created through this one, that runs.
    async fn elsewhere(&self, name: &str) -> Machine {
        let body = CreateMachine {
            region: "fra".into(),
            ..body(name)
        };
        let client = &self.here.client;
        let machine = client.create_machine(&self.app, &body).await.unwrap();
        self.reached(&machine, MachineState::Started).await;
        machine
    }

    async fn reached(&self, machine: &Machine, state: MachineState) {
        let (client, wanted) = (&self.here.client, WaitQuery::state(state));
        let waited = client.wait_machine(&self.app, &machine.id, &wanted).await;
        waited.unwrap();
    }

    /// A request over the host plane of `here`, from a host.
    async fn as_host(&self, path: &str, header: Option<(&str, &str)>, body: &str) -> (u16, Value) {
        let mut request = hyper::Request::post(path).header("host", "aerostat");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let rpc = self.fleet.loopback.rpc(HostId::new(9));
        let limit = Duration::from_secs(10);
        let response = rpc
            .request(self.here.host, API_PORT, request, limit)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

#[tokio::test]
async fn a_machine_of_another_host_lives_through_this_one() {
    let two = two().await;
    let (client, app) = (&two.here.client, &two.app);
    let machine = two.elsewhere("one").await;
    let id = &machine.id;
    assert_eq!(machine.region, "fra");
    assert!(
        machine.private_ip.contains(":a7b:3:"),
        "{}",
        machine.private_ip
    );
    assert_eq!(client.machine(app, id).await.unwrap().name, "one");
    let echo = Exec {
        command: vec!["cat".into()],
        stdin: Some("hello".into()),
        ..Exec::default()
    };
    assert_eq!(client.exec(app, id, &echo).await.unwrap().stdout, "hello");
    let events = client.events(app, id, 50).await.unwrap();
    assert_eq!(events.last().unwrap().kind, "launch");
    client
        .stop_machine(app, id, &StopMachine::default())
        .await
        .unwrap();
    two.reached(&machine, MachineState::Stopped).await;
    // The answer waits for the catalog: a wait for `started` would end at once if the machine were
    // still seen as stopped.
    client.start_machine(app, id).await.unwrap();
    two.reached(&machine, MachineState::Started).await;
    let path = format!("/v1/apps/web/machines/{id}/lease");
    let (status, lease) = two.here.ask("POST", &path, r#"{"ttl": 30}"#).await;
    assert_eq!(status, 201, "{lease}");
    let held = client.destroy_machine(app, id, true).await.unwrap_err();
    assert_eq!(held.status(), Some(409), "{held}");
    let nonce = lease["data"]["nonce"].as_str().unwrap();
    let path = format!("/v1/apps/web/machines/{id}?force=true");
    assert_eq!(two.here.ask_with(nonce, "DELETE", &path, "").await.0, 200);
    two.reached(&machine, MachineState::Destroyed).await;
}

#[tokio::test]
async fn streams_go_through() {
    let two = two().await;
    let id = two.elsewhere("one").await.id;
    let (client, app) = (&two.here.client, &two.app);
    let params = ExecParams {
        command: vec!["cat".into()],
        stdin: true,
        ..ExecParams::default()
    };
    let exec = client.exec_stream(app, &id, &params).await.unwrap();
    let attach = client.attach(app, &id, &params).await.unwrap();
    for mut io in [exec, attach] {
        for text in ["hello", "again"] {
            io.input.send(ExecInput::Stdin(text.into())).await.unwrap();
            assert_eq!(
                io.output.recv().await,
                Some(ExecOutput::Stdout(text.into()))
            );
        }
        io.input.send(ExecInput::CloseStdin).await.unwrap();
        let exited = ExecOutput::End(ExecStatus::Exited { exit_code: 0 });
        assert_eq!(io.output.recv().await, Some(exited));
    }
    let nothing = ExecParams {
        container: Some("nothing".into()),
        ..params
    };
    let refused = client.exec_stream(app, &id, &nothing).await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused}");
    client.logs(app, &id, &LogQuery::default()).await.unwrap();
    drop(two.there.drain.finish(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn what_only_hosts_may_say_counts_for_nothing_from_others() {
    let two = two().await;
    let id = two.elsewhere("one").await.id;
    let claims = "aerostat-forwarded: 0003\r\naerostat-reservation: 01ARZ3NDEKTSV4RRFFQ69G5FAV\r\n";
    let path = format!("/v1/apps/web/machines/{id}/stop");
    let (status, answer) = two.here.send("POST", &path, claims, "{}").await;
    assert_eq!(status, 200, "{answer}");
    let body = r#"{"name":"two","config":{"image":"localhost/hello:1"}}"#;
    let path = "/v1/apps/web/machines";
    let (status, answer) = two.here.send("POST", path, claims, body).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_host_creates_only_with_a_reservation() {
    let two = two().await;
    let (path, body) = ("/v1/apps/web/machines", r#"{"config":{"image":"x"}}"#);
    let (status, answer) = two.as_host(path, None, body).await;
    assert_eq!(
        (status, &answer["status"]),
        (400, &json!("invalid_argument"))
    );
    let made_up = Some(("aerostat-reservation", "01ARZ3NDEKTSV4RRFFQ69G5FAV"));
    let (status, answer) = two.as_host(path, made_up, body).await;
    assert_eq!(
        (status, &answer["status"]),
        (503, &json!("reservation_expired"))
    );
}

#[tokio::test]
async fn what_came_from_a_host_is_never_sent_on() {
    let two = two().await;
    let id = two.elsewhere("one").await.id;
    let path = format!("/v1/apps/web/machines/{id}/stop");
    let (status, answer) = two.as_host(&path, None, "{}").await;
    assert_eq!(
        (status, &answer["error"]),
        (404, &json!("machine not found"))
    );
    let machine = two.there.client.machine(&two.app, &id).await.unwrap();
    assert_eq!(machine.state, MachineState::Started);
}

#[tokio::test]
async fn who_is_no_host_is_not_let_in_where_hosts_come_in() {
    let two = two().await;
    let mut stream = tokio::net::TcpStream::connect(two.here.host_plane)
        .await
        .unwrap();
    let mut answer = String::new();
    // Closed, or reset.
    let _ = stream.read_to_string(&mut answer).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn a_silent_owner_is_told_in_time() {
    let two = two().await;
    let id = two.elsewhere("one").await.id;
    two.fleet.loopback.silence(two.there.host);
    let begun = Instant::now();
    let path = format!("/v1/apps/web/machines/{id}/stop");
    let (status, answer) = two.here.ask("POST", &path, "{}").await;
    assert_eq!(
        (status, &answer["status"]),
        (504, &json!("host_unreachable"))
    );
    assert_eq!(answer["details"]["retryable"], true);
    let text = answer["error"].as_str().unwrap();
    assert!(text.starts_with("host 0003 cannot be reached: "), "{text}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    // What the catalog knows can still be read.
    let get = two.here.client.machine(&two.app, &id).await.unwrap();
    assert_eq!(get.name, "one");
    two.here
        .catalog
        .set_host_status(two.there.host, HostStatus::Unreachable);
    let begun = Instant::now();
    let get = two.here.client.machine(&two.app, &id).await.unwrap();
    assert_eq!(get.host_status, "unreachable");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_name_is_unique_over_hosts_and_machines_spread_over_them() {
    let two = two().await;
    let machine = two.elsewhere("one").await;
    let again = two.here.client.create_machine(&two.app, &body("one")).await;
    let refused = again.unwrap_err();
    assert_eq!(refused.code(), Some("already_exists"), "{refused}");
    let ensured = two
        .here
        .client
        .ensure_machine(&two.app, &body("one"))
        .await
        .unwrap();
    assert_eq!(ensured.id, machine.id);
    let names = ["a", "b", "c", "d", "e"];
    let created = names.map(|name| two.here.machine(&two.app, name));
    let created = futures::future::join_all(created).await;
    let elsewhere = created.iter().filter(|machine| machine.region == "fra");
    // Three on each, with the first.
    assert_eq!(elsewhere.count(), 2);
}

#[tokio::test]
async fn an_app_is_deleted_on_every_host() {
    let two = two().await;
    let machine = two.elsewhere("one").await;
    two.here.machine(&two.app, "two").await;
    two.here.client.delete_app(&two.app, true).await.unwrap();
    let wait = async {
        while two.there.catalog.get(&machine.id).unwrap().machine.state != MachineState::Destroyed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn regions_tell_what_their_hosts_have() {
    let two = two().await;
    let third = two.fleet.host(4, "fra").await;
    let regions = third.client.regions().await.unwrap();
    assert_eq!(regions.nearest, "fra");
    let told: Vec<_> = regions
        .regions
        .iter()
        .map(|region| {
            (
                region.code.as_str(),
                region.hosts,
                region.capacity.unwrap().cpus,
            )
        })
        .collect();
    assert_eq!(told, [("fra", Some(2), 8), ("local", Some(1), 4)]);
    let elsewhere = CreateMachine {
        region: "mars".into(),
        ..body("one")
    };
    let refused = third
        .client
        .create_machine(&two.app, &elsewhere)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(422), Some("region_unknown"))
    );
    assert!(refused.to_string().contains("`fra`, `local`"), "{refused}");
}
