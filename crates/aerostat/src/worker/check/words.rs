//! Small words that several parts of a configuration have: signals, variables, paths, names.

use types::machine::{Restart, RestartPolicy, StopConfig};

use super::{Checked, invalid};

/// The Machines API allows no more.
const STOP_TIMEOUT_S_MAX: u64 = 300;

pub(super) fn check_restart(field: &str, restart: Option<&Restart>) -> Checked {
    match restart {
        Some(Restart {
            policy: RestartPolicy::No,
            max_retries: Some(1..),
        }) => invalid(
            format!("{field}.max_retries"),
            "needs a policy that restarts: on-failure or always",
        ),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_stop(field: &str, stop: Option<&StopConfig>) -> Checked {
    let Some(stop) = stop else { return Ok(()) };
    if let Some(signal) = &stop.signal {
        check_signal(&format!("{field}.signal"), signal)?;
    }
    let timeout = stop.timeout.map_or(0, |timeout| timeout.0.as_secs());
    if timeout > STOP_TIMEOUT_S_MAX {
        invalid(
            format!("{field}.timeout"),
            format!("must be at most {STOP_TIMEOUT_S_MAX}s"),
        )?;
    }
    Ok(())
}

/// Checks the name of a signal: `SIGTERM`, `TERM` or a number.
///
/// # Errors
/// If Linux has no such signal.
pub fn check_signal(field: &str, signal: &str) -> Checked {
    let number = signal
        .parse::<u8>()
        .is_ok_and(|number| (1..=64).contains(&number));
    let named = format!("SIG{}", signal.trim_start_matches("SIG"));
    if !number && named.parse::<nix::sys::signal::Signal>().is_err() {
        let signal = signal.escape_default();
        let reason = format!("`{signal}` is not a signal; use a name like SIGTERM, or 1 to 64");
        invalid(field, reason)?;
    }
    Ok(())
}

pub(super) fn check_env<'a>(
    field: &str,
    env: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Checked {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let name = name.escape_default();
            invalid(
                field,
                format!(
                    "`{name}` cannot be an environment variable: names are not empty and hold no \
                     `=`, and neither they nor values hold a zero byte"
                ),
            )?;
        }
    }
    Ok(())
}

/// A name as containers, directories and checks of containers have it.
pub(super) fn check_name(field: &str, name: &str) -> Checked {
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(label) {
        invalid(
            field,
            "must be 1 to 63 lower-case letters, digits, dashes, underscores",
        )?;
    }
    Ok(())
}

pub(super) fn check_words(field: &str, words: &[String]) -> Checked {
    if words.iter().any(|word| word.contains('\0')) {
        invalid(field, "must not hold a zero byte")?;
    }
    Ok(())
}

pub(super) fn is_plain_absolute(path: &str) -> bool {
    path.starts_with('/') && is_plain(path)
}

/// Whether a path stays where it is, and the kernel could take it.
pub(super) fn is_plain(path: &str) -> bool {
    path.len() <= 4095 && !path.contains('\0') && !path.split('/').any(|part| part == "..")
}
