//! The Machines API: what everybody may ask of this host, over HTTP.
//!
//! ```text
//!  Unix socket (root and its group) ──────────────┐
//!  host plane (other hosts; machines only) ───────┤
//!  TCP on loopback ── guard: token, Host, Origin ─┴─ router ── forward ── other hosts' API
//!                                                       ├─ apps, machines ── directory
//!                                                       │                     ├─ placement
//!                                                       │                     └─ worker::Handle
//!                                                       ├─ watch, wait ─────── catalog
//!                                                       ├─ stream (WebSocket) ─ worker::Handle
//!                                                       ├─ images ──────────── image
//!                                                       ├─ mesh ────────────── mesh
//!                                                       ├─ services, hosts,
//!                                                       │  wireguard ───────── directory
//!                                                       └─ graphql ─────────── directory
//! ```
//!
//! Paths, bodies and status codes are those that Fly.io publishes; beyond them stand `watch`, the
//! streams, `images`, services, hosts and WireGuard peers (see `types::api`, `types::service`,
//! `types::fleet`). What Fly has and this program has not is answered with
//! 501 and the name of the feature. Only `error` makes status codes.
//!
//! Nothing is decided here about machines: requests are read, checked and handed to the role that
//! decides.

mod apps;
mod clusters;
mod control;
mod create;
mod error;
mod exec;
mod extract;
mod files;
mod forward;
mod graphql;
mod guard;
mod hosts;
mod idempotency;
mod images;
mod inside;
mod lease;
mod listen;
mod machines;
mod members;
mod mesh;
mod metadata;
mod names;
mod not_built;
mod openapi;
mod orgs;
mod placements;
mod router;
mod routes;
mod secrets;
mod serve;
mod services;
mod stream;
mod tokens;
mod volumes;
mod wait;
mod watch;
mod wireguard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::mesh::Reporter;
use crate::placement::Hosts;
use crate::rpc::Rpc;
use crate::{directory, worker};

pub use hosts::{IssueError, TokenIssuer};
pub use listen::{ListenError, Listeners, bind};
pub use serve::run;

/// Where the API listens, and what it says about this place.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whoever may open this socket needs no token. Only its owner and group may.
    pub socket: PathBuf,
    /// A loopback address; plain HTTP with tokens. Port 0 takes any free port.
    pub tcp: Option<SocketAddr>,
    pub region: String,
}

/// The roles that the API hands its requests to.
#[derive(Debug, Clone)]
pub struct Deps {
    pub directory: directory::Handle,
    pub worker: worker::Handle,
    pub catalog: Catalog,
    pub images: image::ImageStore,
    /// `None` where there is no mesh.
    pub mesh: Option<Reporter>,
    /// The way to other hosts.
    pub rpc: Rpc,
    /// The other hosts.
    pub hosts: Hosts,
    pub garbage: crate::garbage::ImageGarbage,
    /// How images are pulled.
    pub pull: image::PullOptions,
    /// Who invites hosts into the fleet; only the directory's host can.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
    /// What makes tokens of this API; only the directory's host has it.
    pub token_root: Option<Arc<crate::tokens::RootKey>>,
    pub secrets: crate::secrets::Handle,
    /// Set when they run: they need this API for their pods.
    pub(crate) clusters: Arc<std::sync::OnceLock<crate::clusters::Clusters>>,
}

/// What every handler has at hand.
#[derive(Debug)]
struct State {
    region: String,
    deps: Deps,
    /// Held for reading while a machine is created and for writing while an app is deleted, so
    /// that no machine is born into an app that is going.
    app_deletion: tokio::sync::RwLock<()>,
    /// Names that are being given to new machines.
    names: create::Locks,
    /// Replicas that are being placed.
    replicas: create::Locks,
    /// Keys of requests that may be repeated.
    keys: create::Locks,
    /// Cancelled when the process ends: watches and streams go on for ever otherwise.
    drain: CancellationToken,
}

type Api = Arc<State>;

#[cfg(test)]
mod tests;
