//! What the directory refuses, and what can go wrong with it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::WriteError;
use types::{AppName, HostId, NetworkId, OrgSlug};

use crate::rpc::Unreachable;

/// Why the directory did not do or tell what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot write the directory")]
    Write { source: WriteError },
    /// What was asked may have happened all the same; every change may be repeated.
    #[error(
        "the directory's host {host} cannot be reached; machines go on running, but apps, \
         services and peers cannot be changed, and new ones cannot be found, until it is back"
    )]
    Unreachable {
        host: String,
        source: Arc<Unreachable>,
    },
    #[error("the directory's host {host} could not do it: {reason}")]
    Failed { host: String, reason: String },
    /// More questions wait for the directory's host than are let in at a time.
    #[error("too many questions wait for the directory's host {host}")]
    Busy { host: String },
}

/// A request that was understood and declined. Travels between hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("there is no app `{name}`")]
    AppNotFound { name: AppName },
    #[error("the app name `{name}` is taken")]
    AppNameTaken { name: AppName },
    #[error("there is no organisation `{slug}`")]
    OrgNotFound { slug: OrgSlug },
    #[error("`{name}` cannot be the name of a network")]
    NetworkName { name: String },
    #[error("organisation `{org}` has no network `{name}`")]
    NetworkNotFound { org: OrgSlug, name: String },
    #[error("every network id has been given out")]
    NetworksExhausted,
    #[error("app `{app}` has no service `{name}`")]
    ServiceNotFound { app: AppName, name: String },
    #[error("every service address of network {network} has been given out")]
    VipsExhausted { network: NetworkId },
    #[error("there is no host {id}")]
    HostNotFound { id: HostId },
    /// It is somebody else's, by its key.
    #[error("host number {} is taken", .id.number())]
    HostTaken { id: HostId },
    #[error("{number} cannot be the number of a host")]
    HostNumber { number: u16 },
    #[error("every host number is taken")]
    HostNumbersExhausted,
    #[error("this join token is not known; it may be of another fleet")]
    TokenNotFound,
    #[error("this join token has been used")]
    TokenUsed,
    #[error("this join token expired at {expired_at}")]
    TokenExpired { expired_at: Timestamp },
    #[error("{live} join tokens are not used yet")]
    TooManyTokens { live: usize },
    #[error("organisation `{org}` has no WireGuard peer `{name}`")]
    PeerNotFound { org: OrgSlug, name: String },
    #[error("organisation `{org}` has a WireGuard peer `{name}`")]
    PeerNameTaken { org: OrgSlug, name: String },
    #[error("this public key cannot be one")]
    PublicKey,
    #[error("this public key is in use by another peer or a host")]
    PublicKeyTaken,
    #[error("host {id} has no gateway")]
    NoGateway { id: HostId },
    #[error("the gateway of host {gateway} has no room for another peer of network {network}")]
    PeersExhausted { gateway: HostId, network: NetworkId },
    #[error("there is no token `{id}`")]
    ApiTokenNotFound { id: String },
    #[error("there are {live} tokens or revocations, which is the most there can be")]
    TooManyApiTokens { live: usize },
    #[error("app `{app}` has no secret `{name}`")]
    SecretNotFound { app: AppName, name: String },
    #[error("app `{app}` would have more secrets, or larger ones, than an app may have")]
    TooManySecrets { app: AppName },
    #[error("only the directory's host may do this")]
    AuthorityOnly,
    #[error("host {by} may not change what is of host {of}")]
    NotYours { by: HostId, of: HostId },
}
