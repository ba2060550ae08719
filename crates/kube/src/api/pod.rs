//! Writes that only pods have: binding, and conditions of their status.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::stored::{decode, encode};
use super::{Api, DryRun, Part, WriteOptions};
use crate::admission::{self, Attributes, Operation};
use crate::object;
use crate::resource::PODS;
use crate::status::Status;
use crate::time;

impl Api {
    /// Assigns a pod to a node, once: what `POST pods/<name>/binding` does.
    pub async fn bind(&self, namespace: &str, name: &str, node: &str) -> Result<Value, Status> {
        // The specification of a pod does not change in an update; binding writes it by the side.
        let labels = self.admit_binding(namespace, name, node).await?;
        let key = PODS.key(Some(namespace), name);
        loop {
            let entry = self
                .store
                .get(&key)
                .ok_or_else(|| Status::not_found(&PODS, name))?;
            let mut pod = decode(&PODS, &entry)?;
            let bound = object::text(&pod, &["spec", "nodeName"]);
            if !bound.is_empty() {
                let why = format!("pod {name} is already assigned to node {bound:?}");
                return Err(Status::conflict(&PODS, name, &why));
            }
            if object::is_terminating(&pod) {
                let why = format!("pod {name} is being deleted, cannot be assigned to a host");
                return Err(Status::conflict(&PODS, name, &why));
            }
            object::map_mut(&mut pod, "spec").insert("nodeName".into(), node.into());
            if let Value::Object(labels) = &labels {
                let own = object::meta_mut(&mut pod)
                    .entry("labels")
                    .or_insert(json!({}));
                for (key, value) in labels {
                    own[key] = value.clone();
                }
            }
            set_condition(&mut pod, "PodScheduled", "True", None, Timestamp::now());
            match self
                .store
                .update(&key, entry.rev, encode(&PODS, &pod).await?, None)
                .await
            {
                Ok(rev) => {
                    object::set_resource_version(&mut pod, rev);
                    return Ok(pod);
                }
                // Bounded by the other writers: one of two always wins.
                Err(store::WriteError::Conflict { .. }) => {}
                Err(error) => return Err(super::refused(&PODS, name, error)),
            }
        }
    }

    /// What admission says to a binding, and the labels that it gives the pod.
    async fn admit_binding(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> Result<Value, Status> {
        let binding = json!({"kind": "Binding", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace},
            "target": {"kind": "Node", "name": node}});
        let mut attributes = Attributes {
            api: self,
            resource: &PODS,
            subresource: Some("binding"),
            namespace: Some(namespace),
            name: name.to_owned(),
            operation: Operation::Create,
            old: None,
            object: binding,
            dry_run: DryRun::No,
        };
        admission::mutate(&mut attributes).await?;
        admission::validate(&attributes).await?.keep();
        Ok(attributes.object["metadata"]["labels"].take())
    }

    /// Sets a condition of a pod's status, for the scheduler and the provider. Nothing is written
    /// if the condition is so already.
    pub async fn set_pod_condition(
        &self,
        namespace: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason_and_message: Option<(&str, &str)>,
    ) -> Result<Value, Status> {
        let now = Timestamp::now();
        let options = WriteOptions::default();
        self.modify(&PODS, Part::Status, Some(namespace), name, options, |pod| {
            let mut pod = pod.clone();
            set_condition(&mut pod, condition, status, reason_and_message, now);
            Ok(pod)
        })
        .await
    }
}

/// Puts a condition into `status.conditions`; its transition time moves only with its status.
pub fn set_condition(
    pod: &mut Value,
    kind: &str,
    status: &str,
    reason_and_message: Option<(&str, &str)>,
    now: Timestamp,
) {
    let conditions = object::map_mut(pod, "status")
        .entry("conditions")
        .or_insert(json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut condition = json!({
        "type": kind, "status": status,
        "lastProbeTime": null, "lastTransitionTime": time::seconds(now),
    });
    if let Some((reason, message)) = reason_and_message {
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    match conditions.iter_mut().find(|one| one["type"] == kind) {
        Some(present) => {
            if present["status"] == status {
                condition["lastTransitionTime"] = present["lastTransitionTime"].clone();
            }
            *present = condition;
        }
        None => conditions.push(condition),
    }
}
