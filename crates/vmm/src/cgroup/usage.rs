//! What a group and those below it use, as far as the host counts it.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Group, Hierarchies, processes};

/// 0 stands for what is not counted here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) disk_read_bytes: u64,
    pub(crate) disk_write_bytes: u64,
}

impl Group {
    /// Of the boot, or of one of its child groups.
    pub(crate) fn usage(&self, child: Option<&str>) -> Usage {
        let file = |controller: &str, name: &str| {
            let root = self.hierarchies.controller(controller)?;
            let group = self.below(root.join(self.relative()), child);
            fs::read_to_string(group.join(name)).ok()
        };
        let text = |controller: &str, name: &str| file(controller, name).unwrap_or_default();
        match &self.hierarchies {
            Hierarchies::V1(_) => {
                let disk = text("blkio", "blkio.throttle.io_service_bytes_recursive");
                Usage {
                    memory_bytes: number(&text("memory", "memory.usage_in_bytes")),
                    memory_limit_bytes: number(&text("memory", "memory.limit_in_bytes")),
                    cpu_ns: number(&text("cpuacct", "cpuacct.usage")),
                    disk_read_bytes: v1_disk(&disk, "Read"),
                    disk_write_bytes: v1_disk(&disk, "Write"),
                }
            }
            Hierarchies::V2(_) => {
                let cpu = text("cpu", "cpu.stat");
                let mut cpu = cpu.lines();
                let cpu = cpu.find_map(|line| line.strip_prefix("usage_usec "));
                let disk = text("io", "io.stat");
                Usage {
                    memory_bytes: number(&text("memory", "memory.current")),
                    memory_limit_bytes: number(&text("memory", "memory.max")),
                    cpu_ns: cpu.map_or(0, number) * 1000,
                    disk_read_bytes: v2_disk(&disk, "rbytes="),
                    disk_write_bytes: v2_disk(&disk, "wbytes="),
                }
            }
        }
    }

    /// Every process of a child group.
    pub(crate) fn processes(&self, child: &str) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for root in self.hierarchies.roots() {
            let group = self.below(root.join(self.relative()), Some(child));
            processes(&group, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn below(&self, group: PathBuf, child: Option<&str>) -> PathBuf {
        match child {
            Some(child) => group.join(child),
            None => group,
        }
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// Lines like `8:0 Read 4096`.
fn v1_disk(text: &str, what: &str) -> u64 {
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next(), words.next())
    });
    let wanted = lines.filter(|(name, _)| *name == Some(what));
    wanted.map(|(_, bytes)| bytes.map_or(0, number)).sum()
}

/// Lines like `8:0 rbytes=4096 wbytes=0 rios=1`.
fn v2_disk(text: &str, what: &str) -> u64 {
    let words = text.split_ascii_whitespace();
    words
        .filter_map(|word| word.strip_prefix(what))
        .map(number)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_versions_are_read() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:16 Read 4\n8:0 Total 4106\nTotal 4110\n";
        assert_eq!((v1_disk(v1, "Read"), v1_disk(v1, "Write")), (4100, 10));
        let v2 = "8:0 rbytes=4096 wbytes=7 rios=1\n8:16 rbytes=4 wbytes=0 rios=1\n";
        assert_eq!((v2_disk(v2, "rbytes="), v2_disk(v2, "wbytes=")), (4100, 7));
        assert_eq!((number("12\n"), number("max\n"), number("")), (12, 0, 0));
    }
}
