//! WireGuard peers of an organisation.

use hyper::Method;
use types::OrgSlug;
use types::fleet::{CreateWireGuardPeer, WireGuardPeerAnswer, WireGuardPeerList};

use crate::transport::{Call, segment};
use crate::{Client, Error};

impl Client {
    /// The WireGuard peers of an organisation, by name.
    pub async fn wireguard_peers(&self, org: &OrgSlug) -> Result<WireGuardPeerList, Error> {
        self.json(&Call::get(peers(org))).await
    }

    /// One peer, and the way to its gateway.
    pub async fn wireguard_peer(
        &self,
        org: &OrgSlug,
        name: &str,
    ) -> Result<WireGuardPeerAnswer, Error> {
        self.json(&Call::get(peer(org, name))).await
    }

    /// May be repeated with the same name and key.
    pub async fn create_wireguard_peer(
        &self,
        org: &OrgSlug,
        body: &CreateWireGuardPeer,
    ) -> Result<WireGuardPeerAnswer, Error> {
        self.json(&Call::post(peers(org)).body(body)).await
    }

    pub async fn delete_wireguard_peer(&self, org: &OrgSlug, name: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, peer(org, name));
        self.send(&call).await.map(drop)
    }
}

fn peers(org: &OrgSlug) -> String {
    format!("/v1/orgs/{org}/wireguard/peers")
}

fn peer(org: &OrgSlug, name: &str) -> String {
    format!("{}/{}", peers(org), segment(name))
}
