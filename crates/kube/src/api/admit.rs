//! What admission needs of the store beside reading objects: entries with their revisions, and a
//! swap that passes no admission itself.

use std::sync::Arc;

use serde_json::Value;
use store::{Entry, WriteError};

use super::stored::{decode, encode};
use super::{Api, FieldValidation, prepare, refused};
use crate::admission::{AdmissionConfig, State};
use crate::defaults;
use crate::egress::{self, ServiceResolver};
use crate::pki::Credentials;
use crate::resource::Resource;
use crate::status::Status;

/// How a [`Api::swap`] went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    Done,
    /// Somebody was faster, or the object is gone.
    Changed,
}

impl Api {
    /// The same API with other rules of admission. Handles that were made before keep theirs.
    pub fn with_admission(mut self, config: AdmissionConfig) -> Self {
        self.admission = State::new(config);
        self
    }

    /// The same API with a way to the services of the cluster, where webhooks and aggregated APIs
    /// are, and a certificate that tells aggregated APIs who calls. Handles that were made before
    /// go without.
    ///
    /// # Errors
    /// If the certificate or its key cannot be used.
    pub fn with_services(
        mut self,
        services: Arc<dyn ServiceResolver>,
        front_proxy: Option<&Credentials>,
    ) -> Result<Self, egress::CallError> {
        let identity = front_proxy.map(egress::Identity::new).transpose()?;
        self.egress = egress::Client::new(Some(services), identity);
        Ok(self)
    }

    /// Asks others: webhooks, aggregated APIs.
    pub(crate) fn egress(&self) -> &egress::Client {
        &self.egress
    }

    pub(crate) fn admission(&self) -> &State {
        &self.admission
    }

    /// Everything under a prefix, in the order of keys.
    pub(crate) fn stored(&self, prefix: &str) -> Vec<(Arc<str>, Entry)> {
        let range = self.store.range(prefix, None, usize::MAX, None);
        range.map_or_else(|_| Vec::new(), |range| range.entries)
    }

    pub(crate) fn stored_at(&self, key: &str) -> Option<Entry> {
        self.store.get(key)
    }

    /// None, and a line in the log, for what cannot be read.
    pub(crate) fn decoded(&self, resource: &Resource, entry: &Entry) -> Option<Value> {
        match decode(resource, entry) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(%error, "a stored object cannot be read");
                None
            }
        }
    }

    /// Replaces what is stored at a key if its revision is still `rev`.
    pub(crate) async fn swap(
        &self,
        resource: &Resource,
        key: &str,
        rev: u64,
        object: &Value,
    ) -> Result<Swap, Status> {
        let bytes = encode(resource, object).await?;
        match self.store.update(key, rev, bytes, None).await {
            Ok(_) => Ok(Swap::Done),
            Err(WriteError::Conflict { .. } | WriteError::NotFound { .. }) => Ok(Swap::Changed),
            Err(error) => Err(refused(resource, key, error)),
        }
    }

    /// Makes what admission left an object of its kind again: unknown fields, types, defaults.
    pub(crate) fn completed(
        &self,
        resource: &Resource,
        old: Option<&Value>,
        object: &mut Value,
    ) -> Result<(), Status> {
        prepare::decode_body(resource, object, FieldValidation::Ignore)?;
        match old {
            None => defaults::on_create(resource, object),
            Some(old) => defaults::on_update(resource, old, object),
        }
        Ok(())
    }
}
