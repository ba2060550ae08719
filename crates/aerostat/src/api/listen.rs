//! The sockets, opened before anything else so that a port that is taken is known at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::Config;
use crate::holder::{Protocol, held_by, holder};

/// Owner and group may connect. Everybody else would be root on this host.
const SOCKET_MODE: u32 = 0o660;

/// Open sockets that nobody serves yet.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: UnixListener,
    pub(super) tcp: Option<TcpListener>,
    /// On this host's address in the host plane ([`crate::rpc::Rpc::listen`]): whoever calls there
    /// is a host and needs no token.
    pub hosts: Option<TcpListener>,
    pub(super) path: SocketFile,
}

/// Removed when dropped: else the next one would find a file and have to ask who serves it.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another process serves the Machines API on {}; `aerostat down` ends it", path.display())]
    Served { path: PathBuf },
    #[error("cannot listen on {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("{address} is not a loopback address, and the Machines API speaks plain HTTP")]
    NotLoopback { address: SocketAddr },
    #[error("port {} of the Machines API is taken{}; set `api_listen` to another", .address.port(), held_by(.holder.as_deref()))]
    PortTaken {
        address: SocketAddr,
        holder: Option<String>,
    },
    #[error("cannot listen on {address}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Opens the sockets that `config` names. A socket file that nobody serves is replaced.
///
/// # Errors
/// If one of them cannot be opened; then none is.
pub async fn bind(config: &Config) -> Result<Listeners, ListenError> {
    let tcp = match config.tcp {
        Some(address) => Some(bind_tcp(address).await?),
        None => None,
    };
    let unix = bind_unix(&config.socket).await?;
    Ok(Listeners {
        unix,
        tcp,
        hosts: None,
        path: SocketFile(config.socket.clone()),
    })
}

impl Listeners {
    /// The address over TCP, with the port that was chosen.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        return Err(ListenError::NotLoopback { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken {
                address,
                holder: holder(Protocol::Tcp, address.port()),
            },
            _ => ListenError::Tcp { address, source },
        })
}

async fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let problem = |source| ListenError::Socket {
        path: path.to_owned(),
        source,
    };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::Served {
                path: path.to_owned(),
            });
        }
        fs::remove_file(path).map_err(problem)?;
    }
    let listener = UnixListener::bind(path).map_err(problem)?;
    // Until now the mask of this process has decided, and connecting takes the right to write,
    // which no usual mask gives to others.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(problem)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path, tcp: Option<SocketAddr>) -> Config {
        let socket = directory.join("api.sock");
        Config {
            socket,
            tcp,
            region: "local".into(),
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_holder() {
        let files = tempfile::tempdir().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = other.local_addr().unwrap();
        let error = bind(&config(files.path(), Some(address)))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("port {}", address.port())), "{text}");
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(!files.path().join("api.sock").exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let files = tempfile::tempdir().unwrap();
        let config = config(files.path(), None);
        drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
        let first = bind(&config).await.unwrap();
        let mode = fs::metadata(&config.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(
            bind(&config).await,
            Err(ListenError::Served { .. })
        ));
        drop(first);
        assert!(!config.socket.exists());
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused() {
        let files = tempfile::tempdir().unwrap();
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let refused = bind(&config(files.path(), Some(everywhere))).await;
        assert!(matches!(refused, Err(ListenError::NotLoopback { .. })));
    }
}
