//! The server itself: rights, programs, room, randomness, time.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::super::{Context, output};
use super::Check;
use super::fix::Repair;

/// Free space below which machines will soon fail, in bytes.
const DISK_BYTES_MIN: u64 = 2 << 30;
/// The daemon, its databases and one small machine.
const MEMORY_BYTES_MIN: u64 = 512 << 20;
/// Oldest kernel that is looked after by its makers and has what we use.
const KERNEL_MIN: (u32, u32) = (5, 10);

/// Programs by name, with the Debian package, what they are for, and whether nothing runs without.
const PROGRAMS: &[(&str, &str, &str, bool)] = &[
    ("ip", "iproute2", "network namespaces", true),
    ("nft", "nftables", "guards between networks", true),
    ("mkfs.ext4", "e2fsprogs", "writable layers", true),
    ("busybox", "busybox-static", "the first image", false),
];

pub(super) fn checks(context: &Context, is_root: bool) -> Vec<Check> {
    let mut checks = vec![root(is_root), kernel(&release())];
    checks.extend(PROGRAMS.iter().map(program));
    checks.push(ipv6(Path::new("/proc/net/if_inet6")));
    checks.push(data_dir(&context.paths.data_dir));
    checks.push(disk(&context.paths.data_dir));
    checks.push(memory(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
    ));
    checks.push(random());
    checks.push(clock());
    checks
}

fn root(is_root: bool) -> Check {
    if is_root {
        return Check::ok("root", "yes");
    }
    Check::fail(
        "root",
        "no",
        "namespaces, mounts and links cannot be made, and some of what follows was not looked at",
        "run it with sudo",
    )
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_MIN => Check::warn(
            "linux",
            release,
            "this kernel is older than any that machines were tried on",
            format!("boot Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1),
        ),
        _ => Check::ok("linux", release),
    }
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    const FOLDERS: [&str; 6] = [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
    ];
    let places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    places.into_iter().find(|path| path.exists())
}

fn program((name, package, purpose, is_needed): &(&'static str, &str, &str, bool)) -> Check {
    if let Some(path) = find(name) {
        return Check::ok(name, path.display().to_string());
    }
    let means = format!("it is needed for {purpose}");
    let fix = format!("apt-get install {package}");
    if *is_needed {
        Check::fail(name, "missing", means, fix)
    } else {
        Check::warn(name, "missing", means, fix)
    }
}

fn ipv6(interfaces: &Path) -> Check {
    if interfaces.exists() {
        return Check::ok("ipv6", "in the kernel");
    }
    Check::fail(
        "ipv6",
        "the kernel has none",
        "machines have IPv6 addresses on their private network",
        "take `ipv6.disable=1` off the kernel's command line",
    )
}

/// The nearest directory above that exists.
pub(super) fn existing(path: &Path) -> &Path {
    let mut above = path.ancestors();
    above.find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}

fn data_dir(dir: &Path) -> Check {
    let name = "data directory";
    let shown = dir.display();
    if !dir.exists() {
        let fix = "`aerostat up` makes it";
        let means = "nothing was ever started here";
        let check = Check::warn(name, format!("{shown} is missing"), means, fix);
        return check.with(Repair::Directory(dir.to_owned()));
    }
    match nix::sys::statfs::statfs(dir) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC => Check::warn(
            name,
            format!("{shown} is in memory"),
            "machines, images and secrets are gone after a reboot",
            "choose a directory on a disk with --data-dir",
        ),
        Ok(_) | Err(_) => Check::ok(name, shown.to_string()),
    }
}

fn disk(data_dir: &Path) -> Check {
    let there = existing(data_dir);
    let stat = match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => stat,
        Err(error) => {
            let means = "nobody knows when it will be full";
            return Check::warn("disk", format!("not known: {error}"), means, "");
        }
    };
    let free = stat.blocks_available() * stat.fragment_size();
    let detail = format!("{} free in {}", output::size(free), there.display());
    let fix = "free some space (`aerostat image prune`), or move the data with --data-dir";
    if free < DISK_BYTES_MIN {
        let means = "images and writable layers of machines will not fit";
        return Check::warn("disk", detail, means, fix);
    }
    // Some file systems have no such number.
    if stat.files() > 0 && stat.files_available() < 1000 {
        let detail = format!(
            "{} inodes free in {}",
            stat.files_available(),
            there.display()
        );
        return Check::warn("disk", detail, "no more files can be made soon", fix);
    }
    Check::ok("disk", detail)
}

fn memory(meminfo: &str) -> Check {
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(kib * 1024)
    };
    let (Some(total), Some(free)) = (bytes("MemTotal:"), bytes("MemAvailable:")) else {
        return Check::warn(
            "memory",
            "not known",
            "machines are placed by the memory that is left",
            "mount /proc",
        );
    };
    let [total, shown] = [total, free].map(output::size);
    let detail = format!("{shown} of {total} available");
    if free >= MEMORY_BYTES_MIN {
        return Check::ok("memory", detail);
    }
    let means = "the kernel will soon kill machines to get memory back";
    Check::warn("memory", detail, means, "stop something, or add memory")
}

fn random() -> Check {
    let mut byte = [0];
    let pool = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open("/dev/random")
        .and_then(|mut pool| pool.read_exact(&mut byte));
    let current = fs::read_to_string("/sys/class/misc/hw_random/rng_current");
    let current = current.unwrap_or_default();
    let source = match current.trim() {
        "" | "none" => "no hardware generator",
        name => name,
    };
    match pool {
        Ok(()) => Check::ok("random numbers", format!("ready ({source})")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Check::fail(
            "random numbers",
            format!("the kernel has not gathered enough yet ({source})"),
            "keys cannot be made, so nothing starts until it has",
            "wait; on a virtual server, give it a virtio-rng device",
        ),
        Err(error) => Check::fail(
            "random numbers",
            format!("/dev/random: {error}"),
            "keys cannot be made",
            "mount /dev",
        ),
    }
}

fn clock() -> Check {
    const KEEPERS: [&str; 6] = [
        "chronyd",
        "ntpd",
        "ntpsec",
        "ntp-daemon",
        "openntpd",
        "systemd-timesyn",
    ];
    let name = "clock";
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Check::ok(name, "kept by systemd-timesyncd");
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(comm.trim().to_owned())
    });
    match names.find(|comm| KEEPERS.contains(&comm.as_str())) {
        Some(keeper) => Check::ok(name, format!("kept by {keeper}")),
        None => Check::warn(
            name,
            "no program here keeps it",
            "certificates and leases between hosts need clocks that agree to a few seconds; a \
             virtual server may get its time from outside",
            "apt-get install systemd-timesyncd",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn old_kernels_and_short_memory_are_noticed() {
        assert_eq!(kernel("6.1.0-18-cloud-amd64").verdict, Verdict::Ok);
        assert_eq!(kernel("4.19.0").verdict, Verdict::Warn);
        assert_eq!(kernel("strange").verdict, Verdict::Ok);
        let memory = |kib| memory(&format!("MemTotal: 8000000 kB\nMemAvailable: {kib} kB\n"));
        assert_eq!(memory(4_000_000).verdict, Verdict::Ok);
        assert_eq!(memory(100_000).verdict, Verdict::Warn);
        assert_eq!(super::memory("").verdict, Verdict::Warn);
    }

    #[test]
    fn a_missing_program_fails_or_warns_by_what_needs_it() {
        let missing = |is_needed| {
            let check = program(&("no-such-program", "package", "nothing", is_needed));
            (check.verdict, check.fix)
        };
        let fix = "apt-get install package".to_owned();
        assert_eq!(missing(true), (Verdict::Fail, fix.clone()));
        assert_eq!(missing(false), (Verdict::Warn, fix));
    }

    #[test]
    fn a_directory_that_is_missing_can_be_made() {
        let check = data_dir(Path::new("/nonexistent/aerostat"));
        let made = Repair::Directory("/nonexistent/aerostat".into());
        assert_eq!(check.repair, Some(made));
        assert_eq!(existing(Path::new("/nonexistent/a/b")), Path::new("/"));
    }
}
