//! The cluster's own certificates: an authority, a serving certificate and the administrator's.
//!
//! The authority and the administrator's certificate are files, readable by the owner only; each is
//! made anew when a third of its time is left. The authority keeps its key then, so that whoever
//! trusts the old certificate trusts what it signs. The serving key lives in memory ([`Serving`]),
//! so a name that is added to the configuration needs no ceremony.

mod serving;

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, RootCertStore};

use crate::api::User;

pub use serving::Serving;

/// Time of the authority, and of clients whose certificate lies in somebody's kubeconfig, where
/// nobody renews it.
const VALID_DAYS: i64 = 3650;
/// A year, as upstream's tools have it.
const SERVING_DAYS: i64 = 365;
const DAY_S: i64 = 24 * 3600;
/// Names by which pods and the host itself reach the API server.
const NAMES: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
const AUTHORITY: &str = "aerostat-kube-ca";
/// Members may do everything, by definition.
const MASTERS: &str = "system:masters";

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate for {subject}")]
    Make {
        subject: String,
        source: rcgen::Error,
    },
    #[error("{path} does not hold a usable certificate or key; remove it to have it made anew")]
    Parse { path: PathBuf },
    #[error("cannot set up TLS")]
    Tls { source: rustls::Error },
    #[error("cannot set up the check of client certificates")]
    Verifier {
        source: rustls::server::VerifierBuilderError,
    },
}

/// The authority of this cluster.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, both PEM.
pub struct Credentials {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Pki {
    /// Reads the authority in `dir`, or makes it. The directory must exist.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let mut credentials = load_or_make(&certificate, &key, make_authority)?;
        if is_due(&credentials.certificate_pem, VALID_DAYS, Timestamp::now()) {
            credentials = renew_authority(&credentials, &key)?;
            write_private(&certificate, &credentials.certificate_pem)?;
        }
        let parse = || PkiError::Parse { path: key.clone() };
        let key_pair = KeyPair::from_pem(&credentials.key_pem).map_err(|_| parse())?;
        let issuer = Issuer::from_ca_cert_pem(&credentials.certificate_pem, key_pair)
            .map_err(|_| PkiError::Parse { path: certificate })?;
        Ok(Self {
            dir: dir.to_owned(),
            ca_pem: credentials.certificate_pem,
            issuer,
        })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The administrator's certificate, a member of `system:masters`; kept in the directory.
    pub fn admin(&self) -> Result<Credentials, PkiError> {
        let (certificate, key) = self.admin_files();
        let make = || self.client("kubernetes-admin", Some(MASTERS));
        let kept = load_or_make(&certificate, &key, make)?;
        if is_due(&kept.certificate_pem, VALID_DAYS, Timestamp::now()) {
            return self.renew_admin();
        }
        Ok(kept)
    }

    /// Makes the administrator's certificate and key anew. The old ones stay good until they end.
    pub fn renew_admin(&self) -> Result<Credentials, PkiError> {
        let (certificate, key) = self.admin_files();
        let made = self.client("kubernetes-admin", Some(MASTERS))?;
        write_private(&key, &made.key_pem)?;
        write_private(&certificate, &made.certificate_pem)?;
        Ok(made)
    }

    fn admin_files(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("admin.crt"), self.dir.join("admin.key"))
    }

    /// Makes the authority's certificate anew with the same key, and returns it. This process goes
    /// on with the old one, which does no harm; the next start has the new one.
    pub fn renew_authority(&self) -> Result<String, PkiError> {
        let (certificate, key) = (self.dir.join("ca.crt"), self.dir.join("ca.key"));
        let key_pem = std::fs::read_to_string(&key).map_err(|source| PkiError::Read {
            path: key.clone(),
            source,
        })?;
        let kept = Credentials {
            certificate_pem: self.ca_pem.clone(),
            key_pem,
        };
        let renewed = renew_authority(&kept, &key)?;
        write_private(&certificate, &renewed.certificate_pem)?;
        Ok(renewed.certificate_pem)
    }

    /// When the authority ends.
    pub fn ends_at(&self) -> Option<Timestamp> {
        ends_at(&self.ca_pem)
    }

    /// A client certificate; not kept.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Credentials, PkiError> {
        let mut params = params(user, &[], VALID_DAYS)?;
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(user, params)
    }

    /// TLS for the API server: asks for a client certificate, and lets clients without one in to
    /// be nobody. `names` are further names and addresses of this server.
    pub fn server_config(&self, names: &[String]) -> Result<rustls::ServerConfig, PkiError> {
        self.server_config_with(&Serving::new(self, names)?)
    }

    /// The same, with a certificate that can be renewed.
    pub fn server_config_with(&self, serving: &Serving) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyCertificate(self.client_verifier()?));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| PkiError::Tls { source })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(serving.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Signs somebody's request (PEM) for these usages, in the API's names for them; the
    /// certificate, PEM. It begins five minutes ago, for clocks that are behind, and lasts as long
    /// as was asked, a year at most.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usages: &[&str],
        asked_s: Option<i64>,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        const YEAR_S: i64 = 365 * 24 * 3600;
        const BACK_S: i64 = 300;
        let make = |source| PkiError::Make {
            subject: "a certificate request".to_owned(),
            source,
        };
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(make)?;
        let at = |second: i64| {
            let second = u64::try_from(second).unwrap_or(0);
            date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(second)
        };
        let params = &mut request.params;
        params.not_before = at(now.as_second() - BACK_S);
        params.not_after = at(now.as_second() + asked_s.unwrap_or(YEAR_S).clamp(1, YEAR_S));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let has = |usage: &str| usages.contains(&usage);
        let keys = [
            ("digital signature", KeyUsagePurpose::DigitalSignature),
            ("key encipherment", KeyUsagePurpose::KeyEncipherment),
        ];
        let keys = keys.into_iter().filter(|(name, _)| has(name));
        params.key_usages = keys.map(|(_, usage)| usage).collect();
        let purposes = [
            ("client auth", ExtendedKeyUsagePurpose::ClientAuth),
            ("server auth", ExtendedKeyUsagePurpose::ServerAuth),
        ];
        let purposes = purposes.into_iter().filter(|(name, _)| has(name));
        params.extended_key_usages = purposes.map(|(_, usage)| usage).collect();
        let certificate = request.signed_by(&self.issuer).map_err(make)?;
        Ok(certificate.pem())
    }

    /// Tells whether a client certificate is of this authority, and of now.
    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(self.der(&self.ca_pem)?)
            .map_err(|source| PkiError::Tls { source })?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|source| PkiError::Verifier { source })
    }

    fn sign(&self, subject: &str, params: CertificateParams) -> Result<Credentials, PkiError> {
        let make = |source| PkiError::Make {
            subject: subject.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Credentials {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    fn der(&self, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::Parse {
            path: self.dir.clone(),
        })
    }
}

/// Lets any client certificate pass whose key the client has. Who it names, and whether it is good
/// at all, is asked with each request: a handshake that fails tells the client nothing, and a 401
/// does.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn params(subject: &str, names: &[String], days: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names).map_err(|source| PkiError::Make {
        subject: subject.to_owned(),
        source,
    })?;
    let today_s = Timestamp::now().as_second() / DAY_S * DAY_S;
    let at = |second: i64| {
        let second = u64::try_from(second).unwrap_or(0);
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(second)
    };
    // A year back, for clocks that are behind.
    params.not_before = at(today_s - 365 * DAY_S);
    params.not_after = at(today_s + days * DAY_S);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// When a certificate ends; `None` if it cannot be read.
pub fn ends_at(certificate_pem: &str) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

/// Whether less than a third of its time is left of a certificate that was made for so many days.
fn is_due(certificate_pem: &str, days: i64, now: Timestamp) -> bool {
    let ends = ends_at(certificate_pem);
    ends.is_some_and(|ends| ends.as_second() - now.as_second() < days * DAY_S / 3)
}

fn make_authority() -> Result<Credentials, PkiError> {
    let key = KeyPair::generate().map_err(|source| PkiError::Make {
        subject: AUTHORITY.to_owned(),
        source,
    })?;
    sign_authority(&key)
}

/// The same authority for longer.
fn renew_authority(kept: &Credentials, key: &Path) -> Result<Credentials, PkiError> {
    let pair = KeyPair::from_pem(&kept.key_pem);
    let pair = pair.map_err(|_| PkiError::Parse {
        path: key.to_owned(),
    })?;
    sign_authority(&pair)
}

fn sign_authority(key: &KeyPair) -> Result<Credentials, PkiError> {
    let make = |source| PkiError::Make {
        subject: AUTHORITY.to_owned(),
        source,
    };
    let mut params = params(AUTHORITY, &[], VALID_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(make)?;
    Ok(Credentials {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// The key is written first: a certificate without its key cannot be left behind by a crash.
fn load_or_make(
    certificate: &Path,
    key: &Path,
    make: impl FnOnce() -> Result<Credentials, PkiError>,
) -> Result<Credentials, PkiError> {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read {
            path: path.to_owned(),
            source,
        }),
    };
    if let (Some(certificate_pem), Some(key_pem)) = (read(certificate)?, read(key)?) {
        return Ok(Credentials {
            certificate_pem,
            key_pem,
        });
    }
    let made = make()?;
    write_private(key, &made.key_pem)?;
    write_private(certificate, &made.certificate_pem)?;
    Ok(made)
}

/// Replaces a file by one that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let write = |source| PkiError::Write {
        path: path.to_owned(),
        source,
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(write)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(write)?;
    std::fs::rename(&draft, path).map_err(write)
}

/// A kubeconfig with everything embedded. `server` is a URL.
pub fn kubeconfig(server: &str, ca_pem: &str, credentials: &Credentials) -> String {
    let base64 = |pem: &str| BASE64_STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: aerostat
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: aerostat-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: aerostat
  context:
    cluster: aerostat
    user: aerostat-admin
current-context: aerostat
",
        ca = base64(ca_pem),
        certificate = base64(&credentials.certificate_pem),
        key = base64(&credentials.key_pem),
    )
}

/// Who a verified client certificate names: the common name is the user, organisations are groups.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok());
    let groups = groups.map(str::to_owned).collect();
    Some(User::authenticated(name, groups))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_keys_are_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Pki::open(dir.path()).expect("made");
        let admin = first.admin().expect("made");
        let again = Pki::open(dir.path()).expect("read");
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(admin.key_pem, again.admin().expect("read").key_pem);
        for file in ["ca.key", "admin.key"] {
            let mode = std::fs::metadata(dir.path().join(file))
                .expect("written")
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
        }
        let renewed = again.renew_authority().expect("made");
        assert_ne!(renewed, first.ca_pem());
        // Who trusts the renewed authority knows the certificates of before.
        let again = Pki::open(dir.path()).expect("read");
        assert_eq!(again.ca_pem(), renewed);
        let verifier = again.client_verifier().expect("usable");
        let der = again.der(&admin.certificate_pem).expect("a certificate");
        verifier
            .verify_client_cert(&der, &[], UnixTime::now())
            .expect("known");
        assert_ne!(again.renew_admin().expect("made").key_pem, admin.key_pem);
        let ends = again.ends_at().expect("an end");
        assert!(!is_due(&renewed, VALID_DAYS, Timestamp::now()));
        assert!(is_due(&renewed, VALID_DAYS, ends));
        again
            .server_config(&["example.internal".into()])
            .expect("usable");
    }

    #[test]
    fn a_certificate_names_its_user_and_groups() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pki = Pki::open(dir.path()).expect("made");
        let credentials = pki.client("alice", Some("dev")).expect("made");
        let der = pki
            .der(&credentials.certificate_pem)
            .expect("a certificate");
        let user = user_of(&der).expect("a user");
        assert_eq!((user.name.as_str(), &user.groups[0][..]), ("alice", "dev"));
        assert!(!user.is_master());
    }
}
