//! The index of the watches, told in any order.

use serde_json::json;

use super::*;
use crate::resource::PODS;

fn pod(name: &str, uid: &str, rev: u64, owner: Option<&str>, app: &str) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": uid,
        "resourceVersion": rev.to_string(), "labels": {"app": app}}});
    if let Some(owner) = owner {
        pod["metadata"]["ownerReferences"] =
            json!([{"kind": "Job", "name": "j", "uid": owner, "controller": true}]);
    }
    pod
}

#[test]
fn an_index_knows_whose_an_object_is_and_a_late_watch_changes_nothing() {
    let mut index = Index::default();
    let put = |index: &mut Index, pod: &Value| index.put(&key(pod), Brief::of(pod));
    put(&mut index, &pod("a", "1", 5, Some("o"), "x"));
    assert_eq!(index.owned("o"), [("n/a".to_owned(), 5)]);
    // The watch tells of an earlier state.
    put(&mut index, &pod("a", "1", 4, None, "y"));
    assert_eq!(index.owned("o"), [("n/a".to_owned(), 5)]);
    let before = put(&mut index, &pod("a", "1", 6, None, "y"));
    assert_eq!(before, Some(json!({"app": "x"})));
    assert!(index.owned("o").is_empty());
    // The end of a former life is not the end of this one.
    assert!(index.remove_life("n/a", "0").is_none());
    assert!(index.remove_life("n/a", "1").is_some());
    assert!(index.within(None, |_| true).is_empty());
}

/// Two controllers: one finds that a pod is gone, and before it says so the other has made the next
/// one of that name. Nobody would tell of that again.
#[test]
fn who_finds_an_object_gone_does_not_forget_the_next_of_its_name() {
    let mut index = Index::default();
    let put = |index: &mut Index, pod: &Value| index.put(&key(pod), Brief::of(pod));
    put(&mut index, &pod("db-0", "1", 5, Some("o"), "x"));
    let seen = index.owned("o");
    index.remove_life("n/db-0", "1");
    put(&mut index, &pod("db-0", "2", 8, Some("o"), "x"));
    for (key, rev) in seen {
        index.remove_at(&key, rev);
    }
    assert_eq!(index.owned("o"), [("n/db-0".to_owned(), 8)]);
    index.remove_at("n/db-0", 8);
    assert!(index.owned("o").is_empty());
}

#[test]
fn a_list_tells_of_what_is_gone_with_what_was_known() {
    let mut index = Index::default();
    for pod in [
        pod("a", "1", 1, Some("o"), "x"),
        pod("b", "2", 2, None, "x"),
    ] {
        index.put(&key(&pod), Brief::of(&pod));
    }
    let gone = index.not_in(&[pod("b", "2", 2, None, "x")]);
    assert_eq!(gone.len(), 1);
    let (key, brief) = &gone[0];
    let changed = Changed {
        resource: &PODS,
        object: brief.object(&PODS, key),
        labels_before: None,
    };
    assert_eq!(changed.controller_key("Job").as_deref(), Some("n/j"));
    assert!(changed.is_or_was_selected(&json!({"matchLabels": {"app": "x"}})));
    assert!(index.owned("o").is_empty());
}
