//! The API server and the controllers, to poke at with kubectl: a kubelet on paper says of every
//! pod that it runs.
//!
//! ```text
//! cargo run -p kube --example api_server -- <directory> [port] [alone]
//! export KUBECONFIG=<directory>/admin.conf
//! ```
//!
//! `alone`: without the controllers, as kube-apiserver is.

#[path = "../tests/kubelet/mod.rs"]
mod kubelet;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use kube::api::Api;
use kube::identity::{self, Identity};
use kube::pki::{self, Pki};
use kube::server::{ServerConfig, serve};
use kube::status::Status;
use kube::streams::{ExecIo, ExecRequest, LogQuery, LogStream, PodStreams};
use serde_json::Value;

struct NoPods;

impl PodStreams for NoPods {
    fn logs<'a>(&'a self, _: &'a Value, _: LogQuery) -> BoxFuture<'a, Result<LogStream, Status>> {
        Box::pin(async { Err(Status::unavailable("nothing runs pods here")) })
    }

    fn exec<'a>(&'a self, _: &'a Value, _: ExecRequest) -> BoxFuture<'a, Result<ExecIo, Status>> {
        Box::pin(async { Err(Status::unavailable("nothing runs pods here")) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: api_server <directory> [port]")?);
    let port: u16 = args.next().map_or(Ok(0), |port| port.parse())?;
    std::fs::create_dir_all(&dir)?;
    let api = Api::new(store::Store::open(&store::Config::new(
        dir.join("kube.db"),
    ))?);
    api.bootstrap().await?;
    if args.next().as_deref() != Some("alone") {
        kubelet::start(&api);
    }
    let pki = Pki::open(&dir)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let config = pki::kubeconfig(&url, pki.ca_pem(), &pki.admin()?);
    pki::write_private(&dir.join("admin.conf"), &config)?;
    let tls = pki.server_config(&[])?;
    eprintln!("{url} after {} ms", begin.elapsed().as_millis());
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(
        ServerConfig {
            listener,
            tls,
            streams: Arc::new(NoPods),
            identity: Identity::open(identity::Config::new(&dir), &pki)?,
            audit: None,
            usage: None,
        },
        api,
        interrupted,
    )
    .await;
    Ok(())
}
