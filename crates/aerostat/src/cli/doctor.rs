//! `aerostat doctor`: what this host can and cannot do, and what to do about it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use types::IsolationClass;

use super::output::{self, Table};
use super::{Context, Refused};
use crate::app::Endpoints;

/// Free space below which machines will soon fail, in bytes.
const DISK_BYTES_MIN: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Something is missing that only some machines need.
    Warn,
    /// Nothing will run.
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    detail: String,
    /// What to do about it; empty when nothing is.
    fix: String,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            fix: String::new(),
        }
    }

    fn bad(
        name: &'static str,
        verdict: Verdict,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict,
            detail: detail.into(),
            fix: fix.into(),
        }
    }
}

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let checks = checks(context)?;
    let table = || {
        let mut table = Table::new(&["CHECK", "VERDICT", "FOUND", "WHAT TO DO"]);
        for check in &checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            table.row([
                check.name.to_owned(),
                verdict.to_owned(),
                check.detail.clone(),
                check.fix.clone(),
            ]);
        }
        table
    };
    let names = || checks.iter().map(|check| check.name.to_owned()).collect();
    output::print(context.format, &checks, table, names)?;
    match checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count()
    {
        0 => Ok(()),
        failed => Err(Refused(format!("{failed} checks failed")).into()),
    }
}

fn checks(context: &Context) -> anyhow::Result<Vec<Check>> {
    let config = context.config()?;
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![if root {
        Check::ok("root", "yes")
    } else {
        Check::bad("root", Verdict::Fail, "no", "run it with sudo")
    }];
    checks.extend(PROGRAMS.iter().map(program));
    checks.push(device(
        "/dev/net/tun",
        "taps of virtual machines",
        "modprobe tun",
    ));
    checks.push(file_systems());
    checks.push(cgroups());
    checks.push(disk(&context.paths.data_dir));
    if root {
        checks.extend(classes(context));
    }
    checks.push(guest(&context.paths.guest()));
    let running = Endpoints::read(&context.paths)?;
    match running {
        Some(endpoints) => checks.push(Check::ok("daemon", format!("pid {}", endpoints.pid))),
        None => {
            checks.push(port("api port", config.api_listen, "api_listen", context));
            checks.push(port(
                "kubernetes port",
                config.kubernetes_listen,
                "kubernetes_listen",
                context,
            ));
        }
    }
    Ok(checks)
}

/// Programs by name, with the Debian package and what they are for.
const PROGRAMS: &[(&str, &str, &str, Verdict)] = &[
    ("ip", "iproute2", "network namespaces", Verdict::Fail),
    ("nft", "nftables", "guards", Verdict::Fail),
    ("mkfs.ext4", "e2fsprogs", "writable layers", Verdict::Fail),
    (
        "busybox",
        "busybox-static",
        "the first image",
        Verdict::Warn,
    ),
    (
        "qemu-system-x86_64",
        "qemu-system-x86",
        "virtual machines",
        Verdict::Warn,
    ),
];

fn program((name, package, purpose, verdict): &(&'static str, &str, &str, Verdict)) -> Check {
    let folders = [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
    ];
    let found = folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|p| p.exists());
    match found {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::bad(
            name,
            *verdict,
            format!("missing; needed for {purpose}"),
            format!("apt-get install {package}"),
        ),
    }
}

fn device(path: &'static str, purpose: &str, fix: &str) -> Check {
    if Path::new(path).exists() {
        Check::ok(path, "there")
    } else {
        Check::bad(
            path,
            Verdict::Warn,
            format!("missing; needed for {purpose}"),
            fix,
        )
    }
}

fn file_systems() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| known.split_whitespace().any(|word| word == name);
    let missing: Vec<&str> = ["erofs", "ext4", "overlay"]
        .into_iter()
        .filter(|name| !has(name) && !module_exists(name))
        .collect();
    if missing.is_empty() {
        return Check::ok("file systems", "erofs, ext4, overlay");
    }
    let missing = missing.join(" ");
    Check::bad(
        "file systems",
        Verdict::Warn,
        format!("the kernel lacks {missing}; class container cannot run"),
        format!("modprobe {missing}"),
    )
}

fn module_exists(name: &str) -> bool {
    Command::new("/sbin/modinfo")
        .arg(name)
        .output()
        .is_ok_and(|output| output.status.success())
}

fn cgroups() -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let legacy = Path::new("/sys/fs/cgroup/memory").exists();
    match (unified, legacy) {
        (true, _) => Check::ok("cgroups", "version 2"),
        (false, true) => Check::ok("cgroups", "version 1 (or hybrid)"),
        (false, false) => Check::bad(
            "cgroups",
            Verdict::Warn,
            "no memory controller; limits of class container cannot be kept",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn disk(data_dir: &Path) -> Check {
    let there = data_dir
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let detail = format!("{} free in {}", output::size(free), there.display());
            if free >= DISK_BYTES_MIN {
                Check::ok("disk", detail)
            } else {
                let fix = "free some space, or move the data with --data-dir";
                Check::bad("disk", Verdict::Warn, detail, fix)
            }
        }
        Err(error) => Check::bad("disk", Verdict::Warn, format!("not known: {error}"), ""),
    }
}

fn classes(context: &Context) -> Vec<Check> {
    let offers = vmm::probe(&context.paths.probe());
    let kvm = match offers.kvm {
        vmm::Kvm::Usable => Check::ok("kvm", "runs Linux guests"),
        vmm::Kvm::Emulated => Check::bad(
            "kvm",
            Verdict::Warn,
            "interprets guest kernels and lacks instructions that Linux needs",
            "use class emulated or container, or a host with nested virtualisation",
        ),
        vmm::Kvm::Absent => Check::bad(
            "kvm",
            Verdict::Warn,
            "absent",
            "enable virtualisation in the firmware, or use class emulated or container",
        ),
    };
    let class = |class: IsolationClass, name: &'static str| match offers.classes.get(&class) {
        Some(vmm::Offer::Offered { by }) => Check::ok(name, format!("by {by}")),
        Some(vmm::Offer::Missing { reason }) => Check::bad(name, Verdict::Warn, reason, ""),
        None => Check::bad(name, Verdict::Warn, "not looked for", ""),
    };
    vec![
        kvm,
        class(IsolationClass::Microvm, "class microvm"),
        class(IsolationClass::Emulated, "class emulated"),
        class(IsolationClass::Container, "class container"),
    ]
}

fn guest(dir: &Path) -> Check {
    let missing = ["vmlinux", "initramfs.cpio"]
        .into_iter()
        .find(|name| !dir.join(name).exists());
    match missing {
        None => Check::ok("guest image", dir.display().to_string()),
        Some(name) => Check::bad(
            "guest image",
            Verdict::Warn,
            format!(
                "{} is missing; virtual machines cannot boot",
                dir.join(name).display()
            ),
            "./x up makes it",
        ),
    }
}

fn port(name: &'static str, address: std::net::SocketAddr, key: &str, context: &Context) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) => Check::bad(
            name,
            Verdict::Fail,
            format!("{address}: {error}"),
            format!(
                "end what listens there, or set {key} in {}",
                context.paths.config.display()
            ),
        ),
    }
}
