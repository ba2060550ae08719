//! What a fuzzer calls: bytes of a hostile peer, which may cost an error and nothing else.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use types::guest::{ExecRequest, FRAME_BYTES_MAX, HostMessage, Open};

use super::host::{Connection, FromGuest, FromProcess};
use super::mux::{Accepted, Acceptor};
use super::read_frame;

/// Longer than any answer to bytes that are all there already.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads `bytes` in every way in which the protocol reads bytes of a peer: as frames, as the
/// guest's end of a connection, and as the host's.
///
/// # Panics
/// If something waits for ever, or whatever a fuzzer is to find.
pub fn hostile_peer(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let all = async {
            as_frames(bytes).await;
            as_guest(bytes).await;
            as_host(bytes).await;
        };
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, all).await;
        outcome.expect("an end comes after the peer's end");
    });
}

async fn as_frames(mut bytes: &[u8]) {
    while let Ok(Some(frame)) = read_frame(&mut bytes, FRAME_BYTES_MAX).await {
        let _ = FromGuest::parse(&frame);
        let _ = frame.parse::<Open>();
        let _ = frame.parse::<HostMessage>();
        let _ = frame.parse::<types::api::TerminalSize>();
        let _ = FromProcess::parse(frame);
    }
}

/// The bytes are what a guest sends.
async fn as_guest(bytes: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(bytes.len() + 1);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    writer.write_all(bytes).await.expect("there is room");
    writer.shutdown().await.expect("the other end is open");
    let sink =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let connection = Connection::new(ours);
    if let Ok((_, mut receiver)) = connection.control().await {
        while let Ok(Some(_)) = receiver.next().await {}
    }
    let request = ExecRequest {
        container: String::new(),
        command: Vec::new(),
        env: std::collections::BTreeMap::new(),
        tty: false,
        stdin: false,
        size: None,
        machine: false,
    };
    if let Ok((_, mut output)) = connection.exec(request).await {
        while let Ok(Some(_)) = output.next().await {}
    }
    drop(connection);
    let _ = sink.await;
}

/// The bytes are what a host sends.
async fn as_host(bytes: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(bytes.len() + 1);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    writer.write_all(bytes).await.expect("there is room");
    writer.shutdown().await.expect("the other end is open");
    let sink =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let mut acceptor = Acceptor::new(ours);
    let mut streams = tokio::task::JoinSet::new();
    while let Accepted::Stream(mut stream) = acceptor.next().await {
        streams.spawn(async move {
            while let Ok(Some(frame)) = read_frame(&mut stream, FRAME_BYTES_MAX).await {
                let _ = frame.parse::<Open>();
                let _ = frame.parse::<HostMessage>();
            }
        });
    }
    drop(acceptor);
    while streams.join_next().await.is_some() {}
    let _ = sink.await;
}
