//! DefaultTolerationSeconds: a pod endures a node that is not ready or not reachable for five
//! minutes, unless it says otherwise.

use serde_json::{Value, json};

use crate::object;

const SECONDS: i64 = 300;

pub(super) fn complete(pod: &mut Value) {
    let spec = object::map_mut(pod, "spec");
    let present = spec.get("tolerations").and_then(Value::as_array);
    let present = present.cloned().unwrap_or_default();
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
