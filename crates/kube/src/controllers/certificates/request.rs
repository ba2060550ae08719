//! What a CertificateSigningRequest asks for, and what each signer lets it ask. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::object;

/// Signers of upstream that this cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    Client,
    KubeletClient,
    KubeletServing,
}

/// The subject and names of a request whose signature is its own key's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    /// DNS names and addresses.
    hosts: usize,
    /// Mail addresses, URIs and whatever else.
    others: usize,
}

/// The request's PEM.
pub(super) fn pem(csr: &Value) -> Result<String, String> {
    let text = object::text(csr, &["spec", "request"]);
    let bytes = BASE64_STANDARD.decode(text);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| "unable to parse csr: not PEM".to_owned())
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().unwrap_or_default().to_owned()
}

impl Request {
    pub(super) fn parse(csr: &Value) -> Result<Self, String> {
        let unreadable = |what: &str| format!("unable to parse csr: {what}");
        let pem = pem(csr)?;
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| unreadable("not PEM"))?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|_| unreadable("no certificate request"))?;
        let info = &request.certification_request_info;
        let mut parsed = Self {
            common_name: info
                .subject
                .iter_common_name()
                .map(text)
                .next()
                .unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) | GeneralName::IPAddress(_) => parsed.hosts += 1,
                    GeneralName::OtherName(..)
                    | GeneralName::RFC822Name(_)
                    | GeneralName::X400Address(_)
                    | GeneralName::DirectoryName(_)
                    | GeneralName::EDIPartyName(_)
                    | GeneralName::URI(_)
                    | GeneralName::RegisteredID(_)
                    | GeneralName::Invalid(..) => parsed.others += 1,
                }
            }
        }
        Ok(parsed)
    }
}

impl Signer {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(Self::KubeletServing),
            _ => None,
        }
    }

    /// Why it does not sign this, in upstream's words.
    pub(super) fn fault(self, csr: &Value, request: &Request) -> Option<String> {
        let usages = object::items(csr, &["spec", "usages"]);
        let has = |usage: &str| usages.iter().any(|one| one == usage);
        let purpose = match self {
            Self::Client | Self::KubeletClient => "client auth",
            Self::KubeletServing => "server auth",
        };
        let is_known =
            |one: &Value| one == "digital signature" || one == "key encipherment" || one == purpose;
        if !has(purpose) || !usages.iter().all(is_known) {
            return Some(format!(
                "usages did not match: {purpose} and its like are allowed"
            ));
        }
        if self == Self::Client {
            return None;
        }
        if !has("digital signature") {
            return Some("usages did not match: digital signature is required".into());
        }
        if request.organizations != ["system:nodes"] {
            return Some("organization in subject must be 'system:nodes'".into());
        }
        if !request.common_name.starts_with("system:node:") {
            return Some("subject common name does not begin with 'system:node:'".into());
        }
        match self {
            Self::KubeletServing if request.others > 0 => {
                Some("emails and URIs are not allowed as subject alternative names".into())
            }
            Self::KubeletServing if request.hosts == 0 => {
                Some("DNS or IP subjectAltName is required".into())
            }
            Self::KubeletClient if request.hosts + request.others > 0 => {
                Some("subject alternative names are not allowed".into())
            }
            Self::Client | Self::KubeletClient | Self::KubeletServing => None,
        }
    }
}
