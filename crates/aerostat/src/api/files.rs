//! `…/machines/{id}/files?path=&container=`: tar archives out of a container and into it.
//!
//! ```text
//!  GET  ◀── archive ── Io.output        a failure before the first byte is an ordinary error;
//!                                       a later one breaks the answer off
//!  PUT  ── archive ──▶ Io.input         the answer waits for the end on the other side
//! ```

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use types::api::Ok as Done;
use types::guest::ExecEnd;
use vmm::{Copy, Input, Io, Output};

use super::Api;
use super::error::ApiError;
use super::extract::{Query, Target};

pub(super) const TAR: &str = "application/x-tar";
/// Far below the largest frame of the protocol with the guest.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// Of what the packing side says about a failure.
const REASON_BYTES_MAX: usize = 4 << 10;

/// Which file or directory of which container.
fn place(query: &Query) -> Result<(String, String), ApiError> {
    let path = query.get("path").unwrap_or_default();
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ApiError::bad(
            "path must be an absolute path in the container".into(),
        ));
    }
    let container = query.get("container").unwrap_or_default();
    Ok((container.to_owned(), path.to_owned()))
}

/// `GET …/files`
pub(super) async fn get(
    State(api): State<Api>,
    target: Target,
    query: Query,
) -> Result<Response, ApiError> {
    let (container, path) = place(&query)?;
    let copy = Copy::OutOf { container, path };
    let io = api.deps.worker.copy(&target.id, copy).await?;
    // Nobody listening: the other side has ended, and its output says how.
    let _ = io.input.send(Input::CloseStdin).await;
    let mut packed = Packed {
        output: io.output,
        _input: io.input,
        said: Vec::new(),
    };
    let Some(first) = packed.next().await.transpose()? else {
        return Ok(([(CONTENT_TYPE, TAR)], Body::empty()).into_response());
    };
    let rest = stream::unfold(Some(packed), async |packed| {
        let mut packed = packed?;
        match packed.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(packed))),
            Err(error) => {
                tracing::debug!(%error, "a copy out of a machine broke off");
                Some((Err(std::io::Error::other(error)), None))
            }
        }
    });
    let pieces = stream::once(async { Ok(first) }).chain(rest);
    Ok(([(CONTENT_TYPE, TAR)], Body::from_stream(pieces)).into_response())
}

/// An archive as it is packed.
struct Packed {
    output: mpsc::Receiver<Output>,
    /// While this is there, the packing goes on.
    _input: mpsc::Sender<Input>,
    said: Vec<u8>,
}

impl Packed {
    /// The next piece; `None` after the whole archive.
    async fn next(&mut self) -> Option<Result<Bytes, ApiError>> {
        loop {
            match self.output.recv().await {
                Some(Output::Stdout(bytes)) if !bytes.is_empty() => return Some(Ok(bytes)),
                Some(Output::Stdout(_)) => {}
                Some(Output::Stderr(bytes)) => note(&mut self.said, &bytes),
                Some(Output::End(end)) => return ended(end, &self.said).err().map(Err),
                None => return Some(Err(gone())),
            }
        }
    }
}

/// `PUT …/files`
pub(super) async fn put(
    State(api): State<Api>,
    target: Target,
    query: Query,
    request: Request,
) -> Result<Json<Done>, ApiError> {
    let (container, path) = place(&query)?;
    let copy = Copy::Into { container, path };
    let Io { input, mut output } = api.deps.worker.copy(&target.id, copy).await?;
    let feed = feed(request.into_body(), input);
    let mut feed = std::pin::pin!(feed);
    let mut is_fed = false;
    let mut said = Vec::new();
    loop {
        // Neither branch loses anything: the feed stays where it is, and so does the channel.
        tokio::select! {
            fed = &mut feed, if !is_fed => {
                fed?;
                is_fed = true;
            }
            next = output.recv() => match next {
                Some(Output::Stdout(_)) => {}
                Some(Output::Stderr(bytes)) => note(&mut said, &bytes),
                Some(Output::End(end)) => {
                    ended(end, &said)?;
                    return Ok(Json(Done { ok: true }));
                }
                None => return Err(gone()),
            },
        }
    }
}

/// Hands the archive on. Who has broken off in the middle sends no end after it, so that what lies
/// there is not taken for the whole.
async fn feed(body: Body, input: mpsc::Sender<Input>) -> Result<(), ApiError> {
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let mut piece =
            piece.map_err(|_| ApiError::bad("the archive broke off before its end".into()))?;
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(PIECE_BYTES_MAX));
            if input.send(Input::Stdin(part)).await.is_err() {
                // The other side has ended; how, its output says.
                return Ok(());
            }
        }
    }
    let _ = input.send(Input::CloseStdin).await;
    // Dropping the input would be a hang-up to a side that still writes.
    input.closed().await;
    Ok(())
}

fn note(said: &mut Vec<u8>, bytes: &[u8]) {
    let room = REASON_BYTES_MAX.saturating_sub(said.len());
    said.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn ended(end: ExecEnd, said: &[u8]) -> Result<(), ApiError> {
    let said = String::from_utf8_lossy(said).trim().to_owned();
    match end {
        ExecEnd::Exited { exit_code: 0 } => Ok(()),
        ExecEnd::Exited { exit_code } if said.is_empty() => Err(ApiError::CopyFailed {
            reason: format!("it ended with code {exit_code}"),
        }),
        ExecEnd::Exited { .. } => Err(ApiError::CopyFailed { reason: said }),
        ExecEnd::Failed { reason } => Err(ApiError::CopyFailed { reason }),
    }
}

fn gone() -> ApiError {
    let reason = "the machine ended meanwhile".into();
    ApiError::CopyFailed { reason }
}
