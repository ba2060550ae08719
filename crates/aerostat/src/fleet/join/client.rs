//! The newcomer's side: `aerostat join`.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::SigningKey as _;
use rustls::CertificateError;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use types::fleet::HostRecord;

use super::message::{
    self, ANSWER_BYTES_MAX, Answer, EXPORTER_LABEL, GatewayPart, Hello, Joined, Request, VERSION,
    encode_key, proof_text,
};
use super::{JoinError, tls, too_far_apart};
use crate::fleet::certificate::Certificate;
use crate::fleet::identity::{Identity, IdentityError, Keys, Parts, Statement, raw_key};
use crate::fleet::record::{VerifyKey, read_authority, verify_record};
use crate::fleet::token::{self, Token};

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For everything that is said on it.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);
/// Times that the same is asked again when the answer is lost on the way.
const ATTEMPTS_MAX: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);

/// What a host wants to be in the fleet that it joins.
#[derive(Debug, Clone)]
pub struct Application {
    pub token: Token,
    /// `None`: the fleet chooses.
    pub number: Option<u16>,
    /// For people; unique in the fleet.
    pub name: String,
    pub region: String,
    /// Where others reach it; `None`: where its connection to the fleet comes from.
    pub advertise: Option<IpAddr>,
    pub mesh_port: u16,
    /// `None`: it has no gateway.
    pub gateway_port: Option<u16>,
}

/// Joins, and writes the identity to `folder`, whole or not at all. The caller holds the host's
/// lock and has seen that there is no identity yet. `clock` is this host's.
///
/// # Errors
/// [`JoinError`]; then there is nothing in `folder`.
pub async fn join(
    folder: &Path,
    application: &Application,
    clock: impl Fn() -> Timestamp,
) -> Result<Identity, JoinError> {
    let keys = Keys::generate()?;
    let mut attempt = 1;
    let joined = loop {
        // The keys stay the same, so that the fleet knows that it is the same host.
        match ask(application, &keys, &clock).await {
            Err(JoinError::Lost { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
            answer => break answer?,
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    };
    check(application, &keys, &joined, clock())?;
    let parts = Parts {
        statement: Statement::new(&joined.record, joined.authority, joined.seeds),
        ca_certificate: joined.ca_certificate,
        certificate: joined.record.certificate,
        signing_pem: keys.signing.serialize_pem(),
        mesh: keys.mesh.to_base64(),
        gateway: keys.gateway.to_base64(),
        authority_pem: None,
    };
    parts.write(folder)?;
    Ok(parts.into_identity(folder)?)
}

async fn ask(
    application: &Application,
    keys: &Keys,
    clock: &impl Fn() -> Timestamp,
) -> Result<Joined, JoinError> {
    let address = application.token.address;
    let mut stream = connect(&application.token, clock).await?;
    let no_fleet = |source| JoinError::NoFleet { address, source };
    let hello = within(message::read(&mut stream, ANSWER_BYTES_MAX)).await;
    let hello: Hello = hello.map_err(no_fleet)?;
    if hello.version != VERSION {
        return Err(JoinError::Version {
            address,
            theirs: hello.version,
            ours: VERSION,
        });
    }
    // Before the secret is told: this way it is not spent.
    let now_ms = clock().as_millisecond();
    if let Some((difference_s, ahead)) = too_far_apart(now_ms, hello.clock_ms) {
        return Err(JoinError::Clock {
            difference_s,
            ahead,
        });
    }
    let request = request(application, keys, &stream, now_ms)?;
    let talk = async {
        message::write(&mut stream, &request).await?;
        message::read(&mut stream, ANSWER_BYTES_MAX).await
    };
    match within(talk).await {
        Ok(Answer::Joined(joined)) => Ok(*joined),
        Ok(Answer::Refused(refusal)) => Err(JoinError::Refused(refusal)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(JoinError::Answer {
            address,
            reason: "it is not what this version expects",
        }),
        Err(source) => Err(JoinError::Lost { address, source }),
    }
}

async fn within<T>(talk: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(TALK_TIMEOUT, talk).await {
        Ok(said) => said,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

pub(super) async fn connect(
    token: &Token,
    clock: &impl Fn() -> Timestamp,
) -> Result<TlsStream<TcpStream>, JoinError> {
    let address = token.address;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = connected.map_err(|source| JoinError::Connect { address, source })?;
    let config = tls::client(token.fingerprint).map_err(|source| JoinError::Tls { source })?;
    let connector = TlsConnector::from(Arc::new(config));
    let secured = within(connector.connect(tls::server_name(), stream)).await;
    secured.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => JoinError::Time { now: clock() },
            Some(rustls::Error::InvalidCertificate(_)) => JoinError::Stranger { address },
            // Not an enum of ours: whatever else it is, no fleet speaks like that.
            Some(_) | None => JoinError::NoFleet {
                address,
                source: error,
            },
        }
    })
}

pub(super) fn request(
    application: &Application,
    keys: &Keys,
    stream: &TlsStream<TcpStream>,
    clock_ms: i64,
) -> Result<Request, JoinError> {
    let tls = stream.get_ref().1;
    let session = tls
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|source| JoinError::Tls { source })?;
    let signing = raw_key(&keys.signing);
    let mesh = keys.mesh.public();
    let proof = keys.signing.sign(&proof_text(&session, &mesh, &signing));
    let proof = proof.map_err(|source| IdentityError::Make { source })?;
    Ok(Request {
        version: VERSION,
        secret: application.token.secret(),
        number: application.number,
        name: application.name.clone(),
        region: application.region.clone(),
        public_key: mesh.to_string(),
        mesh_port: application.mesh_port,
        gateway: application.gateway_port.map(|port| GatewayPart {
            public_key: keys.gateway.public().to_string(),
            port,
        }),
        advertise: application.advertise,
        signing_key: encode_key(&signing),
        proof: encode_key(&proof),
        clock_ms,
    })
}

/// Whether the answer is whole, and is what was asked for.
fn check(
    application: &Application,
    keys: &Keys,
    joined: &Joined,
    now: Timestamp,
) -> Result<(), JoinError> {
    let address = application.token.address;
    let wrong = |reason| JoinError::Answer { address, reason };
    let bad = |source| JoinError::Record { address, source };
    let authority = read_authority(&joined.ca_certificate).map_err(wrong)?;
    if token::fingerprint(&authority.der) != application.token.fingerprint {
        return Err(wrong("it has the authority of another fleet"));
    }
    let record = &joined.record;
    let key = verify_record(&joined.ca_certificate, record, now).map_err(bad)?;
    let ours = key == VerifyKey::new(raw_key(&keys.signing))
        && record.public_key == keys.mesh.public().to_string()
        && record.name == application.name
        && application
            .number
            .is_none_or(|number| number == record.id.number());
    if !ours {
        return Err(wrong("it is for another host"));
    }
    for seed in &joined.seeds {
        verify_record(&joined.ca_certificate, seed, now).map_err(bad)?;
    }
    if !joined
        .seeds
        .first()
        .is_some_and(|first| is_authority(first, joined))
    {
        return Err(wrong("it does not say who the authority is"));
    }
    Ok(())
}

fn is_authority(record: &HostRecord, joined: &Joined) -> bool {
    record.id == joined.authority
        && record.id != joined.record.id
        && Certificate::from_pem(&record.certificate).is_ok_and(|found| found.authority)
}
