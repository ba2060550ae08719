//! What is said while a host joins. Every message is bounded and carries the version.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use net::wireguard::PublicKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use types::HostId;
use types::fleet::HostRecord;

use super::{CLOCK_DIFFERENCE_S_MAX, side};

pub(super) const VERSION: u32 = 1;

/// What a newcomer says: keys and names.
pub(super) const REQUEST_BYTES_MAX: usize = 16 << 10;
/// What the authority says: a record has some 1.5 KiB.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Hosts that a newcomer is told of at once; the directory tells it of the others.
pub(super) const SEEDS_MAX: usize = 64;

/// What the newcomer signs, so that its word is good in this TLS session only (RFC 5705).
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-aerostat-join-1";

/// The authority's first word.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    /// Unix time in milliseconds.
    pub(super) clock_ms: i64,
}

/// The version alone, for messages that are otherwise of an unknown shape.
#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    /// Of the token.
    pub(super) secret: String,
    pub(super) number: Option<u16>,
    pub(super) name: String,
    pub(super) region: String,
    /// In the mesh.
    pub(super) public_key: String,
    pub(super) mesh_port: u16,
    pub(super) gateway: Option<GatewayPart>,
    /// Where others reach it; `None`: where this connection comes from.
    pub(super) advertise: Option<IpAddr>,
    /// Ed25519, base64.
    pub(super) signing_key: String,
    /// Signature over [`proof_text`], base64.
    pub(super) proof: String,
    /// Unix time in milliseconds.
    pub(super) clock_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GatewayPart {
    pub(super) public_key: String,
    pub(super) port: u16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Joined(Box<Joined>),
    Refused(Refusal),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) version: u32,
    /// PEM.
    pub(super) ca_certificate: String,
    /// The newcomer's.
    pub(super) record: HostRecord,
    pub(super) authority: HostId,
    /// The authority's record first.
    pub(super) seeds: Vec<HostRecord>,
}

/// Why the fleet does not let a host in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Refusal {
    #[error("it speaks version {supported} of joining; use the same release of aerostat")]
    Version { supported: u32 },
    #[error(
        "this host's clock is {difference_s} s {} the fleet's, and more than \
         {CLOCK_DIFFERENCE_S_MAX} s cannot be; set the clock, best by NTP",
        side(ahead)
    )]
    Clock { difference_s: u64, ahead: bool },
    #[error("this join token is not known there; make one with `aerostat host token create`")]
    TokenUnknown,
    #[error(
        "this join token has been used, and each lets one host in; make another with \
         `aerostat host token create`"
    )]
    TokenUsed,
    #[error("this join token expired at {at}; make another with `aerostat host token create`")]
    TokenExpired { at: jiff::Timestamp },
    #[error("duplicate host id: number {number} is taken; choose another, or let the fleet choose")]
    NumberTaken { number: u16 },
    #[error("duplicate host name: `{name}` is taken; choose another with --name")]
    NameTaken { name: String },
    #[error("these keys belong to another host of the fleet")]
    KeyTaken,
    #[error("{field} {rule}")]
    Invalid { field: String, rule: String },
    #[error("the signature does not belong to the signing key")]
    Proof,
    #[error("the fleet has no host numbers left")]
    Full,
    #[error("the fleet's directory cannot be written at the moment; try again")]
    Unavailable,
    /// Of a newer version.
    #[error("for a reason that this version does not know")]
    #[serde(other)]
    Unknown,
}

/// What a newcomer proves: that it has the signing key, here and now, and names these keys.
pub(super) fn proof_text(session: &[u8; 32], mesh: &PublicKey, signing: &[u8; 32]) -> Vec<u8> {
    [EXPORTER_LABEL, session, &mesh.0, signing].concat()
}

pub(super) fn encode_key(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode_key<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Reads a message of at most `bytes_max`.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> io::Result<T> {
    let bytes = read_bytes(stream, bytes_max).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub(super) async fn read_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > bytes_max {
        let text = format!("a message of {length} bytes, where {bytes_max} are the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}
