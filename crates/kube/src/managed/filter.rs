//! Which fields cannot be owned: what the server itself keeps, and what a part of an object cannot
//! write.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::fields::Fields;
use crate::resource::{Resource, StatusPart};

/// Nobody's, whoever writes them. They go without what is below them.
static SERVERS: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = Fields::default();
    for path in [
        &["apiVersion"][..],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ] {
        fields.add_path(path);
    }
    fields
});

/// What a part of a resource leaves to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// If not empty, only these members of the object can be owned.
    only: &'static [&'static str],
    /// Cannot be owned, with what is below.
    without: Fields,
}

impl Filter {
    /// For writes through `subresource`, or of the object where it is empty.
    pub(crate) fn of(resource: &Resource, subresource: &str) -> Self {
        let mut filter = Self::default();
        match subresource {
            "status" if resource.custom.is_some() => filter.only = &["f:status"],
            "status" => {
                filter.only = &["f:status", "f:metadata"];
                filter.without.add_path(&["metadata", "ownerReferences"]);
                filter.without.add_path(&["metadata", "deletionTimestamp"]);
            }
            "approval" => {
                filter.without.add_path(&["spec"]);
                filter.without.add_path(&["status", "certificate"]);
            }
            _ if resource.status == StatusPart::Subresource => {
                filter.without.add_path(&["status"]);
            }
            _ => {}
        }
        filter
    }

    /// For a new object. What upstream fills in after it has looked who wrote what has no owner,
    /// unless `body` brought it.
    pub(crate) fn of_create(resource: &Resource, body: &Value) -> Self {
        let mut filter = Self::of(resource, "");
        let filled_in: &[&[&str]] = match (resource.group, resource.plural) {
            ("", "namespaces") => &[&["spec"]],
            ("", "services") => &[
                &["spec", "clusterIP"],
                &["spec", "clusterIPs"],
                &["spec", "ipFamilies"],
                &["spec", "ipFamilyPolicy"],
            ],
            ("", "persistentvolumeclaims" | "persistentvolumes") => &[&["metadata", "finalizers"]],
            ("batch", "jobs") => &[
                &["metadata", "labels"],
                &["spec", "selector"],
                &["spec", "template", "metadata", "labels"],
                &[
                    "spec",
                    "template",
                    "metadata",
                    "labels",
                    "batch.kubernetes.io/controller-uid",
                ],
                &[
                    "spec",
                    "template",
                    "metadata",
                    "labels",
                    "batch.kubernetes.io/job-name",
                ],
                &["spec", "template", "metadata", "labels", "controller-uid"],
                &["spec", "template", "metadata", "labels", "job-name"],
            ],
            _ => &[],
        };
        for path in filled_in {
            if crate::object::at(body, path).is_none() {
                filter.without.add_path(path);
            }
        }
        filter
    }

    /// Takes out what cannot be owned.
    pub(super) fn apply(&self, fields: &mut Fields) {
        fields.remove(&SERVERS);
        if !self.only.is_empty() {
            fields
                .below
                .retain(|element, _| self.only.contains(&element.as_str()));
        }
        fields.remove_with_below(&self.without);
    }
}

/// An object of the resource in which nothing is set. Those of Go always have the structs that are
/// no pointers, so these are never added, and have no owner beside those of their fields.
pub(crate) fn blank(resource: &Resource) -> Value {
    let template = || json!({"metadata": {}, "spec": {"containers": null}});
    let mut blank = match (resource.group, resource.plural) {
        _ if resource.custom.is_some() => return json!({"metadata": {}}),
        ("", "events") => json!({
            "involvedObject": {}, "source": {}, "reportingComponent": "", "reportingInstance": "",
            "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
        }),
        ("events.k8s.io", "events") => json!({
            "regarding": {}, "deprecatedSource": {}, "deprecatedFirstTimestamp": null,
            "deprecatedLastTimestamp": null, "eventTime": null,
        }),
        ("", "pods") => json!({"spec": {"containers": null}, "status": {}}),
        ("", "nodes") => json!({"spec": {}, "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {},
        }}),
        ("", "services") => json!({"spec": {}, "status": {"loadBalancer": {}}}),
        ("", "persistentvolumeclaims") => json!({"spec": {"resources": {}}, "status": {}}),
        ("", "podtemplates") => json!({"template": template()}),
        ("apps", "controllerrevisions") => json!({"data": null}),
        ("apps", "deployments") => json!({
            "spec": {"selector": null, "template": template(), "strategy": {}}, "status": {},
        }),
        ("apps", "statefulsets" | "daemonsets") => json!({
            "spec": {"selector": null, "template": template(), "updateStrategy": {}}, "status": {},
        }),
        ("apps", "replicasets") => json!({
            "spec": {"selector": null, "template": template()}, "status": {},
        }),
        ("networking.k8s.io", "networkpolicies") => json!({"spec": {"podSelector": {}}}),
        ("batch", "jobs") => json!({"spec": {"template": template()}, "status": {}}),
        ("batch", "cronjobs") => json!({
            "spec": {"jobTemplate": {"metadata": {}, "spec": {"template": template()}}},
            "status": {},
        }),
        ("autoscaling", _) => json!({"spec": {"scaleTargetRef": {}}, "status": {}}),
        ("networking.k8s.io", "ingresses") => json!({
            "spec": {}, "status": {"loadBalancer": {}},
        }),
        ("apiextensions.k8s.io", "customresourcedefinitions") => json!({
            "spec": {"names": {}, "versions": null},
            "status": {"acceptedNames": {}, "conditions": null, "storedVersions": null},
        }),
        ("storage.k8s.io", "volumeattachments") => json!({"spec": {"source": {}}, "status": {}}),
        ("storage.k8s.io", "csinodes") => json!({"spec": {"drivers": null}}),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => json!({
            "spec": {"priorityLevelConfiguration": {}}, "status": {},
        }),
        // Elsewhere they are the specification and the status, where the type has them.
        _ => {
            let mut blank = json!({});
            let schema = crate::schema::type_named(resource.schema);
            for part in ["spec", "status"] {
                if schema.is_some_and(|schema| schema.get().field(part).is_some()) {
                    blank[part] = json!({});
                }
            }
            blank
        }
    };
    blank["metadata"] = json!({});
    blank
}
