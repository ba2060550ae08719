//! Who does what only one may do when several API servers share one state: whoever holds a Lease in
//! `kube-system`, as upstream's controller managers and schedulers agree on it.
//!
//! ```text
//!   waits ── nobody holds it, or nobody has renewed it for 15 s ──> leads ──┐
//!     ^                                                                     │ renews every 2 s
//!     └───────────── it is another's, or 10 s without a renewal ────────────┘
//! ```
//!
//! No clock of another host is believed: a lease is old when this process has seen it unchanged for
//! so long. A leader counts its time from before it asked, and stops before anybody may take over.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::object;
use crate::resource::LEASES;
use crate::status::Status;
use crate::time;

const NAMESPACE: &str = "kube-system";
/// The Lease of the controllers.
pub(super) const CONTROLLERS: &str = "kube-controller-manager";
/// Upstream's times.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Who does what only one may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This process: nobody else can open the store.
    Alone,
    /// Whoever is elected, by a name that no other process has.
    Elected { identity: String },
}

/// What one process knows of the lease.
#[derive(Debug)]
struct Election {
    /// Name of the lease.
    lease: String,
    identity: String,
    /// The lease as it was when it was last seen to have changed, and when that was.
    seen: Option<(Value, Instant)>,
}

/// What to do about the lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// Write it like this: it is ours then, if nobody was faster.
    Write(Value),
    /// It is another's.
    Wait,
}

impl Election {
    fn new(lease: impl Into<String>, identity: String) -> Self {
        Self {
            lease: lease.into(),
            identity,
            seen: None,
        }
    }

    /// Decides by the lease as it is.
    fn step(&mut self, lease: Option<&Value>, now: Instant, clock: Timestamp) -> Step {
        let Some(lease) = lease else {
            let made = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.lease, "namespace": NAMESPACE},
                "spec": self.spec(None, clock)});
            return Step::Write(made);
        };
        let spec = &lease["spec"];
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            Some(_) | None => {
                self.seen = Some((spec.clone(), now));
                now
            }
        };
        let holder = object::text(spec, &["holderIdentity"]);
        let is_ours = holder == self.identity;
        let told_s = spec["leaseDurationSeconds"].as_u64();
        let duration = told_s.map_or(LEASE, Duration::from_secs);
        if !is_ours && !holder.is_empty() && now.duration_since(since) < duration {
            return Step::Wait;
        }
        let mut taken = lease.clone();
        taken["spec"] = self.spec(Some(spec), clock);
        Step::Write(taken)
    }

    fn spec(&self, before: Option<&Value>, clock: Timestamp) -> Value {
        let now = time::micros(clock);
        let holder = before.map(|one| object::text(one, &["holderIdentity"]));
        let (mut acquired, mut transitions) = (json!(now), 0);
        if let Some(before) = before {
            transitions = before["leaseTransitions"].as_i64().unwrap_or(0);
            if holder == Some(self.identity.as_str()) {
                acquired = before["acquireTime"].clone();
            } else {
                transitions += 1;
            }
        }
        json!({"holderIdentity": self.identity, "leaseDurationSeconds": LEASE.as_secs(),
            "acquireTime": acquired, "renewTime": now, "leaseTransitions": transitions})
    }

    /// One attempt; whether the lease is ours now.
    async fn attempt(&mut self, api: &Api) -> Result<bool, Status> {
        let here = Some(NAMESPACE);
        let present = match api.get(&LEASES, here, &self.lease).await {
            Ok(lease) => Some(lease),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status),
        };
        let step = self.step(present.as_ref(), Instant::now(), Timestamp::now());
        let Step::Write(lease) = step else {
            return Ok(false);
        };
        let written = match present {
            Some(_) => api.update(&LEASES, here, lease).await,
            None => api.create(&LEASES, here, lease).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(status) if status.is_conflict() || status.reason == "AlreadyExists" => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Returns when the lease is ours: from when on, which is before it was asked for.
    async fn acquire(&mut self, api: &Api) -> Instant {
        loop {
            let asked = Instant::now();
            match self.attempt(api).await {
                // An answer that was so long on its way says nothing about now.
                Ok(true) if asked.elapsed() < RENEW_DEADLINE => return asked,
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => debug!(%error, "lease not asked for"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns when the lease may be another's soon.
    async fn hold(&mut self, api: &Api, mut renewed: Instant) {
        loop {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            let asked = Instant::now();
            match tokio::time::timeout(left, self.attempt(api)).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => {
                    // Somebody else wrote it; whether they hold it, the next look tells.
                    let held = api.get(&LEASES, Some(NAMESPACE), &self.lease).await;
                    let holder = held.map(|one| one["spec"]["holderIdentity"].clone());
                    if holder.is_ok_and(|holder| holder != self.identity.as_str()) {
                        return;
                    }
                }
                Ok(Err(error)) => debug!(%error, "lease not renewed"),
                Err(_) => return,
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return;
            }
        }
    }

    /// Lets others take over at once.
    async fn release(&self, api: &Api) {
        let here = Some(NAMESPACE);
        let Ok(mut lease) = api.get(&LEASES, here, &self.lease).await else {
            return;
        };
        if lease["spec"]["holderIdentity"] == self.identity.as_str() {
            lease["spec"]["holderIdentity"] = "".into();
            lease["spec"]["leaseDurationSeconds"] = 1.into();
            if let Err(error) = api.update(&LEASES, here, lease).await {
                debug!(%error, "lease not released");
            }
        }
    }
}

/// Runs `work` while this process holds the Lease `name`, again and again until `shutdown`. It is
/// dropped when the lead is lost.
pub async fn lead<F: Future<Output = ()>>(
    api: Api,
    leadership: Leadership,
    name: String,
    shutdown: CancellationToken,
    work: impl Fn() -> F,
) {
    let Leadership::Elected { identity } = leadership else {
        tokio::select! {
            () = work() => {}
            () = shutdown.cancelled() => {}
        }
        return;
    };
    let mut election = Election::new(name, identity);
    loop {
        let since = tokio::select! {
            since = election.acquire(&api) => since,
            () = shutdown.cancelled() => return,
        };
        info!(
            lease = election.lease,
            identity = election.identity,
            "lead taken"
        );
        tokio::select! {
            () = work() => {
                election.release(&api).await;
                return;
            }
            () = election.hold(&api, since) => {
                warn!(lease = election.lease, identity = election.identity, "lead lost");
            }
            () = shutdown.cancelled() => {
                election.release(&api).await;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
