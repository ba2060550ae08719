//! Whether a host's record is what the fleet has certified. Records come from anywhere.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use jiff::Timestamp;
use types::HostId;
use types::fleet::HostRecord;

use super::certificate::{Certificate, Unusable};

/// Why a record is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    #[error("the fleet's own certificate cannot be used: {reason}")]
    Authority { reason: &'static str },
    #[error("the certificate of host {host} cannot be used: {reason}")]
    Certificate { host: HostId, reason: &'static str },
    #[error("host {host} is not of this fleet: its authority has not signed the certificate")]
    Stranger { host: HostId },
    #[error("the certificate of host {host} is valid from {not_before} to {not_after}, not now")]
    Time {
        host: HostId,
        not_before: Timestamp,
        not_after: Timestamp,
    },
    #[error("the certificate of host {host} was issued to another host")]
    OtherHost { host: HostId },
    #[error("the certificate of host {host} was issued for another key in the mesh")]
    OtherKey { host: HostId },
}

/// What a host signs its statements with, as others know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyKey([u8; 32]);

impl VerifyKey {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether the host has signed `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyKey(")?;
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…)")
    }
}

/// Checks `record` against the fleet's authority (PEM): that it has certified this id with this key
/// in the mesh, for this time. Name, region and endpoints are not certified: they change.
///
/// # Errors
/// [`BadRecord`], with the first thing that is wrong.
pub fn verify_record(
    ca_pem: &str,
    record: &HostRecord,
    now: Timestamp,
) -> Result<VerifyKey, BadRecord> {
    let authority = read_authority(ca_pem).map_err(|reason| BadRecord::Authority { reason })?;
    let host = record.id;
    let unusable = |reason| BadRecord::Certificate { host, reason };
    let certificate = Certificate::from_pem(&record.certificate).map_err(unusable)?;
    if !certificate.is_signed_by(&authority) {
        return Err(BadRecord::Stranger { host });
    }
    if !certificate.is_leaf() {
        return Err(unusable("it may sign others"));
    }
    for part in [&authority, &certificate] {
        if !part.is_valid_at(now) {
            return Err(BadRecord::Time {
                host,
                not_before: part.not_before,
                not_after: part.not_after,
            });
        }
    }
    if certificate.host != Some(host) {
        return Err(BadRecord::OtherHost { host });
    }
    let key = certificate.mesh_key.map(|key| key.to_string());
    if key.as_deref() != Some(record.public_key.as_str()) {
        return Err(BadRecord::OtherKey { host });
    }
    Ok(VerifyKey(certificate.key))
}

/// Reads a certificate that can stand at the head of a fleet.
pub(super) fn read_authority(pem: &str) -> Result<Certificate, Unusable> {
    let authority = Certificate::from_pem(pem)?;
    if !authority.is_authority() {
        return Err("it is no authority");
    }
    Ok(authority)
}
