//! Frames on byte streams, and yamux under them.
//!
//! The peer is not trusted in either direction: a guest may be anybody's code, and a container
//! may have taken over its guest. Lengths are checked before memory is taken, the number of
//! streams is bounded, only the host opens streams, and an unexpected frame ends the stream.

pub mod fuzz;
pub mod host;
mod mux;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use types::guest::{Frame, FrameKind, HEADER_BYTES, Malformed, VERSION};

pub(crate) use mux::{Accepted, Acceptor, Stream};

/// Longest frame that either side takes, except for the host's messages on the control stream
/// ([`types::guest::FRAME_BYTES_MAX`]). Output and logs travel in pieces of 32 KiB.
pub const SMALL_FRAME_BYTES_MAX: usize = 256 << 10;

/// Bytes of output or input that travel in one frame.
pub const DATA_BYTES_MAX: usize = 32 << 10;

/// Why a stream of the protocol ended early.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("cannot read from guest protocol stream")]
    Read { source: io::Error },
    #[error("cannot write to guest protocol stream")]
    Write { source: io::Error },
    #[error("peer does not keep to the guest protocol")]
    Malformed { source: Malformed },
    #[error("peer sent a frame of kind {kind:?} where none is expected")]
    Unexpected { kind: FrameKind },
    #[error("peer speaks version {version} of the guest protocol and this side {VERSION}")]
    Version { version: u16 },
    #[error("cannot open a stream to the guest")]
    Open { source: yamux::ConnectionError },
    #[error("as many streams to the guest are open as may be")]
    Busy,
    #[error("connection to the guest is closed")]
    Closed,
    #[error("peer did not answer in time")]
    Silent,
    #[error("the guest cannot do that: {reason}")]
    Refused { reason: String },
}

/// Whether this side can talk to a peer of that version: the same, or one less.
pub fn version_is_supported(version: u16) -> bool {
    version > 0 && (version == VERSION || version == VERSION - 1)
}

/// Reads one frame, of at most `bytes_max` bytes of payload; `None` at the end of the stream.
///
/// Not safe to drop half-way: what was read of a frame is lost.
///
/// # Errors
/// If the stream fails, ends within a frame, or holds no frame.
pub async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    bytes_max: usize,
) -> Result<Option<Frame>, WireError> {
    let mut header = [0; HEADER_BYTES];
    let read = |source| WireError::Read { source };
    if reader.read(&mut header[..1]).await.map_err(read)? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[1..]).await.map_err(read)?;
    let malformed = |source| WireError::Malformed { source };
    let (kind, bytes) = Frame::decode_header(header).map_err(malformed)?;
    if bytes > bytes_max {
        return Err(malformed(Malformed::TooLong { bytes }));
    }
    // Memory is taken as bytes arrive: a header alone costs nothing.
    let mut payload = Vec::new();
    let wanted = bytes as u64;
    (&mut *reader)
        .take(wanted)
        .read_to_end(&mut payload)
        .await
        .map_err(read)?;
    if payload.len() < bytes {
        return Err(read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(Frame { kind, payload }))
}

/// Writes one frame and flushes it.
///
/// # Errors
/// If the stream fails, or the frame is longer than the protocol allows.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frame: &Frame,
) -> Result<(), WireError> {
    let bytes = frame
        .encode()
        .map_err(|source| WireError::Malformed { source })?;
    let write = |source| WireError::Write { source };
    writer.write_all(&bytes).await.map_err(write)?;
    writer.flush().await.map_err(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_and_end_with_none() {
        let (mut a, mut b) = tokio::io::duplex(7);
        let sent = Frame::data(FrameKind::Stdout, vec![7; 1000]);
        let copy = sent.clone();
        let writer = tokio::spawn(async move { write_frame(&mut a, &copy).await });
        assert_eq!(read_frame(&mut b, 1000).await.unwrap(), Some(sent));
        writer.await.unwrap().unwrap();
        assert_eq!(read_frame(&mut b, 1000).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_beyond_the_readers_bound_is_refused_before_it_is_read() {
        let header = [0, 0, 0x10, 0, FrameKind::Stdout as u8];
        let error = read_frame(&mut &header[..], 100).await.unwrap_err();
        assert!(matches!(error, WireError::Malformed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_an_error() {
        let bytes = Frame::data(FrameKind::Stdout, vec![7; 10])
            .encode()
            .unwrap();
        for length in 1..bytes.len() {
            let result = read_frame(&mut &bytes[..length], 100).await;
            assert!(matches!(result, Err(WireError::Read { .. })), "{length}");
        }
    }

    #[test]
    fn the_version_before_ours_is_supported_but_nothing_older() {
        assert!(version_is_supported(VERSION));
        assert!(!version_is_supported(0));
        assert!(!version_is_supported(VERSION + 1));
    }
}
