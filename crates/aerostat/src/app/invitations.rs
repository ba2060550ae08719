//! Invitations into the fleet, for the Machines API.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use jiff::Timestamp;
use types::fleet::{CreateJoinToken, JoinToken};

use super::fleet::Fleet;
use super::underlay::endpoint;
use crate::api::{IssueError, TokenIssuer};
use crate::directory;
use crate::fleet::{Identity, InviteError, invite};

/// Invites hosts in the name of this one, which has the authority.
#[derive(Debug)]
pub(super) struct Issuer {
    identity: Identity,
    directory: directory::Handle,
    /// Where newcomers find this host; `None` if it does not know.
    address: Option<SocketAddr>,
}

impl Issuer {
    /// `door` is where newcomers are let in, `ip` where others reach this host.
    pub(super) fn new(fleet: &Fleet, door: SocketAddr, ip: IpAddr) -> Self {
        let address = endpoint(door.ip(), door.port(), Some(ip));
        Self {
            identity: fleet.identity.clone(),
            directory: fleet.directory.clone(),
            address: (!address.ip().is_loopback()).then_some(address),
        }
    }
}

#[async_trait]
impl TokenIssuer for Issuer {
    async fn issue(
        &self,
        wanted: &CreateJoinToken,
        now: Timestamp,
    ) -> Result<JoinToken, IssueError> {
        invite(&self.identity, &self.directory, self.address, wanted, now)
            .await
            .map_err(|error| match error {
                InviteError::Directory(error) => IssueError::Directory(error),
                InviteError::Ttl { .. } | InviteError::NoAddress => IssueError::Refused {
                    reason: error.to_string(),
                },
            })
    }
}
