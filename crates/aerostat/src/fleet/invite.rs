//! Invitations: the secret goes into the token, its hash into the directory.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use types::fleet::{CreateJoinToken, JoinToken};

use super::identity::Identity;
use super::token::Token;
use crate::directory;

/// An invitation is for somebody at a keyboard, not for a drawer.
const TTL_S_MAX: u64 = 7 * 24 * 3600;

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
    Directory(#[from] directory::Error),
}

/// Makes a token for one host. `address` is where the fleet lets hosts in, if it is known.
///
/// # Errors
/// [`InviteError`].
pub async fn invite(
    identity: &Identity,
    directory: &directory::Handle,
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
    directory
        .create_join_token(token.hash(), expires_at, now)
        .await?;
    Ok(JoinToken {
        token: token.to_string(),
        expires_at,
    })
}
