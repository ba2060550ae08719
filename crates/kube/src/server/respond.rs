//! Answers.

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WARNING};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::body::{self, Body};
use crate::api::Notes;
use crate::status::Status;

/// Warnings that one answer may carry; a body full of unknown fields is not echoed whole.
const WARNINGS_MAX: usize = 20;

/// More than the text of most objects needs.
const CAPACITY: usize = 2048;

pub(super) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    bytes(code, "application/json", text_of(value))
}

/// As JSON. Unlike `to_string` it does not go through a formatter piece by piece.
pub(super) fn text_of(value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(CAPACITY);
    // A value has no key that is not a text, and memory takes what is written to it.
    let _ = serde_json::to_writer(&mut text, value);
    text
}

pub(super) fn bytes(
    code: StatusCode,
    content_type: &str,
    text: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(super) fn text(code: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", text)
}

pub(super) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    let retry_s = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if retry_s > 0 {
        response.headers_mut().insert("retry-after", retry_s.into());
    }
    response
}

/// The answer with the warnings that came up on the way to it, a refusal's too.
pub(super) fn noted(answer: Result<Response<Body>, Status>, notes: &Notes) -> Response<Body> {
    let response = answer.unwrap_or_else(|refusal| status(&refusal));
    warn(response, &notes.warnings())
}

/// Adds `Warning` headers: code 299, agent `-`, quoted text.
pub(super) fn warn(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
