//! The programs that building a kernel needs, and running them.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// A file that shows that a Debian package is installed. Any of several will do.
const NEEDED: &[(&str, &[&str])] = &[
    ("bc", &["/usr/bin/bc"]),
    ("binutils", &["/usr/bin/ld"]),
    ("bison", &["/usr/bin/bison"]),
    ("dpkg", &["/usr/bin/dpkg-deb"]),
    ("flex", &["/usr/bin/flex"]),
    ("gcc", &["/usr/bin/gcc", "/usr/bin/cc"]),
    (
        "libelf-dev",
        &["/usr/include/libelf.h", "/usr/include/gelf.h"],
    ),
    ("make", &["/usr/bin/make"]),
    ("xz-utils", &["/usr/bin/xz"]),
];
/// Last lines of a log that are shown when a step fails.
const TAIL_BYTES_MAX: u64 = 2 << 10;

/// # Errors
/// If something is missing: all of it, in one command that installs it.
pub(super) fn check() -> anyhow::Result<()> {
    let missing = missing(|path| Path::new(path).exists());
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "these Debian packages are needed to build a kernel and missing: {0}\n\
         install them with: apt-get install --no-install-recommends {0}",
        missing.join(" ")
    )
}

fn missing(exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let absent = NEEDED
        .iter()
        .filter(|(_, files)| !files.iter().any(|file| exists(file)));
    absent.map(|(package, _)| *package).collect()
}

/// First line of what a program says to `--version`.
pub(super) fn version(program: &str) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Runs a step to its end. What it writes goes to `log`, and line by line to `seen`.
///
/// # Errors
/// If it cannot be run or fails; then with the end of the log.
pub(super) fn step(
    doing: &str,
    command: &mut Command,
    log: &Path,
    mut seen: impl FnMut(&str),
) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let begin = file.seek(SeekFrom::End(0))?;
    let errors = file.try_clone()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("cannot {doing}: there is no program `{name}`")
        }
        child => child.with_context(|| format!("cannot run {name}"))?,
    };
    let output = child.stdout.take().context("a pipe was asked for")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what {name} says"))?;
        let line = String::from_utf8_lossy(&line);
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes())?;
        seen(&line);
    }
    let status = child.wait().with_context(|| format!("lost {name}"))?;
    if status.success() {
        return Ok(());
    }
    bail!(
        "cannot {doing}: {name} ended with {status}\n{}\nthe whole log is {}",
        tail(log, begin).trim_end(),
        log.display()
    )
}

fn tail(log: &Path, begin: u64) -> String {
    let mut text = Vec::new();
    let mut read = || {
        let mut file = std::fs::File::open(log)?;
        let from = begin.max(file.metadata()?.len().saturating_sub(TAIL_BYTES_MAX));
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut text)
    };
    // The log is for people; without it the error above has to do.
    let _ = read();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        assert!(missing(|_| true).is_empty());
        let without = |absent: &'static [&str]| missing(move |path| !absent.contains(&path));
        assert_eq!(
            without(&["/usr/bin/flex", "/usr/bin/bison"]),
            ["bison", "flex"]
        );
        // Either header will do.
        assert!(without(&["/usr/include/gelf.h"]).is_empty());
        let both = without(&["/usr/include/libelf.h", "/usr/include/gelf.h"]);
        assert_eq!(both, ["libelf-dev"]);
    }

    #[test]
    fn a_step_that_fails_tells_the_end_of_its_own_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut lines = Vec::new();
        let mut good = Command::new("sh");
        good.args(["-c", "echo one; echo two"]);
        step("count", &mut good, &log, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
        let mut bad = Command::new("sh");
        bad.args(["-c", "echo three; echo oops >&2; exit 3"]);
        let error = step("count", &mut bad, &log, |_| {})
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot count") && error.contains("oops"),
            "{error}"
        );
        assert!(!error.contains("two"), "{error}");
        let mut none = Command::new("/nonexistent/program");
        let error = step("count", &mut none, &log, |_| {}).unwrap_err();
        assert!(error.to_string().contains("there is no program"), "{error}");
    }
}
