//! The audit log: who did what, as lines of JSON (`audit.k8s.io/v1 Event`).
//!
//! ```text
//! request ── policy: how much ── verb ── events ── bounded channel ── writer's thread ── file
//! ```
//!
//! Requests do not wait for it. When the disk is slower than they are for long, events are lost,
//! counted, and the count is logged. Bodies of Secrets and of whatever holds a token are never
//! written, whatever the policy says.

mod event;
mod file;
mod policy;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

use super::admit::Connection;
use super::auth::Call;
use super::body::{self, Body};
use crate::api::Notes;
use crate::identity::User;

use event::{About, Event};
use policy::{Level, Policy, Stage, Verdict};

/// Events on their way to the disk; a few megabytes at most, but for those with bodies.
const EVENTS_MAX: usize = 4096;
const MIB: u64 = 1024 * 1024;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const AUDIT_ID_BYTES_MAX: usize = 64;
const AGENT_BYTES_MAX: usize = 1024;

/// Where the audit log goes, and how much it tells.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub path: PathBuf,
    /// A file with an `audit.k8s.io/v1 Policy`, in YAML or JSON. None: the metadata of every
    /// request, once it is done.
    pub policy_file: Option<PathBuf>,
    /// The file is put aside when it has this size.
    pub size_mib_max: u64,
    /// How many files put aside are kept.
    pub backups_max: usize,
}

impl AuditConfig {
    /// Ten files of a hundred megabytes, as upstream's examples have it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            policy_file: None,
            size_mib_max: 100,
            backups_max: 10,
        }
    }
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("cannot open the audit log {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the audit policy {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not an audit.k8s.io/v1 Policy")]
    Policy { path: PathBuf },
    #[error("cannot start the writer of the audit log")]
    Thread { source: io::Error },
}

/// Takes events; clones share the file.
#[derive(Debug, Clone)]
pub struct Audit {
    policy: Arc<Policy>,
    events: mpsc::Sender<Event>,
    lost: Lost,
}

/// Counts events for which there was no room.
#[derive(Debug, Clone, Default)]
struct Lost(Arc<AtomicU64>);

impl Lost {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Audit {
    /// Opens the log and starts the thread that writes it, which ends with the last clone.
    pub fn open(config: &AuditConfig) -> Result<Self, AuditError> {
        let policy = match &config.policy_file {
            None => Policy::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| AuditError::Read {
                    path: path.clone(),
                    source,
                })?;
                let parsed: Option<Value> = serde_saphyr::from_str(&text).ok();
                let policy = parsed.and_then(Policy::parse);
                policy.ok_or_else(|| AuditError::Policy { path: path.clone() })?
            }
        };
        let size = config.size_mib_max.saturating_mul(MIB);
        let log = file::Log::open(&config.path, size, config.backups_max);
        let log = log.map_err(|source| AuditError::Open {
            path: config.path.clone(),
            source,
        })?;
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let lost = Lost::default();
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("audit writer".into())
            .spawn(move || log.run(received, &counted))
            .map_err(|source| AuditError::Thread { source })?;
        Ok(Self {
            policy: Arc::new(policy),
            events,
            lost,
        })
    }

    fn send(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.lost.add();
        }
    }
}

/// The id of a request: what the client says, if it is short and plain, else a new one.
pub(super) fn id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok());
    given
        .filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Tells the client the id of its request.
pub(super) fn mark(mut response: Response<Body>, id: &str) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response
}

/// The body of a request, for events that show it; whoever decodes the body puts it in.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Option<Value>>>);

impl Recorder {
    pub(super) fn put(&self, object: &Value) {
        *self.lock() = Some(object.clone());
    }

    fn take(&self) -> Option<Value> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Value>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A request that is being told of.
pub(super) struct Record {
    audit: Audit,
    about: Arc<About>,
    omit: Vec<Stage>,
    notes: Notes,
    recorder: Recorder,
}

impl Record {
    /// Begins with what is known before it is asked whether the user may; `None` if the policy
    /// tells nothing of it.
    pub(super) fn begin(
        audit: &Audit,
        call: &Call,
        (id, uri, headers): (&str, &hyper::Uri, &HeaderMap),
        (user, acting): (&User, Option<&User>),
        from: &Connection,
        notes: &Notes,
    ) -> Option<Self> {
        let Verdict { level, omit } = audit.policy.verdict(user, &call.asked);
        if level == Level::None {
            return None;
        }
        let agent = headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let agent = agent.unwrap_or_default().chars().take(AGENT_BYTES_MAX);
        let target = call.target.as_ref();
        let about = About {
            id: id.to_owned(),
            level,
            // Over HTTP/2 it has scheme and host too, which upstream does not tell.
            uri: uri
                .path_and_query()
                .map_or_else(|| uri.to_string(), |path| path.as_str().to_owned()),
            user: user.clone(),
            acting: acting.cloned(),
            source: from.address.map(|address| address.ip().to_string()),
            agent: agent.collect(),
            asked: call.asked.clone(),
            version: target.map_or_else(String::new, |target| target.version.clone()),
            received: Timestamp::now(),
        };
        let record = Self {
            audit: audit.clone(),
            about: Arc::new(about),
            omit,
            notes: notes.clone(),
            recorder: Recorder::default(),
        };
        record.tell(Stage::RequestReceived, None, None);
        Some(record)
    }

    /// For the request's extensions, if its body is to be shown.
    pub(super) fn recorder(&self) -> Option<Recorder> {
        (self.about.level >= Level::Request).then(|| self.recorder.clone())
    }

    /// Tells of the answer: at once, or when its stream has ended.
    pub(super) async fn end(self, response: Response<Body>) -> Response<Body> {
        let code = response.status();
        let is_refusal = code.is_client_error() || code.is_server_error();
        let is_json = response.headers().get(CONTENT_TYPE);
        let is_json = is_json.is_some_and(|kind| kind.as_bytes() == b"application/json");
        if response.body().size_hint().exact().is_none() && code != StatusCode::SWITCHING_PROTOCOLS
        {
            self.tell(Stage::ResponseStarted, Some(code), None);
            let over = move || self.tell(Stage::ResponseComplete, Some(code), None);
            return response.map(|inner| body::until_over(inner, over));
        }
        let wants_body = self.about.level >= Level::RequestResponse || is_refusal;
        if !(wants_body && is_json) {
            self.tell(Stage::ResponseComplete, Some(code), None);
            return response;
        }
        // A body of known size is in memory already.
        let (parts, inner) = response.into_parts();
        let bytes = inner.collect().await.map(|body| body.to_bytes());
        let bytes = bytes.unwrap_or_default();
        self.tell(Stage::ResponseComplete, Some(code), Some(bytes.clone()));
        Response::from_parts(parts, body::full(bytes))
    }

    fn tell(&self, stage: Stage, code: Option<StatusCode>, response: Option<Bytes>) {
        if self.omit.contains(&stage) {
            return;
        }
        let is_end = stage == Stage::ResponseComplete;
        self.audit.send(Event {
            about: self.about.clone(),
            stage,
            at: Timestamp::now(),
            code: code.map(|code| code.as_u16()),
            request: is_end.then(|| self.recorder.take()).flatten(),
            response,
            annotations: self.notes.annotations(),
        });
    }
}
