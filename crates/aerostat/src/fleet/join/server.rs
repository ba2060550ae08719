//! The authority's side: one port of the underlay that strangers may knock on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use net::wireguard::PublicKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};
use types::fleet::{GatewayRecord, HostRecord};
use types::{AppName, HostId};

use super::message::{
    self, Answer, EXPORTER_LABEL, Hello, Joined, REQUEST_BYTES_MAX, Refusal, Request, SEEDS_MAX,
    VERSION, Versioned, decode_key, proof_text,
};
use super::{DoorError, tls, too_far_apart};
use crate::directory::{self, Refused};
use crate::drain::Drain;
use crate::fleet::identity::Identity;
use crate::fleet::record::{VerifyKey, verify_record};
use crate::fleet::token;

/// Strangers that are listened to at a time. More are hung up on: hosts join one by one.
const CONNECTIONS_MAX: usize = 16;
/// From knocking to the answer; some round trips of the longest way on earth.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the kernel refuses a connection, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes the port for hosts that want to join.
///
/// # Errors
/// If it cannot be had, naming it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, DoorError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| DoorError::Listen { address, source })
}

/// Lets hosts in.
#[derive(Debug)]
pub struct Door {
    identity: Identity,
    /// The authority's own, as newcomers are told.
    record: HostRecord,
    directory: directory::Handle,
    /// One newcomer after the other: two may want the same number.
    turn: Mutex<()>,
    clock: fn() -> Timestamp,
}

impl Door {
    /// `record` is this host's own, with the addresses under which others reach it.
    pub fn new(identity: Identity, record: HostRecord, directory: directory::Handle) -> Self {
        Self {
            identity,
            record,
            directory,
            turn: Mutex::default(),
            clock: Timestamp::now,
        }
    }

    /// Listens until the drain.
    ///
    /// # Errors
    /// If this host's certificate and key cannot be used for TLS.
    pub fn open(self, listener: TcpListener, drain: &Drain) -> Result<(), DoorError> {
        let config = tls::server(&self.identity).map_err(|source| DoorError::Tls { source })?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (door, tasks) = (Arc::new(self), drain.clone());
        drain.spawn("join", async move {
            let stop = tasks.token();
            stop.run_until_cancelled(accept(door, listener, acceptor, tasks.clone()))
                .await;
        });
        Ok(())
    }

    /// What a newcomer at `from` is told; everything that is to happen has happened then.
    async fn admit(&self, request: Request, session: [u8; 32], from: IpAddr) -> Answer {
        let _turn = self.turn.lock().await;
        let now = (self.clock)();
        let admitted = match read(request, &session, now) {
            Ok(newcomer) => self.decide(newcomer, from, now).await,
            Err(refusal) => Ok(Err(refusal)),
        };
        match admitted {
            Ok(Ok(joined)) => {
                info!(host = %joined.record.id, name = joined.record.name, "host joined");
                Answer::Joined(Box::new(joined))
            }
            Ok(Err(refusal)) => {
                info!(%from, reason = %refusal, "a host was not let in");
                Answer::Refused(refusal)
            }
            Err(error) => {
                warn!(error = %types::chain(&error), "a host was not let in");
                Answer::Refused(Refusal::Unavailable)
            }
        }
    }

    async fn decide(
        &self,
        newcomer: Newcomer,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Result<Joined, Refusal>, AdmitError> {
        let hosts = self.directory.hosts();
        if let Some(record) = self.known(&newcomer, &hosts, now) {
            // The answer was lost. What it said is public but for who asks, who has the key.
            return Ok(Ok(self.joined(record, hosts)));
        }
        let hash = token::hash_of(&newcomer.request.secret);
        let key = newcomer.request.public_key.clone();
        // Whatever can be refused is refused while the token still stands.
        if let Err(refused) = self.directory.check_join_token(hash, &key, now) {
            return refusal(refused.into()).map(Err);
        }
        if let Some(taken) = taken(&newcomer, hosts.iter().chain([&self.record])) {
            return Ok(Err(taken));
        }
        if let Err(error) = self.directory.redeem_join_token(hash, &key, now).await {
            return refusal(error).map(Err);
        }
        let wanted = newcomer.request.number;
        let host = match self.directory.allocate_host_number(wanted, &key).await {
            Ok(host) => host,
            Err(error) => return refusal(error).map(Err),
        };
        let record = self.certify(newcomer, host, from, now)?;
        if let Err(error) = self.directory.put_host(record.clone()).await {
            return refusal(error).map(Err);
        }
        Ok(Ok(self.joined(record, hosts)))
    }

    /// The record of exactly these keys.
    fn known(
        &self,
        newcomer: &Newcomer,
        hosts: &[HostRecord],
        now: Timestamp,
    ) -> Option<HostRecord> {
        let key = VerifyKey::new(newcomer.signing);
        let authority = &self.identity.ca_certificate;
        let same = |record: &&HostRecord| {
            record.public_key == newcomer.request.public_key
                && verify_record(authority, record, now) == Ok(key)
        };
        hosts.iter().find(same).cloned()
    }

    fn certify(
        &self,
        newcomer: Newcomer,
        host: HostId,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<HostRecord, AdmitError> {
        let issued = self
            .identity
            .issue(host, newcomer.mesh_key, newcomer.signing, now);
        let certificate = match issued {
            Some(Ok(certificate)) => certificate,
            Some(Err(source)) => return Err(AdmitError::Certify { host, source }),
            None => return Err(AdmitError::NoAuthority),
        };
        let request = newcomer.request;
        let ip = request.advertise.unwrap_or(from);
        Ok(HostRecord {
            id: host,
            name: request.name,
            region: request.region,
            public_key: request.public_key,
            endpoint: SocketAddr::new(ip, request.mesh_port),
            gateway: request.gateway.map(|gateway| GatewayRecord {
                public_key: gateway.public_key,
                endpoint: SocketAddr::new(ip, gateway.port),
            }),
            certificate,
            joined_at: now,
        })
    }

    fn joined(&self, record: HostRecord, hosts: Vec<HostRecord>) -> Joined {
        let (this, newcomer) = (self.identity.host, record.id);
        let others = hosts
            .into_iter()
            .filter(|other| other.id != this && other.id != newcomer);
        let mut seeds = vec![self.record.clone()];
        seeds.extend(others.take(SEEDS_MAX - 1));
        Joined {
            version: VERSION,
            ca_certificate: self.identity.ca_certificate.clone(),
            record,
            authority: this,
            seeds,
        }
    }
}

/// Why a host could not be let in though nothing spoke against it.
#[derive(Debug, thiserror::Error)]
enum AdmitError {
    #[error("cannot make a certificate for host {host}")]
    Certify { host: HostId, source: rcgen::Error },
    #[error("this host does not have the key of the fleet's authority")]
    NoAuthority,
    #[error("cannot write the newcomer to the directory")]
    Directory { source: directory::Error },
}

/// What the newcomer is told when the directory declines.
fn refusal(error: directory::Error) -> Result<Refusal, AdmitError> {
    match error {
        directory::Error::Refused(Refused::TokenNotFound) => Ok(Refusal::TokenUnknown),
        directory::Error::Refused(Refused::TokenUsed) => Ok(Refusal::TokenUsed),
        directory::Error::Refused(Refused::TokenExpired { expired_at }) => {
            Ok(Refusal::TokenExpired { at: expired_at })
        }
        directory::Error::Refused(Refused::HostTaken { id }) => Ok(Refusal::NumberTaken {
            number: id.number(),
        }),
        directory::Error::Refused(Refused::HostNumbersExhausted) => Ok(Refusal::Full),
        // The directory is on this host: nothing of what remains is the newcomer's doing.
        source => Err(AdmitError::Directory { source }),
    }
}

async fn accept(door: Arc<Door>, listener: TcpListener, acceptor: TlsAcceptor, drain: Drain) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            debug!(%from, "too many hosts want to join at once");
            continue;
        };
        let (door, acceptor, tasks) = (Arc::clone(&door), acceptor.clone(), drain.clone());
        drain.spawn_for_caller("join connection", async move {
            let _permit = permit;
            let served = tokio::time::timeout(
                CONNECTION_TIMEOUT,
                serve(&door, stream, from, &acceptor, &tasks),
            );
            match tasks.token().run_until_cancelled(served).await {
                Some(Ok(Err(error))) => debug!(%from, %error, "a join connection failed"),
                Some(Err(_)) => debug!(%from, "a join connection took too long"),
                Some(Ok(Ok(()))) | None => {}
            }
        });
    }
}

async fn serve(
    door: &Arc<Door>,
    stream: TcpStream,
    from: SocketAddr,
    acceptor: &TlsAcceptor,
    drain: &Drain,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let session = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER_LABEL, None);
    let session = session.map_err(io::Error::other)?;
    let hello = Hello {
        version: VERSION,
        clock_ms: (door.clock)().as_millisecond(),
    };
    message::write(&mut stream, &hello).await?;
    let bytes = message::read_bytes(&mut stream, REQUEST_BYTES_MAX).await?;
    let versioned: Versioned = serde_json::from_slice(&bytes)?;
    let answer = if versioned.version == VERSION {
        let request: Request = serde_json::from_slice(&bytes)?;
        let (door, from) = (Arc::clone(door), from.ip().to_canonical());
        let (tell, told) = oneshot::channel();
        // A task of its own: once begun it is finished, whoever hangs up.
        drain.spawn_for_caller("join admission", async move {
            tell.send(door.admit(request, session, from).await).ok();
        });
        told.await.map_err(io::Error::other)?
    } else {
        Answer::Refused(Refusal::Version { supported: VERSION })
    };
    message::write(&mut stream, &answer).await?;
    use tokio::io::AsyncWriteExt as _;
    stream.shutdown().await
}

/// A request that makes sense, from somebody who has the signing key.
struct Newcomer {
    request: Request,
    mesh_key: PublicKey,
    signing: [u8; 32],
}

/// Checks everything that the request says by itself.
fn read(request: Request, session: &[u8; 32], now: Timestamp) -> Result<Newcomer, Refusal> {
    if let Some((difference_s, ahead)) = too_far_apart(request.clock_ms, now.as_millisecond()) {
        return Err(Refusal::Clock {
            difference_s,
            ahead,
        });
    }
    let label = "must be 1 to 63 lower-case letters, digits and dashes";
    require(request.name.parse::<AppName>().is_ok(), "the name", label)?;
    require(
        request.region.parse::<AppName>().is_ok(),
        "the region",
        label,
    )?;
    let number = request.number.is_none_or(|number| number >= 2);
    require(
        number,
        "the number",
        "must be 2 or more: 0 and 1 are reserved",
    )?;
    let port = request.mesh_port != 0 && request.gateway.as_ref().is_none_or(|g| g.port != 0);
    require(port, "a port", "must not be 0")?;
    let advertise = request
        .advertise
        .is_none_or(|ip| !ip.is_unspecified() && !ip.is_multicast());
    require(
        advertise,
        "the advertised address",
        "must be one that others can send to",
    )?;
    let is_key = "must be a key in base64";
    let mesh_key: Option<PublicKey> = canonical_key(&request.public_key);
    require(mesh_key.is_some(), "the key in the mesh", is_key)?;
    let gateway = request.gateway.as_ref();
    let gateway = gateway.is_none_or(|g| canonical_key(&g.public_key).is_some());
    require(gateway, "the key of the gateway", is_key)?;
    let signing: Option<[u8; 32]> = decode_key(&request.signing_key);
    require(signing.is_some(), "the signing key", is_key)?;
    let (Some(mesh_key), Some(signing)) = (mesh_key, signing) else {
        return Err(Refusal::Proof);
    };
    let proof: [u8; 64] = decode_key(&request.proof).ok_or(Refusal::Proof)?;
    let text = proof_text(session, &mesh_key, &signing);
    if !VerifyKey::new(signing).verify(&text, &proof) {
        return Err(Refusal::Proof);
    }
    Ok(Newcomer {
        request,
        mesh_key,
        signing,
    })
}

fn require(holds: bool, field: &str, rule: &str) -> Result<(), Refusal> {
    if holds {
        return Ok(());
    }
    Err(Refusal::Invalid {
        field: field.to_owned(),
        rule: rule.to_owned(),
    })
}

/// A key, if it is written in the one way in which records are compared.
fn canonical_key(text: &str) -> Option<PublicKey> {
    let key: PublicKey = text.parse().ok()?;
    (key.to_string() == text).then_some(key)
}

/// What a host of the fleet already has.
fn taken<'a>(
    newcomer: &Newcomer,
    mut hosts: impl Iterator<Item = &'a HostRecord> + Clone,
) -> Option<Refusal> {
    let request = &newcomer.request;
    if let Some(number) = request.number
        && hosts.clone().any(|host| host.id.number() == number)
    {
        return Some(Refusal::NumberTaken { number });
    }
    if hosts.clone().any(|host| host.name == request.name) {
        let name = request.name.clone();
        return Some(Refusal::NameTaken { name });
    }
    let same_key = |host: &HostRecord| host.public_key == request.public_key;
    hosts.any(same_key).then_some(Refusal::KeyTaken)
}
