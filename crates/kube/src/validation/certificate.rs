//! The rules of CertificateSigningRequests.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::api::Part;
use crate::object;
use crate::status::Cause;

const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const REQUEST: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
/// Shorter certificates are refused, as upstream.
const EXPIRATION_S_MIN: i64 = 600;

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// What a key can be for, sorted.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn usages(usages: &[Value]) -> Vec<Cause> {
    if usages.is_empty() {
        return vec![Cause::required("spec.usages", "")];
    }
    let mut causes = Vec::new();
    for (index, usage) in usages.iter().enumerate() {
        let at = format!("spec.usages[{index}]");
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            causes.push(Cause::not_supported(&at, usage, &USAGES));
        }
        if usages[..index].contains(usage) {
            causes.push(Cause::duplicate(&at, usage));
        }
    }
    causes
}

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
    causes.extend(usages(object::items(spec, &["usages"])));
    let signer = object::text(spec, &["signerName"]);
    if signer.is_empty() {
        causes.push(Cause::required("spec.signerName", ""));
    } else if signer == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        causes.push(Cause::invalid("spec.signerName", &json!(signer), why));
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

const CONDITIONS: &str = "status.conditions";

/// What a write of this part may do to the status. Who approves sets no certificate, and who sets
/// the certificate approves nothing.
pub(super) fn status_change(part: Part, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = conditions(object::items(new, &["status", "conditions"]));
    let of = |object: &Value, kind: &str| -> Vec<Value> {
        let all = object::items(object, &["status", "conditions"]).iter();
        all.filter(|one| one["type"] == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (had, has) = (of(old, kind), of(new, kind));
        let verb = if has.len() < had.len() {
            "remove"
        } else if part == Part::Approval || kind == "Failed" || has == had {
            continue;
        } else if has.len() > had.len() {
            "add"
        } else {
            "modify"
        };
        let why = format!("updates may not {verb} a condition of type {kind:?}");
        causes.push(Cause::forbidden(CONDITIONS, &why));
    }
    let certificate = |object: &Value| object::text(object, &["status", "certificate"]).to_owned();
    let (had, has) = (certificate(old), certificate(new));
    if had != has {
        let field = "status.certificate";
        if part != Part::Status {
            causes.push(Cause::forbidden(
                field,
                "updates may not set certificate content",
            ));
        } else if !had.is_empty() {
            let why = "updates may not modify existing certificate content";
            causes.push(Cause::forbidden(field, why));
        } else if let Some(why) = certificate_fault(&has) {
            let field = "status.certificate";
            causes.push(Cause::invalid(field, &json!("<certificate data>"), why));
        }
    }
    causes
}

fn conditions(conditions: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let at = format!("{CONDITIONS}[{index}]");
        let kind = object::text(condition, &["type"]);
        if kind.is_empty() {
            causes.push(Cause::required(format!("{at}.type"), ""));
        }
        let all: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        let status = object::text(condition, &["status"]);
        if status.is_empty() {
            causes.push(Cause::required(format!("{at}.status"), ""));
        } else if !all.contains(&status) {
            let field = format!("{at}.status");
            causes.push(Cause::not_supported(field, &condition["status"], all));
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(&other) {
            let why = "Approved and Denied conditions are mutually exclusive";
            causes.push(Cause::invalid(CONDITIONS, &json!(kind), why));
        }
        if seen.contains(&kind) {
            causes.push(Cause::duplicate(format!("{at}.type"), &json!(kind)));
        }
        seen.push(kind);
    }
    causes
}

/// What is wrong with a certificate (base64 of PEM) that a signer made.
fn certificate_fault(text: &str) -> Option<&'static str> {
    const BLOCK: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let pem = BASE64_STANDARD.decode(text).unwrap_or_default();
    let begins = pem.windows(BLOCK.len()).filter(|part| *part == BLOCK);
    (begins.count() == 0).then_some("must contain at least one CERTIFICATE PEM block")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::CERTIFICATE_SIGNING_REQUESTS;

    fn told(causes: &[Cause]) -> Vec<String> {
        let told = causes.iter();
        told.map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    fn encoded(kind: &str) -> String {
        BASE64_STANDARD.encode(format!(
            "-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n"
        ))
    }

    fn sample() -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"request": encoded("CERTIFICATE REQUEST"),
            "signerName": "example.com/s", "usages": ["client auth"]}})
    }

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = sample();
        change(&mut object["spec"]);
        told(&super::super::on_create(
            &CERTIFICATE_SIGNING_REQUESTS,
            &object,
        ))
    }

    #[test]
    fn a_request_says_what_it_wants_from_whom_and_for_how_long() {
        assert_eq!(faults(|_| {}), [""; 0]);
        let found = faults(|spec| spec["request"] = encoded("CERTIFICATE").into());
        assert!(
            found[0].ends_with("PEM block type must be CERTIFICATE REQUEST"),
            "{found:?}"
        );
        let found = faults(|spec| spec["usages"] = json!([]));
        assert_eq!(found, ["spec.usages: Required value"]);
        let found = faults(|spec| spec["usages"] = json!(["any", "any", "all"]));
        assert_eq!(found[0], r#"spec.usages[1]: Duplicate value: "any""#);
        assert!(
            found[1].starts_with(r#"spec.usages[2]: Unsupported value: "all""#),
            "{found:?}"
        );
        let found = faults(|spec| spec["signerName"] = "plain".into());
        assert!(
            found[0].starts_with(r#"spec.signerName: Invalid value: "plain""#),
            "{found:?}"
        );
        let found = faults(|spec| spec["signerName"] = "kubernetes.io/legacy-unknown".into());
        assert!(found[0].ends_with("the legacy signerName is not allowed via this API version"));
        let found = faults(|spec| spec["expirationSeconds"] = 599.into());
        assert!(
            found[0].ends_with("less than 600 seconds (10 minutes)"),
            "{found:?}"
        );
    }

    fn changed(part: Part, old: Value, new: Value) -> Vec<String> {
        let object = |status: Value| {
            let mut object = sample();
            object["status"] = status;
            object
        };
        let (old, new) = (object(old), object(new));
        told(&super::super::on_update(
            &CERTIFICATE_SIGNING_REQUESTS,
            part,
            &old,
            &new,
        ))
    }

    #[test]
    fn approval_and_certificate_are_written_by_their_own_parts_only() {
        let approved = || json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let signed = || json!({"certificate": encoded("CERTIFICATE")});
        assert_eq!(changed(Part::Approval, json!({}), approved()), [""; 0]);
        assert_eq!(changed(Part::Status, json!({}), signed()), [""; 0]);
        let add =
            r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#;
        assert_eq!(changed(Part::Status, json!({}), approved()), [add]);
        let set = "status.certificate: Forbidden: updates may not set certificate content";
        assert_eq!(changed(Part::Approval, json!({}), signed()), [set]);
        let remove = r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#;
        assert_eq!(changed(Part::Approval, approved(), json!({})), [remove]);
        let other = json!({"certificate": encoded("CERTIFICATE ")});
        let keep = "status.certificate: Forbidden: updates may not modify existing certificate \
                    content";
        assert_eq!(changed(Part::Status, signed(), other), [keep]);
        let failed = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        assert_eq!(changed(Part::Status, json!({}), failed), [""; 0]);
    }

    #[test]
    fn a_request_is_approved_or_denied_and_says_so_once() {
        let both = json!({"conditions": [{"type": "Approved", "status": "True"},
            {"type": "Denied", "status": "False"}, {"type": "Denied"}, {"status": "True"}]});
        let exclusive = "Approved and Denied conditions are mutually exclusive";
        let expected = [
            r#"status.conditions[1].status: Unsupported value: "False": supported values: "True""#,
            &format!(r#"status.conditions: Invalid value: "Denied": {exclusive}"#),
            "status.conditions[2].status: Required value",
            &format!(r#"status.conditions: Invalid value: "Denied": {exclusive}"#),
            r#"status.conditions[2].type: Duplicate value: "Denied""#,
            "status.conditions[3].type: Required value",
        ];
        assert_eq!(changed(Part::Approval, json!({}), both), expected);
        let garbage = json!({"certificate": BASE64_STANDARD.encode("x")});
        let found = changed(Part::Status, json!({}), garbage);
        assert_eq!(
            found,
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one \
              CERTIFICATE PEM block"
            ]
        );
    }
}
