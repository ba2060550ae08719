//! Client certificates.
//!
//! TLS itself lets any certificate pass (its holder has the key), because a handshake that fails
//! tells the client nothing; whether the authority has signed it and it has not ended is asked
//! here, and answered with 401.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};

use super::User;
use crate::pki::{self, Pki, PkiError};

const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Who a connection is by its certificate, until the certificate ends.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) user: User,
    not_after_unix_s: i64,
}

/// The certificate is not of our authority, has ended, or names nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BadCertificate;

/// Checks client certificates.
#[derive(Debug)]
pub(super) struct Clients(Arc<dyn ClientCertVerifier>);

impl Peer {
    pub(super) fn is_valid(&self, now_unix_s: i64) -> bool {
        now_unix_s <= self.not_after_unix_s
    }
}

impl Clients {
    pub(super) fn new(pki: &Pki) -> Result<Self, PkiError> {
        pki.client_verifier().map(Self)
    }

    pub(super) fn peer(
        &self,
        certificates: &[CertificateDer<'_>],
    ) -> Option<Result<Peer, BadCertificate>> {
        let (first, others) = certificates.split_first()?;
        Some(self.check(first, others).ok_or(BadCertificate))
    }

    fn check(&self, first: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<Peer> {
        let now = UnixTime::now();
        self.0.verify_client_cert(first, others, now).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first).ok()?;
        let mut user = pki::user_of(first)?;
        let digest = Sha256::digest(first);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        user.extra
            .insert(CREDENTIAL.into(), vec![format!("X509SHA256={digest}")]);
        Some(Peer {
            user,
            not_after_unix_s: parsed.validity().not_after.timestamp(),
        })
    }
}
