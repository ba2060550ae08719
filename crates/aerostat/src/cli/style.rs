//! Colours: on a terminal only, and not where `NO_COLOR` or a dumb terminal asks for none
//! (<https://no-color.org>).

use std::io::{self, IsTerminal as _};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
    Bold,
}

/// Whether what is written to a stream may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    #[cfg(test)]
    pub(super) const NONE: Self = Self(false);

    pub(super) fn stdout() -> Self {
        Self(wanted() && io::stdout().is_terminal())
    }

    pub(super) fn stderr() -> Self {
        Self(wanted() && io::stderr().is_terminal())
    }

    #[cfg(test)]
    pub(super) const ALWAYS: Self = Self(true);

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Dim => "2",
            Colour::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// The colour of a state, status or verdict, by its first word.
pub(super) fn of_state(state: &str) -> Option<Colour> {
    match state.split_whitespace().next()? {
        "started" | "ok" | "passing" | "deployed" | "up" | "won" => Some(Colour::Green),
        "failed" | "FAIL" | "critical" | "unreachable" | "refused" => Some(Colour::Red),
        "stopped" | "suspended" | "created" | "destroyed" | "pending" => Some(Colour::Dim),
        "starting" | "stopping" | "suspending" | "restarting" | "updating" | "destroying"
        | "warn" | "warning" | "unknown" | "silent" => Some(Colour::Yellow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_text_is_left_alone() {
        assert_eq!(Paint::NONE.paint(Colour::Red, "x"), "x");
        assert_eq!(Paint::ALWAYS.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(of_state("started (host unreachable)"), Some(Colour::Green));
        assert_eq!(of_state("web"), None);
    }
}
