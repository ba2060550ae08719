//! Who runs in the containers of a machine, and what they use: from /proc and control groups.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use guest::Alive;
use guest::inspect::{Sockets, Traffic, stat, traffic};
use nix::sys::statvfs::statvfs;
use types::api::ProcessStat;
use types::guest::{ContainerStatistics, Statistics};

use super::child_group;
use crate::cgroup::Group;

const INTERFACE: &str = "eth0";
/// Of one container; a boot may have as many in all.
const PROCESSES_MAX: usize = 4096;

/// Process ids are those that the containers see: each begins with its own process 1.
pub(super) fn processes(group: &Group, alive: &[Alive]) -> io::Result<Vec<ProcessStat>> {
    // They share a network, so one may answer for all.
    let sockets = alive.first().map(|one| Sockets::of(one.main));
    let sockets = sockets.unwrap_or_default();
    let mut found = Vec::new();
    for Alive { container, .. } in alive {
        let pids = group.processes(&child_group(container))?;
        for pid in pids.into_iter().take(PROCESSES_MAX) {
            let shown = own_pid(pid).unwrap_or(pid);
            found.extend(stat(pid, shown, container, &sockets));
        }
    }
    Ok(found)
}

/// The id of a process in its innermost namespace.
fn own_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    pids.split_ascii_whitespace().next_back()?.parse().ok()
}

/// `roots` are the containers' mounted roots, with the writable layer beside each.
pub(super) fn statistics(
    group: &Group,
    roots: &BTreeMap<String, PathBuf>,
    alive: &[Alive],
) -> io::Result<Statistics> {
    let usage = group.usage(None);
    let network = alive.first().map_or(Traffic::default(), |one| {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", one.main));
        traffic(&table.unwrap_or_default(), INTERFACE).unwrap_or_default()
    });
    let mut statistics = Statistics {
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        cpu_ns: usage.cpu_ns,
        disk_read_bytes: usage.disk_read_bytes,
        disk_write_bytes: usage.disk_write_bytes,
        network_receive_bytes: network.receive_bytes,
        network_send_bytes: network.send_bytes,
        ..Statistics::default()
    };
    for (container, root) in roots {
        let child = child_group(container);
        let usage = group.usage(Some(&child));
        let processes = group.processes(&child)?.len();
        let processes = u32::try_from(processes).unwrap_or(u32::MAX);
        statistics.processes = statistics.processes.saturating_add(processes);
        let layer = root.parent().map(|base| base.join("upper"));
        let one = ContainerStatistics {
            memory_bytes: usage.memory_bytes,
            cpu_ns: usage.cpu_ns,
            processes,
            disk_used_bytes: layer.map_or(Ok(0), |layer| used_bytes(&layer))?,
        };
        statistics.containers.insert(container.clone(), one);
    }
    Ok(statistics)
}

fn used_bytes(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok((found.blocks() - found.blocks_free()) * found.fragment_size())
}
