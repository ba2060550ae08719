//! Response bodies: whole, or a stream of chunks that are flushed one by one.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use crate::status::Status;

pub(super) type Body = UnsyncBoxBody<Bytes, Status>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Each item is sent as soon as it is there: hyper flushes when a body has nothing more to give.
pub(super) fn stream(chunks: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}
