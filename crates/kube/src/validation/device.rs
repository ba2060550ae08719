//! The rules of what claims devices.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::status::Cause;

pub(super) fn claim(object: &Value) -> Vec<Cause> {
    requests(&object["spec"], "spec")
}

pub(super) fn template(object: &Value) -> Vec<Cause> {
    requests(&object["spec"]["spec"], "spec.spec")
}

fn requests(spec: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = HashSet::new();
    let requests = object::items(spec, &["devices", "requests"]);
    for (index, request) in requests.iter().enumerate() {
        let at = format!("{at}.devices.requests[{index}]");
        let name = object::text(request, &["name"]);
        causes.extend(label(name, &format!("{at}.name")));
        if !name.is_empty() && !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &json!(name)));
        }
        let first = object::items(request, &["firstAvailable"]);
        let exactly = &request["exactly"];
        match (exactly.is_object(), first.is_empty()) {
            (true, false) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple \
                           fields are set";
                causes.push(Cause::invalid(&at, &Value::Null, why));
            }
            (false, true) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required";
                causes.push(Cause::required(&at, why));
            }
            (true, true) => causes.extend(wish(exactly, &format!("{at}.exactly"))),
            (false, false) => {}
        }
        for (index, one) in first.iter().enumerate() {
            let at = format!("{at}.firstAvailable[{index}]");
            causes.extend(label(object::text(one, &["name"]), &format!("{at}.name")));
            causes.extend(wish(one, &at));
        }
    }
    causes
}

fn label(name: &str, at: &str) -> Option<Cause> {
    if name.is_empty() {
        return Some(Cause::required(at, ""));
    }
    let why = names::label_fault(name)?;
    Some(Cause::invalid(at, &json!(name), why))
}

/// Of which class, and how many.
fn wish(wish: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let class = object::text(wish, &["deviceClassName"]);
    let field = format!("{at}.deviceClassName");
    if class.is_empty() {
        causes.push(Cause::required(field, ""));
    } else if let Some(why) = names::subdomain_fault(class) {
        causes.push(Cause::invalid(field, &json!(class), why));
    }
    let mode = object::text(wish, &["allocationMode"]);
    let count = wish["count"].as_i64().unwrap_or(0);
    let field = format!("{at}.count");
    match mode {
        "ExactCount" if count <= 0 => {
            let why = "must be greater than zero";
            causes.push(Cause::invalid(field, &json!(count), why));
        }
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            causes.push(Cause::invalid(field, &json!(count), why));
        }
        "ExactCount" | "All" => {}
        other => {
            let field = format!("{at}.allocationMode");
            let all = ["All", "ExactCount"];
            causes.push(Cause::not_supported(field, &json!(other), &all));
        }
    }
    causes
}

pub(super) fn slice(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    for (field, path) in [
        ("driver", &["driver"][..]),
        ("pool.name", &["pool", "name"]),
    ] {
        let text = object::text(spec, path);
        let field = format!("spec.{field}");
        if text.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if let Some(why) = names::subdomain_fault(text) {
            causes.push(Cause::invalid(field, &json!(text), why));
        }
    }
    if spec["pool"]["resourceSliceCount"].as_i64().unwrap_or(0) <= 0 {
        let why = "must be greater than zero";
        let field = "spec.pool.resourceSliceCount";
        causes.push(Cause::invalid(
            field,
            &spec["pool"]["resourceSliceCount"],
            why,
        ));
    }
    let places = [
        !object::text(spec, &["nodeName"]).is_empty(),
        spec["nodeSelector"].is_object(),
        spec["allNodes"] == true,
        spec["perDeviceNodeSelection"] == true,
    ];
    let count = places.iter().filter(|is_set| **is_set).count();
    if count != 1 {
        let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                   `perDeviceNodeSelection` is required";
        if count == 0 {
            causes.push(Cause::required("spec", why));
        } else {
            causes.push(Cause::invalid("spec", &Value::Null, why));
        }
    }
    let mut seen = HashSet::new();
    for (index, device) in object::items(spec, &["devices"]).iter().enumerate() {
        let at = format!("spec.devices[{index}].name");
        let name = object::text(device, &["name"]);
        causes.extend(label(name, &at));
        if !name.is_empty() && !seen.insert(name) {
            causes.push(Cause::duplicate(at, &json!(name)));
        }
    }
    causes
}

/// Whose devices a slice tells does not change.
pub(super) fn slice_change(old: &Value, new: &Value) -> Vec<Cause> {
    let fields = [
        ("driver", &["driver"][..]),
        ("pool.name", &["pool", "name"]),
        ("nodeName", &["nodeName"]),
    ];
    let changed = fields.iter().filter_map(|(field, path)| {
        let (old, new) = (
            object::at(&old["spec"], path),
            object::at(&new["spec"], path),
        );
        let new_value = new.unwrap_or(&Value::Null);
        (old != new)
            .then(|| Cause::invalid(format!("spec.{field}"), new_value, "field is immutable"))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Vec<Cause>) -> Vec<String> {
        let told = causes.into_iter();
        told.map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    fn request(more: Value) -> Vec<String> {
        let mut request = json!({"name": "a", "exactly": {"deviceClassName": "c",
            "allocationMode": "ExactCount", "count": 1}});
        for (field, value) in more.as_object().into_iter().flatten() {
            request[field] = value.clone();
        }
        told(claim(
            &json!({"spec": {"devices": {"requests": [request]}}}),
        ))
    }

    #[test]
    fn a_request_says_what_it_wants_once() {
        let at = "spec.devices.requests[0]";
        assert_eq!(request(json!({})), [""; 0]);
        assert_eq!(
            request(json!({"name": ""})),
            [format!("{at}.name: Required value")]
        );
        let both = request(
            json!({"firstAvailable": [{"name": "b", "deviceClassName": "c",
            "allocationMode": "All"}]}),
        );
        assert!(both[0].contains("but multiple fields are set"), "{both:?}");
        let none = request(json!({"exactly": null}));
        assert!(
            none[0].starts_with(&format!("{at}: Required value")),
            "{none:?}"
        );
        let all = json!({"exactly": {"allocationMode": "All", "count": 1}});
        assert_eq!(
            request(all),
            [
                format!("{at}.exactly.deviceClassName: Required value"),
                format!(
                    "{at}.exactly.count: Invalid value: 1: must not be specified when \
                     allocationMode is 'All'"
                ),
            ]
        );
        let odd = json!({"exactly": {"deviceClassName": "c", "allocationMode": "Some"}});
        assert!(request(odd)[0].contains("Unsupported value: \"Some\""));
    }

    #[test]
    fn a_slice_is_of_one_driver_pool_and_place() {
        let sample = || {
            json!({"spec": {"driver": "d.example.com", "nodeName": "n",
                "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "a"}]}})
        };
        let fault = |change: &dyn Fn(&mut Value)| {
            let mut object = sample();
            change(&mut object["spec"]);
            told(slice(&object))
        };
        assert_eq!(fault(&|_| {}), [""; 0]);
        assert_eq!(
            fault(&|spec| spec["driver"] = "".into()),
            ["spec.driver: Required value"]
        );
        let nowhere = fault(&|spec| spec["nodeName"] = Value::Null);
        assert!(
            nowhere[0].starts_with("spec: Required value: exactly one of"),
            "{nowhere:?}"
        );
        let two = fault(&|spec| spec["devices"] = json!([{"name": "a"}, {"name": "a"}]));
        assert_eq!(two, ["spec.devices[1].name: Duplicate value: \"a\""]);
        let (old, mut new) = (sample(), sample());
        new["spec"]["pool"]["name"] = "q".into();
        let told = told(slice_change(&old, &new));
        assert_eq!(
            told,
            ["spec.pool.name: Invalid value: \"q\": field is immutable"]
        );
    }
}
