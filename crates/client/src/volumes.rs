//! Volumes and their snapshots.

use hyper::Method;
use types::api::IDEMPOTENCY_KEY_HEADER;
use types::volume::{
    CreateVolume, ExtendVolume, ExtendedVolume, HOSTS_MISSING_HEADER, OrgVolumeList, UpdateVolume,
    Volume, VolumeSnapshot,
};
use types::{AppName, OrgSlug, VolumeId};

use crate::transport::Call;
use crate::{Client, Error};

/// The volumes of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeList {
    pub volumes: Vec<Volume>,
    /// Hosts (as in `zone`) that did not answer in time; their volumes are not in the list.
    pub hosts_missing: Vec<String>,
}

impl Client {
    /// The volumes of an app, by name.
    pub async fn volumes(&self, app: &AppName) -> Result<VolumeList, Error> {
        let call = Call::get(format!("/v1/apps/{app}/volumes"));
        let response = self.send(&call).await?;
        let missing = response.headers().get(HOSTS_MISSING_HEADER);
        let missing = missing.and_then(|value| value.to_str().ok());
        let hosts_missing = missing.map(|text| text.split(',').map(str::to_owned).collect());
        Ok(VolumeList {
            hosts_missing: hosts_missing.unwrap_or_default(),
            volumes: self.read(&call, response).await?,
        })
    }

    /// A page of an organisation's volumes, those first that changed longest ago; `cursor` is that
    /// of the page before.
    pub async fn org_volumes(
        &self,
        org: &OrgSlug,
        cursor: Option<&str>,
    ) -> Result<OrgVolumeList, Error> {
        let call = Call::get(format!("/v1/orgs/{org}/volumes")).query_if("cursor", cursor);
        self.json(&call).await
    }

    pub async fn volume(&self, app: &AppName, id: &VolumeId) -> Result<Volume, Error> {
        self.json(&Call::get(path(app, id))).await
    }

    /// Returns when the volume can be used, or in a few seconds with the state that it has then.
    pub async fn create_volume(&self, app: &AppName, body: &CreateVolume) -> Result<Volume, Error> {
        let call = Call::post(format!("/v1/apps/{app}/volumes")).body(body);
        self.json(&call).await
    }

    /// As [`Self::create_volume`], and may be repeated: `key` creates one volume.
    pub async fn create_volume_once(
        &self,
        app: &AppName,
        body: &CreateVolume,
        key: &str,
    ) -> Result<Volume, Error> {
        let call = Call::post(format!("/v1/apps/{app}/volumes")).body(body);
        self.json(&call.header(IDEMPOTENCY_KEY_HEADER, key)).await
    }

    pub async fn update_volume(
        &self,
        app: &AppName,
        id: &VolumeId,
        body: &UpdateVolume,
    ) -> Result<Volume, Error> {
        let call = Call::new(Method::PUT, path(app, id)).body(body);
        self.json(&call).await
    }

    pub async fn extend_volume(
        &self,
        app: &AppName,
        id: &VolumeId,
        size_gb: u64,
    ) -> Result<ExtendedVolume, Error> {
        let path = format!("{}/extend", path(app, id));
        let call = Call::new(Method::PUT, path).body(&ExtendVolume { size_gb });
        self.json(&call).await
    }

    /// Refused while a machine has it. Its snapshots are kept.
    pub async fn delete_volume(&self, app: &AppName, id: &VolumeId) -> Result<Volume, Error> {
        self.json(&Call::new(Method::DELETE, path(app, id))).await
    }

    /// The snapshots of a volume, oldest first.
    pub async fn snapshots(
        &self,
        app: &AppName,
        id: &VolumeId,
    ) -> Result<Vec<VolumeSnapshot>, Error> {
        let call = Call::get(format!("{}/snapshots", path(app, id)));
        self.json(&call).await
    }

    pub async fn create_snapshot(
        &self,
        app: &AppName,
        id: &VolumeId,
    ) -> Result<VolumeSnapshot, Error> {
        let call = Call::post(format!("{}/snapshots", path(app, id)));
        self.json(&call).await
    }
}

fn path(app: &AppName, id: &VolumeId) -> String {
    format!("/v1/apps/{app}/volumes/{id}")
}
