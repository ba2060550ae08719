//! Who asks, and what that allows: the one thing that handlers are told of tokens.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;
use types::token::Verb;
use types::{AppName, OrgSlug};

use super::super::Api;
use super::super::error::ApiError;
use crate::directory::App;
use crate::tokens::{Access, Denied, Target, Verified};

/// Set by the listener that a request came through. One that has none is refused.
#[derive(Debug, Clone)]
pub(in crate::api) enum Grant {
    /// Over the Unix socket: whoever may open it is root here.
    Root,
    /// Over the host plane. The host has asked its own guard.
    Host,
    /// Valid tokens; what one of them allows is allowed.
    Tokens(Arc<[Verified]>),
}

impl Grant {
    /// # Errors
    /// [`ApiError::TokenDenied`] with what is missing.
    pub(in crate::api) fn check(&self, access: Access<'_>) -> Result<(), ApiError> {
        self.check_at(access, Timestamp::now())
    }

    /// Whether it would still be allowed then.
    ///
    /// # Errors
    /// [`ApiError::TokenDenied`].
    pub(in crate::api) fn check_at(
        &self,
        access: Access<'_>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let tokens = match self {
            Self::Root | Self::Host => return Ok(()),
            Self::Tokens(tokens) => tokens,
        };
        let mut why: Option<Denied> = None;
        for token in tokens.iter() {
            match token.allow(access, now) {
                Ok(()) => return Ok(()),
                // What is missing says more than that another one is over.
                Err(denied) => match &why {
                    None | Some(Denied::Expired { .. }) => why = Some(denied),
                    Some(Denied::Missing { .. } | Denied::Unusable { .. }) => {}
                },
            }
        }
        Err(why.map_or(ApiError::NoToken, ApiError::TokenDenied))
    }

    pub(in crate::api) fn allows(&self, access: Access<'_>) -> bool {
        self.check(access).is_ok()
    }

    /// The end of the last token that allows this now; `None` if there is none.
    pub(in crate::api) fn ends_at(&self, access: Access<'_>) -> Option<Timestamp> {
        let tokens = match self {
            Self::Root | Self::Host => return None,
            Self::Tokens(tokens) => tokens,
        };
        let now = Timestamp::now();
        let good = tokens
            .iter()
            .filter(|token| token.allow(access, now).is_ok());
        let ends: Option<Vec<Timestamp>> = good.map(Verified::ends_at).collect();
        ends?.into_iter().max()
    }

    /// Whether it may see everything of this organisation.
    pub(in crate::api) fn reads_all(&self, org: &OrgSlug) -> bool {
        self.allows(Access::To(Target {
            org: Some(org.as_str()),
            ..Target::fleet(Verb::Read)
        }))
    }

    /// Whether it may see this app.
    pub(in crate::api) fn reads(&self, app: &App) -> bool {
        self.allows(of_app(Verb::Read, &app.org, &app.name))
    }
}

/// `verb` on an app.
pub(in crate::api) fn of_app<'a>(verb: Verb, org: &'a OrgSlug, app: &'a AppName) -> Access<'a> {
    Access::To(Target {
        verb,
        org: Some(org.as_str()),
        app: Some(app.as_str()),
        machine: None,
    })
}

impl FromRequestParts<Api> for Grant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or(ApiError::NoToken)
    }
}
