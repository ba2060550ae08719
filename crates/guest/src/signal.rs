//! Signals by name, as image configurations and people write them.

use std::io;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::sys;

/// First real-time signal as C libraries count (the kernel's own 32 and 33 are used by them).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`. `None` if there is no such.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|offset| RTMIN + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset| RTMAX - offset)
    } else {
        return Signal::from_str(&format!("SIG{name}"))
            .ok()
            .map(|signal| signal as i32);
    };
    real_time.filter(|number| (RTMIN..=RTMAX).contains(number))
}

fn offset(text: &str, sign: char) -> Option<i32> {
    match text.strip_prefix(sign) {
        Some(number) => number
            .parse()
            .ok()
            .filter(|offset| (0..64).contains(offset)),
        None => text.is_empty().then_some(0),
    }
}

/// Sends a signal to a process, or with a negative `pid` to a process group. That it is gone is no
/// error.
///
/// # Errors
/// If it may not be signalled.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    match sys::kill(pid, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_usual_spelling() {
        for text in ["SIGTERM", "TERM", "term", "15"] {
            assert_eq!(parse(text), Some(15), "{text}");
        }
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!(parse("SIGRTMAX"), Some(64));
        assert_eq!(parse("SIGRTMAX-1"), Some(63));
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "SIGRTMIN+31",
            "RTMIN3",
            "SIGRTMIN+-1",
            "SIGX",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
