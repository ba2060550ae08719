//! The way to a port of the guest: Firecracker listens on a Unix socket, is told `CONNECT <port>`
//! in a line, and answers `OK <its own port>` when the guest has taken the connection.
//!
//! While nobody listens in the guest Firecracker hangs up, so one asks again. After a restore the
//! guest's listeners are there and its connections are not.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::api::dial;

/// A booting Linux listens after a good 100 ms.
const CONNECT_POLL: Duration = Duration::from_millis(5);
/// Between the guest's kernel having the device and its answer. A guest that is stuck in between
/// keeps Firecracker silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// `OK 4294967295\n`
const ANSWER_BYTES_MAX: usize = 14;

/// Connects to `port` of the guest, for as long as it takes. May be dropped.
pub(super) async fn connect(socket: &Path, port: u32) -> UnixStream {
    loop {
        if let Ok(Ok(stream)) = timeout(ANSWER_TIMEOUT, try_connect(socket, port)).await {
            return stream;
        }
        sleep(CONNECT_POLL).await;
    }
}

async fn try_connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = dial(socket)?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    // Byte by byte: what follows the line belongs to the guest.
    while answer.last() != Some(&b'\n') {
        if answer.len() == ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.push(stream.read_u8().await?);
    }
    // The number is Firecracker's end; other implementations tell the guest's.
    let number = answer.strip_prefix(b"OK ").unwrap_or_default();
    let number = std::str::from_utf8(number).unwrap_or_default().trim_end();
    match number.parse::<u32>() {
        Ok(_) => Ok(stream),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn line(stream: &mut UnixStream) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push(char::from(stream.read_u8().await.unwrap()));
        }
        line
    }

    #[tokio::test]
    async fn a_guest_that_does_not_listen_yet_is_asked_again_and_its_first_bytes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = tokio::spawn(async move {
            // Nobody listens: Firecracker hangs up.
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(line(&mut stream).await, "CONNECT 1024\n");
            drop(stream);
            // Rubbish.
            let (mut stream, _) = listener.accept().await.unwrap();
            line(&mut stream).await;
            stream.write_all(b"OK x\n").await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            line(&mut stream).await;
            stream.write_all(b"OK 1073741824\nhello").await.unwrap();
            stream
        });
        let mut stream = connect(&path, 1024).await;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        drop(guest.await.unwrap());
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[b'0'; 64]).await.unwrap();
            stream
        });
        let error = try_connect(&path, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(guest.await.unwrap());
    }
}
