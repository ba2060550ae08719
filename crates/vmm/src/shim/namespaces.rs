//! Where a shim lives: in the boot's control group and the host's network, with mounts of its own.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{Failure, ShimSpec, step};
use crate::VmmError;
use crate::cgroup::Group;

/// The directory of the machine's network namespace as the worker sees it: what is mounted there
/// later does not come to the mounts of our own.
pub(super) struct Namespaces(Option<File>);

impl Namespaces {
    pub(super) fn open(spec: &ShimSpec) -> Result<Self, Failure> {
        let path = spec.boot.attachment.machine_netns.as_deref();
        let Some(dir) = path.and_then(Path::parent) else {
            return Ok(Self(None));
        };
        let dir = File::open(dir).map_err(VmmError::file("open", dir))?;
        Ok(Self(Some(dir)))
    }

    /// Opens the namespace, by which `spec` then names it: others find it through this process.
    pub(super) fn machine(&self, spec: &mut ShimSpec) -> Result<Option<File>, Failure> {
        let path = &mut spec.boot.attachment.machine_netns;
        let (Some(dir), Some(path)) = (&self.0, path) else {
            return Ok(None);
        };
        let name = path.file_name().unwrap_or_default();
        let there = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        let namespace = File::open(there).map_err(VmmError::file("open", &*path))?;
        let (pid, fd) = (std::process::id(), namespace.as_raw_fd());
        *path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        Ok(Some(namespace))
    }
}

/// Joins the boot's group and the host's network, and gets mounts of its own.
pub(super) fn isolate(spec: &ShimSpec) -> Result<(), Failure> {
    let boot = &spec.boot;
    let group = Group::new(spec.host, &boot.machine, boot.boot).map_err(step("find cgroups"))?;
    group.create(spec.limits()).map_err(step("make cgroup"))?;
    group
        .enter("shim", &["pids"])
        .map_err(step("join cgroup"))?;
    let network = &boot.attachment.host_netns;
    let namespace = File::open(network).map_err(VmmError::file("open", network))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(step("join network namespace"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make mount namespace"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(step("make mounts private"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(step("become a subreaper"))?;
    Ok(())
}
