//! Keeps the APIServices: those of our own groups are there, and all say whether they answer.
//!
//! A remote API is asked when its APIService changes, and every half minute besides, because it
//! may go and come without telling us. One that does not answer is asked sooner.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::super::{Server, usage};
use super::Remote;
use crate::api::{Api, DeleteOptions, Selector, set_condition};
use crate::controllers::informer;
use crate::object;
use crate::resource::{API_SERVICES, CLUSTER_ROLES};
use crate::status::Status;

const ASK_EVERY: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Upstream's mark of objects that the server makes itself.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const OK: u16 = 200;

/// What remote servers last said that they have, by the name of their APIService.
#[derive(Debug, Default)]
pub(in super::super) struct Aggregated(Mutex<HashMap<String, Arc<Value>>>);

impl Aggregated {
    pub(super) fn resources(&self, name: &str) -> Option<Arc<Value>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Value>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs as long as the server does.
pub(in super::super) async fn keep(server: Arc<Server>) {
    let api = server
        .api
        .as_controller("apiservice-registration-controller");
    let mut own = api.resources().changed();
    let mut services = informer::follow(&api, &API_SERVICES, Selector::default());
    if server.usage.is_some() {
        // In the server's own name: the controller may not give what it may not do itself.
        let made = server
            .api
            .create(&CLUSTER_ROLES, None, usage::reader_role());
        if let Err(error) = known(made.await) {
            warn!(%error, "the role of those who read metrics is not there");
        }
    }
    loop {
        if let Err(error) = register(&api, server.usage.is_some()).await {
            warn!(%error, "our own APIServices are not all there");
        }
        let all = api.admission().api_services.all(&api, None);
        let names: BTreeSet<_> = all.iter().map(|one| one.name.clone()).collect();
        server
            .aggregated
            .lock()
            .retain(|name, _| names.contains(name));
        let asked = all.iter().map(|one| judge(&server, &api, one));
        let all_answer = futures::future::join_all(asked)
            .await
            .into_iter()
            .all(|answers| answers);
        let pause = if all_answer { ASK_EVERY } else { ASK_AGAIN };
        tokio::select! {
            changed = own.changed() => if changed.is_err() { return },
            change = services.recv() => if change.is_none() { return },
            () = tokio::time::sleep(pause) => {}
        }
        // What happened meanwhile is looked at together.
        while services.try_recv().is_ok() {}
        own.mark_unchanged();
    }
}

/// Makes the objects of our own groups, and removes those of groups that are gone.
async fn register(api: &Api, has_usage: bool) -> Result<(), Status> {
    let snapshot = api.resources().snapshot();
    let custom = |group: &str, version: &str| {
        let mut rows = snapshot.rows().iter();
        rows.all(|row| (row.group, row.version) != (group, version) || row.custom.is_some())
    };
    let mut wanted = BTreeSet::new();
    let own = snapshot.group_versions();
    let usage = has_usage.then_some((usage::GROUP, usage::VERSION));
    for (group, version) in own.into_iter().chain(usage) {
        let name = format!("{version}.{group}");
        wanted.insert(name.clone());
        if api.read(&API_SERVICES, None, &name).is_ok() {
            continue;
        }
        let is_custom = group != usage::GROUP && custom(group, version);
        let (of_group, of_version) = if is_custom {
            (1000, 100)
        } else {
            priorities(group, version)
        };
        let mut spec = json!({"version": version, "groupPriorityMinimum": of_group,
            "versionPriority": of_version});
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        let mark = if is_custom { "true" } else { "onstart" };
        let service =
            json!({"metadata": {"name": name, "labels": {AUTOMANAGED: mark}}, "spec": spec});
        known(api.create(&API_SERVICES, None, service).await)?;
    }
    let (all, _) = api.list(&API_SERVICES, None, &Selector::default()).await?;
    for service in &all {
        let name = object::name(service);
        if object::label(service, AUTOMANAGED).is_some() && !wanted.contains(name) {
            let options = DeleteOptions::now().with_uid(object::uid(service));
            api.delete(&API_SERVICES, None, name, &options)
                .await
                .map(drop)?;
        }
    }
    Ok(())
}

/// Whether it was made now or was there.
fn known(created: Result<Value, Status>) -> Result<(), Status> {
    match created {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        Err(status) => Err(status),
    }
}

/// Upstream's priorities, measured on a genuine 1.36 control plane.
fn priorities(group: &str, version: &str) -> (i64, i64) {
    let of_group = match group {
        "" => 18000,
        "apps" => 17800,
        "events.k8s.io" => 17750,
        "authentication.k8s.io" => 17700,
        "authorization.k8s.io" => 17600,
        "autoscaling" => 17500,
        "batch" => 17400,
        "certificates.k8s.io" => 17300,
        "networking.k8s.io" => 17200,
        "policy" => 17100,
        "rbac.authorization.k8s.io" => 17000,
        "storage.k8s.io" => 16800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16700,
        "scheduling.k8s.io" => 16600,
        "coordination.k8s.io" => 16500,
        "node.k8s.io" => 16300,
        "discovery.k8s.io" => 16200,
        "flowcontrol.apiserver.k8s.io" => 16100,
        usage::GROUP => 100,
        _ => 16000,
    };
    let of_version = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", _) => 21,
        (usage::GROUP, _) => 100,
        _ => 15,
    };
    (of_group, of_version)
}

/// Writes whether the API answers; true if it does.
async fn judge(server: &Server, api: &Api, remote: &Remote) -> bool {
    let (status, reason, message) = match ask(server, remote).await {
        None => (
            "True",
            "Local",
            "Local APIServices are always available".to_owned(),
        ),
        Some(Ok(())) => ("True", "Passed", "all checks passed".to_owned()),
        Some(Err(why)) => ("False", "FailedDiscoveryCheck", why),
    };
    let Ok(mut service) = api.read(&API_SERVICES, None, &remote.name) else {
        return true;
    };
    let before = service.clone();
    let why = Some((reason, message.as_str()));
    set_condition(&mut service, "Available", status, why, Timestamp::now());
    // Conditions of APIServices have no probe time.
    let conditions = service["status"]["conditions"].as_array_mut();
    for condition in conditions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        condition.remove("lastProbeTime");
    }
    if service != before
        && let Err(error) = api.update_status(&API_SERVICES, None, service).await
    {
        debug!(%error, service = remote.name, "availability of an API was not written");
    }
    status == "True"
}

/// None if we answer ourselves; else whether the remote does, and why not.
async fn ask(server: &Server, remote: &Remote) -> Option<Result<(), String>> {
    let endpoint = match remote.endpoint.as_ref()? {
        Ok(endpoint) => endpoint,
        Err(why) => return Some(Err(why.clone())),
    };
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let url = format!("https://{}{path}", endpoint.address.authority());
    let failed = |why: &str| format!("failing or missing response from {url}: {why}");
    let request = Request::get(&path).header("accept", "application/json");
    let request = request.header("x-remote-user", "system:kube-aggregator");
    let request = request.header("x-remote-group", "system:masters");
    let answered = server
        .api
        .egress()
        .get(endpoint, request, ANSWER_TIMEOUT)
        .await;
    Some(match answered {
        Err(error) => Err(failed(&error.to_string())),
        Ok(answer) if answer.code != OK => {
            Err(failed(&format!("bad status from {url}: {}", answer.code)))
        }
        Ok(answer) => match serde_json::from_slice::<Value>(&answer.body) {
            Ok(list) => {
                let mut known = server.aggregated.lock();
                known.insert(remote.name.clone(), Arc::new(list));
                Ok(())
            }
            Err(error) => Err(failed(&error.to_string())),
        },
    })
}
