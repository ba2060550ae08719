//! What a fuzzer calls of identity: credentials in headers.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::claims::Claims;
use super::static_tokens::StaticTokens;
use super::{bearer, bootstrap_token, impersonation};

/// Reads `data` as header lines (`name: value`), with a token and impersonation among them.
///
/// # Panics
/// If one acts as somebody without asking for it, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.map(|at| (&line[..at], &line[at + 1..])) else {
            continue;
        };
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if let Ok(Some(asked)) = impersonation(&headers) {
        assert!(!asked.user.name.is_empty() && !asked.needs.is_empty());
        for need in &asked.needs {
            let _ = need.refusal(&asked.user, "");
        }
    }
    if let Some(token) = bearer::token_of(&headers) {
        assert!(!token.is_empty());
        self::token(token.as_bytes());
    }
    let _ = headers.get(AUTHORIZATION);
}

/// Reads `data` as a token, and as a file of tokens.
///
/// # Panics
/// Whatever a fuzzer is to find.
#[doc(hidden)]
pub fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = bootstrap_token::is_one(&text);
    let _ = jsonwebtoken::decode_header(&*text);
    let _ = jsonwebtoken::dangerous::insecure_decode::<Claims>(&*text);
    if let Ok(tokens) = StaticTokens::parse(&text) {
        let _ = tokens.user("x");
    }
}
