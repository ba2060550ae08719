//! Control groups of boots, with version 1 (each controller its own tree, also in the hybrid
//! layout) or version 2 (one tree).
//!
//! ```text
//!  aerostat-<host>/<machine>.<boot>/       memory, CPU and process limits of the whole machine
//!      shim/                               shim and helpers; under version 1 in no memory group
//!      vm/                                 QEMU
//!      c-<container>/                      processes of a container
//! ```
//!
//! Whatever a boot starts is in its group, so that killing the group is killing the boot, also
//! when nobody is left who knows its processes.

mod usage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use types::{BootId, HostId, MachineId};

const CPU_PERIOD_US: u64 = 100_000;
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
const KILL_POLL: Duration = Duration::from_millis(5);
/// Any node may be made; those of the runtime specification's default devices, of terminals and of
/// tunnels may be used. The same list as libcontainer's.
const DEVICES: [&str; 12] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
];
/// Another boot may remove the host's group, when it is empty, while we make ours.
const CREATE_TRIES: u32 = 10;

/// What a machine may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
    pub(crate) kind: CpuKind,
    pub(crate) pids: u32,
}

/// What a machine's CPUs are worth when there are not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuKind {
    /// A sixteenth of a CPU, and more when nobody else wants it.
    Shared,
    /// All of it.
    Performance,
}

impl CpuKind {
    /// As a machine's configuration calls it; the worker has refused what is neither.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "performance" => Self::Performance,
            _ => Self::Shared,
        }
    }

    /// `cpu.shares` of version 1, where a whole CPU has 1024.
    fn shares(self, cpus: u32) -> u64 {
        let each = match self {
            Self::Shared => 64,
            Self::Performance => 1024,
        };
        (each * u64::from(cpus.max(1))).min(262_144)
    }

    /// `cpu.weight` of version 2, of 10000 at most: such that a sixteenth is a whole number.
    fn weight(self, cpus: u32) -> u64 {
        let each = match self {
            Self::Shared => 6,
            Self::Performance => 96,
        };
        (each * u64::from(cpus.max(1))).min(10_000)
    }
}

/// Where the trees of control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// Mount point and the controllers there.
    V1(Vec<(PathBuf, Vec<String>)>),
    V2(PathBuf),
}

impl Hierarchies {
    pub(crate) fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        Self::parse(&mounts, has_memory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Of a list of mounts; `has_memory` tells whether a tree of version 2 limits memory.
    fn parse(mounts: &str, has_memory: impl Fn(&Path) -> bool) -> Option<Self> {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if kind == "cgroup2" {
                v2 = Some(PathBuf::from(path));
            } else if kind == "cgroup" && !options.split(',').any(|o| o.starts_with("name=")) {
                let controllers = options.split(',').map(str::to_owned).collect();
                v1.push((PathBuf::from(path), controllers));
            }
        }
        // In the hybrid layout the controllers are those of version 1, but a single one of those,
        // mounted by somebody who needs it, does not make a layout.
        match v2 {
            Some(root) if v1.is_empty() || has_memory(&root) => Some(Self::V2(root)),
            Some(_) | None if v1.is_empty() => None,
            Some(_) | None => Some(Self::V1(v1)),
        }
    }

    pub(crate) fn version(&self) -> &'static str {
        match self {
            Self::V1(_) => "version 1",
            Self::V2(_) => "version 2",
        }
    }

    pub(crate) fn limits_memory(&self) -> bool {
        match self {
            Self::V1(_) => self.controller("memory").is_some(),
            Self::V2(root) => has_memory(root),
        }
    }

    /// The tree with that controller.
    fn controller(&self, name: &str) -> Option<&Path> {
        match self {
            Self::V1(trees) => trees
                .iter()
                .find(|(_, controllers)| controllers.iter().any(|c| c == name))
                .map(|(path, _)| path.as_path()),
            Self::V2(root) => Some(root),
        }
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1(trees) => trees.iter().map(|(path, _)| path.as_path()).collect(),
            Self::V2(root) => vec![root],
        }
    }
}

fn has_memory(root: &Path) -> bool {
    fs::read_to_string(root.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
}

/// The group of one boot.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    hierarchies: Hierarchies,
    host: String,
    name: String,
}

impl Group {
    pub(crate) fn new(host: HostId, machine: &MachineId, boot: BootId) -> io::Result<Self> {
        Ok(Self {
            hierarchies: Hierarchies::find()?,
            host: format!("aerostat-{host}"),
            name: format!("{machine}.{boot}"),
        })
    }

    /// Path from the root of a tree.
    pub(crate) fn relative(&self) -> PathBuf {
        Path::new(&self.host).join(&self.name)
    }

    /// Whether the controllers are those of version 1.
    pub(crate) fn is_v1(&self) -> bool {
        matches!(self.hierarchies, Hierarchies::V1(_))
    }

    /// What a file of the group holds.
    pub(crate) fn read(&self, controller: &str, file: &str) -> io::Result<String> {
        let root = self.hierarchies.controller(controller);
        let root = root.ok_or(io::ErrorKind::NotFound)?;
        let text = fs::read_to_string(root.join(self.relative()).join(file))?;
        Ok(text.trim().to_owned())
    }

    /// Makes the group and sets its limits.
    pub(crate) fn create(&self, limits: Limits) -> io::Result<()> {
        for root in self.hierarchies.roots() {
            self.create_in(root)?;
        }
        let quota = CPU_PERIOD_US * u64::from(limits.cpus.max(1));
        match &self.hierarchies {
            Hierarchies::V1(_) => {
                self.set("memory", "memory.limit_in_bytes", limits.memory_bytes)?;
                self.set("cpu", "cpu.cfs_period_us", CPU_PERIOD_US)?;
                self.set("cpu", "cpu.cfs_quota_us", quota)?;
                self.set("cpu", "cpu.shares", limits.kind.shares(limits.cpus))?;
            }
            Hierarchies::V2(_) => {
                self.set("memory", "memory.max", limits.memory_bytes)?;
                self.set("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
                self.set("cpu", "cpu.weight", limits.kind.weight(limits.cpus))?;
            }
        }
        self.set("pids", "pids.max", limits.pids)
    }

    /// Files of the group of a container by which a thread moves itself there; none under version 2,
    /// where libcontainer makes the group and moves the process.
    pub(crate) fn tasks(&self, child: &str) -> Vec<PathBuf> {
        let Hierarchies::V1(trees) = &self.hierarchies else {
            return Vec::new();
        };
        let path = self.relative().join(child).join("tasks");
        trees.iter().map(|(root, _)| root.join(&path)).collect()
    }

    /// Makes the group of a container, which may use no devices but the default ones, and returns
    /// what [`Self::tasks`] does.
    pub(crate) fn create_child(&self, child: &str) -> io::Result<Vec<PathBuf>> {
        let Hierarchies::V1(trees) = &self.hierarchies else {
            return Ok(Vec::new());
        };
        for (root, controllers) in trees {
            let parent = root.join(self.relative());
            let path = parent.join(child);
            fs::create_dir_all(&path)?;
            copy_cpuset(&parent, &path)?;
            if controllers.iter().any(|name| name == "devices") {
                fs::write(path.join("devices.deny"), "a")?;
                for device in DEVICES {
                    fs::write(path.join("devices.allow"), device)?;
                }
            }
        }
        Ok(self.tasks(child))
    }

    fn create_in(&self, root: &Path) -> io::Result<()> {
        let path = root.join(self.relative());
        let mut tries = 0;
        while let Err(error) = fs::create_dir_all(&path) {
            tries += 1;
            if error.kind() != io::ErrorKind::NotFound || tries == CREATE_TRIES {
                return Err(error);
            }
        }
        let parents = [root, &root.join(&self.host), &path];
        if matches!(self.hierarchies, Hierarchies::V2(_)) {
            for parent in parents {
                fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
            }
        } else {
            for pair in parents.windows(2) {
                copy_cpuset(pair[0], pair[1])?;
            }
        }
        Ok(())
    }

    /// Sets a limit, where the host has the controller.
    fn set(&self, controller: &str, file: &str, value: impl ToString) -> io::Result<()> {
        match self.hierarchies.controller(controller) {
            Some(root) => fs::write(root.join(self.relative()).join(file), value.to_string()),
            None => Ok(()),
        }
    }

    /// Puts a process into the child group `child`, under version 1 for these controllers only.
    pub(crate) fn join(&self, child: &str, controllers: &[&str], pid: u32) -> io::Result<()> {
        self.put(child, controllers, "cgroup.procs", &pid.to_string())
    }

    /// Puts the caller, which must have one thread, into the child group `child`, as [`Self::join`]
    /// does with others. The kernel stops forks on the whole host to move a process, which takes
    /// milliseconds, but a thread of version 1 moves itself at once.
    pub(crate) fn enter(&self, child: &str, controllers: &[&str]) -> io::Result<()> {
        let file = match self.hierarchies {
            Hierarchies::V1(_) => "tasks",
            Hierarchies::V2(_) => "cgroup.procs",
        };
        self.put(child, controllers, file, "0")
    }

    fn put(&self, child: &str, controllers: &[&str], file: &str, who: &str) -> io::Result<()> {
        let mut roots: Vec<&Path> = controllers
            .iter()
            .filter_map(|name| self.hierarchies.controller(name))
            .collect();
        roots.dedup();
        for root in roots {
            let path = root.join(self.relative()).join(child);
            fs::create_dir_all(&path)?;
            fs::write(path.join(file), who)?;
        }
        Ok(())
    }

    /// How many processes the kernel killed in a child group for want of memory.
    pub(crate) fn oom_kills(&self, child: &str) -> u64 {
        let file = match self.hierarchies {
            Hierarchies::V1(_) => "memory.oom_control",
            Hierarchies::V2(_) => "memory.events",
        };
        let Some(root) = self.hierarchies.controller("memory") else {
            return 0;
        };
        let path = root.join(self.relative()).join(child).join(file);
        oom_kills(&fs::read_to_string(path).unwrap_or_default())
    }

    /// Kills every process of the child group, and waits until none is left.
    pub(crate) fn kill_child(&self, child: &str) -> io::Result<()> {
        self.kill_below(&self.relative().join(child))
    }

    /// Kills every process of the boot, waits until none is left, and removes the group.
    pub(crate) fn destroy(&self) -> io::Result<()> {
        self.kill_below(&self.relative())?;
        for root in self.hierarchies.roots() {
            remove_tree(&root.join(self.relative()))?;
            // The last one removes the host's; the others cannot.
            let _ = fs::remove_dir(root.join(&self.host));
        }
        Ok(())
    }

    /// Removes an empty child group, so that its counters begin anew.
    pub(crate) fn remove_child(&self, child: &str) -> io::Result<()> {
        for root in self.hierarchies.roots() {
            remove_tree(&root.join(self.relative()).join(child))?;
        }
        Ok(())
    }

    fn kill_below(&self, relative: &Path) -> io::Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        loop {
            let mut pids = Vec::new();
            for root in self.hierarchies.roots() {
                processes(&root.join(relative), &mut pids)?;
            }
            pids.sort_unstable();
            pids.dedup();
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(KILL_POLL);
        }
    }
}

/// A new group of this controller, if it is that, is empty and takes no process.
fn copy_cpuset(parent: &Path, path: &Path) -> io::Result<()> {
    if parent.join("cpuset.cpus").exists() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(path.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

fn oom_kills(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Processes of a group and those below it; none if there is no such group.
fn processes(path: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    match fs::read_to_string(path.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    // 0 stands for a process of another PID namespace, which cannot be ours to kill.
    pids.retain(|&pid| pid > 0);
    for child in children(path)? {
        processes(&child, pids)?;
    }
    Ok(())
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let read = match fs::read_dir(path) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        result => result?,
    };
    let mut found = Vec::new();
    for entry in read {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes a group and those below it. The kernel refuses for a moment after the last process
/// has ended.
fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path)? {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() > deadline {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        sleep(KILL_POLL);
    }
}

fn is_gone(error: &io::Error) -> bool {
    // ENODEV: the group was removed while its file was open.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_layout_is_version_1_and_named_trees_do_not_count() {
        let hybrid = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let parse = |mounts| Hierarchies::parse(mounts, |_| false);
        let found = parse(hybrid).unwrap();
        assert_eq!(found.roots(), [Path::new("/sys/fs/cgroup/memory")]);
        assert!(found.limits_memory());
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let found = parse(unified).unwrap();
        assert_eq!(found, Hierarchies::V2("/sys/fs/cgroup".into()));
        assert_eq!(parse("proc /proc proc rw 0 0\n"), None);
        // A controller of version 1 beside version 2 with all that matters.
        let mixed = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n\
                     cgroup /sys/fs/net_cls cgroup rw,net_cls 0 0\n";
        let found = Hierarchies::parse(mixed, |_| true).unwrap();
        assert_eq!(found, Hierarchies::V2("/sys/fs/cgroup".into()));
    }

    fn group(hierarchies: Hierarchies) -> Group {
        Group {
            hierarchies,
            host: "aerostat-0001".into(),
            name: "m.1".into(),
        }
    }

    /// What `create` and `join` write below plain directories.
    fn written(root: &Path, file: &str) -> String {
        fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    const LIMITS: Limits = Limits {
        memory_bytes: 64 << 20,
        cpus: 2,
        kind: CpuKind::Shared,
        pids: 50,
    };

    #[test]
    fn limits_are_written_as_version_2_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let group = group(Hierarchies::V2(root.to_owned()));
        group.create(LIMITS).unwrap();
        let boot = root.join("aerostat-0001/m.1");
        assert_eq!(written(&boot, "memory.max"), (64 << 20).to_string());
        assert_eq!(written(&boot, "cpu.max"), "200000 100000");
        assert_eq!(written(&boot, "cpu.weight"), "12");
        assert_eq!(written(&boot, "pids.max"), "50");
        for parent in [root, &root.join("aerostat-0001"), &boot] {
            let enabled = written(parent, "cgroup.subtree_control");
            assert_eq!(enabled, "+cpu +memory +pids");
        }
        // Processes are in leaves only, once for all controllers.
        group.join("vm", &["memory", "cpu", "pids"], 77).unwrap();
        assert_eq!(written(&boot, "vm/cgroup.procs"), "77");
        fs::write(boot.join("vm/memory.events"), "oom 1\noom_kill 3\n").unwrap();
        assert_eq!(group.oom_kills("vm"), 3);
    }

    #[test]
    fn limits_are_written_as_version_1_has_them_each_in_its_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |name: &str| (dir.path().join(name), vec![name.to_owned()]);
        let trees: Vec<_> = ["memory", "cpu", "pids"].map(tree).into();
        let group = group(Hierarchies::V1(trees));
        group.create(LIMITS).unwrap();
        let boot = |tree: &str| dir.path().join(tree).join("aerostat-0001/m.1");
        let bytes = written(&boot("memory"), "memory.limit_in_bytes");
        assert_eq!(bytes, (64 << 20).to_string());
        assert_eq!(written(&boot("cpu"), "cpu.cfs_quota_us"), "200000");
        assert_eq!(written(&boot("cpu"), "cpu.shares"), "128");
        assert_eq!(written(&boot("pids"), "pids.max"), "50");
        group.join("vm", &["pids"], 77).unwrap();
        assert_eq!(written(&boot("pids"), "vm/cgroup.procs"), "77");
        group.enter("shim", &["pids"]).unwrap();
        assert_eq!(written(&boot("pids"), "shim/tasks"), "0");
        assert!(
            !boot("memory").join("shim").exists(),
            "the shim's memory is not the machine's"
        );
    }

    #[test]
    fn a_shared_cpu_is_worth_a_sixteenth_in_both_versions() {
        for cpus in [1, 2, 8] {
            let (shared, whole) = (CpuKind::Shared, CpuKind::Performance);
            assert_eq!(shared.shares(cpus) * 16, whole.shares(cpus));
            assert_eq!(shared.weight(cpus) * 16, whole.weight(cpus));
        }
        assert_eq!(CpuKind::parse("performance"), CpuKind::Performance);
        assert_eq!(CpuKind::parse("shared"), CpuKind::Shared);
        assert_eq!(CpuKind::Performance.weight(1000), 10_000);
    }

    #[test]
    fn kills_for_want_of_memory_are_counted_in_both_versions() {
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            2
        );
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"), 1);
        assert_eq!(oom_kills(""), 0);
    }

    #[test]
    fn a_group_is_made_kills_what_is_in_it_and_goes_away() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: a_group_is_made_kills_what_is_in_it_and_goes_away: needs root");
            return;
        }
        let host = HostId::new(u16::try_from(std::process::id() & 0xffff).unwrap());
        let group = Group::new(host, &MachineId::from_bits(1), BootId(1)).unwrap();
        let limits = Limits {
            memory_bytes: 64 << 20,
            cpus: 1,
            kind: CpuKind::Shared,
            pids: 50,
        };
        group.create(limits).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        group.join("shim", &["pids"], child.id()).unwrap();
        assert_eq!(group.oom_kills("shim"), 0);
        let waiter = std::thread::spawn(move || child.wait().unwrap());
        group.destroy().unwrap();
        assert!(!waiter.join().unwrap().success());
        let root = group.hierarchies.controller("pids").unwrap();
        assert!(!root.join(&group.host).exists());
        group.destroy().unwrap();
    }
}
