//! yamux connections, each driven by one task or by the loop that accepts its streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, Mode};

use super::WireError;

/// Streams that a host opens to one guest at a time: the control stream, execs and attachments.
const HOST_STREAMS_MAX: usize = 64;

/// Bound of yamux itself, which ends the whole connection beyond it: there is room for streams that
/// one side has dropped and the other not yet.
const YAMUX_STREAMS_MAX: usize = 4 * HOST_STREAMS_MAX;

/// For a good-bye on a transport that may be stuck.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests to open a stream that wait for the driver, which never waits for long.
const OPENS_MAX: usize = 16;

/// A stream of a connection, for tokio.
pub(crate) type Stream = Compat<yamux::Stream>;

fn config() -> Config {
    let mut config = Config::default();
    config.set_max_num_streams(YAMUX_STREAMS_MAX);
    // No window grows beyond yamux's default.
    let window_bytes = YAMUX_STREAMS_MAX * yamux::DEFAULT_CREDIT as usize;
    config.set_max_connection_receive_window(Some(window_bytes));
    config
}

type Opened = oneshot::Sender<Result<yamux::Stream, ConnectionError>>;

/// Opens streams. The connection is closed when all clones are gone.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    opens: mpsc::Sender<Opened>,
    streams: Arc<Semaphore>,
    over: CancellationToken,
}

/// Keeps the connection and the place of a stream among the open ones.
#[derive(Debug)]
pub(super) struct Lease {
    _opener: Opener,
    _place: OwnedSemaphorePermit,
}

impl Opener {
    /// Takes over `transport` and drives it in a task.
    pub(super) fn start<T>(transport: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (opens, requests) = mpsc::channel(OPENS_MAX);
        let connection = Connection::new(transport.compat(), config(), Mode::Client);
        let over = CancellationToken::new();
        tokio::spawn(drive(connection, requests, over.clone()));
        Self {
            opens,
            over,
            streams: Arc::new(Semaphore::new(HOST_STREAMS_MAX)),
        }
    }

    pub(super) async fn open(&self) -> Result<(Stream, Lease), WireError> {
        let place = self.streams.clone().try_acquire_owned();
        let place = place.map_err(|_| WireError::Busy)?;
        let (reply, opened) = oneshot::channel();
        let sent = self.opens.send(reply).await;
        sent.map_err(|_| WireError::Closed)?;
        let stream = opened.await.map_err(|_| WireError::Closed)?;
        let stream = stream.map_err(|source| WireError::Open { source })?;
        let lease = Lease {
            _opener: self.clone(),
            _place: place,
        };
        Ok((stream.compat(), lease))
    }

    /// Ends the connection with all of its streams, and returns when it has let go of the
    /// transport.
    pub(super) async fn close(&self) {
        self.over.cancel();
        self.opens.closed().await;
    }

    /// Returns when the connection is gone.
    pub(super) async fn closed(&self) {
        self.opens.closed().await;
    }
}

/// Drives the host's end until it fails, the guest closes it, it is closed, or nobody uses it any
/// more.
async fn drive<T>(
    mut connection: Connection<Compat<T>>,
    mut requests: mpsc::Receiver<Opened>,
    over: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut pending: Option<Opened> = None;
    let unused = poll_fn(|cx| {
        loop {
            // First, so that places of dropped streams are free before others are opened.
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    tracing::warn!(stream = %stream.id(), "guest opened a stream; closing");
                    return Poll::Ready(false);
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "guest connection failed");
                    return Poll::Ready(false);
                }
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending => {}
            }
            let request = match pending.take() {
                Some(request) => request,
                None => match ready!(requests.poll_recv(cx)) {
                    Some(request) => request,
                    None => return Poll::Ready(true),
                },
            };
            match connection.poll_new_outbound(cx) {
                // Whoever asked may have gone; the stream is reset then.
                Poll::Ready(result) => drop(request.send(result)),
                Poll::Pending => {
                    pending = Some(request);
                    return Poll::Pending;
                }
            }
        }
    });
    let is_ours = tokio::select! {
        is_unused = unused => is_unused,
        () = over.cancelled() => true,
    };
    if is_ours {
        // The peer learns of the end through this; that it has gone itself, or takes nothing, is no
        // matter.
        let closed = poll_fn(|cx| connection.poll_close(cx));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    }
    // Whoever waits for the requests' end knows that the transport is gone.
    drop(connection);
    drop(requests);
}

/// The guest's end: accepts streams. It makes progress only while somebody calls `next`.
pub(crate) struct Acceptor<T> {
    connection: Connection<Compat<T>>,
}

/// What happened on the guest's end.
pub(crate) enum Accepted {
    Stream(Stream),
    /// The host closed the connection, or it failed.
    Closed(Option<ConnectionError>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Acceptor<T> {
    pub(crate) fn new(transport: T) -> Self {
        let connection = Connection::new(transport.compat(), config(), Mode::Server);
        Self { connection }
    }

    /// The next stream. May be dropped at any point.
    pub(crate) async fn next(&mut self) -> Accepted {
        match poll_fn(|cx| self.connection.poll_next_inbound(cx)).await {
            Some(Ok(stream)) => Accepted::Stream(stream.compat()),
            Some(Err(error)) => Accepted::Closed(Some(error)),
            None => Accepted::Closed(None),
        }
    }

    /// Sends what is still under way and says good-bye.
    pub(crate) async fn close(&mut self) {
        let _ = poll_fn(|cx| self.connection.poll_close(cx)).await;
    }
}
