//! Relays between sockets of the loopback.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Longer than anything here takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A client and a server, each connected with a relay between them.
async fn relayed() -> (TcpStream, TcpStream, JoinHandle<io::Result<()>>, Arc<Moved>) {
    let ((client, from_client), (to_server, server)) = (pair().await, pair().await);
    let moved = Arc::new(Moved::default());
    let counted = Arc::clone(&moved);
    let relaying =
        tokio::spawn(
            async move { relay(&from_client, &to_server, &Pipes::default(), &counted).await },
        );
    (client, server, relaying, moved)
}

/// The bytes from `offset` on of a long text that repeats only after a prime number of bytes, so
/// that a piece in the wrong place is seen.
fn pattern(offset: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| (at % 65_521 * 31 % 251).to_le_bytes()[0];
    (offset..offset + length).map(byte).collect()
}

async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: usize, piece: usize) {
    for offset in (0..bytes).step_by(piece) {
        let piece = pattern(offset, piece.min(bytes - offset));
        stream.write_all(&piece).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

async fn receive(stream: &mut (impl tokio::io::AsyncRead + Unpin), bytes: usize) {
    let mut buffer = vec![0; 1 << 16];
    let mut offset = 0;
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        if length == 0 {
            break;
        }
        assert!(buffer[..length] == pattern(offset, length), "at {offset}");
        offset += length;
    }
    assert_eq!(offset, bytes);
}

#[tokio::test]
async fn an_end_is_passed_on_and_the_other_direction_goes_on() {
    let (mut client, mut server, relaying, moved) = relayed().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.write_all(b"the answer").await.unwrap();
    drop(server);
    text.clear();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "the answer");
    tokio::time::timeout(TIMEOUT, relaying)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(moved.from_client.load(Ordering::Relaxed), 8);
    assert_eq!(moved.to_client.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn bytes_arrive_as_they_were_sent_both_ways_at_once() {
    const THERE: usize = 100 << 20;
    const BACK: usize = 10 << 20;
    let (client, server, relaying, moved) = relayed().await;
    let (mut from_server, mut to_server) = client.into_split();
    let (mut from_client, mut to_client) = server.into_split();
    let all = tokio::spawn(async move {
        tokio::join!(
            send(&mut to_server, THERE, 1 << 20),
            receive(&mut from_client, THERE),
            send(&mut to_client, BACK, 777),
            receive(&mut from_server, BACK),
        )
    });
    tokio::time::timeout(TIMEOUT, all).await.unwrap().unwrap();
    relaying.await.unwrap().unwrap();
    assert_eq!(moved.from_client.load(Ordering::Relaxed), THERE as u64);
    assert_eq!(moved.to_client.load(Ordering::Relaxed), BACK as u64);
}

#[tokio::test]
async fn what_cannot_be_spliced_is_copied() {
    const BYTES: usize = 5 << 20;
    let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
    let moved = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&moved);
    let copying = tokio::spawn(async move {
        copy_all(&from, &to, &counted).await.unwrap();
        drop(to);
    });
    tokio::join!(send(&mut client, BYTES, 5000), receive(&mut server, BYTES));
    copying.await.unwrap();
    assert_eq!(moved.load(Ordering::Relaxed), BYTES as u64);
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_the_sender_back() {
    let (mut client, mut server, relaying, moved) = relayed().await;
    let sending = tokio::spawn(async move { send(&mut client, 64 << 20, 1 << 20).await });
    // Nobody reads: what fits into buffers is all that moves.
    let mut last = u64::MAX;
    while last != moved.from_client.load(Ordering::Relaxed) {
        last = moved.from_client.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(last < 64 << 20, "{last}");
    let receiving = receive(&mut server, 64 << 20);
    tokio::time::timeout(TIMEOUT, receiving).await.unwrap();
    sending.await.unwrap();
    drop(server);
    // The client has gone without reading; whether that is an end or a failure is a race.
    let _ = relaying.await.unwrap();
}

#[tokio::test]
async fn a_reset_of_one_side_ends_both() {
    let (mut client, server, relaying, _) = relayed().await;
    client.write_all(b"question").await.unwrap();
    server.readable().await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    let relayed = tokio::time::timeout(TIMEOUT, relaying).await.unwrap();
    let error = relayed.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
