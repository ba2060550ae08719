//! Apps, and regions.

use hyper::Method;
use types::AppName;
use types::api::{App, AppList, CreateApp, IDEMPOTENCY_KEY_HEADER, RegionList};

use crate::transport::Call;
use crate::{Client, Error};

impl Client {
    /// Every app, or those of the organisation with this slug.
    pub async fn apps(&self, org_slug: Option<&str>) -> Result<AppList, Error> {
        let call = Call::get("/v1/apps".into()).query_if("org_slug", org_slug);
        self.json(&call).await
    }

    pub async fn app(&self, app: &AppName) -> Result<App, Error> {
        self.json(&Call::get(format!("/v1/apps/{app}"))).await
    }

    pub async fn create_app(&self, body: &CreateApp) -> Result<App, Error> {
        self.json(&Call::post("/v1/apps".into()).body(body)).await
    }

    /// As [`Self::create_app`], and may be repeated with the same `key`.
    ///
    /// # Errors
    /// `Api` with code `idempotency_key_reused` if the key came with another body before.
    pub async fn create_app_once(&self, body: &CreateApp, key: &str) -> Result<App, Error> {
        let call = Call::post("/v1/apps".into()).body(body);
        self.json(&call.header(IDEMPOTENCY_KEY_HEADER, key)).await
    }

    /// With `force` its machines are destroyed first; without, an app that has machines is kept
    /// and the request refused.
    pub async fn delete_app(&self, app: &AppName, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, format!("/v1/apps/{app}")).query("force", force);
        self.send(&call).await.map(drop)
    }

    pub async fn regions(&self) -> Result<RegionList, Error> {
        self.json(&Call::get("/v1/platform/regions".into())).await
    }
}
