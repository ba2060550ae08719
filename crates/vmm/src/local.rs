//! The machines of this host, each boot in a shim of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use types::api::{LogLine, LogQuery};
use types::guest::ExecRequest;
use types::{BootId, HostId, IsolationClass, MachineId};

use crate::{BootSpec, Io, Offers, Report, Vmm, VmmError};

/// Where things are, and what may run.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Machines keep their writable layers and logs in `<data_dir>/machines/<id>`.
    pub data_dir: PathBuf,
    /// Boots live in `<run_dir>/machines/<id>/<boot>`.
    pub run_dir: PathBuf,
    /// Holds the guest's `vmlinux` and `initramfs.cpio`.
    pub guest_dir: PathBuf,
    pub host: HostId,
    /// Program with the sub-commands `shim` and `container`: this very binary.
    pub shim: PathBuf,
    /// What the host can do.
    pub offers: Offers,
    /// What policy allows.
    pub allow: BTreeSet<IsolationClass>,
}

/// [`Vmm`] of this host. Holds no state that is not on disk, so that a new one takes over.
#[derive(Debug, Clone)]
pub struct Local {
    config: LocalConfig,
}

impl Local {
    pub fn new(config: LocalConfig) -> Self {
        Self { config }
    }

    pub fn config(&self) -> &LocalConfig {
        &self.config
    }
}

impl Vmm for Local {
    async fn boot(&self, _spec: BootSpec) -> Result<(), VmmError> {
        Err(VmmError::NotBuilt { what: "boot" })
    }

    async fn reports(
        &self,
        _machine: &MachineId,
        _boot: BootId,
        _after: u64,
    ) -> Result<mpsc::Receiver<Report>, VmmError> {
        Err(VmmError::NotBuilt { what: "reports" })
    }

    async fn stop(
        &self,
        _machine: &MachineId,
        _boot: BootId,
        _signal: Option<String>,
        _grace: Duration,
    ) -> Result<(), VmmError> {
        Err(VmmError::NotBuilt { what: "stop" })
    }

    async fn kill(&self, _machine: &MachineId, _boot: BootId) -> Result<(), VmmError> {
        Err(VmmError::NotBuilt { what: "kill" })
    }

    async fn exec(
        &self,
        _machine: &MachineId,
        _boot: BootId,
        _request: ExecRequest,
    ) -> Result<Io, VmmError> {
        Err(VmmError::NotBuilt { what: "exec" })
    }

    async fn attach(
        &self,
        _machine: &MachineId,
        _boot: BootId,
        _container: String,
    ) -> Result<Io, VmmError> {
        Err(VmmError::NotBuilt { what: "attach" })
    }

    async fn logs(
        &self,
        _machine: &MachineId,
        _query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, VmmError> {
        Err(VmmError::NotBuilt { what: "logs" })
    }

    async fn forget(&self, _machine: &MachineId) -> Result<(), VmmError> {
        Err(VmmError::NotBuilt { what: "forget" })
    }

    async fn present(&self) -> Result<Vec<(MachineId, Option<BootId>)>, VmmError> {
        Err(VmmError::NotBuilt { what: "present" })
    }
}
