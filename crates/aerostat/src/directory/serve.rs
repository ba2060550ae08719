//! What the authority answers to the copies.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::stream;
use store::Watch;
use tokio_util::sync::CancellationToken;

use super::command::{Command, permit};
use super::rows::{JOIN_TOKENS, PREFIX, Rows};
use super::wire::{self, Answer, Failure, From, Line, LookUp};
use super::{Error, Handle, Refused, Side};
use crate::rpc::{self, Caller};

/// The largest command is a service: its specification, which the Machines API bounds at 4 MiB.
const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Three of these fit into the silence after which a copy lets go.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Rows in one piece of an answer.
const PIECE_ROWS: usize = 64;

/// Answers other hosts: commands, look-ups and watches. `stop` ends the watches. A copy answers
/// look-ups from what it has, and refuses the rest.
pub fn router(handle: Handle, stop: CancellationToken) -> Router {
    Router::new()
        .route(wire::COMMAND, post(command))
        .route(wire::LOOK_UP, post(look_up))
        .route(wire::WATCH, post(watch))
        .layer(DefaultBodyLimit::max(COMMAND_BYTES_MAX))
        .with_state((handle, stop))
}

type Served = State<(Handle, CancellationToken)>;

async fn command(
    State((handle, _)): Served,
    Caller(by): Caller,
    Json(command): Json<Command>,
) -> rpc::Answer<Answer> {
    let failed = |error| match error {
        Error::Refused(refused) => Failure::Refused(refused),
        Error::Write { .. }
        | Error::Unreachable { .. }
        | Error::Failed { .. }
        | Error::Busy { .. } => Failure::Failed(types::chain(&error).to_string()),
    };
    let performed = async {
        let Side::Authority(writer) = &handle.inner.side else {
            return Err(Refused::AuthorityOnly.into());
        };
        permit(by, &command)?;
        writer.perform(command).await
    };
    rpc::Answer(performed.await.map_err(failed))
}

async fn look_up(
    State((handle, _)): Served,
    _: Caller,
    Json(LookUp { key }): Json<LookUp>,
) -> rpc::Answer<Option<String>> {
    let entry = is_copied(&key).then(|| handle.inner.rows.0.get(&key));
    let value = entry.flatten().map(|entry| text(&entry.value));
    rpc::Answer(value)
}

/// Whether other hosts see this row.
fn is_copied(key: &str) -> bool {
    key.starts_with(PREFIX) && !key.starts_with(JOIN_TOKENS)
}

/// Rows are JSON.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

async fn watch(State((handle, stop)): Served, _: Caller, Json(from): Json<From>) -> Response {
    let Side::Authority(writer) = &handle.inner.side else {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    };
    let Some(teller) = Teller::new(handle.inner.rows.clone(), writer.epoch, from, stop) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let pieces = stream::unfold(teller, async |mut teller| {
        let piece = teller.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), teller))
    });
    Body::from_stream(pieces).into_response()
}

/// Tells one copy what it does not know.
struct Teller {
    /// Said before anything is waited for.
    first: VecDeque<Line>,
    watch: Watch,
    stop: CancellationToken,
}

impl Teller {
    fn new(rows: Rows, epoch: u64, from: From, stop: CancellationToken) -> Option<Self> {
        let known = (from.epoch == epoch).then(|| rows.0.watch(PREFIX, from.revision).ok());
        let everything = false;
        if let Some(watch) = known.flatten() {
            let start = Line::Start { epoch, everything };
            // What came since is told with the first changes; this says that nothing is missing.
            let first = VecDeque::from([start]);
            return Some(Self { first, watch, stop });
        }
        let range = rows.0.range(PREFIX, None, usize::MAX, None).ok()?;
        let watch = rows.0.watch(PREFIX, range.rev).ok()?;
        let everything = true;
        let start = Line::Start { epoch, everything };
        let rows = range.entries.iter().filter(|(key, _)| is_copied(key));
        let rows = rows.map(|(key, entry)| Line::Row {
            key: key.to_string(),
            value: Some(text(&entry.value)),
        });
        let revision = range.rev;
        let reached = Line::Reached { revision };
        let first = [start].into_iter().chain(rows).chain([reached]).collect();
        Some(Self { first, watch, stop })
    }

    /// The next piece; `None` at the end: the copy comes again with where it is.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.first.is_empty() {
            let rows = self.first.len().min(PIECE_ROWS);
            return Some(piece(self.first.drain(..rows)));
        }
        let heard = tokio::select! {
            heard = tokio::time::timeout(HEARTBEAT, self.watch.next()) => heard,
            () = self.stop.cancelled() => return None,
        };
        let events = match heard {
            Ok(events) => events.ok()?,
            Err(_) => Vec::new(),
        };
        let revision = self.watch.position();
        let rows = events.into_iter().filter(|event| is_copied(&event.key));
        let rows = rows.map(|event| Line::Row {
            key: event.key.to_string(),
            value: event.after.map(|entry| text(&entry.value)),
        });
        Some(piece(rows.chain([Line::Reached { revision }])))
    }
}

fn piece(lines: impl Iterator<Item = Line>) -> Bytes {
    let mut bytes = Vec::new();
    for line in lines {
        // Our own type, whose members are numbers and text.
        serde_json::to_writer(&mut bytes, &line).expect("a line is JSON");
        bytes.push(b'\n');
    }
    bytes.into()
}
