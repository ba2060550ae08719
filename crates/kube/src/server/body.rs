//! Response bodies: whole, or a stream of chunks that are flushed one by one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

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

/// The same body, after whose end `over` is called, however it ends.
pub(super) fn until_over(inner: Body, over: impl FnOnce() + Send + Unpin + 'static) -> Body {
    let over = Some(over);
    UntilOver { over, inner }.boxed_unsync()
}

struct UntilOver<F: FnOnce()> {
    /// Called when this is dropped.
    over: Option<F>,
    inner: Body,
}

impl<F: FnOnce() + Unpin> HttpBody for UntilOver<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<F: FnOnce()> Drop for UntilOver<F> {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            over();
        }
    }
}
