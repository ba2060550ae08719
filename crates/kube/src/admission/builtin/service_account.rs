//! ServiceAccount: every pod runs as one, and finds its token, the cluster's certificate and its
//! namespace in a volume.

use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::admission::state::ServiceAccounts;
use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::PODS;
use crate::status::Status;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
/// An hour and seven seconds, so that upstream's own tokens are told apart from asked-for ones.
const TOKEN_SECONDS: i64 = 3607;
/// Pods of a node's own, which no API server makes.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if attributes.operation != Operation::Create || !attributes.is_object(&PODS) {
        return Ok(());
    }
    let annotations = &attributes.object["metadata"]["annotations"];
    if annotations.get(MIRROR).is_some() {
        return Ok(());
    }
    let name = match object::text(&attributes.object, &["spec", "serviceAccountName"]) {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let spec = object::map_mut(&mut attributes.object, "spec");
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.as_str().into());
    let api = attributes.api;
    let state = api.admission();
    if state.config.service_accounts == ServiceAccounts::Named {
        return Ok(());
    }
    let namespace = attributes.namespace.unwrap_or_default();
    let Some(account) = state.service_accounts.get(api, Some(namespace), &name) else {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        return Err(Status::forbidden(&PODS, &attributes.name, &why));
    };
    let asked = |object: &Value, field: &str| object::at(object, &[field]).and_then(Value::as_bool);
    let field = "automountServiceAccountToken";
    let mounts = asked(&attributes.object["spec"], field)
        .or_else(|| asked(&account, field))
        .unwrap_or(true);
    if mounts {
        mount(&mut attributes.object);
    }
    let secrets = object::items(&account, &["imagePullSecrets"]);
    let spec = object::map_mut(&mut attributes.object, "spec");
    if !secrets.is_empty() {
        let names = secrets.iter().map(|one| json!({"name": one["name"]}));
        object::default(spec, "imagePullSecrets", names.collect::<Vec<_>>());
    }
    Ok(())
}

/// Mounts the volume into every container that does not mount something else there.
fn mount(pod: &mut Value) {
    let volumes = object::items(pod, &["spec", "volumes"]).iter();
    let names: Vec<_> = volumes
        .map(|volume| object::text(volume, &["name"]).to_owned())
        .collect();
    let present = names.iter().find(|name| name.starts_with(VOLUME_PREFIX));
    let name = present.cloned().unwrap_or_else(|| free_name(&names));
    let mut is_mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = object::map_mut(pod, "spec").get_mut(list);
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let mounts = object::items(container, &["volumeMounts"]);
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mut mounts = mounts.to_vec();
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container["volumeMounts"] = mounts.into();
            is_mounted = true;
        }
    }
    if present.is_none() && is_mounted {
        let mut volumes = object::items(pod, &["spec", "volumes"]).to_vec();
        volumes.push(volume(&name));
        object::map_mut(pod, "spec").insert("volumes".into(), volumes.into());
    }
}

fn free_name(taken: &[String]) -> String {
    let mut random = rand::rng();
    loop {
        let mut name = VOLUME_PREFIX.to_owned();
        for _ in 0..SUFFIX_LEN {
            let byte = SUFFIX_ALPHABET.choose(&mut random);
            name.extend(byte.map(|byte| char::from(*byte)));
        }
        if !taken.contains(&name) {
            return name;
        }
    }
}

fn volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace",
        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_that_mounts_nothing_there_gets_the_volume() {
        let own = json!([{"name": "mine", "mountPath": MOUNT_PATH}]);
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "volumeMounts": own}]}});
        mount(&mut pod);
        let name = object::text(&pod["spec"]["volumes"][0], &["name"]).to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + SUFFIX_LEN);
        let containers = &pod["spec"]["containers"];
        assert_eq!(containers[0]["volumeMounts"][0]["name"], name.as_str());
        assert_eq!(containers[1]["volumeMounts"], own);
        let mut again = pod.clone();
        mount(&mut again);
        assert_eq!(again, pod);
    }
}
