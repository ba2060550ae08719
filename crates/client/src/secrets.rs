//! Secrets of apps.

use hyper::Method;
use types::AppName;
use types::secret::{AppSecretList, DeletedSecret, RotatedKey, UpdateSecrets, UpdatedSecrets};

use crate::transport::{Call, segment};
use crate::{Client, Error};

impl Client {
    /// Names and digests, and values if `show` and the token allow it.
    pub async fn secrets(&self, app: &AppName, show: bool) -> Result<AppSecretList, Error> {
        let call = Call::get(format!("/v1/apps/{app}/secrets"));
        let call = if show {
            call.query("show_secrets", true)
        } else {
            call
        };
        self.json(&call).await
    }

    /// Sets and (with `None`) removes secrets, as one change. Machines get them at their next
    /// boot.
    pub async fn update_secrets(
        &self,
        app: &AppName,
        body: &UpdateSecrets,
    ) -> Result<UpdatedSecrets, Error> {
        let call = Call::post(format!("/v1/apps/{app}/secrets")).body(body);
        self.json(&call).await
    }

    /// An error for which [`Error::is_not_found`] holds if there is none of this name.
    pub async fn delete_secret(&self, app: &AppName, name: &str) -> Result<DeletedSecret, Error> {
        let path = format!("/v1/apps/{app}/secrets/{}", segment(name));
        self.json(&Call::new(Method::DELETE, path)).await
    }

    /// Seals every secret of the fleet with a new key.
    pub async fn rotate_secrets_key(&self) -> Result<RotatedKey, Error> {
        self.json(&Call::post("/v1/secrets/rotate_key".into()))
            .await
    }
}
