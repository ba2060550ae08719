//! Where the client programs are. What is missing is made by `clients/setup`, once.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::world::data;

/// Two tests that need the same program must not both make it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The directory of a client, or why it cannot be had (told as SKIPPED of `test`).
pub(super) fn get(test: &str, client: &str) -> Option<PathBuf> {
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let output = Command::new(data().join("setup"))
        .arg(client)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {test}: clients/setup does not run: {error}");
            return None;
        }
    };
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let last = why.lines().last().unwrap_or("it does not say why");
        eprintln!("SKIPPED: {test}: {client} cannot be had: {last}");
        return None;
    }
    Some(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}
