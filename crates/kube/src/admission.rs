//! Admission: what may be in the cluster beyond the shape of one object. In upstream's order:
//! NamespaceLifecycle, ServiceAccount, Priority, DefaultTolerationSeconds, RuntimeClass.

use serde_json::{Value, json};

use crate::api::Api;
use crate::object;
use crate::resource::{NAMESPACES, PODS, RUNTIME_CLASSES, Resource};
use crate::status::Status;

/// Checks and completes a new object.
pub(crate) fn on_create(
    api: &Api,
    resource: &Resource,
    namespace: Option<&str>,
    object: &mut Value,
) -> Result<(), Status> {
    if let Some(namespace) = namespace.filter(|_| resource.is_namespaced()) {
        namespace_lifecycle(api, resource, namespace, object)?;
    }
    if resource.is(&PODS) {
        service_account(object);
        priority(object)?;
        default_tolerations(object);
        runtime_class(api, object)?;
    }
    Ok(())
}

/// Checks and completes a changed object.
pub(crate) fn on_update(resource: &Resource, old: &Value, new: &mut Value) -> Result<(), Status> {
    if resource.is(&PODS) && old["spec"] != new["spec"] {
        default_tolerations(new);
    }
    Ok(())
}

/// Nothing is created in a namespace that is not there or is going away. Upstream lets some
/// controllers' events through; so do we, for they tell why things go away.
fn namespace_lifecycle(
    api: &Api,
    resource: &Resource,
    namespace: &str,
    object: &Value,
) -> Result<(), Status> {
    let found = api.read(&NAMESPACES, None, namespace)?;
    if object::is_terminating(&found) && resource.plural != "events" {
        return Err(Status::terminating(
            resource,
            object::name(object),
            namespace,
        ));
    }
    Ok(())
}

/// Every pod runs as a service account. Its token is not mounted yet.
fn service_account(pod: &mut Value) {
    let spec = object::map_mut(pod, "spec");
    let name = spec
        .get("serviceAccountName")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
        .to_owned();
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.into());
}

/// Without priority classes of their own, pods have priority 0; the two classes of the system are
/// known.
fn priority(pod: &mut Value) -> Result<(), Status> {
    let name = object::name(pod).to_owned();
    let class = object::text(pod, &["spec", "priorityClassName"]).to_owned();
    let priority = match class.as_str() {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        _ => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(Status::forbidden(&PODS, &name, &why));
        }
    };
    let spec = object::map_mut(pod, "spec");
    if spec
        .get("priority")
        .and_then(Value::as_i64)
        .is_some_and(|given| given != priority)
    {
        let why = "the integer value of priority must not be provided in pod spec; priority \
                   admission controller computed";
        let given = &spec["priority"];
        let why = format!("{why} {priority} from the given PriorityClass name, but got {given}");
        return Err(Status::forbidden(&PODS, &name, &why));
    }
    spec.insert("priority".into(), priority.into());
    object::default(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

/// A pod endures a node that is not ready or not reachable for five minutes, unless it says
/// otherwise.
fn default_tolerations(pod: &mut Value) {
    const SECONDS: i64 = 300;
    let spec = object::map_mut(pod, "spec");
    let present = spec
        .get("tolerations")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut tolerations = present.clone();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let covers = |toleration: &Value| {
            let field = |name| object::text(toleration, &[name]);
            (field("key") == key || (field("key").is_empty() && field("operator") == "Exists"))
                && matches!(field("effect"), "NoExecute" | "")
        };
        if !present.iter().any(covers) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": SECONDS,
            }));
        }
    }
    spec.insert("tolerations".into(), tolerations.into());
}

/// The runtime class exists, and its overhead and scheduling rules become the pod's.
fn runtime_class(api: &Api, pod: &mut Value) -> Result<(), Status> {
    let class = object::text(pod, &["spec", "runtimeClassName"]).to_owned();
    if class.is_empty() {
        return Ok(());
    }
    let name = object::name(pod).to_owned();
    let Ok(class) = api.read(&RUNTIME_CLASSES, None, &class) else {
        let why = format!("pod rejected: RuntimeClass {class:?} not found");
        return Err(Status::forbidden(&PODS, &name, &why));
    };
    if let Some(overhead) = object::at(&class, &["overhead", "podFixed"]) {
        object::map_mut(pod, "spec").insert("overhead".into(), overhead.clone());
    }
    if let Some(Value::Object(selector)) = object::at(&class, &["scheduling", "nodeSelector"]) {
        let spec = object::map_mut(pod, "spec");
        let own = spec.entry("nodeSelector").or_insert(json!({}));
        for (key, value) in selector {
            if own.get(key).is_some_and(|present| present != value) {
                let why =
                    "conflict: scheduling.nodeSelector of the RuntimeClass contradicts the pod";
                return Err(Status::forbidden(&PODS, &name, why));
            }
            own[key] = value.clone();
        }
    }
    Ok(())
}
