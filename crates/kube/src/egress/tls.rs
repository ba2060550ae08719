//! Whom we trust at the other end, and who we are there.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::CallError;
use crate::pki::Credentials;

/// Which certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Signed by one of these (PEM).
    Bundle(Arc<[u8]>),
    /// Signed by whom this host trusts.
    System,
    /// Anything: what `insecureSkipTLSVerify` asks for.
    Anyone,
}

/// A client certificate, for aggregated APIs to believe us who a user is.
#[derive(Debug)]
pub(crate) struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, CallError> {
        let unusable = |_| CallError::Tls("the client certificate cannot be used".to_owned());
        let certificates = CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes());
        Ok(Self {
            certificates: certificates.collect::<Result<_, _>>().map_err(unusable)?,
            key: PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).map_err(unusable)?,
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider()));
    provider.clone()
}

/// The authorities of this host, read once.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        // A host without them trusts nobody, and the calls say so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

/// How connections are made under this trust.
pub(super) fn config(
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<ClientConfig, CallError> {
    let tls = |error: rustls::Error| CallError::Tls(format!("tls: {error}"));
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(tls)?;
    let builder = match trust {
        Trust::Bundle(pem) => builder
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(Some(Bundle::read(pem)?))),
        Trust::System => builder.with_root_certificates(system_roots()),
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(None)),
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder
            .with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())
            .map_err(tls),
    }
}

/// Accepts what the authorities of a bundle vouch for and, as Go does, a certificate of the bundle
/// itself: who signs for himself often calls himself an authority, which rustls refuses.
#[derive(Debug)]
struct Bundle {
    signed: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Bundle {
    fn read(pem: &[u8]) -> Result<Self, CallError> {
        let mut roots = RootCertStore::empty();
        // As Go: what cannot be read in a bundle is passed over.
        let own: Vec<_> = CertificateDer::pem_slice_iter(pem).flatten().collect();
        for certificate in &own {
            let _ = roots.add(certificate.clone());
        }
        if roots.is_empty() {
            let why = "unable to load root certificates: unable to parse bytes as PEM block";
            return Err(CallError::Tls(why.to_owned()));
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let signed = signed.build();
        let signed = signed.map_err(|error| CallError::Tls(format!("tls: {error}")))?;
        Ok(Self { signed, own })
    }
}

/// Checks that the other end holds the key of its certificate, and, unless anyone is trusted, that
/// the certificate is to be believed.
#[derive(Debug)]
struct Verifier {
    /// `None`: anyone's.
    believed: Option<Bundle>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(believed: Option<Bundle>) -> Arc<Self> {
        let provider = provider();
        Arc::new(Self { believed, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(Bundle { signed, own }) = &self.believed else {
            return Ok(ServerCertVerified::assertion());
        };
        let signed = signed.verify_server_cert(certificate, chain, name, ocsp, now);
        if signed.is_ok() || !own.contains(certificate) {
            return signed;
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        serves(certificate, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Whether a certificate is good now, and for servers.
fn serves(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let read = x509_parser::parse_x509_certificate(certificate);
    let (_, read) = read.map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = read.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let usage = read.extended_key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// The text of a failed handshake, in Go's words where people look for them.
pub(super) fn text(error: &std::io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let failed = "tls: failed to verify certificate: x509";
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer => {
                format!("{failed}: certificate signed by unknown authority")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("{failed}: certificate has expired or is not yet valid")
            }
            why => format!("{failed}: {why}"),
        },
        Some(other) => format!("tls: {other}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn self_signed(is_ca: rcgen::IsCa) -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::new(vec!["s.n.svc".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap()
    }

    #[test]
    fn a_certificate_of_the_bundle_itself_is_trusted_for_its_name_and_time() {
        let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        for is_ca in [authority, rcgen::IsCa::NoCa] {
            let own = self_signed(is_ca);
            let bundle = Bundle::read(own.pem().as_bytes()).unwrap();
            let verifier = Verifier::new(Some(bundle));
            let verify = |certificate: &CertificateDer<'_>, name: &'static str, now| {
                let name = ServerName::try_from(name).unwrap();
                verifier.verify_server_cert(certificate, &[], &name, &[], now)
            };
            let now = UnixTime::now();
            verify(own.der(), "s.n.svc", now).unwrap();
            verify(own.der(), "other.n.svc", now).unwrap_err();
            let late = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
            verify(own.der(), "s.n.svc", late).unwrap_err();
            let stranger = self_signed(authority);
            verify(stranger.der(), "s.n.svc", now).unwrap_err();
        }
        assert!(Bundle::read(b"nonsense").is_err());
    }
}
