//! What an organisation has, over all its apps, and where there would be room for more.

use jiff::Timestamp;
use types::OrgSlug;
use types::api::{AskPlacement, OrgMachineList, Placements};
use types::machine::MachineState;

use crate::transport::Call;
use crate::{Client, Error, Watch};

/// Which machines of an organisation to list, and which page.
#[derive(Debug, Clone, Default)]
pub struct OrgMachineFilter {
    pub states: Vec<MachineState>,
    pub region: Option<String>,
    pub include_deleted: bool,
    /// Without configurations.
    pub summary: bool,
    pub updated_after: Option<Timestamp>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// 1000 at most, and by default.
    pub limit: Option<u32>,
}

impl Client {
    /// A page of the machines of an organisation.
    pub async fn org_machines(
        &self,
        org: &OrgSlug,
        filter: &OrgMachineFilter,
    ) -> Result<OrgMachineList, Error> {
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let states = (!states.is_empty()).then(|| states.join(","));
        let call = Call::get(format!("/v1/orgs/{org}/machines"))
            .query_if("state", states)
            .query_if("region", filter.region.as_ref())
            .query_if("include_deleted", filter.include_deleted.then_some("true"))
            .query_if("summary", filter.summary.then_some("true"))
            .query_if("updated_after", filter.updated_after)
            .query_if("cursor", filter.cursor.as_ref())
            .query_if("limit", filter.limit);
        self.json(&call).await
    }

    /// Watches the machines of every app of an organisation; as [`Client::watch`].
    ///
    /// # Errors
    /// [`Error::Gone`] when what happened after `from` is no longer kept.
    pub async fn watch_org(&self, org: &OrgSlug, from: Option<u64>) -> Result<Watch, Error> {
        let call = Call::get(format!("/v1/orgs/{org}/machines")).query("watch", true);
        self.watch_call(call, from).await
    }

    /// Where such machines would have room now. Nothing is promised.
    pub async fn placements(&self, body: &AskPlacement) -> Result<Placements, Error> {
        let call = Call::post("/v1/platform/placements".into()).body(body);
        self.json(&call).await
    }
}
