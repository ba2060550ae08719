//! WireGuard peers of an organisation: who may come in through a gateway.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use net::wireguard::PublicKey;
use serde::Deserialize;
use types::OrgSlug;
use types::fleet::{CreateWireGuardPeer, WireGuardPeer, WireGuardPeerAnswer, WireGuardPeerList};
use types::sixpn::network_resolver;

use super::error::ApiError;
use super::extract::Body;
use super::services::{is_label, short};
use super::{Api, State as Shared};
use crate::directory::{Error, NewPeer, Refused};

/// What the path names.
#[derive(Deserialize)]
struct InPath {
    org: String,
    name: Option<String>,
}

/// The organisation that the path names.
pub(super) struct Org(OrgSlug);

/// The peer that the path names, which need not be there.
pub(super) struct Named {
    org: OrgSlug,
    name: String,
}

async fn in_path(parts: &mut Parts, api: &Api) -> Result<(OrgSlug, Option<String>), ApiError> {
    let path = Path::<InPath>::from_request_parts(parts, api).await;
    let Path(InPath { org, name }) =
        path.map_err(|_| ApiError::bad("the path cannot be read".into()))?;
    let slug: OrgSlug = org
        .parse()
        .map_err(|error| ApiError::bad(format!("{error}")))?;
    match api.deps.directory.org(&slug) {
        Some(_) => Ok((slug, name)),
        None => Err(Error::from(Refused::OrgNotFound { slug }).into()),
    }
}

impl FromRequestParts<Api> for Org {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        in_path(parts, api).await.map(|(slug, _)| Self(slug))
    }
}

impl FromRequestParts<Api> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let (org, name) = in_path(parts, api).await?;
        let name = name.unwrap_or_default();
        // A name that cannot be is the name of nobody.
        if is_label(&name) {
            return Ok(Self { org, name });
        }
        let name = short(&name);
        Err(Error::from(Refused::PeerNotFound { org, name }).into())
    }
}

/// `GET /v1/orgs/{org}/wireguard/peers`
pub(super) async fn list(State(api): State<Api>, Org(org): Org) -> Json<WireGuardPeerList> {
    let peers = api.deps.directory.wireguard_peers(&org);
    Json(WireGuardPeerList { peers })
}

/// `POST /v1/orgs/{org}/wireguard/peers`; the same once more answers the same.
pub(super) async fn create(
    State(api): State<Api>,
    Org(org): Org,
    Body(body): Body<CreateWireGuardPeer>,
) -> Result<(StatusCode, Json<WireGuardPeerAnswer>), ApiError> {
    if !is_label(&body.name) {
        return Err(ApiError::bad(format!(
            "`{}` cannot be the name of a peer: use up to 63 lower-case letters, digits and dashes",
            short(&body.name)
        )));
    }
    let key: PublicKey = body
        .public_key
        .parse()
        .map_err(|error| ApiError::bad(format!("public_key: {error}")))?;
    if key.0 == [0; 32] {
        return Err(ApiError::bad(
            "public_key: no private key has this one".into(),
        ));
    }
    let new = NewPeer {
        name: body.name,
        org,
        network: body.network,
        public_key: key.to_string(),
        gateway: body.gateway.unwrap_or(api.deps.rpc.host()),
    };
    let peer = api
        .deps
        .directory
        .create_wireguard_peer(new, Timestamp::now());
    let peer = peer.await?;
    tracing::info!(peer = peer.name, address = %peer.address, "WireGuard peer created");
    Ok((StatusCode::CREATED, Json(answer(&api, peer)?)))
}

/// `GET …/peers/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    Named { org, name }: Named,
) -> Result<Json<WireGuardPeerAnswer>, ApiError> {
    let peers = api.deps.directory.wireguard_peers(&org);
    let peer = peers.into_iter().find(|peer| peer.name == name);
    let missing = || Error::from(Refused::PeerNotFound { org, name });
    answer(&api, peer.ok_or_else(missing)?).map(Json)
}

/// `DELETE …/peers/{name}`
pub(super) async fn delete(
    State(api): State<Api>,
    Named { org, name }: Named,
) -> Result<StatusCode, ApiError> {
    let deleted = api.deps.directory.delete_wireguard_peer(&org, &name);
    deleted.await?;
    tracing::info!(peer = name, "WireGuard peer deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn answer(api: &Shared, peer: WireGuardPeer) -> Result<WireGuardPeerAnswer, ApiError> {
    let host = api.deps.directory.host(peer.gateway);
    let gateway_record = host.and_then(|host| host.gateway);
    let missing = || Error::from(Refused::NoGateway { id: peer.gateway });
    Ok(WireGuardPeerAnswer {
        gateway_record: gateway_record.ok_or_else(missing)?,
        resolver: network_resolver(peer.network_id),
        peer,
    })
}
