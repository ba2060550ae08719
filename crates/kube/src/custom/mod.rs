//! Custom resources: kinds that users define by a CustomResourceDefinition.

use serde_json::Value;

use crate::status::Status;

/// What a definition says of one version of a kind, ready to be used.
#[derive(Debug)]
pub struct Kind {
    /// The group and this version.
    pub api_version: String,
    /// The group and the version that objects are stored in.
    pub storage_version: String,
}

impl Kind {
    /// Brings a stored object to this version, as far as that can be done without asking anybody.
    pub(crate) fn present(&self, object: &mut Value) {
        object["apiVersion"] = self.api_version.as_str().into();
    }

    /// Brings objects to this version that [`Kind::present`] could not.
    pub(crate) async fn convert(&self, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        Ok(objects)
    }

    /// Brings an object of this version to the one that is stored.
    pub(crate) async fn to_stored(&self, mut object: Value) -> Result<Value, Status> {
        object["apiVersion"] = self.storage_version.as_str().into();
        Ok(object)
    }
}
