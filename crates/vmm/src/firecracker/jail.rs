//! The directory that a Firecracker sees as its root, and the command line of its jailer.
//!
//! ```text
//!  <boot>/jail/                               a tmpfs that only the shim's mount namespace has
//!      <program>/<machine>/root/              Firecracker's /
//!          firecracker dev/ run/              made by the jailer
//!          vmlinux initramfs.cpio             bound, read-only
//!          image0 upper0 volume0 …            bound
//!          saved/ save/                       what an earlier boot saved, and room to do so
//!          log                                a pipe to the shim
//!          v.sock                             the way to the guest's vsock
//! ```
//!
//! A tmpfs, because the jailer makes device nodes and starts a program in there, and run
//! directories are often mounted so that neither works. It begins empty with every boot, so that
//! nothing an earlier one left is in the way, and goes with the shim's mount namespace.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::find::FirecrackerPrograms;
use crate::VmmError;

/// Beside the copy of the program: sockets, nodes and mount points.
const ROOM_BYTES: u64 = 4 << 20;
/// The drives, the API, the guest's connections and what Firecracker has of its own.
const FILES_MAX: u32 = 1024;
/// Where Firecracker listens by default.
const API_SOCKET: &str = "run/firecracker.socket";

/// What a jailer is told beside paths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confinement<'a> {
    /// Also the name of its control group.
    pub(super) id: &'a str,
    pub(super) uid: u32,
    pub(super) network: &'a Path,
    pub(super) group: &'a ControlGroup,
    /// Where Firecracker writes what it does, inside the jail: from its beginning, or it would do so
    /// on the console.
    pub(super) log: &'a Path,
}

/// Where the jailer makes the control group, and what it writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlGroup {
    pub(super) version: u8,
    pub(super) parent: PathBuf,
    /// File and value.
    pub(super) settings: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(super) struct Jail {
    /// `--chroot-base-dir`
    base: PathBuf,
    root: PathBuf,
    uid: u32,
}

/// How a file is seen in a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read only, for whoever has the path.
    Shared,
    /// Read only, and nobody else's.
    Private,
    Writable,
}

impl Jail {
    /// Makes an empty jail in `base`.
    pub(super) fn create(
        base: &Path,
        programs: &FirecrackerPrograms,
        id: &str,
        uid: u32,
    ) -> Result<Self, VmmError> {
        let name = programs.firecracker.file_name().unwrap_or_default();
        let root = base.join(name).join(id).join("root");
        let make = || -> io::Result<()> {
            // Mounts of an earlier start go with its namespace, unless that is this one.
            while umount2(base, MntFlags::MNT_DETACH).is_ok() {}
            crate::paths::remove(base).map_err(io::Error::other)?;
            fs::create_dir_all(base)?;
            let room = programs.firecracker.metadata()?.len() + ROOM_BYTES;
            let options = format!("size={room},mode=0711");
            mount(
                Some("jail"),
                base,
                Some("tmpfs"),
                MsFlags::MS_NOATIME,
                Some(options.as_str()),
            )?;
            fs::create_dir_all(&root)?;
            chown(&root, Some(uid), Some(uid))
        };
        make().map_err(VmmError::file("make jail", base))?;
        Ok(Self {
            base: base.to_owned(),
            root,
            uid,
        })
    }

    /// Shows the file `source` under the name `name` and returns its path inside.
    pub(super) fn file(
        &self,
        name: &str,
        source: &Path,
        access: Access,
    ) -> Result<PathBuf, VmmError> {
        self.show(name, source, access, |target| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            options.open(target).map(drop)
        })
    }

    /// Shows a directory.
    pub(super) fn directory(
        &self,
        name: &str,
        source: &Path,
        access: Access,
    ) -> Result<PathBuf, VmmError> {
        self.show(name, source, access, |target| fs::create_dir(target))
    }

    fn show(
        &self,
        name: &str,
        source: &Path,
        access: Access,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<PathBuf, VmmError> {
        let target = self.root.join(name);
        let show = || -> io::Result<()> {
            // The jailer passes on no open files, so Firecracker's user must be able to open it.
            self.give(source, access)?;
            make(&target)?;
            bind(source, &target, access)
        };
        show().map_err(VmmError::file("show Firecracker", source))?;
        Ok(Path::new("/").join(name))
    }

    /// Makes a pipe; returns its path outside and inside.
    pub(super) fn pipe(&self, name: &str) -> Result<(PathBuf, PathBuf), VmmError> {
        let path = self.root.join(name);
        let make = || -> io::Result<()> {
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            chown(&path, Some(self.uid), Some(self.uid))
        };
        make().map_err(VmmError::file("make pipe", &path))?;
        Ok((path, Path::new("/").join(name)))
    }

    /// Path outside of a file that Firecracker makes at `inside`.
    pub(super) fn outside(&self, inside: &Path) -> PathBuf {
        self.root.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    pub(super) fn api_socket(&self) -> PathBuf {
        self.root.join(API_SOCKET)
    }

    /// Arguments of the jailer.
    pub(super) fn argv(
        &self,
        programs: &FirecrackerPrograms,
        confinement: Confinement<'_>,
    ) -> Vec<OsString> {
        let Confinement {
            id,
            uid,
            network,
            group,
            log,
        } = confinement;
        let mut argv: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| argv.extend([flag.into(), value]);
        add("--id", id.into());
        add("--exec-file", programs.firecracker.clone().into());
        add("--uid", uid.to_string().into());
        add("--gid", uid.to_string().into());
        add("--chroot-base-dir", self.base.clone().into());
        add("--netns", network.into());
        add("--cgroup-version", group.version.to_string().into());
        add("--parent-cgroup", group.parent.clone().into());
        for (file, value) in &group.settings {
            add("--cgroup", format!("{file}={value}").into());
        }
        add("--resource-limit", format!("no-file={FILES_MAX}").into());
        argv.extend(["--", "--enable-pci", "--show-level", "--log-path"].map(OsString::from));
        argv.push(log.into());
        argv
    }

    fn give(&self, path: &Path, access: Access) -> io::Result<()> {
        match access {
            Access::Writable | Access::Private => chown(path, Some(self.uid), Some(self.uid)),
            // Images and kernels are every machine's and hold no secret from one of them; the
            // directories above are root's alone. With a strict umask they would be unreadable.
            Access::Shared => {
                let mode = path.metadata()?.mode() & 0o7777;
                if mode & 0o004 != 0 {
                    return Ok(());
                }
                fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o444))
            }
        }
    }
}

fn bind(source: &Path, target: &Path, access: Access) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    let flags = match access {
        Access::Writable => return Ok(()),
        Access::Shared | Access::Private => {
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY
        }
    };
    Ok(mount(none, target, none, flags, none)?)
}

/// The serial number that the guest will see of a disk: Firecracker gives none, and the device
/// says what its backing file is, in the 20 bytes that there are (`build_device_id` of v1.16).
pub(super) fn serial(path: &Path) -> io::Result<String> {
    let file = path.metadata()?;
    Ok(serial_of(file.dev(), file.rdev(), file.ino()))
}

fn serial_of(dev: u64, rdev: u64, ino: u64) -> String {
    const BYTES_MAX: usize = 20;
    let mut serial = format!("{dev}{rdev}{ino}");
    serial.truncate(BYTES_MAX);
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_by_its_backing_file() {
        assert_eq!(serial_of(65_024, 0, 1_234_567), "6502401234567");
        assert_eq!(serial_of(u64::MAX, 0, 1), "18446744073709551615");
        let (a, b) = (
            tempfile::NamedTempFile::new().unwrap(),
            tempfile::NamedTempFile::new().unwrap(),
        );
        assert_ne!(serial(a.path()).unwrap(), serial(b.path()).unwrap());
    }

    #[test]
    fn the_jailer_is_told_user_network_group_and_limits_and_firecracker_to_use_pci() {
        let jail = Jail {
            base: "/jail".into(),
            root: "/jail/firecracker/m1/root".into(),
            uid: 7,
        };
        let programs = FirecrackerPrograms {
            firecracker: "/opt/firecracker".into(),
            jailer: "/opt/jailer".into(),
            version: "1.16.1".into(),
        };
        let group = ControlGroup {
            version: 1,
            parent: "aerostat-h/m1.3".into(),
            settings: vec![
                ("pids.max", "64".into()),
                ("memory.limit_in_bytes", "9".into()),
            ],
        };
        let confinement = Confinement {
            id: "m1",
            uid: 7,
            network: Path::new("/n"),
            group: &group,
            log: Path::new("/log"),
        };
        let argv = jail.argv(&programs, confinement);
        let argv: Vec<_> = argv.into_iter().map(|a| a.into_string().unwrap()).collect();
        assert_eq!(
            argv.join(" "),
            "--id m1 --exec-file /opt/firecracker --uid 7 --gid 7 --chroot-base-dir /jail \
             --netns /n --cgroup-version 1 --parent-cgroup aerostat-h/m1.3 \
             --cgroup pids.max=64 --cgroup memory.limit_in_bytes=9 \
             --resource-limit no-file=1024 -- --enable-pci --show-level --log-path /log"
        );
        assert_eq!(
            jail.outside(Path::new("/v.sock")),
            Path::new("/jail/firecracker/m1/root/v.sock")
        );
    }
}
