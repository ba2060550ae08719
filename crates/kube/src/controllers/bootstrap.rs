//! A RuntimeClass for each isolation class that can be had, with its name.
//!
//! A class that can no longer be had keeps its RuntimeClass: pods that name it are refused by
//! placement with the reason, which says more than "not found".

use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};
use types::IsolationClass;

use crate::api::Api;
use crate::resource::RUNTIME_CLASSES;

const RETRY: Duration = Duration::from_secs(2);

pub(super) async fn runtime_classes(api: &Api, classes: &[IsolationClass]) {
    for class in classes {
        let object = json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": class.as_str()},
            "handler": class.as_str(),
        });
        loop {
            match api.create(&RUNTIME_CLASSES, None, object.clone()).await {
                Ok(_) => {
                    info!(%class, "runtime class created");
                    break;
                }
                Err(status) if status.reason == "AlreadyExists" => break,
                Err(error) => {
                    warn!(%class, %error, "runtime class not created");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
