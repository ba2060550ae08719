//! What a namespace uses of its quotas, counted anew whenever something in it changes.
//!
//! Admission reserves before it lets in; this finds what is gone, and what was reserved and never
//! came. A reservation in between is a conflict, and then it counts again.

use serde_json::{Value, json};

use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::admission::amounts::{self, Amount, Amounts};
use crate::admission::quota;
use crate::api::{Api, Selector};
use crate::object;
use crate::resource::{
    CONFIG_MAPS, CRON_JOBS, DEPLOYMENTS, EVENTS, JOBS, PERSISTENT_VOLUME_CLAIMS, PODS,
    REPLICA_SETS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS, Resource, SECRETS, SERVICES,
    STATEFUL_SETS,
};
use crate::status::Status;

pub(super) struct ResourceQuotas {
    hands: Hands,
}

impl ResourceQuotas {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "resourcequota-controller");
        Self { hands }
    }
}

/// Whether a quota with these names looks at the resource at all.
fn is_counted(resource: &Resource, hard: &Amounts) -> bool {
    let has = |name: &str| hard.contains_key(name);
    if has(&format!("count/{}", resource.qualified())) {
        return true;
    }
    if !resource.group.is_empty() {
        return false;
    }
    let mut names = hard.keys().map(String::as_str);
    match resource.plural {
        "pods" => names.any(|name| {
            matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-")
                || name.starts_with("limits.")
                || (name.starts_with("requests.") && name != "requests.storage")
        }),
        "services" => names.any(|name| name.starts_with("services")),
        "persistentvolumeclaims" => names.any(|name| {
            let is_of_class = name.contains(".storageclass.storage.k8s.io/");
            matches!(name, "persistentvolumeclaims" | "requests.storage") || is_of_class
        }),
        plural => has(plural),
    }
}

/// The status that these objects make, each with its resource.
fn status<'a>(quota: &Value, objects: impl Iterator<Item = (&'a Resource, &'a Value)>) -> Value {
    let hard = amounts::amounts(&quota["spec"]["hard"]);
    let mut used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), Amount::ZERO))
        .collect();
    for (resource, object) in objects {
        if quota::selects(quota, resource, object) {
            let mut usage = quota::usage(resource, object);
            usage.retain(|name, _| hard.contains_key(name));
            amounts::add(&mut used, &usage);
        }
    }
    let mut status = json!({});
    if !hard.is_empty() {
        status["hard"] = quota["spec"]["hard"].clone();
        status["used"] = amounts::to_json(&used);
    }
    status
}

/// The same amounts, however they are written.
fn is_same(one: &Value, other: &Value) -> bool {
    let same = |field: &str| {
        one.get(field).is_some() == other.get(field).is_some()
            && amounts::amounts(&one[field]) == amounts::amounts(&other[field])
    };
    same("hard") && same("used")
}

impl Controller for ResourceQuotas {
    const NAME: &'static str = "resourcequota";
    const WATCHED: &'static [&'static Resource] = &[
        &RESOURCE_QUOTAS,
        &PODS,
        &SERVICES,
        &CONFIG_MAPS,
        &SECRETS,
        &PERSISTENT_VOLUME_CLAIMS,
        &REPLICATION_CONTROLLERS,
        &DEPLOYMENTS,
        &REPLICA_SETS,
        &STATEFUL_SETS,
        &JOBS,
        &CRON_JOBS,
    ];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let namespace = Some(changed.namespace());
        let is_self = |quota: &Value| {
            changed.is(&RESOURCE_QUOTAS) && object::name(quota) == object::name(&changed.object)
        };
        self.hands.known.keys(&RESOURCE_QUOTAS, namespace, |quota| {
            let hard = amounts::amounts(&quota["spec"]["hard"]);
            is_self(quota) || is_counted(changed.resource, &hard)
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(quota) = self.hands.known.get(&RESOURCE_QUOTAS, at) else {
            return Ok(Outcome::Done);
        };
        let hard = amounts::amounts(&quota["spec"]["hard"]);
        let mut rows = self.hands.api.resources().stored();
        rows.retain(|row| row.is_namespaced() && !row.is(&EVENTS) && is_counted(row, &hard));
        let namespace = object::namespace(&quota);
        let everything = Selector::default();
        let mut counted = Vec::new();
        for row in &rows {
            let (items, _) = self.hands.api.list(row, namespace, &everything).await?;
            counted.push(items);
        }
        let pairs = rows.iter().zip(&counted);
        let objects = pairs.flat_map(|(row, items)| {
            let resource: &Resource = row;
            items.iter().map(move |item| (resource, item))
        });
        let status = status(&quota, objects);
        if !is_same(&quota["status"], &status) {
            self.hands
                .update_status(&RESOURCE_QUOTAS, &quota, status)
                .await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_tells_what_is_used_of_what_it_limits() {
        let quota = json!({"spec": {"hard": {"pods": "5", "requests.cpu": "2",
            "count/deployments.apps": "1", "secrets": "9"}}});
        let pod = |phase: &str| {
            json!({"status": {"phase": phase}, "spec": {"containers": [
                {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}})
        };
        let (running, over) = (pod("Running"), pod("Succeeded"));
        let deployment = json!({});
        let objects: [(&Resource, &Value); 4] = [
            (&PODS, &running),
            (&PODS, &running),
            (&PODS, &over),
            (&DEPLOYMENTS, &deployment),
        ];
        let status = status(&quota, objects.into_iter());
        let expected = json!({"hard": quota["spec"]["hard"], "used": {"pods": "2",
            "requests.cpu": "1", "count/deployments.apps": "1", "secrets": "0"}});
        assert!(is_same(&status, &expected), "{status}");
    }
}
