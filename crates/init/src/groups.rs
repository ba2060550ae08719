//! A control group for each container, which counts what its processes use and how many of them the
//! kernel killed for want of memory. Nothing is limited: the machine is the limit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use types::guest::ContainerStatistics;

const TREE: &str = "/sys/fs/cgroup";
const PREFIX: &str = "c-";

/// The switch of the kernel's reclaim by generations, and how long what a process works with stays
/// in memory.
///
/// There is no swap. Without this, a machine that is full lives on by dropping the pages of its
/// programs and reading them again, for minutes, in which nobody is killed and nothing is done.
const RECLAIM: &str = "/sys/kernel/mm/lru_gen";
const WORKING_SET_MS: &str = "1000";

/// Turns the counters on. A kernel without one of them counts nothing there.
pub(crate) fn prepare() {
    for controller in ["memory", "cpu", "pids"] {
        let all = Path::new(TREE).join("cgroup.subtree_control");
        if let Err(error) = fs::write(all, format!("+{controller}")) {
            tracing::debug!(controller, %error, "the kernel counts no such thing");
        }
    }
}

/// Has the kernel kill for want of memory before a machine stands still for it.
pub(crate) fn kill_early() {
    for (name, value) in [("enabled", "y"), ("min_ttl_ms", WORKING_SET_MS)] {
        if let Err(error) = fs::write(Path::new(RECLAIM).join(name), value) {
            tracing::debug!(name, %error, "the kernel kills late for want of memory");
        }
    }
}

fn group(container: &str) -> PathBuf {
    Path::new(TREE).join(format!("{PREFIX}{container}"))
}

/// Puts a process into the group of a container.
pub(crate) fn join(container: &str, pid: i32) -> io::Result<()> {
    let group = group(container);
    fs::create_dir_all(&group)?;
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

/// The container of a process, by the text of its /proc/<pid>/cgroup.
pub(crate) fn container(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    path.split('/').next()?.strip_prefix(PREFIX)
}

/// How many processes of a container were ever killed for want of memory.
pub(crate) fn oom_kills(container: &str) -> u64 {
    field(&group(container).join("memory.events"), "oom_kill ")
}

/// What the processes of a container use.
pub(crate) fn usage(container: &str) -> ContainerStatistics {
    let group = group(container);
    ContainerStatistics {
        memory_bytes: field(&group.join("memory.current"), ""),
        cpu_ns: field(&group.join("cpu.stat"), "usage_usec ") * 1000,
        processes: u32::try_from(field(&group.join("pids.current"), "")).unwrap_or(u32::MAX),
        disk_used_bytes: 0,
    }
}

/// The number behind `name`; 0 if there is none.
fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
    values
        .find_map(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_of_a_process_is_the_first_group_on_its_path() {
        assert_eq!(container("0::/c-web\n"), Some("web"));
        assert_eq!(container("0::/c-web/docker/c-x\n"), Some("web"));
        assert_eq!(container("0::/\n"), None);
        assert_eq!(container("0::/other\n"), None);
        assert_eq!(container(""), None);
    }
}
