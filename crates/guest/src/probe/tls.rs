//! TLS of health checks (`protocol: https`).
//!
//! A check that verifies trusts whom the container's own image trusts, as a client in there would:
//! its bundle of authorities, read anew for each probe, so that one from `files` counts as well.
//! One that does not verify takes any certificate, also those that are too old to be parsed.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use crate::root::Root;

/// Where distributions keep the authorities that they trust: Debian and Alpine, Fedora, SUSE,
/// BSD's place that many images have as well.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Those of Mozilla are some 220 KiB.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// Whose certificate a server must have.
#[derive(Debug)]
pub(super) enum Trust {
    Anyone,
    /// These, in PEM.
    Authorities(Vec<u8>),
}

impl Trust {
    /// Those that a container trusts.
    pub(super) fn of(root: &Root) -> io::Result<Self> {
        for path in BUNDLES {
            let pem = root.read(path, BUNDLE_BYTES_MAX)?;
            if !pem.is_empty() {
                return Ok(Self::Authorities(pem));
            }
        }
        Err(io::Error::other(
            "the image has no certificate authorities to verify with (ca-certificates); \
             tls_skip_verify goes without",
        ))
    }
}

/// The name to ask for and to verify: the one that was given, else the address.
pub(super) fn server_name(given: &str, address: IpAddr) -> io::Result<ServerName<'static>> {
    if given.is_empty() {
        return Ok(address.into());
    }
    let name = ServerName::try_from(given.to_owned());
    name.map_err(|_| io::Error::other(format!("`{given}` is no name of a TLS server")))
}

/// A connection inside of `stream`. The handshake is made with the first bytes.
pub(super) fn connect<S: Read + Write>(
    stream: S,
    name: ServerName<'static>,
    trust: Trust,
) -> io::Result<StreamOwned<ClientConnection, S>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
            .with_no_client_auth(),
        Trust::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            let all = CertificateDer::pem_slice_iter(&pem).flatten();
            // A bundle may hold some that are too odd for us.
            roots.add_parsable_certificates(all);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(client, stream))
}

/// Verifies nothing: whoever asks for that is told whether somebody answers, not who.
struct TakeAny(Arc<CryptoProvider>);

impl fmt::Debug for TakeAny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakeAny")
    }
}

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
