//! What the kernel has: tunnels, control groups, namespaces, guards, file systems, copies by
//! reference.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::{major, minor};

use super::Check;
use super::fix::Repair;
use super::system::existing;

/// What tunnels and taps are opened by, and its number (Linux, Documentation/admin-guide/devices).
pub(super) const TUN: &str = "/dev/net/tun";
pub(super) const TUN_DEVICE: (u64, u64) = (10, 200);
/// The controllers that limits of machines need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn checks(data_dir: &Path, is_root: bool) -> Vec<Check> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut checks = vec![
        tun(Path::new(TUN)),
        wireguard(),
        cgroups(&mounts, |root| {
            fs::read_to_string(Path::new(root).join("cgroup.controllers")).unwrap_or_default()
        }),
        namespaces(Path::new("/proc/self/ns")),
        file_systems(),
        loop_devices(Path::new("/dev/loop-control")),
    ];
    if is_root {
        checks.push(nftables());
        checks.push(reflink(existing(data_dir)));
    }
    checks
}

/// The mesh and the gateway are tunnels, so nothing starts without.
fn tun(path: &Path) -> Check {
    let fail = |detail: String| {
        let fix = "modprobe tun; inside a container, give it the device /dev/net/tun";
        let means = "neither the mesh nor virtual machines have a network";
        Check::fail(TUN, detail, means, fix).with(Repair::TunDevice)
    };
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) => return fail(error.to_string()),
    };
    let number = (major(there.rdev()), minor(there.rdev()));
    if !there.file_type().is_char_device() || number != TUN_DEVICE {
        return fail("is another device".into());
    }
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Check::ok(TUN, "there"),
        Err(error) => fail(error.to_string()),
    }
}

/// Our own is always there; the kernel's is what peers outside mostly have.
fn wireguard() -> Check {
    let name = "wireguard";
    if Path::new("/sys/module/wireguard").exists() {
        return Check::ok(name, "in user space, and the kernel has it too");
    }
    if module_exists("wireguard") {
        return Check::ok(name, "in user space; the kernel's is a module");
    }
    Check::ok(name, "in user space; the kernel has none, nor need it")
}

/// What is mounted: the version, and which controllers there are.
fn cgroups(mounts: &str, unified: impl Fn(&str) -> String) -> Check {
    let mut old: Vec<&str> = Vec::new();
    let mut new: Option<&str> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        match (words.next(), words.next(), words.next()) {
            (Some(path), Some("cgroup2"), _) => new = Some(path),
            (_, Some("cgroup"), Some(options)) => old.extend(options.split(',')),
            _ => {}
        }
    }
    let is_old = CONTROLLERS.iter().any(|name| old.contains(name));
    let (version, has): (_, Vec<String>) = match new {
        Some(_) if is_old => ("hybrid", old.iter().map(|&name| name.to_owned()).collect()),
        None if is_old => (
            "version 1",
            old.iter().map(|&name| name.to_owned()).collect(),
        ),
        Some(root) => (
            "version 2",
            unified(root)
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        ),
        None => {
            return Check::fail(
                "cgroups",
                "not mounted",
                "machines cannot be limited, nor ended for certain",
                "mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
    };
    let has = |name: &str| has.iter().any(|known| known == name);
    let (found, missing): (Vec<&str>, Vec<&str>) =
        CONTROLLERS.into_iter().partition(|name| has(name));
    if missing.is_empty() {
        return Check::ok("cgroups", format!("{version}: {}", found.join(", ")));
    }
    let missing = missing.join(", ");
    let mut fix = "boot without cgroup_disable on the kernel's command line".to_owned();
    if version == "version 2" {
        fix += "; inside a container, delegate them to it";
    }
    Check::fail(
        "cgroups",
        format!("{version}, without {missing}"),
        "machines are not held to their size",
        fix,
    )
}

fn namespaces(dir: &Path) -> Check {
    let missing: Vec<&str> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| !dir.join(name).exists())
        .collect();
    if missing.is_empty() {
        return Check::ok("namespaces", "all kinds");
    }
    let missing = missing.join(", ");
    Check::fail(
        "namespaces",
        format!("the kernel lacks {missing}"),
        "hosts and machines cannot be kept apart",
        "boot a kernel of a distribution",
    )
}

fn file_systems() -> Check {
    let name = "file systems";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &&str| known.split_whitespace().any(|word| word == *name);
    let wanted = ["erofs", "ext4", "overlay"];
    let unloaded: Vec<&str> = wanted.into_iter().filter(|name| !has(name)).collect();
    let missing: Vec<&str> = unloaded
        .iter()
        .copied()
        .filter(|name| !module_exists(name))
        .collect();
    if unloaded.is_empty() {
        return Check::ok(name, wanted.join(", "));
    }
    if missing.is_empty() {
        let detail = format!("{}; {} when needed", wanted.join(", "), unloaded.join(", "));
        return Check::ok(name, detail).with(Repair::Modules(
            unloaded.into_iter().map(str::to_owned).collect(),
        ));
    }
    Check::warn(
        name,
        format!("the kernel lacks {}", missing.join(", ")),
        "class container cannot run; virtual machines bring their own kernel",
        "boot a kernel of a distribution",
    )
}

fn loop_devices(control: &Path) -> Check {
    let name = "loop devices";
    match File::options().read(true).write(true).open(control) {
        Ok(_) => Check::ok(name, "there"),
        Err(error) => Check::warn(
            name,
            format!("{}: {error}", control.display()),
            "class container cannot mount its disks; virtual machines can",
            "modprobe loop; inside a container, give it /dev/loop-control and /dev/loop*",
        )
        .with(Repair::Modules(vec!["loop".into()])),
    }
}

pub(super) fn module_exists(name: &str) -> bool {
    Command::new("/sbin/modinfo")
        .arg(name)
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether the kernel would take a table like ours. Nothing is made.
fn nftables() -> Check {
    let name = "nftables";
    let rules = "add table inet aerostat_doctor; \
                 add chain inet aerostat_doctor c { type filter hook forward priority 0; }; \
                 add rule inet aerostat_doctor c ct state established accept";
    let fail = |detail: String| {
        Check::fail(
            name,
            detail,
            "networks of organisations could not be kept apart",
            "modprobe nf_tables nf_conntrack; inside a container, load them outside",
        )
        .with(Repair::Modules(vec![
            "nf_tables".into(),
            "nf_conntrack".into(),
        ]))
    };
    let output = Command::new("nft")
        .args(["--check", rules])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Check::ok(name, "rules with states are taken"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            fail(said.lines().next().unwrap_or("refused").to_owned())
        }
        Err(error) => fail(format!("cannot run nft: {error}")),
    }
}

/// Tries it out with two files that nobody sees.
fn reflink(dir: &Path) -> Check {
    let name = "reflink";
    let shown = dir.display();
    let kind = file_system_of(dir);
    let attempt = || -> std::io::Result<bool> {
        let (from, to) = (unnamed(dir)?, unnamed(dir)?);
        std::io::Write::write_all(&mut &from, &[1; 4096])?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
    };
    match attempt() {
        Ok(true) => Check::ok(name, format!("{shown} ({kind}) copies by reference")),
        Ok(false) => Check::ok(
            name,
            format!("{shown} ({kind}) copies byte by byte: forks of volumes take time and room"),
        ),
        Err(error) => Check::warn(
            name,
            format!("{shown}: {error}"),
            "nothing can be written there",
            "choose another directory with --data-dir",
        ),
    }
}

/// A file without a name, which is gone with its last user.
fn unnamed(dir: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_TMPFILE.bits())
        .open(dir)
}

/// The type of the file system that a directory is on, from the longest mount point above it.
fn file_system_of(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), kind))
    });
    let longest = found.max_by_key(|(length, _)| *length);
    longest.map_or_else(|| "?".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn another_device_is_not_taken_for_the_tun_device() {
        for path in ["/dev/null", "/nonexistent", "/"] {
            let check = tun(Path::new(path));
            assert_eq!(check.verdict, Verdict::Fail, "{path}: {}", check.detail);
            assert_eq!(check.repair, Some(Repair::TunDevice));
        }
    }

    #[test]
    fn every_layout_of_control_groups_is_told_with_what_it_lacks() {
        let look = |mounts, unified: &str| {
            let check = cgroups(mounts, |_| unified.to_owned());
            (check.verdict, check.detail)
        };
        let old = "c /a cgroup rw,memory 0 0\nc /b cgroup rw,cpu,cpuacct 0 0\n\
                   c /c cgroup rw,pids 0 0\n";
        let (verdict, detail) = look(old, "");
        assert_eq!(
            (verdict, &*detail),
            (Verdict::Ok, "version 1: cpu, memory, pids")
        );
        let hybrid = format!("{old}c /u cgroup2 rw 0 0\n");
        assert_eq!(look(&hybrid, "hugetlb").1, "hybrid: cpu, memory, pids");
        let new = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let (verdict, detail) = look(new, "cpuset cpu io memory pids\n");
        assert_eq!(
            (verdict, &*detail),
            (Verdict::Ok, "version 2: cpu, memory, pids")
        );
        let (verdict, detail) = look(new, "cpu pids");
        assert_eq!(
            (verdict, &*detail),
            (Verdict::Fail, "version 2, without memory")
        );
        let named = "c /s cgroup rw,name=systemd 0 0\n";
        assert_eq!(look(named, ""), (Verdict::Fail, "not mounted".to_owned()));
    }

    #[test]
    fn trying_out_copies_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let check = reflink(dir.path());
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(reflink(Path::new("/proc")).verdict, Verdict::Warn);
    }
}
