//! Hosts of the fleet.

use hyper::Method;
use types::HostId;
use types::fleet::{CreateJoinToken, HostList, JoinToken};

use crate::transport::Call;
use crate::{Client, Error};

impl Client {
    /// Every host of the fleet, and what is thought of it where this asks.
    pub async fn hosts(&self) -> Result<HostList, Error> {
        self.json(&Call::get("/v1/hosts".into())).await
    }

    /// An invitation for one host.
    pub async fn create_join_token(&self, body: &CreateJoinToken) -> Result<JoinToken, Error> {
        let call = Call::post("/v1/hosts/tokens".into()).body(body);
        self.json(&call).await
    }

    /// Forgets a host, with its machines and the peers of its gateway. A host that is up is kept
    /// unless `force`.
    pub async fn remove_host(&self, id: HostId, force: bool) -> Result<(), Error> {
        let path = format!("/v1/hosts/{}", id.number());
        let call = Call::new(Method::DELETE, path).query("force", force);
        self.send(&call).await.map(drop)
    }
}
