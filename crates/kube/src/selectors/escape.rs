//! Backslashes in field selectors: values may have commas and signs of equality.

use crate::status::Status;

/// The terms between commas that no backslash takes the meaning of.
pub(super) fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut from, mut is_escaped) = (Vec::new(), 0, false);
    for (at, one) in text.char_indices() {
        match one {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                terms.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[from..]);
    terms
}

/// A value without the backslashes before `\`, `,` and `=`.
pub(super) fn unescaped(value: &str) -> Result<String, Status> {
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(one) = rest.next() {
        let one = match one {
            '\\' => match rest.next() {
                Some(escaped @ ('\\' | ',' | '=')) => escaped,
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    let why = format!("invalid field selector: invalid escape sequence: \\{other}");
                    return Err(Status::bad_request(why));
                }
            },
            ',' | '=' => {
                let why = format!("invalid field selector: unescaped character in value: {one}");
                return Err(Status::bad_request(why));
            }
            one => one,
        };
        text.push(one);
    }
    Ok(text)
}
