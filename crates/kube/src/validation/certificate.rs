//! The rules of CertificateSigningRequests.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::object;
use crate::status::Cause;

const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const REQUEST: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
/// Shorter certificates are refused, as upstream.
const EXPIRATION_S_MIN: i64 = 600;

pub(super) fn request(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    let text = object::text(spec, &["request"]);
    let pem = BASE64_STANDARD.decode(text).unwrap_or_default();
    let has = |mark: &[u8]| pem.windows(mark.len()).any(|part| part == mark);
    if !has(REQUEST) {
        let why = "PEM block type must be CERTIFICATE REQUEST";
        causes.push(Cause::invalid("spec.request", &json!(text), why));
    } else if pem
        .windows(PEM_BEGIN.len())
        .filter(|part| *part == PEM_BEGIN)
        .count()
        > 1
    {
        let why = "PEM must contain one certificate request";
        causes.push(Cause::invalid("spec.request", &json!(text), why));
    }
    if object::items(spec, &["usages"]).is_empty() {
        causes.push(Cause::required("spec.usages", ""));
    }
    let signer = object::text(spec, &["signerName"]);
    if signer.is_empty() {
        causes.push(Cause::required("spec.signerName", ""));
    } else if signer.split_once('/').is_none_or(|(domain, path)| {
        path.is_empty() || super::names::subdomain_fault(domain).is_some()
    }) {
        let why = "must be a fully qualified domain and path of the form \
                   'example.com/signer-name'";
        causes.push(Cause::invalid("spec.signerName", &json!(signer), why));
    }
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64);
    if seconds.is_some_and(|seconds| seconds < EXPIRATION_S_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        let field = "spec.expirationSeconds";
        causes.push(Cause::invalid(field, &spec["expirationSeconds"], why));
    }
    causes
}
