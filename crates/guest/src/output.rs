//! Moves bytes between processes and the host.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fd::Fd;
use crate::wire::DATA_BYTES_MAX;

/// How long output may pause after its process has ended. A process left in the background can
/// hold the pipe open for ever.
const LULL_MAX: Duration = Duration::from_secs(1);

/// Pieces of standard input on their way to a process; with 32 KiB each, half a MiB.
pub(crate) const STDIN_PIECES_MAX: usize = 16;

/// Reads until the end, or until `over` and then a lull. `sink` waits for room, so that the
/// process waits and nothing is lost; it returns whether to go on.
pub(crate) async fn pump<S, F>(mut from: Fd, over: CancellationToken, mut sink: S)
where
    S: FnMut(Bytes) -> F,
    F: Future<Output = bool>,
{
    let mut buffer = vec![0; DATA_BYTES_MAX];
    loop {
        let lull = async {
            over.cancelled().await;
            tokio::time::sleep(LULL_MAX).await;
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = lull => return,
        };
        // A terminal that nobody has open any more fails with EIO: an end like any other.
        let Ok(length @ 1..) = read else { return };
        if !sink(Bytes::copy_from_slice(&buffer[..length])).await {
            return;
        }
    }
}

/// Standard input for a process.
#[derive(Debug)]
pub(crate) enum Stdin {
    Bytes(Bytes),
    Close,
}

/// Writes standard input as it comes, in a task, until it is closed or the process has.
pub(crate) fn feed(mut to: Fd) -> mpsc::Sender<Stdin> {
    let (sender, mut pieces) = mpsc::channel(STDIN_PIECES_MAX);
    tokio::spawn(async move {
        while let Some(Stdin::Bytes(bytes)) = pieces.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    sender
}
