//! What the kernel tells about processes and machines, read from /proc.
//!
//! Containers choose their names, arguments and directories, so every text is cut and every list
//! has an end.

mod network;
mod process;

use types::api::ProcessStat;

pub use network::{Traffic, traffic};
pub use process::{Sockets, is_kernel_thread, pids, stat};

/// Largest list of processes that is sent, as JSON; a frame has room for it.
const PROCESSES_BYTES_MAX: usize = 2 << 20;

/// As many processes as fit into one answer.
pub(crate) fn fit(mut all: Vec<ProcessStat>) -> Vec<ProcessStat> {
    let mut bytes = 0;
    let room = all.iter().position(|one| {
        bytes += serde_json::to_vec(one).map_or(0, |json| json.len() + 1);
        bytes > PROCESSES_BYTES_MAX
    });
    all.truncate(room.unwrap_or(all.len()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_where_it_no_longer_fits() {
        let one = |pid| ProcessStat {
            pid,
            command: "\u{1}".repeat(200_000),
            ..ProcessStat::default()
        };
        let pids = |all: Vec<ProcessStat>| all.iter().map(|one| one.pid).collect::<Vec<_>>();
        assert_eq!(pids(fit(vec![one(1), one(2)])), [1]);
        assert!(fit(Vec::new()).is_empty());
    }
}
