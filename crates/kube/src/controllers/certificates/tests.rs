//! Requests with real keys.

use super::*;

fn csr(signer: &str, subject: &str, organization: &str, hosts: &[&str], usages: &[&str]) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, subject);
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, organization);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": "r", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"signerName": signer, "request": BASE64_STANDARD.encode(pem), "usages": usages,
            "username": "system:node:fra", "groups": ["system:nodes"]}})
}

const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &[&str] = &["digital signature", "client auth"];
const SERVER: &[&str] = &["digital signature", "server auth"];

fn decide(csr: &Value) -> Step {
    step(csr, Timestamp::UNIX_EPOCH).0
}

fn approved(csr: &Value) -> Value {
    with_condition(csr, "Approved", "x", "", Timestamp::UNIX_EPOCH)
}

#[test]
fn only_a_nodes_own_certificate_is_approved_by_itself() {
    let own = csr(KUBELET, "system:node:fra", "system:nodes", &[], CLIENT);
    assert_eq!(decide(&own), Step::Approve);
    let others = csr(KUBELET, "system:node:ams", "system:nodes", &[], CLIENT);
    assert_eq!(decide(&others), Step::Nothing);
    let serving = csr(SERVING, "system:node:fra", "system:nodes", &["fra"], SERVER);
    assert_eq!(decide(&serving), Step::Nothing);
    assert_eq!(decide(&approved(&serving)), Step::Sign);
}

#[test]
fn a_signer_refuses_what_it_is_not_for() {
    let refused = |csr: Value| matches!(decide(&approved(&csr)), Step::Refuse(_));
    assert!(refused(csr(
        SERVING,
        "fra",
        "system:nodes",
        &["fra"],
        SERVER
    )));
    assert!(refused(csr(
        SERVING,
        "system:node:fra",
        "system:nodes",
        &[],
        SERVER
    )));
    assert!(refused(csr(KUBELET, "system:node:fra", "a", &[], CLIENT)));
    assert!(refused(csr(
        "kubernetes.io/kube-apiserver-client",
        "a",
        "b",
        &[],
        SERVER
    )));
    let mut unreadable = csr(KUBELET, "system:node:fra", "a", &[], CLIENT);
    unreadable["spec"]["request"] = "eA==".into();
    assert!(refused(unreadable));
    assert_eq!(
        decide(&csr("example.com/own", "a", "b", &[], SERVER)),
        Step::Nothing
    );
}

#[test]
fn what_is_old_is_forgotten() {
    let pending = csr(SERVING, "system:node:fra", "system:nodes", &["fra"], SERVER);
    let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
    assert_eq!(
        step(&pending, at(23)),
        (Step::Nothing, Some(Duration::from_secs(3600)))
    );
    assert_eq!(step(&pending, at(24)).0, Step::Forget);
    let denied = with_condition(&pending, "Denied", "x", "", at(0));
    assert_eq!(step(&denied, at(1)).0, Step::Forget);
}

#[test]
fn a_signed_certificate_is_the_authoritys_and_for_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let csr = csr(SERVING, "system:node:fra", "system:nodes", &["fra"], SERVER);
    let pem = request::pem(&csr).unwrap();
    let now = Timestamp::now();
    let certificate = pki.sign_request(&pem, SERVER, Some(600), now).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert!(
        certificate
            .subject()
            .to_string()
            .contains("system:node:fra")
    );
    let usage = certificate.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.server_auth && !usage.value.client_auth);
    let validity = certificate.validity();
    assert_eq!(validity.not_after.timestamp(), now.as_second() + 600);
}
