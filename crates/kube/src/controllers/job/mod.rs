//! Jobs: pods that run to their end, as many as are wanted, counted once each.

mod indexes;
mod plan;
mod pod;
mod policy;
pub(super) mod status;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::plan::{Plan, plan};
use self::pod::{FINALIZER, is_tracked};
use super::hands::Hands;
use super::owner;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, Part, Patch};
use crate::object;
use crate::resource::{JOBS, PODS, Resource};
use crate::status::Status;

/// Before the key of a pod that has a Job's finalizer and no Job.
const ORPHAN: &str = "orphan ";

pub(super) struct Jobs {
    hands: Hands,
}

impl Jobs {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "job-controller");
        Self { hands }
    }

    fn job_of(&self, pod: &Value) -> Option<Value> {
        let reference = owner::controller(pod).filter(|one| one["kind"] == "Job")?;
        let namespace = object::namespace(pod).unwrap_or_default();
        let key = format!("{namespace}/{}", object::text(reference, &["name"]));
        let job = self.hands.known.get(&JOBS, &key)?;
        (object::uid(&job) == object::text(reference, &["uid"])).then_some(job)
    }
}

/// Another controller has taken the Job over.
fn is_managed_elsewhere(job: &Value) -> bool {
    let manager = object::text(job, &["spec", "managedBy"]);
    !manager.is_empty() && manager != "kubernetes.io/job-controller"
}

impl Controller for Jobs {
    const NAME: &'static str = "job";
    const WATCHED: &'static [&'static Resource] = &[&JOBS, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let known = &self.hands.known;
        if changed.is(&JOBS) {
            let is_there = known.get(&JOBS, &changed.key());
            let uid = object::uid(&changed.object);
            if is_there.is_some_and(|job| object::uid(&job) == uid) {
                return vec![changed.key()];
            }
            // It has gone; what it kept goes free.
            let mut left = known.owned(&PODS, uid);
            left.retain(is_tracked);
            let orphans = left
                .iter()
                .map(|pod| format!("{ORPHAN}{}", super::cache::key(pod)));
            return orphans.chain([changed.key()]).collect();
        }
        let job = changed.controller_key("Job");
        if job.is_some() && self.job_of(&changed.object).is_some() {
            return job.into_iter().collect();
        }
        let mut concerned = Vec::new();
        if !changed.has_controller() {
            concerned = known.keys(&JOBS, Some(changed.namespace()), |job| {
                changed.is_or_was_selected(&job["spec"]["selector"])
            });
        }
        if concerned.is_empty() && is_tracked(&changed.object) {
            concerned.push(format!("{ORPHAN}{}", changed.key()));
        }
        concerned
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        if let Some(pod) = at.strip_prefix(ORPHAN) {
            return self.free(pod).await;
        }
        let Some(job) = self.hands.known.get(&JOBS, at) else {
            return Ok(Outcome::Done);
        };
        if is_managed_elsewhere(&job) {
            return Ok(Outcome::Done);
        }
        let selector = &job["spec"]["selector"];
        let any = |_: &Value| true;
        let pods = if selector.is_object() {
            self.hands.claim(&PODS, &job, selector, any).await?
        } else {
            self.hands.known.owned(&PODS, object::uid(&job))
        };
        let Plan {
            status,
            untrack,
            end,
            give_up,
            create,
            news,
            again,
        } = plan(&job, &pods, Timestamp::now());
        let job = self.hands.update_status(&JOBS, &job, status).await?;
        for news in news {
            self.hands.tell(&job, news).await;
        }
        let freed = untrack.iter().chain(&give_up).map(|pod| self.untrack(pod));
        for freed in futures::future::join_all(freed).await {
            freed?;
        }
        let gone = end.iter().chain(&give_up);
        let gone = gone.map(|pod| self.hands.delete_pod(&job, pod));
        for gone in futures::future::join_all(gone).await {
            gone?;
        }
        self.hands.create_pods(&job, create.into_iter()).await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Jobs {
    /// Takes the finalizer from a pod that no Job counts.
    async fn free(&self, at: &str) -> Result<Outcome, Status> {
        if let Some(pod) = self.hands.known.get(&PODS, at)
            && self.job_of(&pod).is_none()
        {
            self.untrack(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    async fn untrack(&self, pod: &Value) -> Result<(), Status> {
        if !is_tracked(pod) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": object::uid(pod),
            "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}));
        let (namespace, name) = (object::namespace(pod), object::name(pod));
        let api = &self.hands.api;
        match api
            .patch(&PODS, Part::Object, namespace, name, &patch)
            .await
        {
            Ok(_) => Ok(()),
            // Gone, or another of its name.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status),
        }
    }
}
