//! Tokens: making, listing and revoking them, and what Fly's clients ask about their own.
//!
//! They are made by the directory's host, which alone has the key; the others send the request on,
//! after they have checked that its caller may: nobody makes a token that may more than his own,
//! or outlives it.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body as RawBody;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use types::OrgSlug;
use types::api::Ok as Done;
use types::token::{
    AuthenticateTokens, AuthorizeToken, AuthorizedToken, CreateDeployToken, CreateToken,
    CreatedToken, CurrentToken, CurrentTokens, DeployToken, Scope, Token, TokenAccess, TokenCaveat,
    TokenCaveats, TokenList, TokenNonce, Verb, VerifiedToken,
};

use super::error::ApiError;
use super::extract::Body;
use super::guard::{Grant, Guard};
use super::{Api, State as Shared, forward};
use crate::directory;
use crate::tokens::{Access, Target, Verified};

/// The directory's host writes a row.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);
const TTL_DEFAULT: SignedDuration = SignedDuration::from_hours(24 * 30);
const DEPLOY_TTL_DEFAULT: SignedDuration = SignedDuration::from_hours(24 * 365);
const TTL_MAX: SignedDuration = SignedDuration::from_hours(24 * 3660);

/// `GET /v1/health`: needs no token, since that something answers is no secret.
pub(super) async fn health() -> Json<Done> {
    Json(Done { ok: true })
}

/// `POST /v1/tokens`
pub(super) async fn create(
    State(api): State<Api>,
    grant: Grant,
    Body(wanted): Body<CreateToken>,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let scope = whole_scope(&api, &wanted, now).await?;
    check_covers(&grant, &scope, now)?;
    let Some(authority) = api.deps.directory.authority() else {
        let made = make(&api, wanted.name, scope, now).await?;
        return Ok((StatusCode::CREATED, Json(made)).into_response());
    };
    let wanted = CreateToken {
        name: wanted.name,
        scope,
        ttl_s: None,
    };
    let body = serde_json::to_vec(&wanted).map_err(|error| ApiError::bad(error.to_string()))?;
    let mut request = Request::new(RawBody::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/v1/tokens".parse().map_err(|_| ApiError::ShuttingDown)?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    let (parts, body) = request.into_parts();
    Ok(forward::send(&api, authority, parts, body, FORWARD_LIMIT).await?)
}

/// The scope with its expiry, and with the organisations of its apps: an app that is deleted and
/// made anew by others must not be this token's.
async fn whole_scope(
    api: &Shared,
    wanted: &CreateToken,
    now: Timestamp,
) -> Result<Scope, ApiError> {
    let mut scope = wanted.scope.clone();
    let ttl = wanted
        .ttl_s
        .map(|ttl_s| i64::try_from(ttl_s).unwrap_or(i64::MAX));
    let expires_at = match (scope.expires_at, ttl.map(SignedDuration::from_secs)) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad("give expires_at or ttl_s, not both".into()));
        }
        (Some(at), None) => at,
        (None, ttl) => now + ttl.unwrap_or(TTL_DEFAULT).min(TTL_MAX),
    };
    if expires_at <= now || expires_at.duration_since(now) > TTL_MAX {
        let reason = "a token expires in the future, and within ten years";
        return Err(ApiError::bad(reason.into()));
    }
    scope.expires_at = Some(expires_at);
    for org in &scope.orgs {
        let missing =
            || directory::Error::from(directory::Refused::OrgNotFound { slug: org.clone() });
        api.deps.directory.org(org).ok_or_else(missing)?;
    }
    if scope.orgs.is_empty() {
        let mut orgs = Vec::new();
        for app in &scope.apps {
            orgs.push(api.deps.directory.app(app).await?.org);
        }
        orgs.sort();
        orgs.dedup();
        scope.orgs = orgs;
    }
    Ok(scope)
}

/// Whether a caller may make, see and revoke tokens of this scope: `admin` over all of it, and
/// everything that the token may.
fn check_covers(grant: &Grant, scope: &Scope, now: Timestamp) -> Result<(), ApiError> {
    let orgs = any_of(&scope.orgs, OrgSlug::as_str);
    let apps = any_of(&scope.apps, types::AppName::as_str);
    let verbs: &[Verb] = match scope.verbs.as_slice() {
        [] => &Verb::ALL,
        verbs => verbs,
    };
    for org in &orgs {
        for app in &apps {
            for verb in verbs.iter().chain([&Verb::Admin]) {
                let target = Target {
                    verb: *verb,
                    org: *org,
                    app: *app,
                    machine: None,
                };
                grant.check(Access::To(target))?;
                grant.check_at(Access::To(target), scope.expires_at.unwrap_or(now))?;
            }
        }
    }
    Ok(())
}

/// Each of them, or that it may be any.
fn any_of<T>(names: &[T], text: impl Fn(&T) -> &str) -> Vec<Option<&str>> {
    match names {
        [] => vec![None],
        names => names.iter().map(|name| Some(text(name))).collect(),
    }
}

async fn make(
    api: &Shared,
    name: String,
    scope: Scope,
    now: Timestamp,
) -> Result<CreatedToken, ApiError> {
    let root = api.deps.token_root.as_ref().ok_or(ApiError::ShuttingDown)?;
    let id = ulid::Ulid::new().to_string();
    let token = root
        .mint(&id, &name, &scope)
        .map_err(|error| ApiError::bad(error.to_string()))?;
    let details = Token {
        id,
        name,
        scope,
        created_at: now,
        revoked_at: None,
    };
    // Before anybody has it: one that is not in the list could not be found to be revoked.
    api.deps.directory.create_api_token(details.clone()).await?;
    tracing::info!(token = details.id, name = details.name, "token made");
    Ok(CreatedToken { token, details })
}

/// `GET /v1/tokens`: those that the caller could have made.
pub(super) async fn list(State(api): State<Api>, grant: Grant) -> Json<TokenList> {
    let now = Timestamp::now();
    let mut tokens = api.deps.directory.api_tokens();
    tokens.retain(|token| may_manage(&grant, &token.scope, now));
    Json(TokenList { tokens })
}

fn may_manage(grant: &Grant, scope: &Scope, now: Timestamp) -> bool {
    let admin = Scope {
        verbs: vec![Verb::Admin],
        expires_at: None,
        ..scope.clone()
    };
    check_covers(grant, &admin, now).is_ok()
}

/// `DELETE /v1/tokens/{id}`: by id, or by the revocation id of a block.
pub(super) async fn revoke(
    State(api): State<Api>,
    grant: Grant,
    Path(id): Path<String>,
    request: axum::extract::Request,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let tokens = api.deps.directory.api_tokens();
    let scope = tokens.into_iter().find(|token| token.id == id);
    // Whose block it is nobody knows, so that takes the right to revoke any.
    let scope = scope.map(|token| token.scope).unwrap_or_default();
    if !may_manage(&grant, &scope, now) {
        grant.check(Access::To(Target::fleet(Verb::Admin)))?;
    }
    if let Some(authority) = api.deps.directory.authority() {
        let (parts, body) = request.into_parts();
        return Ok(forward::send(&api, authority, parts, body, FORWARD_LIMIT).await?);
    }
    api.deps.directory.revoke_api_token(&id, now).await?;
    tracing::info!(token = id, "token revoked");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/apps/{app}/deploy_token`
pub(super) async fn deploy(
    State(api): State<Api>,
    grant: Grant,
    app: directory::App,
    Body(wanted): Body<CreateDeployToken>,
) -> Result<Response, ApiError> {
    let ttl = match wanted.expiry.as_str() {
        "" => DEPLOY_TTL_DEFAULT,
        text => {
            let parsed: Result<types::machine::Duration, _> = text.parse();
            let parsed = parsed
                .map_err(|_| ApiError::bad("expiry must be a duration such as 8760h".into()))?;
            SignedDuration::try_from(parsed.0).unwrap_or(SignedDuration::MAX)
        }
    };
    let wanted = CreateToken {
        name: format!("deploy {}", app.name),
        scope: Scope {
            orgs: vec![app.org],
            apps: vec![app.name],
            verbs: vec![Verb::Read, Verb::Write, Verb::Exec],
            ..Scope::default()
        },
        ttl_s: Some(ttl.as_secs().unsigned_abs()),
    };
    let made = create(State(api), grant, Body(wanted)).await?;
    if made.status() != StatusCode::CREATED {
        return Ok(made);
    }
    let body = axum::body::to_bytes(made.into_body(), 64 << 10).await;
    let made: Option<CreatedToken> = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    let token = made.ok_or(ApiError::ShuttingDown)?.token;
    Ok(Json(DeployToken { token }).into_response())
}

/// `GET /v1/tokens/current`: who the caller is. Nobody, over the Unix socket.
pub(super) async fn current(State(api): State<Api>, grant: Grant) -> Json<CurrentTokens> {
    let tokens = match &grant {
        Grant::Root | Grant::Host => Vec::new(),
        Grant::Tokens(tokens) => tokens.iter().flat_map(|token| shown(&api, token)).collect(),
    };
    Json(CurrentTokens { tokens })
}

fn shown(api: &Shared, token: &Verified) -> Vec<CurrentToken> {
    let now = Timestamp::now();
    let all = api.deps.directory.apps();
    let in_org = |org: directory::Org| {
        let allows = |verb, app| {
            let target = Target {
                org: Some(org.slug.as_str()),
                app,
                ..Target::fleet(verb)
            };
            token.allow(Access::To(target), now).is_ok()
        };
        let apps = all.iter().filter(|app| app.org == org.slug);
        let names: Vec<&str> = apps
            .map(|app| app.name.as_str())
            .filter(|name| Verb::ALL.into_iter().any(|verb| allows(verb, Some(name))))
            .collect();
        let any = |verb| allows(verb, None) || names.iter().any(|name| allows(verb, Some(name)));
        let verbs: Vec<Verb> = Verb::ALL.into_iter().filter(|verb| any(*verb)).collect();
        let whole = verbs.iter().any(|verb| allows(*verb, None));
        (!verbs.is_empty()).then(|| CurrentToken {
            token_id: token.id().to_owned(),
            organization: org.name.clone(),
            org_slug: org.slug.to_string(),
            apps: match whole {
                true => Vec::new(),
                false => names.iter().map(ToString::to_string).collect(),
            },
            verbs,
            name: token.name().to_owned(),
            ..CurrentToken::default()
        })
    };
    api.deps
        .directory
        .orgs()
        .into_iter()
        .filter_map(in_org)
        .collect()
}

/// `POST /v1/tokens/authenticate`
pub(super) async fn authenticate(
    State(api): State<Api>,
    Body(asked): Body<AuthenticateTokens>,
) -> Result<Json<Vec<VerifiedToken>>, ApiError> {
    let tokens = valid(&api, &asked.header)?;
    Ok(Json(tokens.iter().map(verified).collect()))
}

/// Those of a header that are good now.
fn valid(api: &Shared, header: &str) -> Result<Vec<Verified>, ApiError> {
    let now = Timestamp::now();
    let mut tokens = Guard::new(api.deps.directory.clone()).verify(header)?;
    let mut why = ApiError::NoToken;
    tokens.retain(|token| match token.allow(Access::Platform, now) {
        Ok(()) => true,
        Err(denied) => {
            why = ApiError::TokenDenied(denied);
            false
        }
    });
    if tokens.is_empty() {
        Err(why)
    } else {
        Ok(tokens)
    }
}

fn verified(token: &Verified) -> VerifiedToken {
    let blocks = token.blocks().into_iter().enumerate();
    let caveats = blocks.map(|(block, datalog)| TokenCaveat { block, datalog });
    VerifiedToken {
        header: format!("Bearer {}", token.text()),
        nonce: TokenNonce {
            rnd: token.id().as_bytes().to_vec(),
            ..TokenNonce::default()
        },
        caveats: TokenCaveats {
            caveats: caveats.collect(),
        },
    }
}

/// `POST /v1/tokens/authorize`
pub(super) async fn authorize(
    State(api): State<Api>,
    Body(asked): Body<AuthorizeToken>,
) -> Result<Json<AuthorizedToken>, ApiError> {
    let tokens = valid(&api, &asked.header)?;
    let access = &asked.access;
    let mut org = access.org_slug.clone();
    if !access.app_name.is_empty() {
        let name = access
            .app_name
            .parse()
            .map_err(|error| ApiError::bad(format!("{error}")))?;
        let app = api.deps.directory.app(&name).await?;
        if !org.is_empty() && org != app.org.as_str() {
            return Err(ApiError::bad("the app is of another organisation".into()));
        }
        org = app.org.to_string();
    }
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (org, app, machine) = (some(&org), some(&access.app_name), some(&access.machine_id));
    let verbs = verbs(access)?;
    let now = Timestamp::now();
    let mut why = ApiError::NoToken;
    for token in &tokens {
        let mut missing = verbs.iter().filter_map(|&verb| {
            let target = Target {
                verb,
                org: org.as_deref(),
                app: app.as_deref(),
                machine: machine.as_deref(),
            };
            token.allow(Access::To(target), now).err()
        });
        match missing.next() {
            None => {
                let verified_token = verified(token);
                let access = asked.access.clone();
                return Ok(Json(AuthorizedToken {
                    access,
                    verified_token,
                }));
            }
            Some(denied) => why = ApiError::TokenDenied(denied),
        }
    }
    Err(why)
}

/// Fly's actions in our words: there, creating, deleting and controlling are not writing.
fn verbs(access: &TokenAccess) -> Result<BTreeSet<Verb>, ApiError> {
    let wrong = || ApiError::bad("access.action must be a sum of bits or letters of rwcdC".into());
    let bits = match &access.action {
        Value::Null => 0,
        Value::Number(bits) => bits.as_u64().ok_or_else(wrong)?,
        Value::String(letters) => {
            let bit = |letter| "rwcdC".find(letter).map(|at| 1 << at);
            let bits: Option<Vec<u64>> = letters.chars().map(bit).collect();
            bits.ok_or_else(wrong)?.into_iter().sum()
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(wrong()),
    };
    let read = (bits & 1 != 0).then_some(Verb::Read);
    let write = (bits & !1 != 0).then_some(Verb::Write);
    let exec = (!access.command.is_empty()).then_some(Verb::Exec);
    let verbs: BTreeSet<Verb> = [read, write, exec].into_iter().flatten().collect();
    if verbs.is_empty() {
        Err(wrong())
    } else {
        Ok(verbs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_bits_or_letters() {
        let verbs = |action: Value, command: &[&str]| {
            verbs(&TokenAccess {
                action,
                command: command.iter().map(ToString::to_string).collect(),
                ..TokenAccess::default()
            })
        };
        let set = |verbs: &[Verb]| BTreeSet::from_iter(verbs.iter().copied());
        assert_eq!(verbs(Value::from(1), &[]).unwrap(), set(&[Verb::Read]));
        assert_eq!(
            verbs(Value::from("rwC"), &[]).unwrap(),
            set(&[Verb::Read, Verb::Write])
        );
        assert_eq!(
            verbs(Value::from(31), &["ls"]).unwrap(),
            set(&[Verb::Read, Verb::Write, Verb::Exec])
        );
        assert_eq!(verbs(Value::Null, &["ls"]).unwrap(), set(&[Verb::Exec]));
        for wrong in [
            Value::Null,
            Value::from("x"),
            Value::from(-1),
            Value::from(0),
        ] {
            assert!(verbs(wrong.clone(), &[]).is_err(), "{wrong}");
        }
    }
}
