//! Environment and program of a process in a container.

use std::collections::BTreeMap;

/// What Debian's login gives root; images that set none expect something like it.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a process has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    Yes,
    No,
}

/// The container's variables, then those of `added`, over the defaults PATH, HOME, HOSTNAME and,
/// with a terminal, TERM.
pub fn environment(
    container: &BTreeMap<String, String>,
    added: &BTreeMap<String, String>,
    home: &str,
    hostname: &str,
    terminal: Terminal,
) -> BTreeMap<String, String> {
    let term = match terminal {
        Terminal::Yes => Some(("TERM", "xterm")),
        Terminal::No => None,
    };
    let defaults = [("PATH", PATH), ("HOME", home), ("HOSTNAME", hostname)];
    let defaults = defaults.into_iter().chain(term);
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let own = container.iter().chain(added);
    let own = own.map(|(name, value)| (name.clone(), value.clone()));
    defaults.chain(own).collect()
}

/// Where `program` may be, in the order in which to try: itself if it has a slash, else in every
/// directory of PATH.
pub fn candidates(program: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = environment.get("PATH").map_or(PATH, String::as_str);
    let directories = path.split(':');
    // An empty element is the working directory (POSIX, "Environment Variables").
    let in_directory = |directory: &str| match directory {
        "" => format!("./{program}"),
        _ => format!("{}/{program}", directory.trim_end_matches('/')),
    };
    directories.map(in_directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn the_container_beats_the_defaults_and_the_request_beats_the_container() {
        let container = map(&[("HOME", "/data"), ("A", "1"), ("B", "1")]);
        let added = map(&[("B", "2")]);
        let all = environment(&container, &added, "/root", "m", Terminal::No);
        let expected = [
            ("A", "1"),
            ("B", "2"),
            ("HOME", "/data"),
            ("HOSTNAME", "m"),
            ("PATH", PATH),
        ];
        assert_eq!(all, map(&expected));
        let all = environment(&map(&[]), &map(&[]), "/root", "m", Terminal::Yes);
        assert_eq!(all["TERM"], "xterm");
    }

    #[test]
    fn programs_are_looked_for_in_path_unless_they_have_a_slash() {
        let environment = map(&[("PATH", "/a:/b/::c")]);
        let all = candidates("run", &environment);
        assert_eq!(all, ["/a/run", "/b/run", "./run", "c/run"]);
        assert_eq!(candidates("./run", &environment), ["./run"]);
        assert_eq!(candidates("run", &map(&[])).len(), 6);
    }
}
