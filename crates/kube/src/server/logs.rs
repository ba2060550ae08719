//! `pods/<name>/log`: chunks as they come.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use hyper::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::body::{self, Body};
use super::query::Query;
use super::{Server, pods, respond};
use crate::object;
use crate::status::Status;
use crate::streams::LogQuery;
use crate::time;

pub(super) async fn handle(
    server: &Arc<Server>,
    pod: &Value,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let log = parse(pod, query)?;
    let limit = query.number("limitBytes")?;
    if object::text(pod, &["spec", "nodeName"]).is_empty() {
        // Upstream has nowhere to ask yet, and answers with nothing.
        return Ok(respond::text(StatusCode::OK, ""));
    }
    let chunks = server.streams.logs(pod, log).await?;
    let mut stopping = server.stopping.clone();
    let stopped = async move { super::stopped(&mut stopping).await };
    let chunks = limited(chunks, limit).take_until(Box::pin(stopped));
    let mut response = respond::text(StatusCode::OK, "");
    *response.body_mut() = body::stream(chunks);
    Ok(response)
}

pub(super) fn parse(pod: &Value, query: &Query) -> Result<LogQuery, Status> {
    let container = pods::container(pod, query.get("container"))?;
    let since_seconds = query.number("sinceSeconds")?;
    let since_time = query.get("sinceTime");
    let since = match (since_seconds, since_time) {
        (None, "") => None,
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 2);
            Timestamp::now()
                .checked_sub(SignedDuration::from_secs(seconds))
                .ok()
        }
        (None, text) => Some(time::parse(text).ok_or_else(|| {
            Status::bad_request(format!("sinceTime: Invalid value: {text:?}: not a time"))
        })?),
    };
    Ok(LogQuery {
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        since,
    })
}

/// At most `limit` bytes of the chunks.
fn limited(
    chunks: crate::streams::LogStream,
    limit: Option<u64>,
) -> impl futures::Stream<Item = Result<Bytes, Status>> + Send {
    let left = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    chunks.scan(left, |left, chunk| {
        let taken = if *left == 0 {
            None
        } else {
            Some(chunk.map(|chunk| chunk.slice(..chunk.len().min(*left))))
        };
        if let Some(Ok(chunk)) = &taken {
            *left -= chunk.len();
        }
        futures::future::ready(taken)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_cuts_the_log_in_the_middle_of_a_chunk() {
        let chunks = ["abc", "def", "ghi"].map(|text| Ok(Bytes::from_static(text.as_bytes())));
        let chunks = futures::stream::iter(chunks).boxed();
        let taken: Vec<_> = limited(chunks, Some(4)).collect().await;
        let text: Vec<_> = taken.into_iter().flatten().collect();
        assert_eq!(text.concat(), b"abcd");
    }
}
