//! The host's end of the protocol: one [`Connection`] to a guest, and the streams on it.
//!
//! The readers' `next` must not be dropped half-way (a frame would be lost): give each its own
//! task, or keep the future across `select!`.

mod ask;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use types::api::TerminalSize;
use types::guest::{
    ExecEnd, ExecRequest, Frame, FrameKind, GuestMessage, HostMessage, LogChunk, Malformed, Open,
    Resume, VERSION,
};

use super::mux::{Lease, Opener, Stream};
use super::{
    DATA_BYTES_MAX, SMALL_FRAME_BYTES_MAX, WireError, read_frame, version_is_supported, write_frame,
};

/// A connection to a guest; clones share it. It is closed when the last clone and the last of its
/// streams are dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    opener: Opener,
}

impl Connection {
    /// Takes over the transport. Spawns a task, so a tokio runtime must be there.
    pub fn new<T>(transport: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self {
            opener: Opener::start(transport),
        }
    }

    /// Opens the control stream and waits for the guest's `Hello`, which comes when the guest has
    /// booted: whoever cannot wait for ever needs a deadline around this.
    ///
    /// # Errors
    /// If the connection fails, or the guest speaks another version.
    pub async fn control(&self) -> Result<(ControlSender, ControlReceiver), WireError> {
        self.open_control(None).await
    }

    /// [`Self::control`] of a guest that was suspended: it tells the state of everything.
    ///
    /// # Errors
    /// If the connection fails, or the guest speaks another version.
    pub async fn control_again(
        &self,
        resume: Resume,
    ) -> Result<(ControlSender, ControlReceiver), WireError> {
        self.open_control(Some(resume)).await
    }

    async fn open_control(
        &self,
        resume: Option<Resume>,
    ) -> Result<(ControlSender, ControlReceiver), WireError> {
        let open = Open::Control {
            // As the protocol says: the oldest that this host is content with.
            version: VERSION - 1,
            resume,
        };
        let (reader, writer, lease) = self.open(&open).await?;
        let sender = ControlSender { writer };
        let mut receiver = ControlReceiver {
            reader,
            _lease: lease,
        };
        match receiver.next().await? {
            Some(FromGuest::Message(GuestMessage::Hello { version })) => {
                if version_is_supported(version) {
                    Ok((sender, receiver))
                } else {
                    Err(WireError::Version { version })
                }
            }
            Some(FromGuest::Message(
                GuestMessage::Refused { .. }
                | GuestMessage::Ready
                | GuestMessage::Container(_)
                | GuestMessage::Health(_)
                | GuestMessage::Exited { .. },
            )) => Err(WireError::Unexpected {
                kind: FrameKind::Message,
            }),
            Some(FromGuest::Log(_)) => Err(WireError::Unexpected {
                kind: FrameKind::Log,
            }),
            None => Err(WireError::Closed),
        }
    }

    /// Runs a process beside a container's own.
    ///
    /// # Errors
    /// If no stream can be opened. That the process cannot be run is told by
    /// [`ExecEnd::Failed`] on the stream.
    pub async fn exec(&self, request: ExecRequest) -> Result<(Input, Output), WireError> {
        self.streams(&Open::Exec(request)).await
    }

    /// Connects to the standard streams of a container's main process.
    ///
    /// # Errors
    /// If no stream can be opened.
    pub async fn attach(&self, container: &str) -> Result<(Input, Output), WireError> {
        let container = container.to_owned();
        self.streams(&Open::Attach { container }).await
    }

    /// Asks the guest something that every guest has an answer to, and returns when it came.
    ///
    /// # Errors
    /// If no stream can be opened, or it fails.
    pub async fn answers(&self) -> Result<(), WireError> {
        let (mut reader, _writer, _lease) = self.open(&Open::Statistics).await?;
        let answer = read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await;
        answer.map(drop)
    }

    /// Ends the connection with all of its streams; processes on them are hung up. Returns when the
    /// transport was dropped.
    pub async fn close(&self) {
        self.opener.close().await;
    }

    /// Returns when the connection is gone.
    pub async fn closed(&self) {
        self.opener.closed().await;
    }

    async fn streams(&self, open: &Open) -> Result<(Input, Output), WireError> {
        let (reader, writer, lease) = self.open(open).await?;
        let output = Output {
            reader,
            _lease: lease,
        };
        Ok((Input { writer }, output))
    }

    async fn open(
        &self,
        open: &Open,
    ) -> Result<(ReadHalf<Stream>, WriteHalf<Stream>, Lease), WireError> {
        let (stream, lease) = self.opener.open().await?;
        let (reader, mut writer) = tokio::io::split(stream);
        write_frame(&mut writer, &Frame::message(open)).await?;
        Ok((reader, writer, lease))
    }
}

/// Host to guest, on the control stream.
#[derive(Debug)]
pub struct ControlSender {
    writer: WriteHalf<Stream>,
}

impl ControlSender {
    /// # Errors
    /// If the connection is gone, or the message is longer than a frame may be.
    pub async fn send(&mut self, message: &HostMessage) -> Result<(), WireError> {
        write_frame(&mut self.writer, &Frame::message(message)).await
    }

    /// Says that nothing follows. The guest then writes no more on the control stream and closes
    /// it, so whoever hears the [`ControlReceiver`] out has lost nothing: what the guest has to say
    /// waits for the next control stream. For a machine that is about to be suspended.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn finish(mut self) -> Result<(), WireError> {
        let closed = self.writer.shutdown().await;
        closed.map_err(|source| WireError::Write { source })
    }
}

/// Guest to host, on the control stream.
#[derive(Debug)]
pub struct ControlReceiver {
    reader: ReadHalf<Stream>,
    _lease: Lease,
}

/// What a guest says on its control stream.
#[derive(Debug, Clone, PartialEq)]
pub enum FromGuest {
    Message(GuestMessage),
    Log(LogChunk),
}

impl FromGuest {
    /// # Errors
    /// If the frame is neither a message nor a log chunk.
    pub fn parse(frame: &Frame) -> Result<Self, WireError> {
        let malformed = |source| WireError::Malformed { source };
        match frame.kind {
            FrameKind::Message => frame.parse().map(Self::Message).map_err(malformed),
            FrameKind::Log => LogChunk::from_frame(frame)
                .map(Self::Log)
                .ok_or(malformed(Malformed::Unexpected(FrameKind::Log))),
            kind @ (FrameKind::Stdin
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::CloseStdin
            | FrameKind::Resize) => Err(WireError::Unexpected { kind }),
        }
    }
}

impl ControlReceiver {
    /// The next message or log chunk; `None` when the guest has closed the stream.
    ///
    /// # Errors
    /// If the connection is gone, or the guest does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<FromGuest>, WireError> {
        let frame = read_frame(&mut self.reader, SMALL_FRAME_BYTES_MAX).await?;
        frame.map(|frame| FromGuest::parse(&frame)).transpose()
    }
}

/// Host to a process in the guest. Dropping input and output ends an exec.
#[derive(Debug)]
pub struct Input {
    writer: WriteHalf<Stream>,
}

impl Input {
    /// Writes to the process's standard input, waiting for room.
    ///
    /// # Errors
    /// If the stream is gone.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for piece in bytes.chunks(DATA_BYTES_MAX) {
            write_frame(&mut self.writer, &Frame::data(FrameKind::Stdin, piece)).await?;
        }
        Ok(())
    }

    /// No more standard input.
    ///
    /// # Errors
    /// If the stream is gone.
    pub async fn close_stdin(&mut self) -> Result<(), WireError> {
        write_frame(&mut self.writer, &Frame::data(FrameKind::CloseStdin, [])).await
    }

    /// # Errors
    /// If the stream is gone.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), WireError> {
        write_frame(&mut self.writer, &Frame::resize(size)).await
    }

    /// Ends the stream: an exec'd process is killed.
    pub async fn hang_up(mut self) {
        let _ = self.writer.shutdown().await;
    }
}

/// A process in the guest to the host.
#[derive(Debug)]
pub struct Output {
    reader: ReadHalf<Stream>,
    _lease: Lease,
}

/// What comes from a process in the guest.
#[derive(Debug, Clone, PartialEq)]
pub enum FromProcess {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Last.
    End(ExecEnd),
}

impl FromProcess {
    /// # Errors
    /// If the frame is neither output nor the end.
    pub fn parse(frame: Frame) -> Result<Self, WireError> {
        match frame.kind {
            FrameKind::Stdout => Ok(Self::Stdout(frame.payload.into())),
            FrameKind::Stderr => Ok(Self::Stderr(frame.payload.into())),
            FrameKind::Message => {
                let end = frame.parse().map(Self::End);
                end.map_err(|source| WireError::Malformed { source })
            }
            kind @ (FrameKind::Stdin
            | FrameKind::CloseStdin
            | FrameKind::Resize
            | FrameKind::Log) => Err(WireError::Unexpected { kind }),
        }
    }
}

impl Output {
    /// The next piece of output, or the end. `None` if the guest closed the stream without one.
    ///
    /// # Errors
    /// If the connection is gone, or the guest does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<FromProcess>, WireError> {
        let frame = read_frame(&mut self.reader, SMALL_FRAME_BYTES_MAX).await?;
        frame.map(FromProcess::parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::mux::{Accepted, Acceptor};

    /// A guest that answers every stream with these frames and closes it.
    fn guest(answer: Vec<Frame>) -> Connection {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let mut acceptor = Acceptor::new(theirs);
            while let Accepted::Stream(mut stream) = acceptor.next().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let open = read_frame(&mut stream, SMALL_FRAME_BYTES_MAX).await;
                    open.unwrap().unwrap().parse::<Open>().unwrap();
                    for frame in &answer {
                        write_frame(&mut stream, frame).await.unwrap();
                    }
                    stream.shutdown().await.unwrap();
                });
            }
        });
        Connection::new(ours)
    }

    fn hello(version: u16) -> Frame {
        Frame::message(&GuestMessage::Hello { version })
    }

    #[tokio::test]
    async fn the_control_stream_begins_with_a_hello_and_carries_messages_and_logs() {
        let log = LogChunk {
            container: "a".into(),
            run: 0,
            stderr: false,
            unix_ns: 1,
            bytes: b"x\n".to_vec(),
        };
        let ready = Frame::message(&GuestMessage::Ready);
        let connection = guest(vec![hello(VERSION), ready, log.to_frame()]);
        let (_sender, mut receiver) = connection.control().await.unwrap();
        let next = receiver.next().await.unwrap();
        assert_eq!(next, Some(FromGuest::Message(GuestMessage::Ready)));
        assert_eq!(receiver.next().await.unwrap(), Some(FromGuest::Log(log)));
        assert_eq!(receiver.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_guest_of_another_version_or_without_manners_is_refused() {
        let error = guest(vec![hello(VERSION + 1)]).control().await.unwrap_err();
        assert!(matches!(error, WireError::Version { .. }), "{error}");
        for answer in [
            Frame::data(FrameKind::Stdin, *b"x"),
            Frame::message(&GuestMessage::Ready),
        ] {
            let error = guest(vec![answer]).control().await.unwrap_err();
            assert!(matches!(error, WireError::Unexpected { .. }), "{error}");
        }
        let error = guest(Vec::new()).control().await.unwrap_err();
        assert!(matches!(error, WireError::Closed), "{error}");
    }

    #[tokio::test]
    async fn output_arrives_in_order_and_ends_with_the_end() {
        let end = ExecEnd::Exited { exit_code: 7 };
        let connection = guest(vec![
            Frame::data(FrameKind::Stdout, *b"out"),
            Frame::data(FrameKind::Stderr, *b"err"),
            Frame::message(&end),
        ]);
        let (_input, mut output) = connection.attach("a").await.unwrap();
        drop(connection);
        let mut all = Vec::new();
        while let Some(piece) = output.next().await.unwrap() {
            all.push(piece);
        }
        let expected = [
            FromProcess::Stdout(Bytes::from_static(b"out")),
            FromProcess::Stderr(Bytes::from_static(b"err")),
            FromProcess::End(end),
        ];
        assert_eq!(all, expected);
    }

    #[tokio::test]
    async fn opening_more_streams_than_the_bound_is_an_error_and_harms_no_other() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let mut acceptor = Acceptor::new(theirs);
            let mut streams = Vec::new();
            while let Accepted::Stream(stream) = acceptor.next().await {
                streams.push(stream);
            }
        });
        let connection = Connection::new(ours);
        let mut open = Vec::new();
        let error = loop {
            match connection.attach("a").await {
                Ok(streams) => open.push(streams),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, WireError::Busy), "{error}");
        open[0].0.stdin(b"still there").await.unwrap();
        open.pop();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while connection.attach("a").await.is_err() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_guest_that_goes_away_ends_every_stream() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let connection = Connection::new(ours);
        let (_input, mut output) = connection.attach("a").await.unwrap();
        drop(theirs);
        assert!(matches!(output.next().await, Ok(None) | Err(_)));
        connection.closed().await;
        assert!(connection.attach("a").await.is_err());
    }
}
