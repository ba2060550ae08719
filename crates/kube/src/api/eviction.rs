//! Eviction: a deletion that disruption budgets have to allow.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, DeleteOptions, DryRun, Selector};
use crate::label_selector;
use crate::object;
use crate::resource::{POD_DISRUPTION_BUDGETS, PODS};
use crate::status::{Cause, Status};
use crate::time;

/// Attempts against others who change the same budget.
const ATTEMPTS: usize = 20;

/// What a budget says to the eviction of a pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It does not care.
    Free,
    /// It allows it, and is this afterwards.
    Allowed(Value),
    /// Not now; why.
    Refused(String),
}

impl Api {
    /// Deletes a pod on behalf of a drain, if its disruption budget allows it: else 429.
    pub(crate) async fn evict(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let here = Some(namespace);
        let pod = self.get(&PODS, here, name).await?;
        if !is_free(&pod) {
            self.ask_budgets(here, &pod, options).await?;
        }
        let options = options.clone().with_uid(object::uid(&pod));
        self.delete(&PODS, here, name, &options).await.map(drop)
    }

    async fn ask_budgets(
        &self,
        namespace: Option<&str>,
        pod: &Value,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let everything = Selector::default();
            let (mut budgets, _) = self
                .list(&POD_DISRUPTION_BUDGETS, namespace, &everything)
                .await?;
            let labels = &pod["metadata"]["labels"];
            budgets.retain(|one| label_selector::matches(&one["spec"]["selector"], labels));
            if budgets.len() > 1 {
                return Err(Status::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction \
                     subresource does not support.",
                ));
            }
            let Some(budget) = budgets.pop() else {
                return Ok(());
            };
            let changed = match verdict(&budget, pod, Timestamp::now()) {
                Verdict::Free => return Ok(()),
                Verdict::Refused(why) => return Err(refused(&why)),
                Verdict::Allowed(_) if options.dry_run == DryRun::All => return Ok(()),
                Verdict::Allowed(changed) => changed,
            };
            match self
                .update_status(&POD_DISRUPTION_BUDGETS, namespace, changed)
                .await
            {
                Ok(_) => return Ok(()),
                Err(status) if status.is_conflict() || status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Err(refused("The disruption budget is being changed by others."))
    }
}

fn refused(why: &str) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(message);
    let details = status.details.get_or_insert_default();
    // Upstream tells no time: the budget says when.
    details.retry_after_seconds = 0;
    details.causes = vec![Cause::new("DisruptionBudget", "", why.to_owned())];
    status
}

/// Nothing of it serves, so nothing is disrupted.
fn is_free(pod: &Value) -> bool {
    let phase = object::text(pod, &["status", "phase"]);
    object::is_terminating(pod) || matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = object::items(pod, &["status", "conditions"]);
    conditions
        .iter()
        .any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn verdict(budget: &Value, pod: &Value, now: Timestamp) -> Verdict {
    let status = &budget["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let name = object::name(budget);
    if !is_ready(pod) {
        let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Verdict::Free;
        }
    }
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or(0);
    if count("observedGeneration") < generation {
        return Verdict::Refused(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    let allowed = count("disruptionsAllowed");
    if allowed <= 0 {
        let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
        return Verdict::Refused(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        ));
    }
    let mut changed = budget.clone();
    let status = object::ensure_at(&mut changed, "status");
    status["disruptionsAllowed"] = json!(allowed - 1);
    object::map_mut(status, "disruptedPods")
        .insert(object::name(pod).to_owned(), time::seconds(now).into());
    Verdict::Allowed(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_away_what_it_has_and_then_refuses() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let mut budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {
            "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3,
            "desiredHealthy": 2}});
        let Verdict::Allowed(after) = verdict(&budget, &pod, Timestamp::UNIX_EPOCH) else {
            panic!("allowed");
        };
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            after["status"]["disruptedPods"],
            json!({"p": "1970-01-01T00:00:00Z"})
        );
        let why = "The disruption budget b needs 2 healthy pods and has 3 currently";
        assert_eq!(
            verdict(&after, &pod, Timestamp::UNIX_EPOCH),
            Verdict::Refused(why.into())
        );
        budget["metadata"]["generation"] = 2.into();
        assert!(matches!(
            verdict(&budget, &pod, Timestamp::UNIX_EPOCH),
            Verdict::Refused(_)
        ));
        let broken = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"}});
        assert_eq!(
            verdict(&after, &broken, Timestamp::UNIX_EPOCH),
            Verdict::Free
        );
        assert_eq!(refused("x").code, 429);
    }
}
