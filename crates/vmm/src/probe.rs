//! Which isolation classes this host offers, and why not the others.
//!
//! `/dev/kvm` proves nothing: there are hosts whose KVM starts guests and then interprets them,
//! without instructions that Linux needs. So guest code is run. The answer holds until the host
//! is booted again and is kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;
use types::IsolationClass;

use crate::firecracker::{self, FirecrackerPaths, FirecrackerPrograms};
use crate::sys::{self, GuestEnd};

pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Real hardware needs less than a millisecond, an interpreter a few.
const GUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Changes when the probe learns to look at something else.
const CACHE_VERSION: u32 = 2;

/// What `/dev/kvm` is good for, found by running guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kvm {
    Usable,
    /// It starts guests, but interprets their kernel and lacks instructions that Linux needs.
    Emulated,
    Absent,
}

/// Whether a class can be had here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "offer", rename_all = "lowercase")]
pub enum Offer {
    /// `by` names what runs it, for people.
    Offered {
        by: String,
    },
    Missing {
        reason: String,
    },
}

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    pub kvm: Kvm,
    /// Version of QEMU, if there is one.
    pub qemu: Option<String>,
    /// What runs class `microvm`; if there is none, QEMU does.
    pub firecracker: Option<FirecrackerPrograms>,
    /// Why there is none, for people.
    pub firecracker_missing: Option<String>,
    pub classes: BTreeMap<IsolationClass, Offer>,
}

impl Offers {
    pub fn offers(&self, class: IsolationClass) -> bool {
        matches!(self.classes.get(&class), Some(Offer::Offered { .. }))
    }

    /// Why a class is not offered; `None` if it is.
    pub fn missing(&self, class: IsolationClass) -> Option<&str> {
        match self.classes.get(&class) {
            Some(Offer::Offered { .. }) => None,
            Some(Offer::Missing { reason }) => Some(reason),
            None => Some("it has not been looked for"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Cached {
    version: u32,
    boot: String,
    offers: Offers,
}

/// Finds out what this host offers. The answer is kept in the file `cache` for as long as the
/// host is not rebooted; something missing is looked for again, and so is Firecracker, which may
/// be exchanged at any time. Blocks, for a few seconds at most.
pub fn probe(cache: &Path, paths: &FirecrackerPaths) -> Offers {
    let mut offers = lasting(cache);
    match firecracker::find(paths) {
        Ok(programs) => {
            if offers.kvm == Kvm::Usable {
                let by = format!("Firecracker {} with KVM", programs.version);
                let microvm = Offer::Offered { by };
                offers.classes.insert(IsolationClass::Microvm, microvm);
            }
            offers.firecracker = Some(programs);
        }
        Err(missing) => offers.firecracker_missing = Some(missing.to_string()),
    }
    offers
}

/// What can be remembered.
fn lasting(cache: &Path) -> Offers {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = fs::read(cache)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok())
        .filter(|known| known.version == CACHE_VERSION && known.boot == boot);
    if let Some(known) = known {
        let complete = |class| known.offers.offers(class);
        // QEMU may be installed at any time. What is offered does not go away by itself.
        if complete(IsolationClass::Emulated) && complete(IsolationClass::Container) {
            return known.offers;
        }
    }
    let offers = look();
    let version = CACHE_VERSION;
    let cached = Cached {
        version,
        boot,
        offers,
    };
    let bytes = serde_json::to_vec(&cached).unwrap_or_default();
    if let Err(error) = fs::write(cache, bytes) {
        debug!(%error, "the probe's answer is not kept");
    }
    cached.offers
}

fn look() -> Offers {
    let (kvm, kvm_missing) = kvm();
    let qemu = qemu_version();
    let by_qemu = |how: &str, obstacle: Option<String>| match (&qemu, obstacle) {
        (_, Some(reason)) => Offer::Missing { reason },
        (None, None) => Offer::Missing {
            reason: format!("{QEMU} is not installed"),
        },
        (Some(version), None) => Offer::Offered {
            by: format!("QEMU {version} {how}"),
        },
    };
    let qboot = qboot();
    let firmware = || {
        let missing = || "the firmware qboot.rom of QEMU is not installed".to_owned();
        (qemu.is_some() && qboot.is_none()).then(missing)
    };
    let classes = [
        (
            IsolationClass::Microvm,
            by_qemu("with KVM", kvm_missing.or_else(&firmware)),
        ),
        (
            IsolationClass::Emulated,
            by_qemu("with its own emulation (TCG)", firmware()),
        ),
        (IsolationClass::Container, container()),
    ];
    Offers {
        kvm,
        qemu,
        firecracker: None,
        firecracker_missing: None,
        classes: classes.into_iter().collect(),
    }
}

/// What KVM is good for, and what is wrong with it.
fn kvm() -> (Kvm, Option<String>) {
    match sys::run_guest(GUEST_TIMEOUT) {
        Ok(GuestEnd::Halted) => (Kvm::Usable, None),
        Ok(GuestEnd::Stopped(reason)) => {
            let reason = format!(
                "/dev/kvm interprets its guests and cannot run Linux (exit reason {reason} at an \
                 instruction that Linux needs)"
            );
            (Kvm::Emulated, Some(reason))
        }
        Ok(GuestEnd::Hung) => {
            let reason = "a guest of two instructions hangs under /dev/kvm".to_owned();
            (Kvm::Emulated, Some(reason))
        }
        Err(error) => (Kvm::Absent, Some(format!("cannot use /dev/kvm: {error}"))),
    }
}

fn qemu_version() -> Option<String> {
    let output = Command::new(QEMU)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    words.find(|&word| word == "version")?;
    words.next().map(str::to_owned)
}

/// The small firmware that QEMU brings along.
pub(crate) fn qboot() -> Option<PathBuf> {
    ["/usr/share/qemu/qboot.rom", "/usr/share/qboot/qboot.rom"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

fn container() -> Offer {
    let missing = |reason: &str| Offer::Missing {
        reason: reason.to_owned(),
    };
    if !nix::unistd::geteuid().is_root() {
        return missing("containers need root");
    }
    for namespace in ["ipc", "mnt", "net", "pid", "uts"] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            return missing("the kernel lacks a kind of namespace");
        }
    }
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for needed in ["overlay", "erofs", "ext4"] {
        if !file_systems.split_whitespace().any(|name| name == needed) && !modular(needed) {
            return Offer::Missing {
                reason: format!("the kernel lacks the file system {needed}"),
            };
        }
    }
    match crate::cgroup::Hierarchies::find() {
        Ok(found) if found.limits_memory() => Offer::Offered {
            by: format!("Linux namespaces, cgroups {}", found.version()),
        },
        Ok(_) => missing("no control group limits memory"),
        Err(_) => missing("control groups are not mounted"),
    }
}

/// Whether the file system can be loaded as a module.
fn modular(name: &str) -> bool {
    let run = Command::new("modprobe")
        .args(["-q", name])
        .stdin(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_word_after_version() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("nothing"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn every_class_is_offered_or_has_a_reason_and_the_answer_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("offers.json");
        let paths = FirecrackerPaths::default();
        let offers = probe(&cache, &paths);
        for class in IsolationClass::ALL {
            assert_eq!(
                offers.offers(class),
                offers.missing(class).is_none(),
                "{offers:?}"
            );
        }
        eprintln!("{offers:?}");
        assert_eq!(probe(&cache, &paths), offers);
        fs::write(&cache, b"rubbish").unwrap();
        assert_eq!(probe(&cache, &paths), offers);
    }
}
