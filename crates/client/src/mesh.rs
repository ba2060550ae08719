//! The mesh, as the asked host sees it.

use types::fleet::MeshStatus;

use crate::transport::Call;
use crate::{Client, Error};

impl Client {
    /// Every other host: session, loss, round trip.
    pub async fn mesh(&self) -> Result<MeshStatus, Error> {
        self.json(&Call::get("/v1/mesh".into())).await
    }
}
