//! Defaults of what claims devices.

use serde_json::{Map, Value, json};

use crate::object::{self, default, inner, map_mut, maps};

pub(super) fn claim(object: &mut Value) {
    requests(map_mut(object, "spec"));
}

pub(super) fn template(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "metadata", json!({}));
    default(spec, "spec", json!({}));
    if let Some(spec) = inner(spec, &["spec"]) {
        requests(spec);
    }
}

fn requests(spec: &mut Map<String, Value>) {
    default(spec, "devices", json!({}));
    let Some(devices) = inner(spec, &["devices"]) else {
        return;
    };
    for request in maps(devices.get_mut("requests")) {
        if let Some(exactly) = inner(request, &["exactly"]) {
            count(exactly);
        }
        for alternative in maps(request.get_mut("firstAvailable")) {
            count(alternative);
        }
    }
}

/// Who does not say how many devices wants one.
fn count(request: &mut Map<String, Value>) {
    default(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        default(request, "count", 1);
    }
}

/// A taint without a time stays so: defaults know no clock.
pub(super) fn slice(object: &mut Value) {
    let spec = map_mut(object, "spec");
    for device in maps(spec.get_mut("devices")) {
        let resources = device.get_mut("nodeAllocatableResourceMappings");
        let resources = resources.and_then(Value::as_object_mut);
        for (_, mapping) in resources.into_iter().flatten() {
            if object::at(mapping, &["allocationMultiplier"]).is_none() {
                mapping["allocationMultiplier"] = "1".into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_for_one_device_unless_it_says_how_many() {
        let mut object = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "c"}},
            {"name": "b", "exactly": {"deviceClassName": "c", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [{"name": "d", "deviceClassName": "c"}]}]}}});
        claim(&mut object);
        let requests = &object["spec"]["devices"]["requests"];
        assert_eq!(requests[0]["exactly"]["count"], 1);
        assert_eq!(requests[0]["exactly"]["allocationMode"], "ExactCount");
        assert!(requests[1]["exactly"].get("count").is_none());
        assert_eq!(requests[2]["firstAvailable"][0]["count"], 1);
        let mut object = json!({"spec": {}});
        template(&mut object);
        assert_eq!(
            object,
            json!({"spec": {"metadata": {}, "spec": {"devices": {}}}})
        );
    }
}
