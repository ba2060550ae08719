//! An authority and its copies, over loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body_util::{BodyDataStream, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::rows::{key, new_peer, record, refused, spec};
use super::*;
use crate::rpc::{Caller, Unreachable};

const ALPHA: u16 = 2;
const BETA: u16 = 3;

/// The way to whoever listens at an address, for the host beta.
#[derive(Debug, Default)]
struct Loopback {
    to: Mutex<Option<SocketAddr>>,
    looked_up: AtomicUsize,
    /// Nothing arrives any more, and nothing says so.
    dead: AtomicUsize,
    /// A line that this version cannot read follows the start.
    strange: AtomicUsize,
    watched: AtomicUsize,
}

impl Loopback {
    fn lead_to(&self, to: Option<SocketAddr>) {
        *self.to.lock().unwrap() = to;
    }

    async fn post<Q: serde::Serialize>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<BodyDataStream<hyper::body::Incoming>, Unreachable> {
        let to = *self.to.lock().unwrap();
        let to = to.ok_or_else(|| unreachable(std::io::ErrorKind::HostUnreachable.into()))?;
        let stream = TcpStream::connect(to).await.map_err(unreachable)?;
        let other = |error| unreachable(std::io::Error::other(error));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(other)?;
        tokio::spawn(connection);
        let request = hyper::Request::post(path)
            .header("host", "test")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(
                serde_json::to_vec(question).unwrap(),
            )))
            .unwrap();
        let response = sender.send_request(request).await.map_err(other)?;
        if !response.status().is_success() {
            let text = response.status().to_string();
            return Err(unreachable(std::io::Error::other(text)));
        }
        Ok(BodyDataStream::new(response.into_body()))
    }

    async fn ask<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, Unreachable> {
        let body = self.post(path, question).await?;
        let body = http_body_util::StreamBody::new(body.map(|p| p.map(hyper::body::Frame::data)));
        let bytes = http_body_util::BodyExt::collect(body)
            .await
            .map_err(|e| unreachable(std::io::Error::other(e)))?;
        Ok(serde_json::from_slice(&bytes.to_bytes()).unwrap())
    }
}

fn unreachable(source: std::io::Error) -> Unreachable {
    let host = HostId::new(ALPHA);
    Unreachable { host, source }
}

#[async_trait]
impl Link for Loopback {
    async fn call(&self, command: &Command) -> Result<Answer, Unreachable> {
        self.ask(wire::COMMAND, command).await
    }

    async fn look_up(&self, key: &str) -> Result<Option<String>, Unreachable> {
        self.looked_up.fetch_add(1, Ordering::SeqCst);
        let key = key.to_owned();
        self.ask(wire::LOOK_UP, &wire::LookUp { key }).await
    }

    async fn watch(
        &self,
        from: From,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Unreachable> {
        self.watched.fetch_add(1, Ordering::SeqCst);
        let pieces = self.post(wire::WATCH, &from).await?;
        if self.strange.load(Ordering::SeqCst) != 0 {
            let start = "{\"start\":{\"epoch\":1,\"everything\":true}}\n{\"new\":{}}\n";
            return Ok(futures::stream::iter([Ok(Bytes::from(start))]).boxed());
        }
        let pieces = pieces.map(|piece| piece.map_err(std::io::Error::other));
        Ok(match self.dead.load(Ordering::SeqCst) {
            0 => pieces.boxed(),
            // The start and what is there come through; then the line is dead.
            _ => pieces.take(1).chain(futures::stream::pending()).boxed(),
        })
    }
}

/// The authority's host: its store's file, and while it is up its handle and its server.
struct Alpha {
    files: tempfile::TempDir,
    up: Option<Up>,
}

struct Up {
    directory: Handle,
    serving: JoinHandle<()>,
    stop: CancellationToken,
    at: SocketAddr,
}

impl Alpha {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut alpha = Self { files, up: None };
        alpha.come_up().await;
        alpha.directory().put_host(record(ALPHA, 1)).await.unwrap();
        alpha
    }

    async fn come_up(&mut self) {
        let directory = Handle::open(store(&self.files)).await.unwrap();
        let stop = CancellationToken::new();
        let router: Router = router(directory.clone(), stop.clone()).layer(from_fn(
            async |mut request: Request, next: Next| {
                request.extensions_mut().insert(Caller(HostId::new(BETA)));
                Ok::<_, Infallible>(next.run(request).await)
            },
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
            served.await.unwrap();
        });
        self.up = Some(Up {
            directory,
            serving,
            stop,
            at,
        });
    }

    /// Ends as a drained daemon does: watches end, the store is closed.
    async fn go_away(&mut self, link: &Loopback) {
        link.lead_to(None);
        let up = self.up.take().unwrap();
        up.stop.cancel();
        up.serving.await.unwrap();
        up.directory.inner.rows.0.clone().close().await;
    }

    fn directory(&self) -> &Handle {
        &self.up.as_ref().unwrap().directory
    }

    fn address(&self) -> Option<SocketAddr> {
        self.up.as_ref().map(|up| up.at)
    }
}

/// A copy that runs.
struct Beta {
    directory: Handle,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Beta {
    fn start(files: &tempfile::TempDir, link: &Arc<Loopback>) -> Self {
        let link = Arc::clone(link);
        let directory = Handle::follow_by(store(files), link, HostId::new(ALPHA));
        let stop = CancellationToken::new();
        let running = tokio::spawn(directory.clone().run(stop.clone()));
        Self {
            directory,
            stop,
            running,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        self.directory.inner.rows.0.clone().close().await;
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waited).await;
    assert!(waited.is_ok(), "never: {what}");
}

/// All rows that both sides should have.
fn rows_of(directory: &Handle) -> Vec<(Arc<str>, Bytes)> {
    let mut rows = directory.inner.rows.all(super::super::rows::PREFIX);
    rows.retain(|(key, _)| !key.starts_with(super::super::rows::JOIN_TOKENS));
    rows
}

async fn eventually_same(beta: &Handle, alpha: &Handle) {
    eventually("the copy is the same", || rows_of(beta) == rows_of(alpha)).await;
}

async fn pair() -> (Alpha, Arc<Loopback>, tempfile::TempDir, Beta) {
    let alpha = Alpha::start().await;
    let link = Arc::new(Loopback::default());
    link.lead_to(alpha.address());
    let files = tempfile::tempdir().unwrap();
    let beta = Beta::start(&files, &link);
    eventually_same(&beta.directory, alpha.directory()).await;
    (alpha, link, files, beta)
}

#[tokio::test]
async fn whoever_changes_something_through_a_copy_sees_it_there() {
    let (alpha, _link, _files, beta) = pair().await;
    for number in 0..20 {
        let new = new_app(&format!("app-{number}"), "");
        let made = beta.directory.create_app(new, NOW).await.unwrap();
        assert_eq!(beta.directory.apps().len(), number + 1, "at once");
        let service = beta
            .directory
            .put_service(&made.name, "web", spec(80))
            .await;
        let service = service.unwrap();
        assert_eq!(beta.directory.service(&made.name, "web"), Some(service));
    }
    assert_eq!(alpha.directory().apps(), beta.directory.apps());
    let again = beta.directory.create_app(new_app("app-1", ""), NOW).await;
    assert!(matches!(refused(again), Refused::AppNameTaken { .. }));
    beta.directory.put_host(record(BETA, 2)).await.unwrap();
    assert_eq!(beta.directory.hosts().len(), 2);
    // What is another's, and what is the authority's.
    let foreign = beta.directory.put_host(record(9, 9)).await;
    assert!(matches!(refused(foreign), Refused::NotYours { .. }));
    let token = beta.directory.create_join_token([1; 32], NOW, NOW).await;
    assert_eq!(refused(token), Refused::AuthorityOnly);
}

#[tokio::test]
async fn a_copy_serves_without_the_authority_and_over_its_own_restart() {
    let (mut alpha, link, files, beta) = pair().await;
    let app = alpha
        .directory()
        .create_app(new_app("web", ""), NOW)
        .await
        .unwrap();
    eventually_same(&beta.directory, alpha.directory()).await;
    alpha.go_away(&link).await;
    beta.end().await;

    let beta = Beta::start(&files, &link);
    assert_eq!(beta.directory.app(&app.name).await.unwrap(), app);
    assert_eq!(beta.directory.hosts_changed().borrow().len(), 1);
    // What is not here may be there; nobody can say.
    let unknown = beta.directory.app(&"other".parse().unwrap()).await;
    assert!(matches!(unknown, Err(Error::Unreachable { .. })));
    let write = beta
        .directory
        .create_app(new_app("new", ""), NOW)
        .await
        .unwrap_err();
    assert!(matches!(&write, Error::Unreachable { host, .. } if host == "host-2"));

    alpha.come_up().await;
    link.lead_to(alpha.address());
    alpha.directory().delete_app(&app.name).await.unwrap();
    eventually_same(&beta.directory, alpha.directory()).await;
    beta.directory
        .create_app(new_app("new", ""), NOW)
        .await
        .unwrap();
    assert_eq!(beta.directory.apps().len(), 1);
}

#[tokio::test]
async fn what_the_copy_has_not_heard_of_is_asked_for_once() {
    let alpha = Alpha::start().await;
    let link = Arc::new(Loopback::default());
    link.lead_to(alpha.address());
    let files = tempfile::tempdir().unwrap();
    // It does not run, so that nothing reaches it by itself.
    let beta = Handle::follow_by(store(&files), link.clone(), HostId::new(ALPHA));
    let made = alpha
        .directory()
        .create_app(new_app("web", ""), NOW)
        .await
        .unwrap();
    assert_eq!(beta.app(&made.name).await.unwrap(), made);
    let missing = beta.app(&"none".parse().unwrap()).await;
    assert!(matches!(refused(missing), Refused::AppNotFound { .. }));

    let peer = new_peer("laptop", 50, ALPHA);
    let peer = alpha
        .directory()
        .create_wireguard_peer(peer, NOW)
        .await
        .unwrap();
    let before = link.looked_up.load(Ordering::SeqCst);
    let known = key(50);
    let asked = (0..100).map(|_| beta.peer_by_key(&known));
    for found in futures::future::join_all(asked).await {
        assert_eq!(found.unwrap().as_ref(), Some(&peer));
    }
    assert_eq!(link.looked_up.load(Ordering::SeqCst), before + 1);
    // A stranger who knocks and knocks is one question.
    for _ in 0..50 {
        assert_eq!(beta.peer_by_key(&key(99)).await.unwrap(), None);
    }
    assert_eq!(link.looked_up.load(Ordering::SeqCst), before + 2);
    // Tokens are nobody's to read.
    alpha
        .directory()
        .create_join_token([7; 32], Timestamp::MAX, NOW)
        .await
        .unwrap();
    let token = super::super::rows::join_token_key(&[7; 32]);
    assert!(alpha.directory().inner.rows.has(&token));
    assert_eq!(link.look_up(&token).await.unwrap(), None);
}

#[tokio::test]
async fn an_authority_that_came_back_from_a_backup_is_followed() {
    let (mut alpha, link, _files, beta) = pair().await;
    alpha
        .directory()
        .create_app(new_app("kept", ""), NOW)
        .await
        .unwrap();
    eventually_same(&beta.directory, alpha.directory()).await;
    alpha.go_away(&link).await;
    let file = alpha.files.path().join("directory.db");
    let backup = std::fs::read(&file).unwrap();
    alpha.come_up().await;
    link.lead_to(alpha.address());
    for number in 0..5 {
        let new = new_app(&format!("lost-{number}"), "");
        alpha.directory().create_app(new, NOW).await.unwrap();
    }
    eventually_same(&beta.directory, alpha.directory()).await;
    assert_eq!(beta.directory.apps().len(), 6);
    alpha.go_away(&link).await;

    std::fs::write(&file, backup).unwrap();
    alpha.come_up().await;
    // As many writes as were lost: the revisions alone would look as if nothing had happened.
    for number in 0..5 {
        let new = new_app(&format!("other-{number}"), "");
        alpha.directory().create_app(new, NOW).await.unwrap();
    }
    link.lead_to(alpha.address());
    eventually_same(&beta.directory, alpha.directory()).await;
    let names = beta
        .directory
        .apps()
        .into_iter()
        .map(|app| app.name.to_string());
    let names: Vec<_> = names.collect();
    assert_eq!(
        names,
        [
            "kept", "other-0", "other-1", "other-2", "other-3", "other-4"
        ]
    );
}

#[tokio::test]
async fn a_whole_new_directory_is_never_seen_half() {
    let (mut alpha, link, _files, beta) = pair().await;
    for number in 0..50 {
        let new = new_app(&format!("app-{number}"), "");
        alpha.directory().create_app(new, NOW).await.unwrap();
    }
    eventually_same(&beta.directory, alpha.directory()).await;
    let reader = beta.directory.clone();
    let reading = CancellationToken::new();
    let read = reading.clone();
    let reader = tokio::spawn(async move {
        while !read.is_cancelled() {
            let apps = reader.apps();
            let old = apps
                .iter()
                .filter(|app| app.name.as_str().starts_with("app-"));
            let (old, all) = (old.count(), apps.len());
            assert!(
                (old == 50 && all == 50) || (old == 0 && all >= 50),
                "{old} of {all}"
            );
            tokio::task::yield_now().await;
        }
    });
    alpha.go_away(&link).await;
    // Another directory altogether, under the same name.
    std::fs::remove_file(alpha.files.path().join("directory.db")).unwrap();
    for side in ["directory.db-wal", "directory.db-shm"] {
        let _ = std::fs::remove_file(alpha.files.path().join(side));
    }
    alpha.come_up().await;
    for number in 0..60 {
        let new = new_app(&format!("new-{number}"), "");
        alpha.directory().create_app(new, NOW).await.unwrap();
    }
    link.lead_to(alpha.address());
    eventually_same(&beta.directory, alpha.directory()).await;
    reading.cancel();
    reader.await.unwrap();
    assert_eq!(beta.directory.apps().len(), 60);
}

#[tokio::test]
async fn a_copy_that_is_killed_at_any_moment_goes_on_from_there() {
    let (alpha, link, files, beta) = pair().await;
    let mut beta = beta;
    for round in 0..8_u64 {
        let writer = alpha.directory().clone();
        let writing = tokio::spawn(async move {
            for number in 0..10 {
                let new = new_app(&format!("app-{round}-{number}"), "");
                let app = writer.create_app(new, NOW).await.unwrap();
                writer
                    .put_service(&app.name, "web", spec(80))
                    .await
                    .unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(round)).await;
        beta.running.abort();
        let _ = beta.running.await;
        beta.directory.inner.rows.0.clone().close().await;
        beta = Beta::start(&files, &link);
        writing.await.unwrap();
    }
    eventually_same(&beta.directory, alpha.directory()).await;
    let services = beta.directory.services_changed();
    eventually("all services are told", || services.borrow().len() == 80).await;
}

#[tokio::test]
async fn an_authority_that_says_what_cannot_be_read_is_asked_less_and_less_often() {
    let (alpha, link, files, beta) = pair().await;
    beta.end().await;
    link.strange.store(1, Ordering::SeqCst);
    link.watched.store(0, Ordering::SeqCst);
    let beta = Beta::start(&files, &link);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(is_copy(&beta.directory.inner.rows.0));
    assert!(!is_copy(&alpha.directory().inner.rows.0));
    let watched = link.watched.load(Ordering::SeqCst);
    assert!((2..=6).contains(&watched), "{watched}");
    // What it has stays.
    assert_eq!(rows_of(&beta.directory), rows_of(alpha.directory()));
}

#[tokio::test]
async fn a_line_that_has_died_silently_is_noticed() {
    let alpha = Alpha::start().await;
    let link = Arc::new(Loopback::default());
    link.dead.store(1, Ordering::SeqCst);
    link.lead_to(alpha.address());
    let files = tempfile::tempdir().unwrap();
    let beta = Beta::start(&files, &link);
    eventually_same(&beta.directory, alpha.directory()).await;
    let began = std::time::Instant::now();
    link.dead.store(0, Ordering::SeqCst);
    alpha
        .directory()
        .create_app(new_app("web", ""), NOW)
        .await
        .unwrap();
    eventually("it is told on another line", || {
        beta.directory.apps().len() == 1
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
}
