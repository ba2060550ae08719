//! What Prometheus' clients tell of their process.

use std::fmt::Write as _;
use std::fs;

/// Linux counts the time of processes in hundredths of a second, on every architecture.
const TICKS_PER_S: f64 = 100.0;

/// The lines about this process; without `/proc`, none.
pub(super) fn text() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    lines(
        &read("/proc/self/stat"),
        &read("/proc/self/status"),
        &read("/proc/self/limits"),
        &read("/proc/stat"),
        open,
    )
}

fn lines(stat: &str, status: &str, limits: &str, system: &str, open_files: usize) -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: f64| {
        let name = format!("process_{name}");
        // Writing into a text does not fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    };
    // The program's name, in parentheses, may hold anything; from the third field on it is plain.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks = |field: usize| -> Option<f64> { fields.get(field - 3)?.trim().parse().ok() };
    if let (Some(user), Some(kernel)) = (ticks(14), ticks(15)) {
        let help = "Total user and system CPU time spent in seconds.";
        put(
            "cpu_seconds_total",
            "counter",
            help,
            (user + kernel) / TICKS_PER_S,
        );
    }
    let boot = word_after(system, "btime");
    if let (Some(boot), Some(started)) = (boot, ticks(22)) {
        let help = "Start time of the process since unix epoch in seconds.";
        put(
            "start_time_seconds",
            "gauge",
            help,
            boot + started / TICKS_PER_S,
        );
    }
    if let Some(kib) = word_after(status, "VmRSS:") {
        let help = "Resident memory size in bytes.";
        put("resident_memory_bytes", "gauge", help, kib * 1024.0);
    }
    if let Some(kib) = word_after(status, "VmSize:") {
        let help = "Virtual memory size in bytes.";
        put("virtual_memory_bytes", "gauge", help, kib * 1024.0);
    }
    if let Some(max) = word_after(limits, "Max open files") {
        let help = "Maximum number of open file descriptors.";
        put("max_fds", "gauge", help, max);
        let help = "Number of open file descriptors.";
        let open = u32::try_from(open_files).unwrap_or(u32::MAX);
        put("open_fds", "gauge", help, f64::from(open));
    }
    text
}

/// The number that follows a word at the beginning of a line.
fn word_after(text: &str, word: &str) -> Option<f64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(word))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_of_whatever_it_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 4 0 1000 1000000 200";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit Soft Hard Units\nMax open files            1024  4096  files\n";
        let text = lines(stat, status, limits, "cpu 1\nbtime 1700000000\n", 9);
        for line in [
            "process_cpu_seconds_total 2",
            "process_start_time_seconds 1700000010",
            "process_resident_memory_bytes 1048576",
            "process_virtual_memory_bytes 2097152",
            "process_open_fds 9",
            "process_max_fds 1024",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        assert_eq!(lines("", "", "", "", 0), "");
    }
}
