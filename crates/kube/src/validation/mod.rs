//! Validation: the rules of each kind, told in upstream's words because people search for them.

mod access;
mod batch;
mod certificate;
mod cluster;
mod device;
mod event;
pub(crate) mod names;
mod pod;
mod policy;
#[cfg(test)]
mod rules;
mod service;
mod short;
mod slice;
mod storage;
mod workload;

use serde_json::{Value, json};

use crate::api::Part;
use crate::custom;
use crate::object;
use crate::resource::{
    CERTIFICATE_SIGNING_REQUESTS, CUSTOM_RESOURCE_DEFINITIONS, NameRule, PODS, Resource, SERVICES,
};
use crate::status::Cause;

/// Bytes that all values of a ConfigMap or Secret may have together.
const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that all annotations may have together.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

pub(crate) fn on_create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    // What is made from the beginning of a name is told about, too.
    if let Some(begin) = object::meta(object, "generateName")
        && let Some(why) = name_fault(resource.names, &beginning(begin))
    {
        causes.push(Cause::invalid("metadata.generateName", &json!(begin), why));
    }
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = name_fault(resource.names, name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    causes.extend(metadata(object));
    causes.extend(kind_rules(resource, object));
    causes.extend(custom_rules(resource, object, None));
    if resource.group == "autoscaling" {
        causes.extend(cluster::scaled_group(object));
    }
    if resource.is(&SERVICES) {
        causes.extend(service::chosen_address(object));
    }
    causes
}

pub(crate) fn on_update(resource: &Resource, part: Part, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = metadata(new);
    causes.extend(later_finalizers(old, new));
    causes.extend(custom_rules(resource, new, Some(old)));
    if part == Part::EphemeralContainers {
        causes.extend(pod::ephemeral_containers(old, new));
    }
    if part == Part::Resize {
        causes.extend(pod::resize(old, new));
    }
    if resource.is(&CERTIFICATE_SIGNING_REQUESTS) {
        causes.extend(certificate::status_change(part, old, new));
    }
    if !matches!(part, Part::Object | Part::Scale) {
        return causes;
    }
    causes.extend(kind_rules(resource, new));
    causes.extend(immutability(resource, old, new));
    causes
}

/// What is being deleted gets no new reason to stay.
fn later_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    let had = object::items(old, &["metadata", "finalizers"]);
    let has = object::items(new, &["metadata", "finalizers"]).iter();
    let added = has.filter(|one| !had.contains(one));
    let added: Vec<_> = added.map(Value::to_string).collect();
    if !object::is_terminating(old) || added.is_empty() {
        return None;
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.join(", ")
    );
    Some(Cause::forbidden("metadata.finalizers", &why))
}

/// The rules of definitions, and those that definitions state.
fn custom_rules(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match &resource.custom {
        Some(kind) => kind.validate(object, old),
        None if resource.is(&CUSTOM_RESOURCE_DEFINITIONS) => {
            custom::definition::validate(object, old)
        }
        None => Vec::new(),
    }
}

/// A beginning as if the name ended where it does.
fn beginning(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(short) if short.len() > 1 => format!("{short}a"),
        _ => text.to_owned(),
    }
}

fn name_fault(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Label => names::label_fault(name),
        NameRule::Subdomain => names::subdomain_fault(name),
        NameRule::PathSegment => names::path_segment_fault(name),
        NameRule::IpAddress => names::ip_address_fault(name),
    }
}

fn metadata(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let map = |field| object["metadata"][field].as_object().into_iter().flatten();
    for (key, value) in map("labels") {
        if let Some(why) = names::qualified_fault(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), &why));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(why) = names::label_value_fault(value) {
            causes.push(Cause::invalid("metadata.labels", &json!(value), &why));
        }
    }
    let mut annotation_bytes = 0;
    for (key, value) in map("annotations") {
        if let Some(why) = names::qualified_fault(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), &why));
        }
        annotation_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if annotation_bytes > ANNOTATION_BYTES_MAX {
        causes.push(Cause::too_long(
            "metadata.annotations",
            ANNOTATION_BYTES_MAX,
        ));
    }
    causes.extend(owners(object));
    causes.extend(finalizers(object));
    causes
}

fn owners(object: &Value) -> Vec<Cause> {
    let at = "metadata.ownerReferences";
    let mut causes = Vec::new();
    let mut controller: Option<&Value> = None;
    let all = object::items(object, &["metadata", "ownerReferences"]);
    for owner in all {
        let text = |field: &str| object::text(owner, &[field]);
        if text("apiVersion").is_empty() {
            let why = "version must not be empty";
            causes.push(Cause::invalid(format!("{at}.apiVersion"), &json!(""), why));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                let at = format!("{at}.{field}");
                causes.push(Cause::invalid(at, &json!(""), "must not be empty"));
            }
        }
        if owner["controller"] == true {
            if let Some(first) = controller {
                let name = |one| {
                    let (kind, name) = (object::text(one, &["kind"]), object::text(one, &["name"]));
                    format!("{kind}/{name}")
                };
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {} and {}",
                    name(first),
                    name(owner)
                );
                causes.push(Cause::invalid(at, &json!(all), &why));
            }
            controller = Some(owner);
        }
    }
    causes
}

/// The names of finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

fn finalizers(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let all = object::items(object, &["metadata", "finalizers"]);
    for (index, finalizer) in all.iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if let Some(why) = names::qualified_fault(text) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, &why));
        } else if !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
            let at = format!("metadata.finalizers[{index}]");
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(at, finalizer, why));
        }
    }
    if ["orphan", "foregroundDeletion"]
        .iter()
        .all(|both| all.iter().any(|one| one == both))
    {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid("metadata.finalizers", &json!(all), why));
    }
    causes
}

fn kind_rules(resource: &Resource, object: &Value) -> Vec<Cause> {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::spec(object),
        ("", "configmaps") => data(object, &["data", "binaryData"], &[]),
        ("", "secrets") => {
            let required = match object::text(object, &["type"]) {
                "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"][..],
                "kubernetes.io/dockercfg" => &[".dockercfg"],
                "kubernetes.io/tls" => &["tls.crt", "tls.key"],
                "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
                _ => &[],
            };
            data(object, &["data"], required)
        }
        ("", "services") => service::service(object),
        ("discovery.k8s.io", "endpointslices") => slice::endpoint_slice(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("node.k8s.io", "runtimeclasses") => short::runtime_class(object),
        ("networking.k8s.io", "ingressclasses") => short::ingress_class(object),
        ("networking.k8s.io", "ipaddresses") => short::ip_address(object),
        ("networking.k8s.io", "servicecidrs") => short::service_cidr(object),
        ("storage.k8s.io", "csistoragecapacities") => short::capacity(object),
        ("storage.k8s.io", "volumeattachments") => short::attachment(object),
        ("storage.k8s.io", "volumeattributesclasses") => short::attributes_class(object),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => short::flow_schema(object),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => {
            short::priority_level(object)
        }
        ("apps", "controllerrevisions") => short::revision(object),
        ("", "podtemplates") => workload::pod_template(object),
        ("events.k8s.io", "events") => event::of_events(object),
        ("coordination.k8s.io", "leases") => lease(object),
        ("", "events") => event::of_core(object),
        ("", "persistentvolumeclaims") => storage::claim(object),
        ("", "persistentvolumes") => storage::volume(object),
        ("", "replicationcontrollers") => workload::replication_controller(object),
        ("", "resourcequotas") => cluster::quota(object),
        ("apps", "daemonsets") => workload::daemon_set(object),
        ("apps", "statefulsets") => workload::stateful_set(object),
        ("batch", "cronjobs") => batch::cron_job(object),
        ("batch", "jobs") => batch::job(object),
        ("autoscaling", "horizontalpodautoscalers") => cluster::autoscaler(object),
        ("networking.k8s.io", "ingresses") => cluster::ingress(object),
        ("networking.k8s.io", "networkpolicies") => cluster::network_policy(object),
        ("policy", "poddisruptionbudgets") => cluster::budget(object),
        ("rbac.authorization.k8s.io", plural) => match plural {
            "roles" => access::role(access::Of::Namespace, object),
            "clusterroles" => access::role(access::Of::Cluster, object),
            "rolebindings" => access::binding(access::Of::Namespace, object),
            _ => access::binding(access::Of::Cluster, object),
        },
        ("scheduling.k8s.io", "priorityclasses") => cluster::priority_class(object),
        ("resource.k8s.io", "resourceclaims") => device::claim(object),
        ("resource.k8s.io", "resourceclaimtemplates") => device::template(object),
        ("resource.k8s.io", "resourceslices") => device::slice(object),
        ("storage.k8s.io", "storageclasses") => storage::class(object),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => {
            let mut causes = cluster::webhooks(object);
            causes.extend(policy::webhooks(object));
            causes
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            policy::validating_policy(object)
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            policy::mutating_policy(object)
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            policy::binding(object, true)
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            policy::binding(object, false)
        }
        ("apiregistration.k8s.io", "apiservices") => cluster::api_service(object),
        ("certificates.k8s.io", "certificatesigningrequests") => certificate::request(object),
        _ => Vec::new(),
    }
}

fn data(object: &Value, fields: &[&str], required: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bytes = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            if let Some(why) = names::config_key_fault(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), &why));
            }
            bytes += value.as_str().map_or(0, str::len);
        }
    }
    for key in required {
        if object["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    if bytes > DATA_BYTES_MAX {
        causes.push(Cause::too_long("", DATA_BYTES_MAX));
    }
    causes
}

fn lease(object: &Value) -> Vec<Cause> {
    match object::at(object, &["spec", "leaseDurationSeconds"]) {
        Some(seconds) if seconds.as_i64().unwrap_or(0) <= 0 => {
            vec![Cause::invalid(
                "spec.leaseDurationSeconds",
                seconds,
                "must be greater than 0",
            )]
        }
        _ => Vec::new(),
    }
}

fn immutability(resource: &Resource, old: &Value, new: &Value) -> Vec<Cause> {
    if resource.is(&PODS) {
        return pod::immutability(old, new);
    }
    let mut causes = Vec::new();
    match (resource.group, resource.plural) {
        ("", "secrets" | "configmaps") if old["immutable"] == true => {
            for field in ["data", "binaryData"] {
                if old.get(field) != new.get(field) {
                    let why = "field is immutable when `immutable` is set";
                    causes.push(Cause::forbidden(field, why));
                }
            }
            if new["immutable"] != true {
                let why = "field is immutable when `immutable` is set";
                causes.push(Cause::forbidden("immutable", why));
            }
        }
        ("", "secrets") => causes.extend(unchanged(old, new, "type")),
        ("", "persistentvolumeclaims") => causes.extend(storage::claim_change(old, new)),
        ("", "persistentvolumes") => causes.extend(storage::volume_change(old, new)),
        ("apps", "statefulsets") => causes.extend(workload::stateful_set_change(old, new)),
        ("apps", "controllerrevisions") => causes.extend(unchanged(old, new, "data")),
        ("batch", "jobs") => causes.extend(batch::job_change(old, new)),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            causes.extend(access::binding_change(old, new));
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            causes.extend(cluster::priority_change(old, new));
        }
        ("resource.k8s.io", "resourceclaims" | "resourceclaimtemplates") => {
            causes.extend(unchanged(old, new, "spec"));
        }
        ("resource.k8s.io", "resourceslices") => causes.extend(device::slice_change(old, new)),
        ("storage.k8s.io", "storageclasses") => causes.extend(storage::class_change(old, new)),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            causes.extend(unchanged(old, new, "spec"));
        }
        ("apps", "daemonsets" | "deployments" | "replicasets") => {
            let (old, new) = (&old["spec"]["selector"], &new["spec"]["selector"]);
            if old != new {
                causes.push(Cause::invalid("spec.selector", new, "field is immutable"));
            }
        }
        ("", "services") => causes.extend(service::address_change(old, new)),
        ("discovery.k8s.io", "endpointslices") => {
            causes.extend(unchanged(old, new, "addressType"));
        }
        ("node.k8s.io", "runtimeclasses") => causes.extend(unchanged(old, new, "handler")),
        _ => {}
    }
    causes
}

/// Fields of a part that may not change.
fn unchanged_below(old: &Value, new: &Value, part: &str, fields: &[&str]) -> Vec<Cause> {
    let changed = fields
        .iter()
        .filter(|field| old[part].get(**field) != new[part].get(**field));
    changed
        .map(|field| {
            let at = format!("{part}.{field}");
            Cause::invalid(at, &new[part][*field], "field is immutable")
        })
        .collect()
}

/// Numbers that may not be negative.
fn not_negative(spec: &Value, at: &str, fields: &[&str]) -> Vec<Cause> {
    let number = |field: &&&str| spec[**field].as_i64() < Some(0) && !spec[**field].is_null();
    let wrong = fields.iter().filter(number);
    wrong
        .map(|field| {
            let why = "must be greater than or equal to 0";
            Cause::invalid(format!("{at}.{field}"), &spec[*field], why)
        })
        .collect()
}

fn unchanged(old: &Value, new: &Value, field: &str) -> Option<Cause> {
    (old.get(field) != new.get(field))
        .then(|| Cause::invalid(field, &new[field], "field is immutable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CONFIG_MAPS, SECRETS};

    #[test]
    fn a_bad_name_is_told_in_upstreams_words() {
        let object = json!({"metadata": {"name": "Bad_Name"}});
        let causes = on_create(&CONFIG_MAPS, &object);
        let message = &causes[0].message;
        assert!(message.starts_with("Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain"));
        assert!(message.ends_with("*')"), "{message}");
        assert_eq!(causes[0].reason, "FieldValueInvalid");
        let causes = on_create(&CONFIG_MAPS, &json!({"metadata": {}}));
        assert_eq!(
            causes[0].message,
            "Required value: name or generateName is required"
        );
    }

    #[test]
    fn an_immutable_config_map_stays_as_it_is() {
        let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "1"}});
        let new = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "2"}});
        let causes = on_update(&CONFIG_MAPS, Part::Object, &old, &new);
        assert_eq!(causes[0].field, "data");
    }

    #[test]
    fn typed_secrets_have_their_keys() {
        let secret = json!({"metadata": {"name": "a"}, "type": "kubernetes.io/tls", "data": {}});
        let causes = on_create(&SECRETS, &secret);
        let fields: Vec<_> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["data[tls.crt]", "data[tls.key]"]);
    }
}
