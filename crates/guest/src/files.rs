//! Files that a container finds: those of its specification, and the ones that tell it its names.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use types::guest::{FileSpec, MachineSpec, Network};

/// A file to write, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute inside the container, without `.` and `..`.
    pub path: String,
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A file that cannot be written as specified.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("`{path}` is no absolute path of a file without `..`")]
    Path { path: String },
    #[error("content of file {path} is not base64")]
    Content {
        path: String,
        source: base64::DecodeError,
    },
}

/// What is to be written into a container before it starts: name files first, so that the
/// specification may replace them.
///
/// # Errors
/// If a file of the specification has a bad path or content.
pub fn files(machine: &MachineSpec, own: &[FileSpec]) -> Result<Vec<File>, FileError> {
    let text = |path: &str, text: String| File {
        path: path.to_owned(),
        content: text.into_bytes(),
        mode: 0o644,
    };
    let mut files = vec![
        text("/etc/hostname", format!("{}\n", machine.hostname)),
        text("/etc/hosts", hosts(&machine.hostname, &machine.network)),
    ];
    if !machine.network.nameservers.is_empty() {
        files.push(text("/etc/resolv.conf", resolv_conf(&machine.network)));
    }
    for spec in own {
        files.push(decode(spec)?);
    }
    Ok(files)
}

fn decode(spec: &FileSpec) -> Result<File, FileError> {
    let path = spec.path.clone();
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !parts.is_some_and(|mut parts| parts.all(is_plain)) || path.contains('\0') {
        return Err(FileError::Path { path });
    }
    match STANDARD.decode(&spec.content) {
        Ok(content) => Ok(File {
            path,
            content,
            mode: spec.mode & 0o7777,
        }),
        Err(source) => Err(FileError::Content { path, source }),
    }
}

/// Text of /etc/hosts: loopback, the machine by its address, and the network's own lines.
pub fn hosts(hostname: &str, network: &Network) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         {}\t{hostname}\n",
        network.ipv6
    );
    for line in &network.hosts {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Text of /etc/resolv.conf.
pub fn resolv_conf(network: &Network) -> String {
    let mut text = String::new();
    for server in &network.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !network.searches.is_empty() {
        let _ = writeln!(text, "search {}", network.searches.join(" "));
    }
    let mut options = network.options.clone();
    if !network.searches.is_empty() && !options.iter().any(|one| one.starts_with("ndots:")) {
        // Short service names with dots in them (`db.default`) are to be searched for, too.
        options.insert(0, "ndots:5".into());
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::tests::machine;

    fn spec(path: &str) -> FileSpec {
        FileSpec {
            path: path.into(),
            content: "aGk=".into(),
            mode: 0o100_600,
        }
    }

    #[test]
    fn own_files_come_after_the_name_files_with_permission_bits_only() {
        let mut machine = machine(vec![]);
        machine.hostname = "web".into();
        machine.network.hosts = vec!["fdaa::9 db".into()];
        machine.network.nameservers = vec!["fdaa::3".into()];
        machine.network.searches = vec!["a.internal".into(), "b".into()];
        let all = files(&machine, &[spec("/etc/hosts")]).unwrap();
        let paths: Vec<_> = all.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/etc/hostname",
                "/etc/hosts",
                "/etc/resolv.conf",
                "/etc/hosts"
            ]
        );
        assert_eq!(all[0].content, b"web\n");
        let hosts = std::str::from_utf8(&all[1].content).unwrap();
        assert!(hosts.ends_with("::1\tweb\nfdaa::9 db\n"), "{hosts}");
        let resolv = std::str::from_utf8(&all[2].content).unwrap();
        assert_eq!(
            resolv,
            "nameserver fdaa::3\nsearch a.internal b\noptions ndots:5\n"
        );
        assert_eq!(
            (all[3].content.as_slice(), all[3].mode),
            (b"hi".as_slice(), 0o600)
        );
    }

    #[test]
    fn options_of_the_resolver_are_added_and_a_given_ndots_counts() {
        let mut network = machine(vec![]).network;
        network.nameservers = vec!["fdaa::3".into()];
        network.searches = vec!["b".into()];
        network.options = vec!["edns0".into()];
        assert!(resolv_conf(&network).ends_with("\noptions ndots:5 edns0\n"));
        network.options = vec!["ndots:2".into()];
        assert!(resolv_conf(&network).ends_with("\noptions ndots:2\n"));
        network.searches.clear();
        network.options.clear();
        assert_eq!(resolv_conf(&network), "nameserver fdaa::3\n");
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for path in [
            "", "/", "a", "/a/../b", "/..", "/a/", "//a", "/a/./b", "/a\0",
        ] {
            let error = files(&machine(vec![]), &[spec(path)]).unwrap_err();
            assert!(matches!(error, FileError::Path { .. }), "{path}");
        }
        let mut bad = spec("/a");
        bad.content = "%".into();
        assert!(files(&machine(vec![]), &[bad]).is_err());
    }
}
