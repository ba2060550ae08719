//! A Machines API for tests: machines are rows in memory that do what the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use client::Client;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use types::api::{CreateMachine, REVISION_HEADER, WatchEvent};
use types::fleet::{HostStatus, MeshPeer, MeshStatus};
use types::machine::{
    ContainerState, ContainerStatus, ExitEvent, ImageIdentity, Machine, MachineState,
};
use types::{HostId, IsolationClass, MachineId};

/// The rows, and what was asked of them.
#[derive(Debug)]
pub(super) struct Fake {
    rows: Mutex<Rows>,
    revision: watch::Sender<u64>,
    folder: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct Rows {
    machines: BTreeMap<MachineId, Machine>,
    app_exists: bool,
    /// Every new machine is refused with this.
    refusal: Option<Value>,
    /// Machines whose host does not answer.
    unanswered: BTreeSet<MachineId>,
    /// What the region says that its hosts have.
    region: Value,
    /// What the mesh says of the other hosts.
    peers: Vec<MeshPeer>,
    /// Requests about those.
    attempts: usize,
}

/// Another host of which no more is known than this.
pub(super) fn mesh_peer(number: u16, status: HostStatus, word_age_s: Option<f64>) -> MeshPeer {
    MeshPeer {
        id: HostId::new(number),
        name: format!("host-{number}"),
        status,
        endpoint: None,
        handshake_age_s: None,
        tx_bytes: 0,
        rx_bytes: 0,
        loss_percent: None,
        round_trip_ms: None,
        word_age_s,
    }
}

impl Fake {
    pub(super) fn start() -> Arc<Self> {
        let fake = Arc::new(Self {
            rows: Mutex::default(),
            revision: watch::Sender::new(1),
            folder: tempfile::tempdir().unwrap(),
        });
        let machine = "/v1/apps/kubernetes/machines/{id}";
        let router = Router::new()
            .route("/v1/platform/regions", get(regions))
            .route("/v1/mesh", get(mesh))
            .route("/v1/apps", post(create_app))
            .route("/v1/apps/kubernetes", get(app))
            .route("/v1/apps/kubernetes/machines", get(list).post(create))
            .route("/v1/apps/kubernetes/watch", get(watch_machines))
            .route(machine, get(show).delete(destroy))
            .route(&format!("{machine}/start"), post(start))
            .route(&format!("{machine}/stop"), post(stop))
            .with_state(Arc::clone(&fake));
        let listener = tokio::net::UnixListener::bind(fake.socket()).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub(super) fn client(&self) -> Client {
        Client::unix(self.socket())
    }

    pub(super) fn refuse(&self, refusal: Option<Value>) {
        self.rows.lock().unwrap().refusal = refusal;
    }

    pub(super) fn machines(&self) -> Vec<Machine> {
        let rows = self.rows.lock().unwrap();
        rows.machines
            .values()
            .filter(|m| m.state != MachineState::Destroyed)
            .cloned()
            .collect()
    }

    pub(super) fn change(&self, id: &MachineId, change: impl FnOnce(&mut Machine)) {
        let revision = *self.revision.borrow() + 1;
        if let Some(machine) = self.rows.lock().unwrap().machines.get_mut(id) {
            change(machine);
            machine.revision = revision;
            machine.updated_at = Timestamp::now();
        }
        self.revision.send_replace(revision);
    }

    /// Its containers run.
    pub(super) fn boot(&self, id: &MachineId) {
        self.change(id, |machine| {
            machine.state = MachineState::Started;
            for container in &mut machine.containers {
                container.state = ContainerState::Started;
                container.started_at = Some(Timestamp::now());
                container.image_ref.digest = "sha256:aa".into();
            }
        });
    }

    /// Its host answers no more, or again. The catalog knows.
    pub(super) fn set_host(&self, id: &MachineId, status: HostStatus) {
        self.set_answers(id, status == HostStatus::Ok);
        self.change(id, |machine| machine.host_status = status.as_str().into());
    }

    /// Its host answers no more, or again. The catalog does not know.
    pub(super) fn set_answers(&self, id: &MachineId, answers: bool) {
        let mut rows = self.rows.lock().unwrap();
        if answers {
            rows.unanswered.remove(id);
        } else {
            rows.unanswered.insert(id.clone());
        }
    }

    pub(super) fn set_region(&self, region: Value) {
        self.rows.lock().unwrap().region = region;
    }

    /// The other hosts have these statuses, and were last heard of so long ago, in seconds.
    pub(super) fn set_peers(&self, peers: &[(HostStatus, f64)]) {
        let peer = |(number, (status, age)): (u16, &_)| mesh_peer(number, *status, Some(*age));
        self.rows.lock().unwrap().peers = (3..).zip(peers).map(peer).collect();
    }

    /// Another host had made a machine of the same name before this one.
    pub(super) fn double(&self, id: &MachineId) -> MachineId {
        let mut rows = self.rows.lock().unwrap();
        let mut other = rows.machines[id].clone();
        other.id = MachineId::from_bits(4000);
        other.created_at -= jiff::SignedDuration::from_secs(5);
        let id = other.id.clone();
        rows.machines.insert(id.clone(), other);
        drop(rows);
        self.change(&id, |_| {});
        id
    }

    /// How often a host was asked that did not answer.
    pub(super) fn attempts(&self) -> usize {
        self.rows.lock().unwrap().attempts
    }

    fn unanswered(&self, id: &MachineId) -> Option<Response> {
        let mut rows = self.rows.lock().unwrap();
        if !rows.unanswered.contains(id) {
            return None;
        }
        rows.attempts += 1;
        Some(refused(StatusCode::SERVICE_UNAVAILABLE, "host_unreachable"))
    }

    /// It ends, and its containers with this code.
    pub(super) fn end(&self, id: &MachineId, code: i32) {
        self.change(id, |machine| {
            machine.state = MachineState::Stopped;
            for container in &mut machine.containers {
                container.state = ContainerState::Stopped;
                container.exit_event = Some(ExitEvent {
                    exit_code: code,
                    exited_at: Timestamp::now(),
                    ..ExitEvent::default()
                });
            }
        });
    }
}

type Shared = State<Arc<Fake>>;

fn the_app() -> Json<Value> {
    Json(
        json!({"id": "a", "name": "kubernetes", "machine_count": 0, "volume_count": 0,
        "network": "kubernetes", "network_id": 7, "status": "deployed",
        "organization": {"name": "x", "slug": "x"}, "created_at": "2026-01-01T00:00:00Z"}),
    )
}

fn refused(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({"error": code, "status": code}))).into_response()
}

async fn regions(State(fake): Shared) -> Json<Value> {
    let mut region = json!({"code": "local", "name": "Local", "latitude": 0.0, "longitude": 0.0,
        "gateway_available": true, "requires_paid_plan": false, "deprecated": false});
    let known = fake.rows.lock().unwrap().region.clone();
    for (key, value) in known.as_object().into_iter().flatten() {
        region[key] = value.clone();
    }
    Json(json!({"nearest": "local", "regions": [region]}))
}

async fn mesh(State(fake): Shared) -> Json<MeshStatus> {
    Json(MeshStatus {
        host: HostId::new(2),
        public_key: String::new(),
        port: 1,
        peers: fake.rows.lock().unwrap().peers.clone(),
        drops: BTreeMap::new(),
    })
}

async fn create_app(State(fake): Shared) -> Json<Value> {
    fake.rows.lock().unwrap().app_exists = true;
    the_app()
}

async fn app(State(fake): Shared) -> Response {
    if fake.rows.lock().unwrap().app_exists {
        the_app().into_response()
    } else {
        refused(StatusCode::NOT_FOUND, "not_found")
    }
}

async fn list(State(fake): Shared) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(REVISION_HEADER, (*fake.revision.borrow()).into());
    (headers, Json(fake.machines())).into_response()
}

async fn show(State(fake): Shared, Path(id): Path<MachineId>) -> Response {
    match fake.rows.lock().unwrap().machines.get(&id) {
        Some(machine) => Json(machine).into_response(),
        None => refused(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn create(State(fake): Shared, Json(body): Json<CreateMachine>) -> Response {
    if let Some(refusal) = fake.rows.lock().unwrap().refusal.clone() {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response();
    }
    if fake
        .machines()
        .iter()
        .any(|machine| machine.name == body.name)
    {
        return refused(StatusCode::CONFLICT, "already_exists");
    }
    let containers = body
        .config
        .containers
        .iter()
        .map(|container| ContainerStatus {
            name: container.name.clone(),
            state: ContainerState::Created,
            image_ref: ImageIdentity::default(),
            restart_count: 0,
            started_at: None,
            exit_event: None,
            last_exit: None,
            message: String::new(),
        });
    let version: types::VersionId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let number = fake.rows.lock().unwrap().machines.len() as u64 + 1;
    let machine = Machine {
        id: MachineId::from_bits(number),
        name: body.name,
        state: MachineState::Starting,
        region: body.region,
        instance_id: version.clone(),
        version,
        private_ip: format!("fdaa:0:7:a7b:2:0:{number}:2"),
        created_at: Timestamp::now(),
        updated_at: Timestamp::now(),
        containers: containers.collect(),
        config: body.config,
        image_ref: ImageIdentity::default(),
        events: Vec::new(),
        checks: Vec::new(),
        nonce: None,
        host_status: "ok".into(),
        cordoned: false,
        creation_key: None,
        isolation: IsolationClass::Container,
        revision: 0,
    };
    let id = machine.id.clone();
    fake.rows
        .lock()
        .unwrap()
        .machines
        .insert(id.clone(), machine);
    fake.change(&id, |_| {});
    let machine = fake.rows.lock().unwrap().machines[&id].clone();
    Json(machine).into_response()
}

async fn start(State(fake): Shared, Path(id): Path<MachineId>) -> Response {
    fake.unanswered(&id).unwrap_or_else(|| {
        fake.boot(&id);
        let answer = json!({"previous_state": "stopped", "migrated": false, "new_host": ""});
        Json(answer).into_response()
    })
}

async fn stop(State(fake): Shared, Path(id): Path<MachineId>) -> Response {
    fake.unanswered(&id).unwrap_or_else(|| {
        fake.end(&id, 143);
        Json(json!({"ok": true})).into_response()
    })
}

async fn destroy(State(fake): Shared, Path(id): Path<MachineId>) -> Response {
    fake.unanswered(&id).unwrap_or_else(|| {
        fake.change(&id, |machine| machine.state = MachineState::Destroyed);
        Json(json!({"ok": true})).into_response()
    })
}

/// Sends every machine that is newer than what was sent before, each time something changes.
async fn watch_machines(
    State(fake): Shared,
    Query(query): Query<BTreeMap<String, u64>>,
) -> Response {
    let from = query.get("from").copied().unwrap_or(0);
    let changes = fake.revision.subscribe();
    let lines = futures::stream::unfold(
        (fake, changes, from),
        |(fake, mut changes, sent)| async move {
            let now = *changes.wait_for(|now| *now > sent).await.ok()?;
            let mut machines: Vec<Machine> = fake
                .rows
                .lock()
                .unwrap()
                .machines
                .values()
                .cloned()
                .collect();
            machines.retain(|machine| machine.revision > sent);
            machines.sort_by_key(|machine| machine.revision);
            let events = machines.into_iter().map(|machine| WatchEvent::Machine {
                revision: machine.revision,
                machine: Box::new(machine),
                app_name: None,
            });
            let lines = events.map(|event| serde_json::to_string(&event).unwrap() + "\n");
            Some((
                Ok::<_, std::io::Error>(lines.collect::<String>()),
                (fake, changes, now),
            ))
        },
    );
    Body::from_stream(lines.boxed()).into_response()
}
