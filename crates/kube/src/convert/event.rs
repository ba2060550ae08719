//! Events: the same facts under other names.

use serde_json::{Value, json};

use crate::object::default;

/// `v1`, `events.k8s.io/v1`
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

const REPORTING: [&str; 2] = ["reportingComponent", "reportingInstance"];

pub(super) fn to_core(event: &mut Value) {
    if let Some(map) = event.as_object_mut() {
        super::rename(map, NAMES.into_iter().map(|(core, new)| (new, core)));
        // The core group tells these even when they are empty.
        default(map, "source", json!({}));
        for field in REPORTING {
            default(map, field, "");
        }
    }
}

pub(super) fn from_core(event: &mut Value) {
    if let Some(map) = event.as_object_mut() {
        for field in REPORTING {
            if map.get(field).is_some_and(|value| value == "") {
                map.remove(field);
            }
        }
        super::rename(map, NAMES.into_iter());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{from_stored, to_stored};
    use crate::resource::EVENTS_V1;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_groups() {
        let core = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "a"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r",
            "reportingComponent": "c", "reportingInstance": "", "source": {"component": "c"}, "count": 2,
            "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:00:01Z"});
        let mut event = core.clone();
        from_stored(&EVENTS_V1, &mut event);
        let expected = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1",
            "metadata": {"name": "a"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "m",
            "reason": "r", "reportingController": "c", "deprecatedSource": {"component": "c"},
            "deprecatedCount": 2, "deprecatedFirstTimestamp": "1970-01-01T00:00:00Z",
            "deprecatedLastTimestamp": "1970-01-01T00:00:01Z"});
        assert_eq!(event, expected);
        to_stored(&EVENTS_V1, &mut event);
        assert_eq!(event, core);
    }
}
