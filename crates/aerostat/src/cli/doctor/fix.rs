//! What `doctor --fix` does: only what takes nothing from anybody.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use net::HostNet;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::super::Context;
use super::Check;
use super::features::{TUN, TUN_DEVICE};
use crate::app::{self, Lock};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Load these modules.
    Modules(Vec<String>),
    /// Load the module and make the node.
    TunDevice,
    /// Make a directory that only root may look into.
    Directory(PathBuf),
    /// Take away what a daemon left that no longer lives, unless a machine uses it.
    Leftovers,
}

/// Does what can be done. Returns for each check what was done; what went wrong goes to standard
/// error.
pub(super) fn carry_out(context: &Context, checks: &[Check]) -> Vec<(&'static str, String)> {
    let mut done = Vec::new();
    for check in checks {
        let Some(repair) = &check.repair else {
            continue;
        };
        match apply(context, repair) {
            Ok(what) => done.push((check.name, what)),
            Err(error) => eprintln!("{} was not fixed: {error:#}", check.name),
        }
    }
    done
}

fn apply(context: &Context, repair: &Repair) -> anyhow::Result<String> {
    match repair {
        Repair::Modules(names) => {
            for name in names {
                load(name)?;
            }
            Ok(format!("loaded {}", names.join(", ")))
        }
        Repair::TunDevice => tun(Path::new(TUN)),
        Repair::Directory(path) => {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(path);
            made.with_context(|| format!("cannot make {}", path.display()))?;
            Ok(format!("made {}", path.display()))
        }
        Repair::Leftovers => leftovers(context),
    }
}

fn load(name: &str) -> anyhow::Result<()> {
    let output = Command::new("modprobe")
        .arg(name)
        .stdin(Stdio::null())
        .output()
        .context("cannot run modprobe")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot load {name}: {}", said.trim());
    }
    Ok(())
}

/// A node that is another device is somebody's doing, and stays.
fn tun(path: &Path) -> anyhow::Result<String> {
    // In a container the module is outside, and may be there without being seen.
    let loaded = load("tun");
    if path.exists() {
        loaded?;
        return Ok("loaded tun".to_owned());
    }
    let (major, minor) = TUN_DEVICE;
    let make = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor))?;
        // The umask took some of it away.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
    };
    make().with_context(|| format!("cannot make {}", path.display()))?;
    Ok(format!("made {}", path.display()))
}

/// Held meanwhile: the daemon's claim on the run directory.
fn leftovers(context: &Context) -> anyhow::Result<String> {
    let config = context.config()?;
    let _lock = Lock::acquire(&context.paths)?;
    let mut gone = Vec::new();
    for path in [context.paths.endpoints(), context.paths.socket()] {
        match fs::remove_file(&path) {
            Ok(()) => gone.push(path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
        }
    }
    let host = app::host_id(&config, &context.paths)?;
    if HostNet::remove_unused(host)? {
        gone.push("the host's network".to_owned());
    } else {
        gone.push("not its network, which machines use".to_owned());
    }
    Ok(format!("removed {}", gone.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_missing_node_of_the_tun_device_is_made_and_another_file_is_left_alone() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: a_missing_node_of_the_tun_device_is_made_…: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net/tun");
        tun(&path).unwrap();
        let made = path.metadata().unwrap();
        assert!(made.file_type().is_char_device());
        assert_eq!(made.rdev(), makedev(TUN_DEVICE.0, TUN_DEVICE.1));
        assert_eq!(made.mode() & 0o777, 0o666);
        let other = dir.path().join("other");
        fs::write(&other, "mine").unwrap();
        // Whether the module can be loaded depends on the host.
        let _ = tun(&other);
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    }
}
