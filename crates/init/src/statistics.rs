//! What the guest's kernel counts, and who runs in the guest.

use std::fs;
use std::io;
use std::path::Path;

use guest::inspect::{Sockets, is_kernel_thread, pids, stat, traffic};
use nix::sys::statvfs::statvfs;
use types::api::ProcessStat;
use types::guest::{ContainerStatistics, Statistics};

use crate::groups;

/// Linux counts processor time for user space in hundredths of a second.
const TICK_NS: u64 = 10_000_000;
/// The unit of /proc/diskstats, whatever the disk has.
const SECTOR_BYTES: u64 = 512;
const INTERFACE: &str = "eth0";

/// Every process but the kernel's own.
pub(crate) fn processes() -> io::Result<Vec<ProcessStat>> {
    let own = 1;
    let sockets = Sockets::of(own);
    let mut found = Vec::new();
    for pid in pids()? {
        if is_kernel_thread(pid) {
            continue;
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let container = groups::container(&groups).unwrap_or_default();
        found.extend(stat(pid, pid, container, &sockets));
    }
    Ok(found)
}

/// `containers` is where their writable layers are mounted.
pub(crate) fn statistics(containers: &Path) -> io::Result<Statistics> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let total = memory_field(&memory, "MemTotal:");
    let (disk_read_bytes, disk_write_bytes) = disks(&fs::read_to_string("/proc/diskstats")?);
    let network = fs::read_to_string("/proc/net/dev")?;
    let network = traffic(&network, INTERFACE).unwrap_or_default();
    let pids = pids()?;
    let processes = pids.iter().filter(|pid| !is_kernel_thread(**pid)).count();
    let mut statistics = Statistics {
        memory_bytes: total.saturating_sub(memory_field(&memory, "MemAvailable:")),
        memory_limit_bytes: total,
        cpu_ns: cpu_ns(&fs::read_to_string("/proc/stat")?),
        disk_read_bytes,
        disk_write_bytes,
        network_receive_bytes: network.receive_bytes,
        network_send_bytes: network.send_bytes,
        processes: u32::try_from(processes).unwrap_or(u32::MAX),
        ..Statistics::default()
    };
    for entry in fs::read_dir(containers)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let disk_used_bytes = used_bytes(&entry.path().join("layer"))?;
        let usage = ContainerStatistics {
            disk_used_bytes,
            ..groups::usage(&name)
        };
        statistics.containers.insert(name, usage);
    }
    Ok(statistics)
}

fn used_bytes(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok((found.blocks() - found.blocks_free()) * found.fragment_size())
}

/// A field of /proc/meminfo, which counts in KiB.
fn memory_field(text: &str, name: &str) -> u64 {
    let mut fields = text.lines().filter_map(|line| line.strip_prefix(name));
    let value = fields
        .next()
        .and_then(|rest| rest.split_ascii_whitespace().next());
    value
        .and_then(|value| value.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// User, nice, system, interrupts; neither idle nor waiting time, nor what others took.
fn cpu_ns(text: &str) -> u64 {
    let first = text.lines().next().unwrap_or_default();
    let fields = first.split_ascii_whitespace().skip(1);
    let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at));
    busy.sum::<u64>() * TICK_NS
}

/// Bytes read and written, of whole disks (partitions are counted there already).
fn disks(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let sectors = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let name = fields.get(2).copied().unwrap_or_default();
        let is_disk = name.starts_with("vd") && !name.ends_with(|c: char| c.is_ascii_digit());
        if let (true, Some(read), Some(written)) = (is_disk, sectors(5), sectors(9)) {
            sums = (
                sums.0 + read * SECTOR_BYTES,
                sums.1 + written * SECTOR_BYTES,
            );
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(
            memory_field("MemTotal:    2048 kB\nMemFree: 1 kB\n", "MemTotal:"),
            2 << 20
        );
        assert_eq!(memory_field("", "MemTotal:"), 0);
        assert_eq!(
            cpu_ns("cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1 1\n"),
            19 * TICK_NS
        );
        let table = "254 0 vda 10 0 4 0 20 0 6 0 0 0 0\n254 1 vda1 10 0 4 0 20 0 6 0 0 0 0\n\
            254 16 vdb 10 0 1 0 20 0 1 0 0 0 0\n7 0 loop0 1 0 9 0 1 0 9 0 0 0 0\n";
        assert_eq!(disks(table), (5 * 512, 7 * 512));
    }
}
