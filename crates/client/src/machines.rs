//! Machines: one method per verb.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use types::api::{
    AcquireLease, CreateMachine, Exec, ExecAnswer, IDEMPOTENCY_KEY_HEADER, LEASE_NONCE_HEADER,
    Lease, LeaseAnswer, Ok as Done, REVISION_HEADER, StartAnswer, StopMachine, UpdateMachine,
    WaitAnswer,
};
use types::machine::{Event, Machine, MachineState};
use types::{AppName, MachineId, VersionId};

use crate::transport::{Call, REQUEST_TIMEOUT};
use crate::{Client, Error};

/// Time for the answer of a request whose own time is over to arrive.
const GRACE: Duration = Duration::from_secs(15);
/// What the API allows a wait to last.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Which machines to list; the default is every machine that is not destroyed.
#[derive(Debug, Clone, Default)]
pub struct MachineFilter {
    pub states: Vec<MachineState>,
    pub region: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub include_deleted: bool,
}

/// Machines, and the catalog's revision at which the list was true: [`Client::watch`] goes on from
/// there.
#[derive(Debug, Clone)]
pub struct MachineList {
    pub machines: Vec<Machine>,
    pub revision: u64,
}

/// What to wait for.
#[derive(Debug, Clone)]
pub enum WaitFor {
    /// Any of these.
    States(Vec<MachineState>),
    /// Any state that lasts until somebody asks for something.
    Settled,
}

#[derive(Debug, Clone)]
pub struct WaitQuery {
    pub until: WaitFor,
    /// Whole seconds, 1 to 60.
    pub timeout: Duration,
    /// Only this version of the machine counts.
    pub version: Option<VersionId>,
    /// Only what happened after this event counts.
    pub from_event_id: Option<String>,
}

impl WaitQuery {
    /// Waits for one state for as long as the API allows, 60 s.
    pub fn state(state: MachineState) -> Self {
        Self {
            until: WaitFor::States(vec![state]),
            timeout: WAIT_MAX,
            version: None,
            from_event_id: None,
        }
    }
}

pub(crate) fn path(app: &AppName, id: &MachineId) -> String {
    format!("/v1/apps/{app}/machines/{id}")
}

impl Client {
    pub async fn machines(
        &self,
        app: &AppName,
        filter: &MachineFilter,
    ) -> Result<MachineList, Error> {
        let mut call = Call::get(format!("/v1/apps/{app}/machines"))
            .query_if("region", filter.region.as_ref())
            .query_if("include_deleted", filter.include_deleted.then_some("true"));
        for state in &filter.states {
            call = call.query("state", state);
        }
        for (key, value) in &filter.metadata {
            call = call.query(&format!("metadata.{key}"), value);
        }
        let response = self.send(&call).await?;
        let revision = response
            .headers()
            .get(REVISION_HEADER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .ok_or_else(|| self.unreadable(&call, format!("it has no {REVISION_HEADER}")))?;
        let machines = self.read(&call, response).await?;
        Ok(MachineList { machines, revision })
    }

    pub async fn create_machine(
        &self,
        app: &AppName,
        body: &CreateMachine,
    ) -> Result<Machine, Error> {
        self.json(&Call::post(format!("/v1/apps/{app}/machines")).body(body))
            .await
    }

    /// As [`Self::create_machine`], and may be repeated with the same `key`: one machine is
    /// created, and that is the answer each time, also to two calls at once. The key is the
    /// caller's own, such as a UUID; it is remembered as long as the machine.
    ///
    /// # Errors
    /// `Api` with code `idempotency_key_reused` if the key came with another body before.
    pub async fn create_machine_once(
        &self,
        app: &AppName,
        body: &CreateMachine,
        key: &str,
    ) -> Result<Machine, Error> {
        let call = Call::post(format!("/v1/apps/{app}/machines")).body(body);
        self.json(&call.header(IDEMPOTENCY_KEY_HEADER, key)).await
    }

    /// The machine of this name, created if there is none. May be repeated: names are unique
    /// within an app, so that two calls at once still make one machine. The configuration of a
    /// machine that exists is left as it is.
    pub async fn ensure_machine(
        &self,
        app: &AppName,
        body: &CreateMachine,
    ) -> Result<Machine, Error> {
        let refused = match self.create_machine(app, body).await {
            Err(error) if error.code() == Some("already_exists") => error,
            answer => return answer,
        };
        let list = self.machines(app, &MachineFilter::default()).await?;
        let mut machines = list.machines.into_iter();
        machines
            .find(|machine| machine.name == body.name)
            .ok_or(refused)
    }

    /// Also a destroyed machine is shown, as long as its worker remembers it.
    pub async fn machine(&self, app: &AppName, id: &MachineId) -> Result<Machine, Error> {
        self.json(&Call::get(path(app, id))).await
    }

    pub async fn update_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        body: &UpdateMachine,
    ) -> Result<Machine, Error> {
        self.json(&Call::post(path(app, id)).body(body)).await
    }

    /// # Errors
    /// `Api` with status 408 when the time is over before the state is reached.
    pub async fn wait_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        query: &WaitQuery,
    ) -> Result<WaitAnswer, Error> {
        let mut call = Call::get(format!("{}/wait", path(app, id)))
            .timeout(query.timeout + GRACE)
            .query("timeout", query.timeout.as_secs())
            .query_if("version", query.version.as_ref())
            .query_if("from_event_id", query.from_event_id.as_ref());
        match &query.until {
            WaitFor::States(states) => {
                for state in states {
                    call = call.query("state", state);
                }
            }
            WaitFor::Settled => call = call.query("state", "settled"),
        }
        self.json(&call).await
    }

    pub async fn start_machine(&self, app: &AppName, id: &MachineId) -> Result<StartAnswer, Error> {
        self.json(&Call::post(format!("{}/start", path(app, id))))
            .await
    }

    /// Asks the machine to stop; the answer does not wait until it has. A timeout of zero is meant:
    /// the machine has no time at all.
    pub async fn stop_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        body: &StopMachine,
    ) -> Result<Done, Error> {
        let mut body = body.clone();
        // On the wire zero means that nobody said.
        if let Some(timeout) = &mut body.timeout {
            timeout.0 = timeout.0.max(Duration::from_millis(1));
        }
        self.json(&Call::post(format!("{}/stop", path(app, id))).body(&body))
            .await
    }

    /// With `force` also a machine that is running. A machine that is destroyed already is no
    /// error.
    pub async fn destroy_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        force: bool,
    ) -> Result<Done, Error> {
        let call = Call::new(Method::DELETE, path(app, id)).query("force", force);
        self.json(&call).await
    }

    /// Takes the machine's lease: until it is over, only requests with its nonce change the
    /// machine. With the nonce of a lease, that one lasts longer.
    ///
    /// # Errors
    /// `Api` with status 409 while somebody else holds it.
    pub async fn acquire_lease(
        &self,
        app: &AppName,
        id: &MachineId,
        body: &AcquireLease,
        nonce: Option<&str>,
    ) -> Result<Lease, Error> {
        let mut call = Call::post(format!("{}/lease", path(app, id))).body(body);
        if let Some(nonce) = nonce {
            call = call.header(LEASE_NONCE_HEADER, nonce);
        }
        Ok(self.json::<LeaseAnswer<Lease>>(&call).await?.data)
    }

    /// Who holds the machine's lease.
    ///
    /// # Errors
    /// `Api` with status 404 if nobody does.
    pub async fn lease(&self, app: &AppName, id: &MachineId) -> Result<Lease, Error> {
        let call = Call::get(format!("{}/lease", path(app, id)));
        Ok(self.json::<LeaseAnswer<Lease>>(&call).await?.data)
    }

    /// Gives a lease back.
    pub async fn release_lease(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: &str,
    ) -> Result<Done, Error> {
        let call = Call::new(Method::DELETE, format!("{}/lease", path(app, id)));
        let call = call.header(LEASE_NONCE_HEADER, nonce);
        Ok(self.json::<LeaseAnswer<Done>>(&call).await?.data)
    }

    /// Runs a command to its end and returns what it wrote.
    pub async fn exec(
        &self,
        app: &AppName,
        id: &MachineId,
        body: &Exec,
    ) -> Result<ExecAnswer, Error> {
        let seconds = body.timeout.map(u64::from).map(Duration::from_secs);
        let timeout = seconds.unwrap_or(REQUEST_TIMEOUT) + GRACE;
        let call = Call::post(format!("{}/exec", path(app, id)));
        self.json(&call.timeout(timeout).body(body)).await
    }

    /// The last `limit` (at most 50) events, newest first.
    pub async fn events(
        &self,
        app: &AppName,
        id: &MachineId,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let call = Call::get(format!("{}/events", path(app, id))).query("limit", limit);
        self.json(&call).await
    }
}
