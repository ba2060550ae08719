//! An error with its causes in one line, for logs and people.

use std::error::Error;

/// The message of `error` and of each of its causes, from the outside in. A cause that the text
/// ends with already (a transparent error) is not told twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn causes_are_told_once_from_the_outside_in() {
        let full = Told {
            text: "disk full",
            source: None,
        };
        let again = Told {
            text: "disk full",
            source: Some(Box::new(full)),
        };
        let outer = Told {
            text: "cannot write x",
            source: Some(Box::new(again)),
        };
        assert_eq!(chain(&outer), "cannot write x: disk full");
    }
}
