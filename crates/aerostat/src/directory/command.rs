//! Changes of the directory as values: what is asked, what is answered, and the decision between.
//!
//! Each is decided by `decide`, synchronously, over the rows as they are, and comes out as the
//! writes of one transaction. A crash therefore leaves all of a change or nothing of it. Every
//! change may be repeated: whoever did not hear the answer asks again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::Set;
use types::fleet::{HostRecord, PublicKeyText, WireGuardPeer};
use types::service::{Service, ServiceSpec};
use types::token::Token;
use types::{AppName, HostId, OrgSlug};

use super::error::Refused;
use super::rows::{App, NewApp, NewPeer, Rows};
use super::secrets::{Sealed, SealedSecrets};
use super::{api_tokens, apps, hosts, peers, secrets, services, tokens};

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    CreateApp {
        new: NewApp,
        now: Timestamp,
    },
    DeleteApp {
        name: AppName,
    },
    PutHost {
        record: Box<HostRecord>,
    },
    RemoveHost {
        id: HostId,
    },
    AllocateHostNumber {
        wanted: Option<u16>,
        public_key: PublicKeyText,
    },
    PutService {
        app: AppName,
        name: String,
        spec: ServiceSpec,
    },
    DeleteService {
        app: AppName,
        name: String,
    },
    CreatePeer {
        new: NewPeer,
        now: Timestamp,
    },
    DeletePeer {
        org: OrgSlug,
        name: String,
    },
    CreateJoinToken {
        hash: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    },
    RedeemJoinToken {
        hash: [u8; 32],
        public_key: PublicKeyText,
        now: Timestamp,
    },
    PutTokenKey {
        id: u32,
        public_key: String,
    },
    CreateApiToken {
        token: Box<Token>,
    },
    RevokeApiToken {
        id: String,
        now: Timestamp,
    },
    ChangeSecrets {
        app: AppName,
        changes: BTreeMap<String, Option<Sealed>>,
        now: Timestamp,
    },
    ResealSecrets {
        app: AppName,
        sealed: BTreeMap<String, (Sealed, Sealed)>,
    },
}

/// What a change has led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    App(App),
    Host(HostId),
    Service(Service),
    Peer(WireGuardPeer),
    Secrets(Box<SealedSecrets>),
}

/// The writes of one transaction, and the answer once they are done.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) writes: Vec<Set>,
    pub(super) reply: Reply,
}

impl Decision {
    pub(super) fn new(reply: Reply, writes: impl Into<Vec<Set>>) -> Self {
        Self {
            writes: writes.into(),
            reply,
        }
    }
}

/// What becomes of `command`, if nothing else is written meanwhile.
pub(super) fn decide(rows: &Rows, command: Command) -> Result<Decision, Refused> {
    match command {
        Command::CreateApp { new, now } => apps::create(rows, new, now),
        Command::DeleteApp { name } => apps::delete(rows, name),
        Command::PutHost { record } => hosts::put_host(rows, *record),
        Command::RemoveHost { id } => hosts::remove(rows, id),
        Command::AllocateHostNumber { wanted, public_key } => {
            hosts::allocate(rows, wanted, public_key)
        }
        Command::PutService { app, name, spec } => services::put_service(rows, app, name, spec),
        Command::DeleteService { app, name } => services::delete(rows, app, name),
        Command::CreatePeer { new, now } => peers::create(rows, new, now),
        Command::DeletePeer { org, name } => peers::delete(rows, org, name),
        Command::CreateJoinToken {
            hash,
            expires_at,
            now,
        } => tokens::create(rows, &hash, expires_at, now),
        Command::RedeemJoinToken {
            hash,
            public_key,
            now,
        } => tokens::redeem(rows, &hash, public_key, now),
        Command::PutTokenKey { id, public_key } => Ok(api_tokens::put_key(rows, id, public_key)),
        Command::CreateApiToken { token } => api_tokens::create(rows, *token),
        Command::RevokeApiToken { id, now } => api_tokens::revoke(rows, &id, now),
        Command::ChangeSecrets { app, changes, now } => secrets::change(rows, &app, changes, now),
        Command::ResealSecrets { app, sealed } => secrets::reseal(rows, &app, sealed),
    }
}

/// Which commands a host may send to the authority. The hosts of a fleet trust each other with
/// what their users ask of them (apps, services, peers), but a host speaks for itself only, and
/// who comes into the fleet, what is a token and what opens a secret are the authority's own affair.
pub(super) fn permit(by: HostId, command: &Command) -> Result<(), Refused> {
    match command {
        Command::CreateApp { .. }
        | Command::DeleteApp { .. }
        | Command::PutService { .. }
        | Command::DeleteService { .. }
        | Command::CreatePeer { .. }
        | Command::DeletePeer { .. } => Ok(()),
        Command::PutHost { record } if record.id == by => Ok(()),
        Command::PutHost { record } => Err(Refused::NotYours { by, of: record.id }),
        Command::RemoveHost { id } if *id == by => Ok(()),
        Command::RemoveHost { id } => Err(Refused::NotYours { by, of: *id }),
        Command::AllocateHostNumber { .. }
        | Command::CreateJoinToken { .. }
        | Command::RedeemJoinToken { .. }
        | Command::PutTokenKey { .. }
        | Command::CreateApiToken { .. }
        | Command::RevokeApiToken { .. }
        | Command::ChangeSecrets { .. }
        | Command::ResealSecrets { .. } => Err(Refused::AuthorityOnly),
    }
}
