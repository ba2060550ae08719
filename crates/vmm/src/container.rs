//! Class `container`: Linux namespaces on the host's own kernel, through libcontainer.
//!
//! ```text
//!  shim: host side ══ Unix socket pair, yamux ══ guest::Guest ── Runtime (runtime.rs)
//!                                                                  │ one per start or exec
//!                                                    `container` helper (helper.rs): libcontainer
//!                                                                  │ leaves its child behind
//!                                                    container's process, child of the shim
//! ```
//!
//! libcontainer forks and changes namespaces, which a process with threads cannot do, hence the
//! helper. Isolation is weaker than that of a virtual machine: containers share the kernel, root
//! in a container is root of the host without most capabilities and behind a seccomp filter (ours,
//! since libcontainer's needs the C library libseccomp).

mod helper;
mod oci;
mod runtime;
mod seccomp;
mod statistics;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use guest::{Guest, Reaper};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::api::image_of;
use crate::cgroup::Group;
use crate::mount::mount_root;
use crate::paths::BootDir;
use crate::shim::ShimSpec;
use crate::upper::prepare_upper;

pub use helper::container_main;
use runtime::Libcontainer;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The containers of a machine and their supervision, which runs in this process.
#[derive(Debug)]
pub(crate) struct Containers {
    supervision: JoinHandle<guest::Ended>,
    group: Group,
    children: Vec<String>,
}

/// The control group of a container, within that of its machine.
pub(crate) fn child_group(container: &str) -> String {
    format!("c-{container}")
}

/// What there is before the network and the first thread.
#[derive(Debug)]
pub(crate) struct Ahead {
    helper: helper::Waiting,
    /// Mounted root of each container, or why there are none, which ends the boot.
    roots: Result<BTreeMap<String, PathBuf>, Failure>,
}

/// Starts a helper and mounts the roots. Must be called before there are threads; blocks for some
/// milliseconds for each container.
///
/// # Errors
/// If there is no helper.
pub(crate) fn make_ahead(dir: &BootDir, spec: &ShimSpec) -> Result<Ahead, Failure> {
    Ok(Ahead {
        helper: helper::Waiting::fork()?,
        roots: mount_roots(dir, spec),
    })
}

fn mount_roots(dir: &BootDir, spec: &ShimSpec) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let (boot, paths) = (&spec.boot, spec.paths());
    let mut roots = BTreeMap::new();
    for container in &boot.spec.containers {
        let name = &container.name;
        let image = image_of(&boot.images, name)?;
        let upper = paths.upper(&boot.machine, name);
        prepare_upper(&paths, &upper, boot)?;
        roots.insert(name.clone(), mount_root(&dir.mounts(name), image, &upper)?);
    }
    Ok(roots)
}

impl Containers {
    /// Starts supervision. Returns with it the host's end of the guest protocol.
    pub(crate) fn start(
        dir: &BootDir,
        spec: &ShimSpec,
        ahead: Ahead,
    ) -> Result<(Self, tokio::net::UnixStream), Failure> {
        let boot = &spec.boot;
        let roots = ahead.roots?;
        let group = Group::new(spec.host, &boot.machine, boot.boot)?;
        let netns = boot.attachment.machine_netns.clone();
        let runtime = Libcontainer::new(
            dir,
            spec.program.clone(),
            group.clone(),
            netns.ok_or("the machine has no network namespace")?,
            boot.spec.hostname.clone(),
            roots,
            ahead.helper,
        )?;
        // Nothing before this may be waited for by the reaper, nothing after by anybody else.
        let guest = Guest::new(runtime, Reaper::start()?);
        let (ours, theirs) = UnixStream::pair()?;
        let [ours, theirs] = [ours, theirs].map(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        });
        let theirs = theirs?;
        let containers = Self {
            supervision: tokio::spawn(async move { guest.serve(theirs).await }),
            group,
            children: boot
                .spec
                .containers
                .iter()
                .map(|c| child_group(&c.name))
                .collect(),
        };
        Ok((containers, ours?))
    }

    /// Returns when supervision has ended. May be dropped, but not be called again afterwards.
    pub(crate) async fn lost(&mut self) -> String {
        match (&mut self.supervision).await {
            Ok(_) => "the supervision of the containers ended".to_owned(),
            Err(error) => format!("the supervision of the containers failed: {error}"),
        }
    }

    /// Kills what is left. The mounts go with this process.
    pub(crate) async fn finish(self) {
        self.supervision.abort();
        let (group, children) = (self.group, self.children);
        let kill = move || {
            children
                .iter()
                .try_for_each(|child| group.kill_child(child))
        };
        match tokio::task::spawn_blocking(kill).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot kill what is left of the containers"),
            Err(error) => warn!(%error, "killing what is left of the containers failed"),
        }
    }
}
