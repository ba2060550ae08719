//! Built-in plugins, in upstream's order: NamespaceLifecycle, ServiceAccount, Priority,
//! DefaultTolerationSeconds, RuntimeClass.

use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::api::Api;
use crate::object;
use crate::resource::{NAMESPACES, PODS, RUNTIME_CLASSES, Resource};
use crate::status::Status;

/// The built-in plugins that change objects.
pub(super) fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let (api, resource) = (attributes.api, attributes.resource);
    if attributes.operation == Operation::Delete {
        return immortal(resource, &attributes.name);
    }
    if attributes.operation == Operation::Create
        && let Some(namespace) = attributes.namespace.filter(|_| resource.is_namespaced())
    {
        namespace_lifecycle(api, resource, namespace, &attributes.object)?;
    }
    if attributes.is_object(&PODS) && attributes.operation == Operation::Create {
        service_account(&mut attributes.object);
        priority(&mut attributes.object)?;
        runtime_class(api, &mut attributes.object)?;
    }
    if attributes.subresource.is_none() {
        complete(resource, attributes.old, &mut attributes.object);
    }
    Ok(())
}

/// The built-in plugins that only refuse.
pub(super) fn validate(_attributes: &Attributes<'_>) -> Result<(), Status> {
    Ok(())
}

/// The part of admission that looks at nothing but the object.
pub(crate) fn complete(resource: &Resource, old: Option<&Value>, object: &mut Value) {
    if resource.is(&PODS)
        && object.is_object()
        && old.is_none_or(|old| old["spec"] != object["spec"])
    {
        default_tolerations(object);
    }
}

/// The namespaces that a cluster cannot be without.
fn immortal(resource: &Resource, name: &str) -> Result<(), Status> {
    if resource.is(&NAMESPACES) && matches!(name, "default" | "kube-system" | "kube-public") {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(resource, name, why));
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
