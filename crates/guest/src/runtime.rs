//! How containers are made to exist: the border between supervision and the isolation class.
//!
//! The methods block (they mount, fork and wait), and the supervisor calls them on threads made
//! for that, so that an implementation may be written straight down. Calls for different
//! containers may be made at the same time; those for one container come one after the other,
//! except that `exec` may be called at any time while it runs.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use types::api::ProcessStat;
use types::guest::{ContainerSpec, ExecRequest, MachineSpec, Statistics};

use crate::reaper::{Exit, ExitStatus, Reaper};
use crate::root::Root;

/// Makes machines and containers exist.
pub trait Runtime: Send + Sync + 'static {
    /// Makes everything that the machine's containers share: host name, network, clock.
    /// Nothing was started when it fails, and the host is told why.
    ///
    /// # Errors
    /// If the machine cannot be carried out as specified.
    fn prepare(&self, spec: &MachineSpec) -> Result<(), RuntimeError>;

    /// Starts run number `run` of a container: root file system, files, user, main process.
    ///
    /// The process must be watched (by [`Reaper::watch`] or [`Reaper::spawn`]) before it can end.
    ///
    /// # Errors
    /// If the main process does not run; nothing of the run is left then.
    fn start(
        &self,
        reaper: &Reaper,
        machine: &MachineSpec,
        container: &ContainerSpec,
        run: u32,
    ) -> Result<Process, RuntimeError>;

    /// Starts a process beside the main process `main` of a running container, as the leader of
    /// a session of its own.
    ///
    /// # Errors
    /// If it does not run.
    fn exec(
        &self,
        reaper: &Reaper,
        container: &ContainerSpec,
        main: i32,
        request: &ExecRequest,
    ) -> Result<Process, RuntimeError>;

    /// Starts a process beside the containers, in the machine's own file system.
    ///
    /// # Errors
    /// If it does not run, or the isolation class has no such place.
    fn exec_beside(&self, reaper: &Reaper, request: &ExecRequest) -> Result<Process, RuntimeError>;

    /// Brings the machine up to date after it was suspended: steps the clock to `unix_ms`
    /// (milliseconds since 1970) and gives the kernel's random number generator new `entropy`.
    ///
    /// # Errors
    /// If either was not done, or the isolation class cannot be suspended.
    fn resume(&self, unix_ms: i64, entropy: &[u8]) -> Result<(), RuntimeError>;

    /// The processes of the machine. `alive` are the containers that run.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn processes(&self, alive: &[Alive]) -> Result<Vec<ProcessStat>, RuntimeError>;

    /// What the machine and its containers use. `alive` are the containers that run.
    ///
    /// # Errors
    /// If the kernel does not say.
    fn statistics(&self, alive: &[Alive]) -> Result<Statistics, RuntimeError>;

    /// Connects to a port of the machine's network, from inside.
    ///
    /// # Errors
    /// If nobody answers in time.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, timeout)
    }

    /// The root file system of a container with its volumes and directories, running or not.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn root(&self, container: &ContainerSpec) -> Result<Root, RuntimeError>;

    /// The directory in which a volume is mounted.
    ///
    /// # Errors
    /// If the machine has no such volume.
    fn volume(&self, name: &str) -> Result<OwnedFd, RuntimeError>;

    /// Sends a signal to the main process.
    ///
    /// # Errors
    /// If it was not delivered. That the process has ended already is no error.
    fn signal(&self, container: &ContainerSpec, main: i32, signal: i32)
    -> Result<(), RuntimeError>;

    /// Kills every process of the container.
    ///
    /// # Errors
    /// If some may be left. That none is left already is no error.
    fn kill(&self, container: &ContainerSpec, main: i32) -> Result<(), RuntimeError>;

    /// The main process of a run has ended: kills what is left beside it and takes apart what
    /// `start` made. The writable layer stays for the next run.
    fn ended(&self, container: &ContainerSpec, run: u32, status: ExitStatus) -> RunEnd;
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    pub container: String,
    /// Its main process, in the supervisor's PID namespace.
    pub main: i32,
}

/// What the runtime knows about the end of a run beyond the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunEnd {
    /// Whether the kernel killed the container, or one of its processes, for want of memory.
    pub oom_killed: bool,
}

/// A process that was just started.
#[derive(Debug)]
pub struct Process {
    /// In the supervisor's PID namespace.
    pub pid: i32,
    pub exit: Exit,
    pub io: ProcessIo,
}

/// The supervisor's ends of a process's standard streams. [`crate::stdio`] makes them.
#[derive(Debug)]
pub enum ProcessIo {
    Pipes {
        /// `None`: standard input is empty.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Pty {
        controller: OwnedFd,
    },
}

/// What a runtime was doing when it failed, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct RuntimeError {
    /// Continues "cannot …".
    pub doing: String,
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl RuntimeError {
    pub fn new(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            doing: doing.into(),
            source: Some(source.into()),
        }
    }

    /// The whole chain of causes in one line, for the host and the person behind it.
    pub fn reason(&self) -> String {
        types::chain(self)
    }
}
