//! `aerostat doctor`: what this host can and cannot do, and what to do about it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{major, minor};
use serde::Serialize;
use types::IsolationClass;
use types::fleet::HostStatus;

use super::output::{self, Table};
use super::{Context, Refused};
use crate::app::Endpoints;
use crate::config::Config;
use crate::fleet::Identity;

/// Free space below which machines will soon fail, in bytes.
const DISK_BYTES_MIN: u64 = 2 << 30;

/// What tunnels and taps are opened by, and its number (Linux, Documentation/admin-guide/devices).
const TUN: &str = "/dev/net/tun";
const TUN_DEVICE: (u64, u64) = (10, 200);

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

pub(super) async fn run(context: &Context) -> anyhow::Result<()> {
    let checks = checks(context).await?;
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

async fn checks(context: &Context) -> anyhow::Result<Vec<Check>> {
    let config = context.config()?;
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![if root {
        Check::ok("root", "yes")
    } else {
        Check::bad("root", Verdict::Fail, "no", "run it with sudo")
    }];
    checks.extend(PROGRAMS.iter().map(program));
    checks.push(tun(Path::new(TUN)));
    checks.push(file_systems());
    checks.push(cgroups());
    checks.push(disk(&context.paths.data_dir));
    if root {
        checks.extend(classes(context));
    }
    checks.push(guest(&context.paths.guest()));
    let running = Endpoints::read(&context.paths)?;
    match running {
        Some(endpoints) => {
            checks.push(Check::ok("daemon", format!("pid {}", endpoints.pid)));
            checks.push(hosts(context).await);
        }
        None => checks.extend(ports(&config, context)),
    }
    Ok(checks)
}

/// How many hosts of the fleet are there, as this one sees it.
async fn hosts(context: &Context) -> Check {
    let name = "hosts";
    let asked = async { anyhow::Ok(context.client()?.hosts().await?.hosts) };
    let hosts = match asked.await {
        Ok(hosts) => hosts,
        Err(error) => return Check::bad(name, Verdict::Warn, format!("{error:#}"), ""),
    };
    let away = hosts.iter().filter(|found| found.status != HostStatus::Ok);
    let away: Vec<&str> = away.map(|found| found.host.name.as_str()).collect();
    let count = format!("{} of {} ok", hosts.len() - away.len(), hosts.len());
    if away.is_empty() {
        return Check::ok(name, count);
    }
    Check::bad(
        name,
        Verdict::Warn,
        format!("{count}; not: {}", away.join(", ")),
        "look there; `aerostat host remove` forgets a host that is gone for good",
    )
}

/// The ports that the daemon will take.
fn ports(config: &Config, context: &Context) -> Vec<Check> {
    let identity = Identity::load(&context.paths.fleet());
    // The first start of a host that has joined no fleet founds one.
    let is_founder = match &identity {
        Ok(Some(identity)) => identity.is_authority(),
        Ok(None) | Err(_) => true,
    };
    let port = |name, transport, address, key| port(name, transport, address, key, context);
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    let mut checks = vec![
        port("api port", tcp, config.api_listen, "api_listen"),
        port("mesh port", udp, config.mesh_listen, "mesh_listen"),
        port("gateway port", udp, config.gateway_listen, "gateway_listen"),
    ];
    if is_founder {
        checks.push(port("join port", tcp, config.join_listen, "join_listen"));
    }
    if config.kubernetes.unwrap_or(is_founder) {
        let address = config.kubernetes_listen;
        checks.push(port("kubernetes port", tcp, address, "kubernetes_listen"));
    }
    if let Err(error) = identity {
        let error = types::chain(&error).to_string();
        let fix = "`aerostat down --purge` begins anew";
        checks.push(Check::bad("identity", Verdict::Fail, error, fix));
    }
    checks
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

/// The mesh and the gateway are tunnels, so nothing starts without.
fn tun(path: &Path) -> Check {
    let fail = |detail: String, fix| Check::bad(TUN, Verdict::Fail, detail, fix);
    let load = "modprobe tun; inside a container, give it the device /dev/net/tun";
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) => return fail(format!("{error}; needed for the mesh"), load),
    };
    let number = (major(there.rdev()), minor(there.rdev()));
    if !there.file_type().is_char_device() || number != TUN_DEVICE {
        return fail("is another device".into(), load);
    }
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Check::ok(TUN, "there"),
        Err(error) => fail(format!("{error}; needed for the mesh"), load),
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
    let paths = context.config().unwrap_or_default().firecracker_paths();
    let offers = vmm::probe(&context.paths.probe(), &paths);
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

#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn bind(self, address: SocketAddr) -> io::Result<()> {
        match self {
            Self::Tcp => TcpListener::bind(address).map(drop),
            Self::Udp => UdpSocket::bind(address).map(drop),
        }
    }
}

fn port(
    name: &'static str,
    transport: Transport,
    address: SocketAddr,
    key: &str,
    context: &Context,
) -> Check {
    let bound = match transport.bind(address) {
        // A kernel without IPv6, on which everywhere is IPv4.
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && address.is_ipv6()
                && address.ip().is_unspecified() =>
        {
            transport.bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    match bound {
        Ok(()) => Check::ok(name, format!("{address} is free")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_is_not_taken_for_the_tun_device() {
        for path in ["/dev/null", "/nonexistent", "/"] {
            let check = tun(Path::new(path));
            assert_eq!(check.verdict, Verdict::Fail, "{path}: {}", check.detail);
        }
    }

    #[test]
    fn a_port_that_is_taken_fails() {
        let paths = crate::config::Paths {
            data_dir: "/nonexistent".into(),
            run_dir: "/nonexistent".into(),
            config: "/etc/aerostat.toml".into(),
            guest_dir: None,
        };
        let format = output::Format::Json;
        let context = Context {
            paths,
            format,
            remote: None,
        };
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let look = || {
            port(
                "mesh port",
                Transport::Udp,
                address,
                "mesh_listen",
                &context,
            )
        };
        let check = look();
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.fix.contains("mesh_listen"), "{}", check.fix);
        drop(taken);
        assert_eq!(look().verdict, Verdict::Ok);
    }
}
