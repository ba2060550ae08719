//! What this host has for machines: room, and classes of isolation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use types::{HostId, IsolationClass};

use crate::config::{Config, Paths};
use crate::worker::Capacity;

/// What this host has.
pub(crate) fn capacity(data_dir: &Path) -> anyhow::Result<Capacity> {
    let cpus = std::thread::available_parallelism().context("cannot count processors")?;
    let info = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let disk = nix::sys::statvfs::statvfs(data_dir)
        .with_context(|| format!("cannot measure the disk of {}", data_dir.display()))?;
    Ok(Capacity {
        cpus: u32::try_from(cpus.get())?,
        memory_mb: kib.context("/proc/meminfo has no MemTotal")? / 1024,
        disk_mb: (disk.blocks_available() * disk.fragment_size()) >> 20,
    })
}

/// Bytes that images may take; none is without limit.
pub(super) fn images_bytes_max(config: &Config, folder: &Path) -> anyhow::Result<Option<u64>> {
    /// Leaves most of the disk to machines' own layers.
    const SHARE_OF_DISK: u64 = 5;
    Ok(match config.images_gib_max {
        Some(0) => None,
        Some(gib) => Some(gib.saturating_mul(1 << 30)),
        None => {
            let disk = nix::sys::statvfs::statvfs(folder)
                .with_context(|| format!("cannot measure the disk of {}", folder.display()))?;
            Some(disk.blocks() * disk.fragment_size() / SHARE_OF_DISK)
        }
    })
}

/// The machines' bodies on this host.
pub(crate) fn local_vmm(config: &Config, paths: &Paths, host: HostId) -> vmm::Local {
    let offers = vmm::probe(&paths.probe(), &config.firecracker_paths());
    vmm::Local::new(vmm::LocalConfig {
        data_dir: paths.data_dir.clone(),
        run_dir: paths.run_dir.clone(),
        guest_dir: paths.guest(),
        kernel: config.kernel.clone(),
        chosen_kernel: paths.kernel_link(),
        host,
        shim: std::env::current_exe().unwrap_or_else(|_| "aerostat".into()),
        allow: offered(config, &offers),
        offers,
    })
}

/// What the host can do and policy allows.
pub(super) fn offered(config: &Config, offers: &vmm::Offers) -> BTreeSet<IsolationClass> {
    let classes = IsolationClass::ALL.into_iter();
    classes
        .filter(|class| offers.offers(*class) && !config.isolation_refused.contains(class))
        .collect()
}

/// Why machines cannot have the other classes.
pub(super) fn missing(config: &Config, offers: &vmm::Offers) -> BTreeMap<IsolationClass, String> {
    let why = |class: IsolationClass| {
        if config.isolation_refused.contains(&class) {
            return Some("the configuration of this host refuses it".to_owned());
        }
        offers.missing(class).map(str::to_owned)
    };
    IsolationClass::ALL
        .into_iter()
        .filter_map(|class| Some((class, why(class)?)))
        .collect()
}

/// The class of machines that do not ask for one: the strongest that is not slow.
pub(super) fn class_default(config: &Config, classes: &BTreeSet<IsolationClass>) -> IsolationClass {
    use IsolationClass::{Container, Emulated, Microvm};
    let strongest = [Microvm, Container]
        .into_iter()
        .find(|class| classes.contains(class));
    config.isolation_default.or(strongest).unwrap_or(Emulated)
}
