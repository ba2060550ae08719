//! TLS between a fleet and a host that does not belong to it yet: the authority proves itself by a
//! chain to the certificate whose fingerprint is in the token; the newcomer by the token.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::fleet::certificate::{AUTHORITY_NAME, Certificate};
use crate::fleet::identity::Identity;
use crate::fleet::token;

/// Answers nobody else: a browser or another protocol is turned away in the handshake.
const PROTOCOL: &[u8] = b"aerostat-join/1";

/// The authority's side.
pub(super) fn server(identity: &Identity) -> Result<ServerConfig, Error> {
    let der = |pem: &str| match Certificate::from_pem(pem) {
        Ok(certificate) => Ok(CertificateDer::from(certificate.der)),
        Err(reason) => Err(Error::General(reason.to_owned())),
    };
    let chain = vec![der(&identity.certificate)?, der(&identity.ca_certificate)?];
    let key = PrivateKeyDer::Pkcs8(identity.signing_der().into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Nobody comes back: a host joins once.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The newcomer's side, for the fleet with this fingerprint.
pub(super) fn client(fingerprint: [u8; 32]) -> Result<ClientConfig, Error> {
    let provider = provider();
    let pinned = Pinned {
        fingerprint,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Whom the newcomer wants to speak to, whichever host that is.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from(AUTHORITY_NAME).expect("the constant is a DNS name")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Trusts one authority, which the other side brings along, and by it checks as usual.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_ours = |der: &&CertificateDer<'_>| token::fingerprint(der) == self.fingerprint;
        let Some(authority) = intermediates.iter().find(is_ours) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        usual.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Only TLS 1.3 is offered.
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
