//! Invitations, and what letting a host in needs of the directory.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use types::HostId;
use types::fleet::{CreateJoinToken, HostRecord, JoinToken};

use super::identity::Identity;
use super::token::Token;

/// An invitation is for somebody at a keyboard, not for a drawer.
const TTL_S_MAX: u64 = 7 * 24 * 3600;

/// The directory cannot be asked or written; what it was asked may have happened all the same.
#[derive(Debug, thiserror::Error)]
#[error("the directory does not answer")]
pub struct AdmissionError {
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What joining needs of the directory. Each answer is durable.
pub trait Admission: Send + Sync + 'static {
    /// Keeps the hash of an invitation's secret until it expires.
    fn invite(
        &self,
        hash: String,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), AdmissionError>> + Send;

    /// Whether an invitation with this hash is open; of one that has expired, when it did.
    fn invitation(
        &self,
        hash: &str,
    ) -> impl Future<Output = Result<Option<Timestamp>, AdmissionError>> + Send;

    /// Takes an invitation away. Of those who ask at once, one is told that there was one.
    fn spend(&self, hash: &str) -> impl Future<Output = Result<bool, AdmissionError>> + Send;

    /// Every host of the fleet.
    fn hosts(&self) -> impl Future<Output = Result<Vec<HostRecord>, AdmissionError>> + Send;

    /// A number that no host has or ever had, or the one that is wanted; `None`: it is taken, or
    /// there are no more.
    fn number(
        &self,
        wanted: Option<u16>,
    ) -> impl Future<Output = Result<Option<HostId>, AdmissionError>> + Send;

    fn put_host(
        &self,
        record: HostRecord,
    ) -> impl Future<Output = Result<(), AdmissionError>> + Send;
}

/// Why there is no invitation.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error("a join token lives from 1 second to {TTL_S_MAX} seconds, not {ttl_s}")]
    Ttl { ttl_s: u64 },
    #[error(
        "this host does not know where others reach the fleet; set `advertise` in the \
         configuration, or say it with --address IP:PORT"
    )]
    NoAddress,
    #[error(transparent)]
    Directory(#[from] AdmissionError),
}

/// Makes a token for one host. `address` is where the fleet lets hosts in, if it is known.
///
/// # Errors
/// [`InviteError`].
pub async fn invite(
    identity: &Identity,
    directory: &impl Admission,
    address: Option<SocketAddr>,
    request: &CreateJoinToken,
    now: Timestamp,
) -> Result<JoinToken, InviteError> {
    let ttl_s = request.ttl_s;
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return Err(InviteError::Ttl { ttl_s });
    }
    let address = request.address.or(address);
    let usable = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
    let address = address.filter(usable).ok_or(InviteError::NoAddress)?;
    let token = Token::generate(address, identity.fingerprint());
    let expires_at = now + Duration::from_secs(ttl_s);
    directory.invite(token.hash(), expires_at).await?;
    Ok(JoinToken {
        token: token.to_string(),
        expires_at,
    })
}
