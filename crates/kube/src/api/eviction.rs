//! Eviction: a deletion of a pod that asks the disruption budgets first.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, CONFLICT_RETRIES, DeleteOptions, DryRun, Swap};
use crate::admission::{self, Attributes, Operation};
use crate::label_selector;
use crate::object;
use crate::resource::{POD_DISRUPTION_BUDGETS, PODS};
use crate::status::{Cause, Details, Status};
use crate::time;

/// Evictions that the disruption controller has not confirmed; upstream's bound.
const UNCONFIRMED_MAX: usize = 2000;
/// When a budget whose change is not counted yet is worth asking again.
const RETRY_S: u32 = 10;

impl Api {
    /// Deletes a pod on behalf of a drain, if its budget allows it; else 429. `eviction` is the
    /// body of the request.
    pub(crate) async fn evict(
        &self,
        namespace: &str,
        name: &str,
        eviction: Value,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let given = object::name(&eviction);
        if given != name {
            let why = "name in URL does not match name in Eviction object";
            return Err(Status::bad_request(why));
        }
        let pod = self.read(&PODS, Some(namespace), name)?;
        let mut attributes = Attributes {
            api: self,
            resource: &PODS,
            subresource: Some("eviction"),
            namespace: Some(namespace),
            name: name.to_owned(),
            operation: Operation::Create,
            old: None,
            object: eviction,
            dry_run: options.dry_run,
        };
        admission::mutate(&mut attributes).await?;
        admission::validate(&attributes).await?.keep();
        if is_counted(&pod) {
            self.ask_budget(namespace, &pod, options.dry_run).await?;
            if options.dry_run == DryRun::No {
                let why = ("EvictionByEvictionAPI", "Eviction API: evicting");
                self.set_pod_condition(namespace, name, "DisruptionTarget", "True", Some(why))
                    .await?;
            }
        }
        let options = match options.preconditions.uid {
            Some(_) => options.clone(),
            None => options.clone().with_uid(object::uid(&pod)),
        };
        self.delete(&PODS, Some(namespace), name, &options)
            .await
            .map(|_| ())
    }

    /// Takes one disruption from the pod's budget, if it has one.
    async fn ask_budget(
        &self,
        namespace: &str,
        pod: &Value,
        dry_run: DryRun,
    ) -> Result<(), Status> {
        let resource = &POD_DISRUPTION_BUDGETS;
        for _ in 0..CONFLICT_RETRIES {
            let entries = self.stored(&resource.prefix(Some(namespace)));
            let budgets = entries.iter().filter_map(|(key, entry)| {
                let budget = self.decoded(resource, entry)?;
                selects(&budget, pod).then_some((key, entry.rev, budget))
            });
            let mut budgets: Vec<_> = budgets.collect();
            let Some((key, rev, mut budget)) = budgets.pop() else {
                return Ok(());
            };
            if !budgets.is_empty() {
                return Err(several());
            }
            if !is_ready(pod) && may_go_unready(&budget) {
                return Ok(());
            }
            take(&mut budget, object::name(pod), Timestamp::now())?;
            if dry_run == DryRun::All || self.swap(resource, key, rev, &budget).await? == Swap::Done
            {
                return Ok(());
            }
        }
        let why = "the disruption budget of the pod changed too often; try again";
        Err(Status::conflict(&PODS, object::name(pod), why))
    }
}

/// Whether budgets count the pod: one that is over, going or not yet running disrupts nothing.
fn is_counted(pod: &Value) -> bool {
    let phase = object::text(pod, &["status", "phase"]);
    !object::is_terminating(pod) && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn selects(budget: &Value, pod: &Value) -> bool {
    label_selector::matches(&budget["spec"]["selector"], &pod["metadata"]["labels"])
}

fn is_ready(pod: &Value) -> bool {
    let conditions = object::items(pod, &["status", "conditions"]).iter();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.any(|condition| condition["status"] == "True")
}

/// Whether a pod that is not ready may go without being counted.
fn may_go_unready(budget: &Value) -> bool {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    match object::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) {
        "AlwaysAllow" => true,
        _ => count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0,
    }
}

fn take(budget: &mut Value, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = object::name(budget).to_owned();
    let count = |value: &Value| value.as_i64().unwrap_or(0);
    let generation = count(&budget["metadata"]["generation"]);
    let status = object::ensure_at(budget, "status");
    if count(&status["observedGeneration"]) < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, RETRY_S));
    }
    let allowed = count(&status["disruptionsAllowed"]);
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return Err(Status::forbidden(&POD_DISRUPTION_BUDGETS, &name, why));
    }
    let gone = object::map_mut(status, "disruptedPods");
    if gone.len() > UNCONFIRMED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&POD_DISRUPTION_BUDGETS, &name, why));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count(&status["desiredHealthy"]),
            count(&status["currentHealthy"])
        );
        return Err(refused(why, 0));
    }
    gone.insert(pod.to_owned(), time::seconds(now).into());
    status["disruptionsAllowed"] = json!(allowed - 1);
    Ok(())
}

fn refused(why: String, retry_after_seconds: u32) -> Status {
    let cause = Cause {
        reason: "DisruptionBudget",
        message: why,
        field: String::new(),
    };
    let details = Details {
        causes: vec![cause],
        retry_after_seconds,
        ..Details::default()
    };
    Status {
        code: 429,
        reason: "TooManyRequests",
        message: "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
        details: Some(Box::new(details)),
    }
}

fn several() -> Status {
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                   does not support.";
    Status {
        message: message.to_owned(),
        ..Status::internal("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3 - allowed}})
    }

    #[test]
    fn each_eviction_takes_one_disruption_until_none_is_left() {
        let mut budget = budget(1);
        take(&mut budget, "p", Timestamp::UNIX_EPOCH).expect("one is left");
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            budget["status"]["disruptedPods"]["p"],
            "1970-01-01T00:00:00Z"
        );
        let refusal = take(&mut budget, "q", Timestamp::UNIX_EPOCH).expect_err("none is left");
        assert_eq!((refusal.code, refusal.reason), (429, "TooManyRequests"));
        let cause = &refusal.details.expect("details").causes[0];
        assert_eq!(
            (cause.reason, cause.message.as_str()),
            (
                "DisruptionBudget",
                "The disruption budget b needs 2 healthy pods and has 3 currently"
            )
        );
    }

    #[test]
    fn a_budget_that_was_just_changed_is_asked_again_later() {
        let mut budget = budget(1);
        budget["metadata"]["generation"] = json!(2);
        let refusal = take(&mut budget, "p", Timestamp::UNIX_EPOCH).expect_err("not counted yet");
        assert_eq!(
            refusal.details.expect("details").retry_after_seconds,
            RETRY_S
        );
    }
}
