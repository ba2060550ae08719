//! Mounts: those of the guest, and those that a container sees.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use guest::root::Root;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, chroot};

/// `mount`, with the names of what failed.
pub(crate) fn mount_one(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MsFlags,
    options: &str,
) -> io::Result<()> {
    let options = (!options.is_empty()).then_some(options);
    mount(Some(source), target, Some(kind), flags, options).map_err(|errno| {
        let error = io::Error::from(errno);
        let kind = error.kind();
        let text = format!(
            "{source} on {} ({}): {error}",
            target.display(),
            kind_text(options)
        );
        io::Error::new(kind, text)
    })
}

fn kind_text(options: Option<&str>) -> &str {
    options.unwrap_or("no options")
}

const NOTHING: MsFlags = MsFlags::empty();

fn plain() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Mounts the file systems that the kernel serves.
pub(crate) fn mount_guest() -> io::Result<()> {
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let all = [
        ("proc", "/proc", plain(), ""),
        ("sysfs", "/sys", plain(), ""),
        ("devtmpfs", "/dev", no_exec, "mode=755"),
        ("devpts", "/dev/pts", no_exec, "gid=5,mode=620,ptmxmode=666"),
        (
            "tmpfs",
            "/dev/shm",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            "mode=1777",
        ),
        (
            "tmpfs",
            "/run",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            "mode=755",
        ),
        ("cgroup2", "/sys/fs/cgroup", plain(), ""),
    ];
    for (kind, target, flags, options) in all {
        let target = Path::new(target);
        // In /sys only the kernel makes directories.
        if kind != "cgroup2" {
            fs::create_dir_all(target)?;
        }
        mount_one(kind, kind, target, flags, options)?;
    }
    Ok(())
}

/// Device nodes of a container: name, major and minor number (Linux, admin-guide/devices.txt).
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes `root`, a mount point, the root of this process's new mount namespace, with /proc, /sys
/// and /dev.
///
/// /proc shows this process's PID namespace, so it has to be the new one already.
pub(crate) fn enter_root(root: &Path, shared_memory: Option<&Path>) -> io::Result<()> {
    // What happens here stays here.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let files = Root::open(root)?;
    for directory in ["/proc", "/sys", "/dev"] {
        files.make_directory(directory)?;
    }
    let at = |path: &str| root.join(path);
    mount_one("proc", "proc", &at("proc"), plain(), "")?;
    mount_one(
        "sysfs",
        "sysfs",
        &at("sys"),
        plain() | MsFlags::MS_RDONLY,
        "",
    )?;
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_one("tmpfs", "tmpfs", &at("dev"), no_exec, "mode=755,size=64k")?;
    for (name, major, minor) in NODES {
        let path = at("dev").join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    }
    for (name, target) in LINKS {
        symlink(target, at("dev").join(name))?;
    }
    // One instance for all, so that a terminal made outside has its name inside.
    fs::create_dir(at("dev/pts"))?;
    bind(Path::new("/dev/pts"), &at("dev/pts"))?;
    fs::create_dir(at("dev/shm"))?;
    let shared = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match shared_memory {
        Some(source) => bind(source, &at("dev/shm"))?,
        None => mount_one("tmpfs", "tmpfs", &at("dev/shm"), shared, "mode=1777")?,
    }
    // pivot_root refuses the initial RAM file system; moving the mount over it is the same.
    chdir(root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

/// Mounts a container's image and writable layer as one root; returns nothing on purpose: the
/// path is `<base>/root`.
pub(crate) fn mount_container(base: &Path, image: &Path, upper: &Path) -> io::Result<()> {
    let [lower, layer, root] = ["image", "layer", "root"].map(|name| base.join(name));
    for directory in [&lower, &layer, &root] {
        fs::create_dir_all(directory)?;
    }
    let image = image.to_string_lossy();
    mount_one("erofs", &image, &lower, MsFlags::MS_RDONLY, "")?;
    let upper = upper.to_string_lossy();
    mount_one("ext4", &upper, &layer, MsFlags::MS_NOATIME, "")?;
    for name in ["upper", "work"] {
        fs::create_dir_all(layer.join(name))?;
    }
    let layer = layer.display();
    let options = format!(
        "lowerdir={},upperdir={layer}/upper,workdir={layer}/work",
        lower.display()
    );
    mount_one("overlay", "overlay", &root, NOTHING, &options)
}

fn bind(from: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Mounts a volume's disk.
pub(crate) fn mount_volume(disk: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV;
    mount_one("ext4", &disk.to_string_lossy(), path, flags, "")
}

/// Takes the mounts below a directory apart, the last first, so that disks are clean.
pub(crate) fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let targets: Vec<_> = targets.map(unescape).collect();
    for target in targets.iter().rev() {
        if !Path::new(target).starts_with(directory) {
            continue;
        }
        if let Err(error) = umount2(target.as_str(), MntFlags::empty()) {
            tracing::warn!(target, %error, "file system stays mounted");
        }
    }
}

/// Undoes the kernel's writing of blanks and the like as `\040` (proc_pid_mounts(5)).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<3>().filter(|_| byte == b'\\');
        let code = escaped.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points_are_read() {
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
        assert_eq!(unescape("/plain"), "/plain");
        assert_eq!(unescape("/end\\04"), "/end\\04");
    }
}
