//! Files into and out of a container: one stream of the host, connected to an archive.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use types::guest::{ExecEnd, Frame, FrameKind};

use crate::archive::{self, ArchiveError};
use crate::root::{Owner, Root};
use crate::runtime::RuntimeError;
use crate::session::finish;
use crate::user;
use crate::wire::{
    DATA_BYTES_MAX, SMALL_FRAME_BYTES_MAX, Stream, WireError, read_frame, write_frame,
};

/// Pieces of an archive between the stream and the thread that reads or writes files.
const PIECES_MAX: usize = 8;

/// A path in a container.
#[derive(Debug)]
pub(crate) struct Place {
    root: Root,
    owner: Owner,
    path: PathBuf,
}

impl Place {
    pub(crate) fn find(root: Root, user: &str, path: String) -> Result<Self, RuntimeError> {
        let user = user::find(&root, user)?;
        let owner = Owner {
            uid: user.uid,
            gid: user.gid,
        };
        let path = PathBuf::from(path);
        Ok(Self { root, owner, path })
    }

    fn unpack(&self, archive: impl Read) -> Result<(), ArchiveError> {
        let target = self.root.make_directories(&self.path, self.owner);
        let target = target.map_err(|source| ArchiveError::Write {
            path: self.path.clone(),
            source,
        })?;
        archive::unpack(&Root::from_directory(target), self.owner, archive)
    }
}

fn end(outcome: Result<Result<(), ArchiveError>, tokio::task::JoinError>) -> ExecEnd {
    let reason = match outcome {
        Ok(Ok(())) => return ExecEnd::Exited { exit_code: 0 },
        Ok(Err(error)) => types::chain(&error),
        Err(panic) => panic.to_string(),
    };
    ExecEnd::Failed { reason }
}

/// Unpacks what the host sends. What was written before it hangs up stays.
pub(crate) async fn put(
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    place: Result<Place, String>,
) -> Result<(), WireError> {
    let place = match place {
        Ok(place) => place,
        Err(reason) => return finish(writer, ExecEnd::Failed { reason }).await,
    };
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    let feeding = tokio::spawn(feed(reader, pieces));
    let unpacking = spawn_blocking(move || place.unpack(Inflow::new(queue)));
    let end = end(unpacking.await);
    feeding.abort();
    finish(writer, end).await
}

/// `None` marks the end that the host meant.
async fn feed(mut reader: ReadHalf<Stream>, pieces: mpsc::Sender<Option<Bytes>>) {
    while let Ok(Some(frame)) = read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await {
        let piece = match frame.kind {
            FrameKind::Stdin => Some(Bytes::from(frame.payload)),
            FrameKind::CloseStdin => None,
            FrameKind::Message
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::Resize
            | FrameKind::Log => return,
        };
        let is_last = piece.is_none();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// An archive as it arrives, for a thread that may wait.
struct Inflow {
    queue: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    is_over: bool,
}

impl Inflow {
    fn new(queue: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self {
            queue,
            piece: Bytes::new(),
            is_over: false,
        }
    }
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_over {
            match self.queue.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.is_over = true,
                // The host hung up half-way.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Sends an archive until its end, or until the host hangs up.
pub(crate) async fn get(
    mut reader: ReadHalf<Stream>,
    mut writer: WriteHalf<Stream>,
    place: Result<Place, String>,
) -> Result<(), WireError> {
    let place = match place {
        Ok(place) => place,
        Err(reason) => return finish(writer, ExecEnd::Failed { reason }).await,
    };
    let (pieces, mut queue) = mpsc::channel(PIECES_MAX);
    let packing = spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(DATA_BYTES_MAX, Outflow { pieces });
        archive::pack(&place.root, Path::new(&place.path), out)
    });
    let mut hung_up = tokio::spawn(async move {
        while let Ok(Some(_)) = read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await {}
    });
    loop {
        let piece = tokio::select! {
            piece = queue.recv() => piece,
            _ = &mut hung_up => return Ok(()),
        };
        let Some(piece) = piece else { break };
        write_frame(&mut writer, &Frame::data(FrameKind::Stdout, piece)).await?;
    }
    hung_up.abort();
    finish(writer, end(packing.await)).await
}

struct Outflow {
    pieces: mpsc::Sender<Bytes>,
}

impl Write for Outflow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(DATA_BYTES_MAX);
        let piece = Bytes::copy_from_slice(&bytes[..length]);
        let sent = self.pieces.blocking_send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
