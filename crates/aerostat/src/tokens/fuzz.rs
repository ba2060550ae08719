//! Tokens of strangers: whatever they are, reading them ends in an answer.

use jiff::Timestamp;
use types::token::{Scope, Verb};

use super::{Access, PublicKeyText, Target, Verified, attenuate, inspect};

/// The key that signed the tokens of the corpus, none of which may do everything. Its private half
/// is gone.
const KEY: &str = "792eb1109f96389c38dc66018af3f7f37f51757f914bd361ab3e56c1206a99e4";

/// Reads `data` as the text of a token, and as the bytes below the text.
///
/// # Panics
/// If a token that its key has not signed is let through, or whatever a fuzzer is to find.
pub fn fuzz_token(data: &[u8]) {
    use base64::Engine as _;
    fuzz_text(&String::from_utf8_lossy(data));
    fuzz_text(&base64::engine::general_purpose::URL_SAFE.encode(data));
}

fn fuzz_text(text: &str) {
    let narrower = attenuate(text, &Scope::default());
    if let Ok(said) = inspect(text) {
        assert_eq!(said.blocks.len(), said.revocation_ids.len());
    }
    for token in [Ok(text.to_owned()), narrower].into_iter().flatten() {
        let known = |_| Some(PublicKeyText(KEY.to_owned()));
        let Ok(token) = Verified::of(&token, known) else {
            continue;
        };
        let everything = Access::To(Target::fleet(Verb::Admin));
        let allowed = token.allow(everything, Timestamp::UNIX_EPOCH);
        assert!(allowed.is_err(), "nobody signed that");
    }
}
