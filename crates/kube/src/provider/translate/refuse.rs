//! What machines cannot do (yet), by the names of a pod's fields.

use serde_json::{Map, Value};

use super::super::pod::{Container, Pod, SecurityContext};
use super::{Untranslatable, unsupported};

/// Whether a member says nothing: what clients write for "not set".
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Refuses every member that says something and is not in `accepted`.
pub(super) fn others(
    at: &str,
    other: &Map<String, Value>,
    accepted: &[&str],
) -> Result<(), Untranslatable> {
    let refused = other
        .iter()
        .find(|(key, value)| !is_empty(value) && !accepted.contains(&key.as_str()));
    match refused {
        Some((key, _)) => Err(unsupported(&format!("{at}.{key}"), why_not(key))),
        None => Ok(()),
    }
}

/// What to tell about a field that is refused.
fn why_not(field: &str) -> &'static str {
    match field {
        "livenessProbe" | "readinessProbe" | "startupProbe" => "probes are not built yet",
        "lifecycle" => "lifecycle hooks are not built yet",
        "ephemeralContainers" => "ephemeral containers are not built yet",
        "hostNetwork" | "hostPID" | "hostIPC" => "a pod is a machine of its own, without a host",
        "shareProcessNamespace" => "containers of a machine do not share processes yet",
        "activeDeadlineSeconds" => "deadlines of pods are not built yet",
        "imagePullSecrets" => "credentials for registries are not built yet",
        "hostAliases" => "entries in /etc/hosts are not built yet",
        "volumeDevices" | "persistentVolumeClaim" | "ephemeral" => "volumes are not built yet",
        "emptyDir" | "image" => "this kind of volume is not built yet",
        "clusterTrustBundle" | "podCertificate" => "this kind of source is not built yet",
        "hostPath" => "a machine has no host to take files from",
        "privileged" => "machines do not give containers the guest's devices yet",
        "capabilities"
        | "seccompProfile"
        | "readOnlyRootFilesystem"
        | "procMount"
        | "allowPrivilegeEscalation"
        | "appArmorProfile"
        | "seLinuxOptions" => {
            "containers of a machine run without this restriction, and leaving it out silently \
             would be worse"
        }
        _ => "machines cannot do this yet",
    }
}

/// Refuses what no machine can be for a whole pod.
pub(super) fn spec(pod: &Pod) -> Result<(), Untranslatable> {
    let spec = &pod.spec;
    // Carried out by the scheduler, by admission or by `status`, or true of every machine.
    let accepted = [
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostUsers",
        "nodeSelector",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "schedulerName",
        "schedulingGates",
        "serviceAccount",
        "subdomain",
        "tolerations",
        "topologySpreadConstraints",
    ];
    let mut other = spec.other.clone();
    if let Some(os) = other.remove("os")
        && os.get("name").and_then(Value::as_str) != Some("linux")
    {
        return Err(unsupported("spec.os", "machines run Linux"));
    }
    others("spec", &other, &accepted)?;
    security("spec.securityContext", &spec.security_context)?;
    for volume in &spec.volumes {
        let at = format!("spec.volumes[{}]", volume.name);
        others(&at, &volume.other, &[])?;
        let is_known = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        if !is_known && volume.other.len() == 1 {
            // An empty source, such as `emptyDir: {}`.
            let source = volume.other.keys().next().map_or("", String::as_str);
            return Err(unsupported(&format!("{at}.{source}"), why_not(source)));
        }
        for (index, source) in volume.projected.iter().flat_map(|p| &p.sources).enumerate() {
            others(
                &format!("{at}.projected.sources[{index}]"),
                &source.other,
                &[],
            )?;
        }
    }
    Ok(())
}

/// Refuses what no container of a machine can be.
pub(super) fn container(container: &Container, at: &str) -> Result<(), Untranslatable> {
    let accepted = [
        "imagePullPolicy",
        "ports",
        "resizePolicy",
        // Nothing collects the message yet; the defaults stand in every pod.
        "terminationMessagePath",
        "terminationMessagePolicy",
    ];
    others(at, &container.other, &accepted)?;
    let ports = container.other.get("ports").and_then(Value::as_array);
    for port in ports.into_iter().flatten() {
        if port.get("hostPort").is_some_and(|p| p.as_u64() != Some(0)) {
            let why = "a pod is a machine of its own, without a host";
            return Err(unsupported(&format!("{at}.ports[].hostPort"), why));
        }
    }
    if !container.resources.claims.is_empty() {
        let why = "devices are not built yet";
        return Err(unsupported(&format!("{at}.resources.claims"), why));
    }
    security(
        &format!("{at}.securityContext"),
        &container.security_context,
    )
}

fn security(at: &str, context: &SecurityContext) -> Result<(), Untranslatable> {
    let mut other = context.other.clone();
    if let Some(Value::Bool(false)) = other.remove("allowPrivilegeEscalation") {
        let field = format!("{at}.allowPrivilegeEscalation");
        return Err(unsupported(&field, why_not("allowPrivilegeEscalation")));
    }
    let unconfined = |profile: &Value| profile["type"] == "Unconfined";
    if other.get("seccompProfile").is_some_and(unconfined) {
        other.remove("seccompProfile");
    }
    // Only volumes that are mounted from outside have owners to change.
    others(at, &other, &["fsGroup", "fsGroupChangePolicy"])
}
