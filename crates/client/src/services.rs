//! Services of an app.

use hyper::Method;
use types::AppName;
use types::service::{Service, ServiceList, ServiceSpec};

use crate::transport::Call;
use crate::{Client, Error};

impl Client {
    /// The services of an app, by name.
    pub async fn list_services(&self, app: &AppName) -> Result<ServiceList, Error> {
        self.json(&Call::get(format!("/v1/apps/{app}/services")))
            .await
    }

    /// `name` consists of DNS labels.
    pub async fn service(&self, app: &AppName, name: &str) -> Result<Service, Error> {
        self.json(&Call::get(path(app, name))).await
    }

    /// Makes the service or replaces it; it keeps its VIP. May be repeated.
    pub async fn put_service(
        &self,
        app: &AppName,
        name: &str,
        spec: &ServiceSpec,
    ) -> Result<Service, Error> {
        let call = Call::new(Method::PUT, path(app, name)).body(spec);
        self.json(&call).await
    }

    /// An error for which [`Error::is_not_found`] holds if there is none.
    pub async fn delete_service(&self, app: &AppName, name: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, path(app, name));
        self.send(&call).await.map(drop)
    }
}

fn path(app: &AppName, name: &str) -> String {
    format!(
        "/v1/apps/{app}/services/{}",
        crate::transport::segment(name)
    )
}
