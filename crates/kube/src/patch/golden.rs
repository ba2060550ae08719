//! Patches as a real server of version 1.36 answered them.

use serde_json::{Value, json};

use super::Patch;
use crate::object;
use crate::resource::{CONFIG_MAPS, PODS};

/// The object behind a patch: the server adds defaults to what a patch brings in, so both sides
/// get them.
fn completed(mut object: Value) -> Value {
    if object["kind"] == "Pod" {
        crate::defaults::complete(&PODS, &mut object);
    }
    if object::items(&object, &["metadata", "finalizers"]).is_empty() {
        object::meta_mut(&mut object).remove("finalizers");
    }
    object
}

#[test]
fn patches_do_what_a_real_server_did() {
    let cases: Value =
        serde_json::from_str(include_str!("../../tests/data/patches.json")).expect("JSON");
    for case in cases.as_array().expect("a list") {
        let name = object::text(case, &["name"]);
        let patch = case["patch"].clone();
        let patch = match object::text(case, &["type"]) {
            "strategic-merge-patch+json" => Patch::Strategic(patch),
            "merge-patch+json" => Patch::Merge(patch),
            _ => Patch::json(patch).expect("well formed"),
        };
        let resource = if case["resource"] == "pods" {
            &PODS
        } else {
            &CONFIG_MAPS
        };
        let patched = patch.apply(resource, &case["before"]);
        if let Some(message) = case.get("message") {
            let told = match patched {
                Err(status) => json!(status.message),
                // The patch itself was fine; what it made was not.
                Ok(object) => {
                    let causes = crate::validation::on_create(resource, &object);
                    let object_name = object::name(&object);
                    json!(crate::status::Status::invalid(resource, object_name, causes).message)
                }
            };
            assert_eq!(&told, message, "{name}");
        } else {
            let patched = patched.unwrap_or_else(|status| panic!("{name}: {status}"));
            assert_eq!(
                completed(patched),
                completed(case["after"].clone()),
                "{name}"
            );
        }
    }
}
