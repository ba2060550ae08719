//! A watch of an app's machines: newline-delimited JSON that goes on until one side has enough.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures::Stream;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep};
use types::AppName;
use types::api::WatchEvent;

use crate::transport::Call;
use crate::{Client, Error};

/// The server sends a bookmark at least every 30 s. After three of them have failed to come, there
/// is nobody on the other side.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// One machine with its configuration; the API takes no body above 4 MiB.
const LINE_BYTES_MAX: usize = 8 << 20;

/// What happens to the machines of an app. Ends with `None` when the server has closed it, for
/// example because this side read too slowly: watch again from the last revision seen, and list
/// again if that is [`Error::Gone`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    lines: Lines,
}

impl Client {
    /// Watches the machines of `app` after revision `from`, or from now on beginning with every
    /// machine as it is.
    ///
    /// # Errors
    /// [`Error::Gone`] when what happened after `from` is no longer kept.
    pub async fn watch(&self, app: &AppName, from: Option<u64>) -> Result<Watch, Error> {
        self.watch_call(Call::get(format!("/v1/apps/{app}/watch")), from)
            .await
    }

    pub(crate) async fn watch_call(&self, call: Call, from: Option<u64>) -> Result<Watch, Error> {
        let call = call.query_if("from", from);
        let response = self.open(&call).await?;
        match (response.status().as_u16(), from) {
            (410, Some(from)) => return Err(Error::Gone { from }),
            (200, _) => {}
            _ => return Err(self.refusal(&call, response).await),
        }
        Ok(Watch {
            client: self.clone(),
            lines: Lines::new(response.into_body()),
        })
    }
}

impl Watch {
    /// The next event. May be dropped at any point; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = ready!(self.lines.poll_line(context));
        Poll::Ready(line.map(|line| parse(&self.client, "the watch", line)))
    }
}

/// Reads one line of `what` as a `T`.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    client: &Client,
    what: &str,
    line: Result<BytesMut, Broken>,
) -> Result<T, Error> {
    let unreadable = |source| Error::Answer {
        request: what.to_owned(),
        address: client.address(),
        source,
    };
    match line {
        Ok(line) => serde_json::from_slice(&line).map_err(|source| unreadable(source.into())),
        Err(Broken::Silent) => Err(client.timed_out(SILENCE_MAX)),
        Err(Broken::TooLong) => Err(unreadable("a line has no end".into())),
        Err(Broken::Connection(source)) => Err(Error::Broken {
            address: client.address(),
            source,
        }),
    }
}

/// Why there are no more lines.
#[derive(Debug)]
pub(crate) enum Broken {
    Silent,
    TooLong,
    Connection(hyper::Error),
}

/// Lines of a body. After the end or an error it stays at the end.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Option<Incoming>,
    buffer: BytesMut,
    silence: Pin<Box<Sleep>>,
}

impl Lines {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body: Some(body),
            buffer: BytesMut::new(),
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<BytesMut, Broken>> {
        poll_fn(|context| self.poll_line(context)).await
    }

    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<BytesMut, Broken>>> {
        loop {
            if let Some(line) = take_line(&mut self.buffer) {
                return Poll::Ready(Some(Ok(line)));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return self.end(Some(Broken::TooLong));
            }
            let Some(body) = self.body.as_mut() else {
                return Poll::Ready(None);
            };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(source))) => {
                    return self.end(Some(Broken::Connection(source)));
                }
                Poll::Ready(None) => return self.end(None),
                Poll::Pending => {
                    ready!(Future::poll(self.silence.as_mut(), context));
                    return self.end(Some(Broken::Silent));
                }
            }
        }
    }

    fn end<T>(&mut self, why: Option<Broken>) -> Poll<Option<Result<T, Broken>>> {
        self.body = None;
        // Half a line is no line.
        self.buffer.clear();
        Poll::Ready(why.map(Err))
    }
}

fn take_line(buffer: &mut BytesMut) -> Option<BytesMut> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let mut line = buffer.split_to(end + 1);
    line.truncate(end);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole() {
        let mut buffer = BytesMut::from(&b"ab\n\nc"[..]);
        assert_eq!(take_line(&mut buffer).unwrap(), b"ab"[..]);
        assert_eq!(take_line(&mut buffer).unwrap(), b""[..]);
        assert_eq!(take_line(&mut buffer), None);
        assert_eq!(buffer, b"c"[..]);
    }
}
