//! Who this host is in its fleet, and the keys that prove it.
//!
//! ```text
//! <data>/fleet/   0700, written whole or not at all
//!   fleet.json      number, name, authority, the hosts that were there when it joined
//!   ca.crt          the fleet's authority          ca.key    its key, on the founder only
//!   host.crt        this host's certificate        host.key  what it signs with (Ed25519)
//!   mesh.key        WireGuard between hosts        gateway.key  WireGuard for clients outside
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jiff::Timestamp;
use net::wireguard::{PrivateKey, PublicKey};
use rcgen::{KeyPair, PKCS_ED25519};
use serde::{Deserialize, Serialize};
use types::HostId;
use types::fleet::{GatewayRecord, HostRecord};

use super::certificate::{self, Certificate, PublicPart, Subject};
use super::record::{BadRecord, VerifyKey, read_authority, verify_record};
use super::{files, token};

/// Of `fleet.json`.
const VERSION: u32 = 1;
/// The first host of a fleet, unless its configuration says otherwise: 0 and 1 are reserved.
const FOUNDER_NUMBER: u16 = 2;

/// What a host wants to be when it founds a fleet.
#[derive(Debug, Clone)]
pub struct Found {
    /// As configured. `None`: whatever it is, or 2 for a founder.
    pub number: Option<u16>,
    /// For people.
    pub name: String,
    pub region: String,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write this host's identity to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} does not hold the identity of a host: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} was written by a newer version of aerostat ({version})", path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("cannot make keys and certificates")]
    Make { source: rcgen::Error },
    #[error("cannot get random numbers for keys")]
    Random { source: io::Error },
    #[error(
        "the configuration says host_number = {configured}, but this host is number {number} of \
         fleet {fleet:.16}; set it to {number} or leave it out, or leave the fleet with \
         `aerostat down --purge`"
    )]
    Number {
        configured: u16,
        number: u16,
        fleet: String,
    },
}

/// A host in its fleet. Clones share the keys.
#[derive(Clone)]
pub struct Identity {
    /// SHA-256 of the authority's certificate, in hexadecimal.
    pub fleet: String,
    pub host: HostId,
    /// For people.
    pub name: String,
    pub region: String,
    /// The host that has the authority over the directory.
    pub authority: HostId,
    pub wireguard_key: PrivateKey,
    pub gateway_key: PrivateKey,
    /// X.509, PEM.
    pub certificate: String,
    /// X.509, PEM.
    pub ca_certificate: String,
    /// The hosts that were known when this one joined, the authority first. Empty for a founder.
    pub seeds: Vec<HostRecord>,
    pub joined_at: Timestamp,
    fingerprint: [u8; 32],
    signing: Arc<Ed25519KeyPair>,
    /// PKCS #8.
    signing_der: Arc<Vec<u8>>,
    /// On the founder only.
    authority_key: Option<Arc<KeyPair>>,
}

impl Identity {
    /// The identity in `folder`; if there is none, founds a fleet with this host as its authority.
    ///
    /// The caller holds the host's lock: two that found at once would be two fleets.
    ///
    /// # Errors
    /// If it cannot be read or written, or contradicts the configuration.
    pub fn open(folder: &Path, found: &Found) -> Result<Self, IdentityError> {
        let mut identity = match Self::load(folder)? {
            Some(identity) => identity,
            None => {
                let now = Timestamp::now();
                let parts = found_parts(found, now)?;
                parts.write(folder)?;
                parts.into_identity(folder)?
            }
        };
        if let Some(configured) = found.number
            && configured != identity.host.number()
        {
            return Err(IdentityError::Number {
                configured,
                number: identity.host.number(),
                fleet: identity.fleet,
            });
        }
        // Not certified, so the configuration may change it.
        identity.region.clone_from(&found.region);
        Ok(identity)
    }

    /// The identity in `folder`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        Parts::read(folder)?
            .map(|parts| parts.into_identity(folder))
            .transpose()
    }

    /// Whether this host has the authority over the fleet.
    pub fn is_authority(&self) -> bool {
        self.authority == self.host
    }

    /// Ed25519, with the key that this host's certificate is over.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.signing.sign(bytes).as_ref().to_vec()
    }

    /// What others check [`Self::sign`] with.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey::new(signing_public(&self.signing))
    }

    /// This host as others may know it, reached at these addresses.
    pub fn record(&self, mesh: SocketAddr, gateway: Option<SocketAddr>) -> HostRecord {
        HostRecord {
            id: self.host,
            name: self.name.clone(),
            region: self.region.clone(),
            public_key: self.wireguard_key.public().to_string(),
            endpoint: mesh,
            gateway: gateway.map(|endpoint| GatewayRecord {
                public_key: self.gateway_key.public().to_string(),
                endpoint,
            }),
            certificate: self.certificate.clone(),
            joined_at: self.joined_at,
        }
    }

    /// A certificate for a host that joins. `None` where the authority's key is not.
    pub(super) fn issue(
        &self,
        host: HostId,
        mesh_key: PublicKey,
        signing: [u8; 32],
        now: Timestamp,
    ) -> Option<Result<String, rcgen::Error>> {
        let key = self.authority_key.as_deref()?;
        let subject = Subject {
            host,
            mesh_key,
            authority: false,
        };
        let authority = (self.ca_certificate.as_str(), key);
        Some(certificate::issue(
            authority,
            &PublicPart(signing),
            subject,
            now,
        ))
    }

    /// What `fleet` is the text of.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// For TLS: the key of `certificate`, PKCS #8.
    pub(super) fn signing_der(&self) -> Vec<u8> {
        self.signing_der.to_vec()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fleet", &self.fleet)
            .field("host", &self.host)
            .field("name", &self.name)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// A host's own keys, before anybody knows them.
pub(super) struct Keys {
    pub(super) signing: KeyPair,
    pub(super) mesh: PrivateKey,
    pub(super) gateway: PrivateKey,
}

impl Keys {
    pub(super) fn generate() -> Result<Self, IdentityError> {
        let make = |source| IdentityError::Make { source };
        let random = |source| IdentityError::Random { source };
        Ok(Self {
            signing: KeyPair::generate_for(&PKCS_ED25519).map_err(make)?,
            mesh: PrivateKey::generate().map_err(random)?,
            gateway: PrivateKey::generate().map_err(random)?,
        })
    }
}

/// `fleet.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Statement {
    pub(super) version: u32,
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) region: String,
    /// Number of the authority's host.
    pub(super) authority: u16,
    pub(super) joined_at: Timestamp,
    pub(super) seeds: Vec<HostRecord>,
}

impl Statement {
    pub(super) fn new(record: &HostRecord, authority: HostId, seeds: Vec<HostRecord>) -> Self {
        Self {
            version: VERSION,
            number: record.id.number(),
            name: record.name.clone(),
            region: record.region.clone(),
            authority: authority.number(),
            joined_at: record.joined_at,
            seeds,
        }
    }
}

/// An identity as text, as it lies on disk.
pub(super) struct Parts {
    pub(super) statement: Statement,
    pub(super) ca_certificate: String,
    pub(super) certificate: String,
    pub(super) signing_pem: String,
    pub(super) mesh: String,
    pub(super) gateway: String,
    pub(super) authority_pem: Option<String>,
}

fn found_parts(found: &Found, now: Timestamp) -> Result<Parts, IdentityError> {
    let make = |source| IdentityError::Make { source };
    let number = found.number.unwrap_or(FOUNDER_NUMBER);
    let keys = Keys::generate()?;
    let authority = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
    let ca_certificate = certificate::make_authority(&authority, now).map_err(make)?;
    let subject = Subject {
        host: HostId::new(number),
        mesh_key: keys.mesh.public(),
        authority: true,
    };
    let signing = PublicPart(raw_key(&keys.signing));
    let issuer = (ca_certificate.as_str(), &authority);
    let certificate = certificate::issue(issuer, &signing, subject, now).map_err(make)?;
    Ok(Parts {
        statement: Statement {
            version: VERSION,
            number,
            name: found.name.clone(),
            region: found.region.clone(),
            authority: number,
            joined_at: now,
            seeds: Vec::new(),
        },
        certificate,
        signing_pem: keys.signing.serialize_pem(),
        mesh: keys.mesh.to_base64(),
        gateway: keys.gateway.to_base64(),
        authority_pem: Some(authority.serialize_pem()),
        ca_certificate,
    })
}

/// The public part of an Ed25519 key.
pub(super) fn raw_key(key: &KeyPair) -> [u8; 32] {
    let raw = key.public_key_raw();
    raw.try_into().expect("an Ed25519 key has 32 bytes")
}

fn signing_public(key: &Ed25519KeyPair) -> [u8; 32] {
    let raw = key.public_key().as_ref();
    raw.try_into().expect("an Ed25519 key has 32 bytes")
}

impl Parts {
    /// Whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> Result<(), IdentityError> {
        // Our own type: no maps with other keys than strings, no failing serialisers.
        let statement = serde_json::to_string_pretty(&self.statement).expect("it is JSON");
        let mut all = vec![
            ("fleet.json", statement.as_str()),
            ("ca.crt", &self.ca_certificate),
            ("host.crt", &self.certificate),
            ("host.key", &self.signing_pem),
            ("mesh.key", &self.mesh),
            ("gateway.key", &self.gateway),
        ];
        if let Some(key) = &self.authority_pem {
            all.push(("ca.key", key));
        }
        files::write(folder, &all).map_err(|source| IdentityError::Write {
            path: folder.into(),
            source,
        })
    }

    fn read(folder: &Path) -> Result<Option<Self>, IdentityError> {
        if !folder.exists() {
            return Ok(None);
        }
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| IdentityError::Read { path, source })
        };
        let path = folder.join("fleet.json");
        let text = read("fleet.json")?;
        let damaged = |error: serde_json::Error| IdentityError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        // The version first: what a newer one has in it may not be readable here.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        let version = value["version"]
            .as_u64()
            .and_then(|v| u32::try_from(v).ok());
        if let Some(version) = version.filter(|version| *version > VERSION) {
            return Err(IdentityError::Newer { path, version });
        }
        let statement: Statement = serde_json::from_value(value).map_err(damaged)?;
        let founder = statement.number == statement.authority;
        Ok(Some(Self {
            statement,
            ca_certificate: read("ca.crt")?,
            certificate: read("host.crt")?,
            signing_pem: read("host.key")?,
            mesh: read("mesh.key")?,
            gateway: read("gateway.key")?,
            authority_pem: founder.then(|| read("ca.key")).transpose()?,
        }))
    }

    /// Checks that the parts belong together. The time is not asked: a host whose clock is wrong
    /// starts, and others tell it.
    pub(super) fn into_identity(self, folder: &Path) -> Result<Identity, IdentityError> {
        self.assemble().map_err(|reason| IdentityError::Damaged {
            path: folder.into(),
            reason,
        })
    }

    fn assemble(self) -> Result<Identity, String> {
        let statement = self.statement;
        let authority = read_authority(&self.ca_certificate)?;
        let pair = KeyPair::from_pem(&self.signing_pem).map_err(|e| format!("host.key: {e}"))?;
        let signing_der = pair.serialize_der();
        let signing = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&signing_der)
            .map_err(|e| format!("host.key: {e}"))?;
        let key = |name: &str, text: &str| {
            let parsed: Result<PrivateKey, _> = text.parse();
            parsed.map_err(|e| format!("{name}: {e}"))
        };
        let authority_key = self.authority_pem.map(|pem| {
            let pair = KeyPair::from_pem(&pem).map_err(|e| format!("ca.key: {e}"))?;
            if pair.public_key_raw() != authority.key {
                return Err("ca.key does not belong to ca.crt".to_owned());
            }
            Ok(Arc::new(pair))
        });
        let fingerprint = token::fingerprint(&authority.der);
        let identity = Identity {
            fleet: token::hex(&fingerprint),
            fingerprint,
            host: HostId::new(statement.number),
            name: statement.name,
            region: statement.region,
            authority: HostId::new(statement.authority),
            wireguard_key: key("mesh.key", &self.mesh)?,
            gateway_key: key("gateway.key", &self.gateway)?,
            certificate: self.certificate,
            ca_certificate: self.ca_certificate,
            seeds: statement.seeds,
            joined_at: statement.joined_at,
            signing: Arc::new(signing),
            signing_der: Arc::new(signing_der),
            authority_key: authority_key.transpose()?,
        };
        let certified = identity.check().map_err(|e| e.to_string())?;
        if certified != identity.verify_key() {
            return Err("host.crt is not over host.key".to_owned());
        }
        Ok(identity)
    }
}

impl Identity {
    /// Whether the certificate is this host's, at a time at which it was valid.
    fn check(&self) -> Result<VerifyKey, BadRecord> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let record = self.record(nowhere, None);
        let then = Certificate::from_pem(&self.certificate).map(|found| found.not_before);
        let then = then.unwrap_or(self.joined_at);
        verify_record(&self.ca_certificate, &record, then)
    }
}
