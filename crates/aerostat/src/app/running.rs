//! The daemon as others on this host find it: its claim on the run directory, and what it listens
//! on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::config::Paths;

/// The daemon's claim on a run directory: held for as long as it lives, whoever ends it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// # Errors
    /// If another process holds it, or the file cannot be made.
    pub(crate) fn acquire(paths: &Paths) -> anyhow::Result<Self> {
        let path = paths.lock();
        fs::create_dir_all(&paths.run_dir)
            .with_context(|| format!("cannot make {}", paths.run_dir.display()))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .and_then(|()| write!(&mut *file, "{}", std::process::id()))?;
                Ok(Self { _file: file })
            }
            Err((mut file, _)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).ok();
                bail!(
                    "aerostat is running already (pid {pid}); stop it with `aerostat down`, or \
                     choose another --run-dir, --data-dir and host_number for a second host"
                )
            }
        }
    }

    /// Whether a daemon lives.
    pub(crate) fn is_held(paths: &Paths) -> anyhow::Result<bool> {
        let file = match File::open(paths.lock()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot open {}", paths.lock().display()));
            }
        };
        Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }
}

/// What a running daemon listens on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) pid: i32,
    pub(crate) socket: PathBuf,
    pub(crate) api: SocketAddr,
    pub(crate) token_file: PathBuf,
    /// The control plane, where it runs here.
    pub(crate) kubernetes: Option<KubernetesEndpoint>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KubernetesEndpoint {
    pub(crate) api: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
}

impl Endpoints {
    /// Those of the daemon that runs on these paths and is ready; `None` if there is none.
    pub(crate) fn read(paths: &Paths) -> anyhow::Result<Option<Self>> {
        if !Lock::is_held(paths)? {
            return Ok(None);
        }
        match fs::read(paths.endpoints()) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("cannot read {}", paths.endpoints().display())
            })?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read {}", paths.endpoints().display()))
            }
        }
    }
}

/// A host that answers. Dropping it gives up the run directory; machines go on running.
#[derive(Debug)]
pub(crate) struct Running {
    endpoints: PathBuf,
    _lock: Lock,
}

impl Running {
    /// Claims the run directory. From here on nobody finds endpoints of an earlier daemon.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub(super) fn begin(paths: &Paths) -> anyhow::Result<Self> {
        let lock = Lock::acquire(paths)?;
        let running = Self {
            endpoints: paths.endpoints(),
            _lock: lock,
        };
        let _ = fs::remove_file(&running.endpoints);
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A reader that still finds it sees that nobody holds the lock.
        let _ = fs::remove_file(&self.endpoints);
    }
}
