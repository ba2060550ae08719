//! One process, as /proc shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use types::api::{ListenSocket, ProcessStat};

use super::network::listening;

/// Processes that are looked at, of each container and of the machine.
const PROCESSES_MAX: usize = 4096;
/// Descriptors of one process that are looked at for sockets.
const DESCRIPTORS_MAX: usize = 4096;
/// Listening sockets of one process that are told.
const SOCKETS_MAX: usize = 64;
/// Of a command line and of a path.
const TEXT_BYTES_MAX: usize = 512;

/// `PF_KTHREAD` of the kernel's include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// Linux counts processor time for user space in these, on every architecture that we run on.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4096;

/// All process ids in /proc, in order.
///
/// # Errors
/// If /proc cannot be read.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    found.sort_unstable();
    found.truncate(PROCESSES_MAX);
    Ok(found)
}

/// Numbers of /proc/<pid>/stat (proc_pid_stat(5)).
struct Numbers {
    flags: u64,
    user_ticks: u64,
    kernel_ticks: u64,
    start_ticks: u64,
    resident_pages: u64,
}

/// The command in parentheses may hold anything, also parentheses, so fields count from the last.
fn numbers(stat: &str) -> Option<Numbers> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first after the parenthesis is field 3, the state.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Numbers {
        flags: field(9)?,
        user_ticks: field(14)?,
        kernel_ticks: field(15)?,
        start_ticks: field(22)?,
        resident_pages: field(24)?,
    })
}

fn read_numbers(pid: i32) -> Option<Numbers> {
    let bytes = read_some(format!("/proc/{pid}/stat"), 4096)?;
    numbers(&String::from_utf8_lossy(&bytes))
}

fn read_some(path: impl AsRef<Path>, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether the kernel made the process for itself.
pub fn is_kernel_thread(pid: i32) -> bool {
    read_numbers(pid).is_some_and(|numbers| numbers.flags & KERNEL_THREAD != 0)
}

/// The sockets on which the processes of one network namespace listen.
#[derive(Debug, Default)]
pub struct Sockets {
    by_inode: BTreeMap<u64, ListenSocket>,
}

impl Sockets {
    /// Those of the network namespace of process `pid`; what cannot be read is not there.
    pub fn of(pid: i32) -> Self {
        let mut by_inode = BTreeMap::new();
        for (name, proto) in [
            ("tcp", "tcp"),
            ("tcp6", "tcp"),
            ("udp", "udp"),
            ("udp6", "udp"),
        ] {
            let path = format!("/proc/{pid}/net/{name}");
            let text = read_some(path, super::network::TABLE_BYTES_MAX).unwrap_or_default();
            for (inode, address) in listening(&String::from_utf8_lossy(&text), proto) {
                let (proto, address) = (proto.to_owned(), address.to_string());
                by_inode.insert(inode, ListenSocket { proto, address });
            }
        }
        Self { by_inode }
    }

    fn held_by(&self, pid: i32) -> Vec<ListenSocket> {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return Vec::new();
        };
        let mut held = BTreeMap::new();
        for entry in entries.flatten().take(DESCRIPTORS_MAX) {
            let inode = fs::read_link(entry.path())
                .ok()
                .and_then(|link| socket_inode(link.to_str()?));
            if let Some((inode, socket)) =
                inode.and_then(|inode| self.by_inode.get_key_value(&inode))
            {
                held.insert(*inode, socket.clone());
            }
        }
        held.into_values().take(SOCKETS_MAX).collect()
    }
}

/// `socket:[<inode>]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// What a process does; `None` if it has ended. `shown` is its id for the reader.
pub fn stat(pid: i32, shown: i32, container: &str, sockets: &Sockets) -> Option<ProcessStat> {
    let numbers = read_numbers(pid)?;
    let uptime = read_some("/proc/uptime", 64).unwrap_or_default();
    let uptime = String::from_utf8_lossy(&uptime);
    let uptime_s = uptime.split('.').next().and_then(|s| s.parse::<u64>().ok());
    let started_s = numbers.start_ticks / TICKS_PER_SECOND;
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    Some(ProcessStat {
        pid: shown,
        stime: numbers.kernel_ticks,
        rtime: uptime_s.unwrap_or(0).saturating_sub(started_s),
        command: command(pid),
        directory: cut(directory.to_string_lossy().into_owned()),
        cpu: numbers.user_ticks + numbers.kernel_ticks,
        rss: numbers.resident_pages * PAGE_BYTES,
        listen_sockets: sockets.held_by(pid),
        container: container.to_owned(),
    })
}

/// Program and arguments, or the name of a process that has none.
fn command(pid: i32) -> String {
    let line = read_some(format!("/proc/{pid}/cmdline"), TEXT_BYTES_MAX as u64).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    match line.trim_end() {
        "" => {
            let name = read_some(format!("/proc/{pid}/comm"), 64).unwrap_or_default();
            format!("[{}]", String::from_utf8_lossy(&name).trim_end())
        }
        line => cut(line.to_owned()),
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev();
    let end = end.into_iter().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn numbers_are_found_behind_any_name() {
        let tail = "S 1 2 3 4 5 4194304 7 8 9 10 11 12 13 14 20 0 1 0 500 4096 25 x";
        let found = numbers(&format!("7 (a) b (c) {tail}")).unwrap();
        let all = [
            found.flags,
            found.user_ticks,
            found.kernel_ticks,
            found.start_ticks,
            found.resident_pages,
        ];
        assert_eq!(all, [4_194_304, 11, 12, 500, 25]);
        assert!(numbers("7 (a) S 1").is_none());
        assert!(numbers("").is_none());
    }

    #[test]
    fn this_process_is_found_with_the_socket_it_listens_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(pids().unwrap().contains(&own));
        assert!(!is_kernel_thread(own));
        let found = stat(own, 7, "web", &Sockets::of(own)).unwrap();
        assert_eq!((found.pid, found.container.as_str()), (7, "web"));
        assert!(found.rss > 0 && !found.command.is_empty());
        let sockets = found.listen_sockets.iter();
        let sockets: Vec<_> = sockets.map(|s| (s.proto.as_str(), &s.address)).collect();
        assert!(sockets.contains(&("tcp", &address)), "{sockets:?}");
        assert!(stat(-1, 0, "", &Sockets::default()).is_none());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("ä".repeat(400)).len(), TEXT_BYTES_MAX);
        assert_eq!(
            cut(format!("a{}", "ä".repeat(400))).len(),
            TEXT_BYTES_MAX - 1
        );
        assert_eq!(cut("a".into()), "a");
    }
}
