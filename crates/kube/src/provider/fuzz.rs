//! What a fuzzer calls of the provider: pods that the API has let in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::budget::POD_BYTES_MAX;
use super::pod::Pod;
use super::translate::{Sources, references, translate};

/// Makes a machine of a pod, and checks that it has become no larger than it may.
pub(crate) fn pod(pod: &Value) {
    let Ok(pod) = Pod::read(pod) else { return };
    references(&pod);
    let config_map = json!({"data": {"k": "1"}, "binaryData": {"raw": "AAE="}});
    let sources = Sources {
        config_maps: BTreeMap::from([("m".into(), config_map)]),
        secrets: BTreeMap::from([("s".into(), json!({"data": {"k": "aHVudGVyMg=="}}))]),
        runtime_handler: None,
        host_ip: "fdaa::1".into(),
        ..Sources::default()
    };
    if let Ok(machine) = translate(&pod, &sources) {
        let values = machine.containers.iter().flat_map(|c| c.env.values());
        assert!(values.map(String::len).sum::<usize>() <= POD_BYTES_MAX);
    }
}
