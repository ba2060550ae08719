//! Whole hosts for tests: the real binary, with directories, ports and a host number of its own.
//! One stands in the namespace of the test; those of a [`Fleet`] each in one of their own.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

mod fleet;
mod host;
mod image;
mod probe;
mod snapshot;
mod underlay;
mod wireguard;

pub use fleet::Fleet;
pub use host::Host;
pub use image::archive;
pub use probe::{resolve, who_answers, who_answers_within, within};
pub use snapshot::{Snapshot, command_line};
pub use underlay::{Underlay, inside};
pub use wireguard::{WireGuardClient, initiation, wireguard_keys};

/// How long anything may take here before a test gives up: a virtual machine without hardware
/// support boots in 1 to 4 s on an idle host, and in a minute where four busy programs leave its
/// sixteenth of a CPU.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Says loudly that a test did not run. The test then returns.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED: {test}: {why}");
}

/// Calls `probe` until it gives a value.
///
/// # Panics
/// After `PATIENCE`, naming `what` and the last reason that `probe` gave.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "waited for {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command and returns what it printed to standard output.
///
/// # Panics
/// If it fails, with everything it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        printed(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that has to fail; returns its exit code and what it printed to standard error.
///
/// # Panics
/// If it succeeds, or is killed by a signal.
pub fn fail(command: &mut Command) -> (i32, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        !output.status.success(),
        "{command:?} succeeded:\n{}",
        printed(&output)
    );
    let code = output.status.code().expect("an exit code");
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn printed(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Every kubectl of 1.30 or newer on this machine, oldest first: `KUBECTL_DIR/kubectl*`, Google
/// Cloud's package, which has several releases side by side, and the one in `PATH`.
pub fn kubectls() -> Vec<PathBuf> {
    let folders = [
        std::env::var("KUBECTL_DIR").ok(),
        Some("/usr/lib/google-cloud-sdk/bin".into()),
    ];
    let mut found = Vec::new();
    for folder in folders.into_iter().flatten() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let files = entries.flatten().map(|entry| entry.path());
        found.extend(files.filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("kubectl"))
        }));
    }
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(
        std::env::split_paths(&in_path)
            .map(|p| p.join("kubectl"))
            .filter(|p| p.exists()),
    );
    let mut versions: Vec<(u32, PathBuf)> = found
        .into_iter()
        .filter_map(|path| Some((kubectl_minor(&path)?, path)))
        .filter(|(minor, _)| *minor >= 30)
        .collect();
    versions.sort();
    versions.dedup_by_key(|(minor, _)| *minor);
    versions.into_iter().map(|(_, path)| path).collect()
}

fn kubectl_minor(path: &std::path::Path) -> Option<u32> {
    let output = Command::new(path)
        .args(["version", "--client", "-o", "json"])
        .output()
        .ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor
        .trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}
