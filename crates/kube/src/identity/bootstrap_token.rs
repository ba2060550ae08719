//! Bootstrap tokens: Secrets `bootstrap-token-<id>` in kube-system, for machines that join.

use jiff::Timestamp;

use super::{User, data};
use crate::api::Api;
use crate::object;
use crate::resource::SECRETS;

const KIND: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

/// Whether a token looks like one: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(super) fn is_one(token: &str) -> bool {
    let is_word = |part: &str, len: usize| {
        part.len() == len
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    token
        .split_once('.')
        .is_some_and(|(id, secret)| is_word(id, ID_LEN) && is_word(secret, SECRET_LEN))
}

/// The user of a token that is known, good for authentication and not past its end.
pub(super) fn user(api: &Api, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let name = format!("bootstrap-token-{id}");
    let found = api.read(&SECRETS, Some("kube-system"), &name).ok()?;
    let text = |key: &str| data(&found, key).and_then(|bytes| String::from_utf8(bytes).ok());
    let is = |key: &str, value: &str| text(key).is_some_and(|text| text == value);
    let held = text("token-secret")?;
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(held.as_bytes(), secret.as_bytes());
    if object::text(&found, &["type"]) != KIND
        || object::is_terminating(&found)
        || same.is_err()
        || !is("token-id", id)
        || !is("usage-bootstrap-authentication", "true")
    {
        return None;
    }
    if let Some(end) = text("expiration").filter(|end| !end.is_empty())
        && end.parse::<Timestamp>().ok()? < now
    {
        return None;
    }
    let extra = text("auth-extra-groups").unwrap_or_default();
    let extra = extra.split(',').map(str::trim);
    // Others would let a Secret make somebody anything.
    let extra = extra.filter(|group| group.starts_with("system:bootstrappers:"));
    let groups = std::iter::once(GROUP).chain(extra).map(str::to_owned);
    Some(User::authenticated(
        format!("system:bootstrap:{id}"),
        groups.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_bootstrap_token() {
        assert!(is_one("abcdef.0123456789abcdef"));
        for other in [
            "abcdef.0123456789abcdeF",
            "abcde.0123456789abcdef",
            "abcdef",
            "a.b.c",
        ] {
            assert!(!is_one(other), "{other}");
        }
    }
}
