//! Shims that were started ahead: each boot takes one that is loaded already and only waits to be
//! told which boot it is to keep, and the next one is started meanwhile.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tracing::warn;
use types::MachineId;

use super::{GO, UP};
use crate::paths::BootDir;
use crate::{VmmError, sys};

/// Starts shims. Clones share the one that waits.
#[derive(Debug, Clone)]
pub(crate) struct Spares {
    /// Program with the sub-command `shim`.
    program: PathBuf,
    run_dir: PathBuf,
    waiting: Arc<Mutex<Option<UnixStream>>>,
}

/// A shim that has been told its boot and not yet to go. It leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Told {
    stream: UnixStream,
}

impl Spares {
    pub(crate) fn new(program: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            program,
            run_dir,
            waiting: Arc::default(),
        }
    }

    /// Starts one for the next boot, if there is none.
    pub(crate) async fn replenish(&self) {
        if self.lock().is_some() {
            return;
        }
        match self.start().await {
            Ok(stream) => *self.lock() = Some(stream),
            // The next boot tries again, and tells.
            Err(error) => warn!(error = %types::chain(&error), "cannot start a shim ahead"),
        }
    }

    /// Lets a shim make what a boot needs before it has a network.
    ///
    /// # Errors
    /// If none can be started.
    pub(crate) async fn tell(&self, dir: &BootDir) -> Result<Told, VmmError> {
        let waiting = self.lock().take();
        if let Some(stream) = waiting {
            // It may have been killed while it waited.
            if let Ok(told) = Told::new(stream, dir).await {
                return Ok(told);
            }
        }
        let stream = self.start().await?;
        let told = Told::new(stream, dir).await;
        told.map_err(|source| self.not_started(source))
    }

    async fn start(&self) -> Result<UnixStream, VmmError> {
        let start = async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let mut command = std::process::Command::new(&self.program);
            command
                .arg("shim")
                .arg("--run-dir")
                .arg(&self.run_dir)
                .args(["--fd", &theirs.as_raw_fd().to_string()])
                // The daemon's own; nothing that runs machines has a use for it.
                .env_remove("AEROSTAT_SECRETS_KEY")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            sys::keep_fds(&mut command, vec![theirs.as_raw_fd()]);
            // Stage 1, which ends at once.
            let ended = Command::from(command).status().await?;
            if !ended.success() {
                return Err(io::Error::other(format!("it ended with {ended}")));
            }
            ours.set_nonblocking(true)?;
            UnixStream::from_std(ours)
        };
        start.await.map_err(|source| self.not_started(source))
    }

    fn not_started(&self, source: io::Error) -> VmmError {
        VmmError::Spawn {
            path: self.program.clone(),
            source,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        // Every change is one assignment, so a panic elsewhere leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    async fn new(mut stream: UnixStream, dir: &BootDir) -> io::Result<Self> {
        let mut line = dir.0.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        stream.write_all(&line).await?;
        Ok(Self { stream })
    }

    /// Lets the boot begin, and waits until it has.
    ///
    /// # Errors
    /// [`VmmError::ShimFailed`] with what the shim says.
    pub(crate) async fn go(mut self, machine: &MachineId) -> Result<(), VmmError> {
        // One that has failed already does not hear it, and has said why.
        let _ = self.stream.write_all(format!("{GO}\n").as_bytes()).await;
        let mut answer = String::new();
        let read = self.stream.read_to_string(&mut answer).await;
        let reason = match (answer.strip_suffix(UP), read) {
            (Some(""), _) => return Ok(()),
            (_, Err(error)) if answer.is_empty() => format!("it does not answer: {error}"),
            _ if answer.is_empty() => "it died; see shim.log".to_owned(),
            _ => answer,
        };
        Err(VmmError::ShimFailed {
            machine: machine.clone(),
            reason,
        })
    }
}
