//! Hosts, the mesh, WireGuard peers, and what the API says about itself.

use types::fleet::{
    CreateJoinToken, CreateWireGuardPeer, HostList, JoinToken, MeshStatus, WireGuardPeerAnswer,
    WireGuardPeerList,
};

use super::super::{graphql, hosts, mesh, openapi, wireguard};
use super::route::{Route, delete, get, post};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v1/openapi.json", "This document", openapi::answer).gives_media("application/json"),
        get("/v1/mesh", "The mesh, as this host sees it", mesh::status).gives::<MeshStatus>(),
        get("/v1/hosts", "Hosts of the fleet", hosts::list).gives::<HostList>(),
        post("/v1/hosts/tokens", "Invites a host", hosts::create_token)
            .takes::<CreateJoinToken>()
            .creates::<JoinToken>(),
        delete("/v1/hosts/{number}", "Removes a host", hosts::remove)
            .query(&[("force", "Also one that is up")])
            .says_nothing(),
        get(
            "/v1/orgs/{org}/wireguard/peers",
            "WireGuard peers, by name",
            wireguard::list,
        )
        .gives::<WireGuardPeerList>(),
        post(
            "/v1/orgs/{org}/wireguard/peers",
            "Makes a WireGuard peer",
            wireguard::create,
        )
        .takes::<CreateWireGuardPeer>()
        .creates::<WireGuardPeerAnswer>(),
        get(
            "/v1/orgs/{org}/wireguard/peers/{name}",
            "A WireGuard peer, and the way to its gateway",
            wireguard::get,
        )
        .gives::<WireGuardPeerAnswer>(),
        delete(
            "/v1/orgs/{org}/wireguard/peers/{name}",
            "Deletes a WireGuard peer",
            wireguard::delete,
        )
        .says_nothing(),
        post(
            "/graphql",
            "The questions that Fly's command line asks beside the Machines API",
            graphql::answer,
        )
        .takes_media("application/json")
        .gives_media("application/json"),
    ]
}
