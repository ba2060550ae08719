//! Certificates of the fleet: made here, and read here.
//!
//! Ed25519 throughout. A host's certificate is over its signing key; the names in it are
//! `host-<id>` and, as a URI, the key that it has in the mesh. The authority's host is also called
//! `authority` and may serve TLS; nobody who joins can have that name, so a member cannot pretend
//! to be the one that lets others in.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use net::wireguard::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use types::HostId;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The name that only the authority's host has.
pub(super) const AUTHORITY_NAME: &str = "authority";

/// There is no renewal yet, so certificates outlive the servers that they are made on.
const HOST_VALID_YEARS: i32 = 10;
/// Longer than the last host's that it may still let in.
const AUTHORITY_VALID_YEARS: i32 = 30;
/// Ours have some 600 bytes.
const PEM_BYTES_MAX: usize = 8 << 10;
/// Ours have three.
const NAMES_MAX: usize = 8;

const HOST_PREFIX: &str = "host-";
const MESH_KEY_PREFIX: &str = "urn:aerostat:mesh:";

/// A signing key of which only the public part is known.
pub(super) struct PublicPart(pub(super) [u8; 32]);

impl PublicKeyData for PublicPart {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) host: HostId,
    pub(super) mesh_key: PublicKey,
    pub(super) authority: bool,
}

/// A self-signed certificate of a new fleet.
pub(super) fn make_authority(key: &KeyPair, now: Timestamp) -> Result<String, rcgen::Error> {
    let mut params = params("aerostat-fleet", AUTHORITY_VALID_YEARS, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

/// A host's certificate, PEM.
pub(super) fn issue(
    authority: (&str, &KeyPair),
    signing: &PublicPart,
    subject: Subject,
    now: Timestamp,
) -> Result<String, rcgen::Error> {
    let (authority_pem, authority_key) = authority;
    let issuer = Issuer::from_ca_cert_pem(authority_pem, authority_key)?;
    let name = host_name(subject.host);
    let mut params = params(&name, HOST_VALID_YEARS, now);
    let key = URL_SAFE_NO_PAD.encode(subject.mesh_key.0);
    params.subject_alt_names = vec![
        SanType::DnsName(name.try_into()?),
        SanType::URI(format!("{MESH_KEY_PREFIX}{key}").try_into()?),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if subject.authority {
        let name = SanType::DnsName(AUTHORITY_NAME.try_into()?);
        params.subject_alt_names.push(name);
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(signing, &issuer)?.pem())
}

fn params(common_name: &str, years: i32, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let year = i32::from(now.to_zoned(TimeZone::UTC).year());
    // A year back: joining itself says what is wrong with a clock that is behind.
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + years, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let mut serial: [u8; 16] = rand::random();
    // RFC 5280 wants a positive number of at most 20 bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn host_name(host: HostId) -> String {
    format!("{HOST_PREFIX}{host}")
}

/// Why something is no certificate of ours.
pub(super) type Unusable = &'static str;

/// What a certificate says, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    pub(super) key: [u8; 32],
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Whether it may sign others.
    signs: bool,
    pub(super) host: Option<HostId>,
    pub(super) mesh_key: Option<PublicKey>,
    pub(super) authority: bool,
}

impl Certificate {
    /// Reads exactly one certificate.
    pub(super) fn from_pem(pem: &str) -> Result<Self, Unusable> {
        if pem.len() > PEM_BYTES_MAX {
            return Err("it is longer than any certificate of a fleet");
        }
        let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
        let (Some(Ok(der)), None) = (found.next(), found.next()) else {
            return Err("it is not one certificate in PEM");
        };
        Self::from_der(&der)
    }

    pub(super) fn from_der(der: &[u8]) -> Result<Self, Unusable> {
        let (rest, read) =
            x509_parser::parse_x509_certificate(der).map_err(|_| "it is no X.509 certificate")?;
        if !rest.is_empty() {
            return Err("something follows the certificate");
        }
        let tbs = &read.tbs_certificate;
        if !is_ed25519(&read.signature_algorithm) || !is_ed25519(&tbs.signature) {
            return Err("it is not signed with Ed25519");
        }
        let time = |at: i64| {
            Timestamp::from_second(at).map_err(|_| "its validity is no time that we know")
        };
        let constraints = read
            .basic_constraints()
            .map_err(|_| "its basic constraints cannot be read")?;
        let mut certificate = Self {
            der: der.to_vec(),
            signed: tbs.as_ref().to_vec(),
            signature: read.signature_value.data.to_vec(),
            issuer: tbs.issuer.as_raw().to_vec(),
            subject: tbs.subject.as_raw().to_vec(),
            key: ed25519_key(&tbs.subject_pki).ok_or("its key is no Ed25519 key")?,
            not_before: time(tbs.validity.not_before.timestamp())?,
            not_after: time(tbs.validity.not_after.timestamp())?,
            signs: constraints.is_some_and(|found| found.value.ca),
            host: None,
            mesh_key: None,
            authority: false,
        };
        let names = read
            .subject_alternative_name()
            .map_err(|_| "its names cannot be read")?;
        let names = names.map_or(&[][..], |found| &found.value.general_names);
        if names.len() > NAMES_MAX {
            return Err("it has more names than any certificate of a fleet");
        }
        for name in names {
            certificate.take_name(name)?;
        }
        Ok(certificate)
    }

    fn take_name(&mut self, name: &GeneralName<'_>) -> Result<(), Unusable> {
        match name {
            GeneralName::DNSName(AUTHORITY_NAME) => {
                self.authority = true;
                Ok(())
            }
            GeneralName::DNSName(name) => {
                let host = parse_host_name(name).ok_or("a name in it is no host's")?;
                match self.host.replace(host) {
                    None => Ok(()),
                    Some(_) => Err("it names two hosts"),
                }
            }
            GeneralName::URI(uri) => {
                let key = parse_mesh_key(uri).ok_or("a URI in it is no key of the mesh")?;
                match self.mesh_key.replace(key) {
                    None => Ok(()),
                    Some(_) => Err("it has two keys of the mesh"),
                }
            }
            // Not an enum of ours, and no other kind is ever in a certificate of a fleet.
            _ => Err("it has a name of a kind that fleets do not use"),
        }
    }

    /// Whether `authority`, which must be one, has signed this.
    pub(super) fn is_signed_by(&self, authority: &Self) -> bool {
        authority.signs
            && self.issuer == authority.subject
            && UnparsedPublicKey::new(&ED25519, authority.key)
                .verify(&self.signed, &self.signature)
                .is_ok()
    }

    /// Whether it can stand at the head of a fleet.
    pub(super) fn is_authority(&self) -> bool {
        self.is_signed_by(self)
    }

    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it may not sign others, as no host's may.
    pub(super) fn is_leaf(&self) -> bool {
        !self.signs
    }
}

fn is_ed25519(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == OID_SIG_ED25519
}

fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Option<[u8; 32]> {
    is_ed25519(&info.algorithm)
        .then(|| info.subject_public_key.data.as_ref().try_into().ok())
        .flatten()
}

/// Exactly as [`host_name`] writes it.
fn parse_host_name(name: &str) -> Option<HostId> {
    let digits = name.strip_prefix(HOST_PREFIX)?;
    let host = HostId::new(u16::from_str_radix(digits, 16).ok()?);
    (host.number() >= 2 && host_name(host) == name).then_some(host)
}

fn parse_mesh_key(uri: &str) -> Option<PublicKey> {
    let text = uri.strip_prefix(MESH_KEY_PREFIX)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(PublicKey(bytes.try_into().ok()?))
}
