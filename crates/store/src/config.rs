//! Where the state is kept and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::memory::History;

/// Either of the two places.
#[derive(Debug, Clone)]
pub enum Location {
    Sqlite(Config),
    Etcd(EtcdConfig),
}

/// A database file of this process alone.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database file; its directory must exist.
    pub path: PathBuf,
    /// Upper bound of the database file. Reaching it fails writes with
    /// [`crate::WriteError::Disk`].
    pub size_mib_max: u32,
    /// What watches and paged lists can go back to.
    pub history: History,
}

impl Config {
    /// The limits that fit one server: 4 GiB on disk, five minutes of history.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size_mib_max: 4096,
            history: History::default(),
        }
    }
}

/// A real etcd, which several processes may share.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`; the next is used when one fails.
    pub endpoints: Vec<String>,
    /// Every key begins with it. Stores with different prefixes do not see each other.
    pub prefix: String,
    pub tls: Option<EtcdTls>,
    pub history: History,
    /// How often history that is older than this is forgotten by etcd. One of the processes on the
    /// etcd does it, for all prefixes and for whatever else is there: etcd forgets as a whole.
    /// Upstream's API servers on the same etcd take part; of several intervals the shortest counts.
    /// `None` leaves it to somebody else.
    pub compact_every: Option<Duration>,
    /// How long one call may take.
    pub call_timeout: Duration,
}

impl EtcdConfig {
    /// The settings for an etcd that nobody else uses.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: "/aerostat".into(),
            tls: None,
            history: History::default(),
            compact_every: Some(Duration::from_secs(300)),
            call_timeout: Duration::from_secs(5),
        }
    }
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// Who may have signed the server's certificate.
    pub ca: PathBuf,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}
