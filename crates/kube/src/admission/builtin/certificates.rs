//! What concerns certificates: CertificateApproval and CertificateSigning (who approves for a
//! signer, or signs in its name, must be allowed to), and CertificateSubjectRestriction (nobody
//! asks the cluster for a certificate of its masters).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::rbac;
use crate::resource::CERTIFICATE_SIGNING_REQUESTS;
use crate::status::Status;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

pub(super) fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    if !attributes.resource.is(&CERTIFICATE_SIGNING_REQUESTS) {
        return Ok(());
    }
    match (attributes.subresource, attributes.old) {
        (Some("approval"), Some(old)) => check_signer(attributes, "approve", old),
        (Some("status"), Some(old)) => {
            let new = &attributes.object;
            let changed = |field: &str| old["status"].get(field) != new["status"].get(field);
            if changed("certificate") || changed("conditions") {
                return check_signer(attributes, "sign", old);
            }
            Ok(())
        }
        _ => check_subject(attributes),
    }
}

/// Who may `verb` for this signer, or for all of its domain.
fn check_signer(attributes: &Attributes<'_>, verb: &str, csr: &Value) -> Result<(), Status> {
    let signer = object::text(csr, &["spec", "signerName"]);
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let api = attributes.api;
    let may = |name: &str| {
        let request = rbac::Request::resource(verb, CERTIFICATE_SIGNING_REQUESTS.group, "signers");
        api.may(&api.caller().user, &request.named(name))
    };
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    let (resource, name) = (attributes.resource, &attributes.name);
    Err(Status::forbidden(resource, name, &why))
}

fn check_subject(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_request = attributes.is_object(&CERTIFICATE_SIGNING_REQUESTS);
    if !is_request
        || attributes.operation != Operation::Create
        || object::text(&attributes.object, &["spec", "signerName"]) != SIGNER
    {
        return Ok(());
    }
    let groups = organisations(object::text(&attributes.object, &["spec", "request"]));
    if groups.iter().any(|group| group == MASTERS) {
        let why = format!("use of {SIGNER} signer with {MASTERS} group is not allowed");
        return Err(Status::forbidden(
            attributes.resource,
            &attributes.name,
            &why,
        ));
    }
    Ok(())
}

/// The organisations that a request (base64 of PEM) names. One that cannot be read names none;
/// validation refuses it.
fn organisations(request: &str) -> Vec<String> {
    let Ok(pem) = BASE64_STANDARD.decode(request) else {
        return Vec::new();
    };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else {
        return Vec::new();
    };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    let names = subject.iter_organization();
    names
        .filter_map(|name| name.as_str().ok().map(str::to_owned))
        .collect()
}
