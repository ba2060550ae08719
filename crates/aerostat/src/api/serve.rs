//! Accepting connections, and letting go of them when the process ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard};
use super::{Config, Deps, Listeners, State, router};
use crate::drain::Drain;
use crate::rpc::{self, Caller};

/// Connections at a time on each socket, so that nobody who may only knock on the port can keep
/// root out. One that lasts (watch, exec, logs) is one for each pod that somebody looks at; beyond
/// this, callers wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Between accepting and the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the API until the drain says that it is enough. Returns at once; the tasks belong to
/// the drain.
pub fn run(listeners: Listeners, config: &Config, deps: Deps, drain: &Drain) {
    let directory = deps.directory.clone();
    let state = Arc::new(State {
        region: config.region.clone(),
        deps,
        app_deletion: tokio::sync::RwLock::default(),
        names: super::create::Locks::default(),
        replicas: super::create::Locks::default(),
        keys: super::create::Locks::default(),
        drain: drain.token(),
    });
    let router = router::router(state);
    let token = drain.token();
    let guarded = Guard::new(directory).protect(router.clone());
    let (from_root, for_hosts) = (guard::trust(router.clone()), guard::trust_hosts(router));
    let door = Door {
        token,
        drain: drain.clone(),
    };
    drain.spawn("api", async move {
        let Listeners {
            unix,
            tcp,
            hosts,
            path: _path,
        } = listeners;
        let from_hosts = async {
            if let Some(hosts) = hosts {
                let hosts = hosts.tap_io(|stream| {
                    if let Err(error) = rpc::tune(stream) {
                        tracing::debug!(%error, "cannot tune a connection of another host");
                    }
                });
                door.let_in(hosts, for_hosts, |from| match rpc::caller(*from) {
                    Some(caller) => Admission::Host(caller),
                    None => Admission::Nobody,
                })
                .await;
            }
        };
        let over_tcp = async {
            if let Some(tcp) = tcp {
                // Keys typed into an exec must not wait for the answer to the ones before.
                let tcp = tcp.tap_io(|stream| {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                });
                door.let_in(tcp, guarded, |_| Admission::Local).await;
            }
        };
        let over_unix = door.let_in(unix, from_root, |_| Admission::Local);
        tokio::join!(over_unix, over_tcp, from_hosts);
    });
}

/// Who is at the other end of a connection.
enum Admission {
    Local,
    Host(Caller),
    /// Is not let in.
    Nobody,
}

/// Lets connections in.
struct Door {
    token: CancellationToken,
    drain: Drain,
}

impl Door {
    async fn let_in<L: Listener>(
        &self,
        mut listener: L,
        router: Router,
        admit: impl Fn(&L::Addr) -> Admission,
    ) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = async {
                let place = Arc::clone(&connections).acquire_owned().await;
                // Comes back only with a connection: what fails is logged and repeated.
                let (stream, from) = listener.accept().await;
                (place, stream, from)
            };
            let (place, stream, from) = tokio::select! {
                accepted = accepted => accepted,
                () = self.token.cancelled() => return,
            };
            let caller = match admit(&from) {
                Admission::Local => None,
                Admission::Host(caller) => Some(caller),
                Admission::Nobody => continue,
            };
            let connection = connection(stream, router.clone(), caller, self.token.clone());
            self.drain.spawn_for_caller("api connection", async move {
                connection.await;
                drop(place);
            });
        }
    }
}

/// Serves one connection to its end; a draining server finishes the request at hand.
async fn connection<S>(stream: S, router: Router, caller: Option<Caller>, token: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Callers go away as they like; there is nothing to do about it.
        tracing::debug!(%error, "a connection ended early");
    }
}
