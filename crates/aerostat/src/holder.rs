//! Who holds a port of this host: for the error that says that it is taken.

use std::fs;

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Of the calling thread's network namespace.
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
            Self::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
        }
    }

    /// The state of a socket that waits for whoever comes: LISTEN; of UDP, CLOSE.
    fn state(self) -> &'static str {
        match self {
            Self::Tcp => "0A",
            Self::Udp => "07",
        }
    }
}

/// Name and id of the process that listens on a port, if this one may know.
pub(crate) fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let inode = protocol
        .tables()
        .iter()
        .find_map(|table| inode_of(&fs::read_to_string(table).ok()?, protocol.state(), port))?;
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find_map(|id| {
        let mut files = fs::read_dir(format!("/proc/{id}/fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*link))?;
        let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        Some(format!("{} (process {id})", name.trim()))
    })
}

/// The rest of "port N is taken": by whom.
pub(crate) fn held_by(holder: Option<&str>) -> String {
    holder
        .map(|holder| format!(" by {holder}"))
        .unwrap_or_default()
}

/// The inode of the socket of `port` in that state, in a table of the format of `/proc/net/tcp`
/// (proc(5)): `sl local_address rem_address st … inode`.
fn inode_of(table: &str, state: &str, port: u16) -> Option<String> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == state;
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let us = format!("process {}", std::process::id());
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(holder(Protocol::Udp, port).unwrap().contains(&us));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert!(holder(Protocol::Tcp, port).unwrap().contains(&us));
    }
}
