//! Applies and updates one after the other, on objects in memory.

use serde_json::json;

use super::super::filter::{Filter, blank};
use super::super::{OneVersion, created, updated};
use super::*;
use crate::resource::{CONFIG_MAPS, DEPLOYMENTS, PODS, Resource, SERVICES};

/// An object with a history.
struct Story {
    resource: &'static Resource,
    object: Option<Value>,
    second: i64,
}

impl Story {
    fn of(resource: &'static Resource) -> Self {
        Self {
            resource,
            object: None,
            second: 0,
        }
    }

    fn writer<'a>(&mut self, manager: &'a str, api_version: &'a str) -> Writer<'a> {
        self.second += 60;
        Writer {
            manager,
            api_version,
            subresource: "",
            now: jiff::Timestamp::from_second(self.second).expect("a time"),
        }
    }

    fn try_apply(&mut self, manager: &str, wanted: Value, force: bool) -> Result<(), Status> {
        let api_version = self.resource.api_version();
        let writer = self.writer(manager, &api_version);
        self.apply_as(writer, wanted, force)
    }

    fn apply_as(
        &mut self,
        writer: Writer<'_>,
        mut wanted: Value,
        force: bool,
    ) -> Result<(), Status> {
        wanted["apiVersion"] = self.resource.api_version().into();
        wanted["kind"] = self.resource.kind.into();
        let filter = Filter::of(self.resource, writer.subresource);
        let subject = Subject {
            schema: super::super::schema_of(self.resource),
            filter: &filter,
            versions: &OneVersion,
        };
        let request = Apply {
            wanted: &wanted,
            kind: &show_kind(&self.resource.api_version(), self.resource.kind),
            force,
        };
        let live = self.object.as_ref();
        let applied = apply(subject, live, &blank(self.resource), request, writer)?;
        self.object = Some(applied);
        Ok(())
    }

    fn apply(&mut self, manager: &str, wanted: Value) {
        self.try_apply(manager, wanted, false).expect("no conflict");
    }

    fn write(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let api_version = self.resource.api_version();
        let writer = self.writer(manager, &api_version);
        let filter = Filter::of(self.resource, "");
        let subject = Subject {
            schema: super::super::schema_of(self.resource),
            filter: &filter,
            versions: &OneVersion,
        };
        let old = self.object.clone();
        let mut new = old.clone().unwrap_or_else(|| json!({"metadata": {}}));
        change(&mut new);
        match &old {
            Some(old) => updated(subject, old, &mut new, writer),
            None => created(subject, &blank(self.resource), &mut new, writer),
        }
        self.object = Some(new);
    }

    fn object(&self) -> &Value {
        self.object.as_ref().expect("there is one")
    }

    /// What each manager owns: `manager`, or `manager (Apply)`.
    fn owners(&self) -> Value {
        let entries = object::items(self.object(), &["metadata", "managedFields"]);
        let owners = entries.iter().map(|entry| {
            let name = object::text(entry, &["manager"]);
            let name = match object::text(entry, &["operation"]) {
                "Apply" => format!("{name} (Apply)"),
                _ => name.to_owned(),
            };
            (name, entry["fieldsV1"].clone())
        });
        Value::Object(owners.collect())
    }
}

fn conflict(result: Result<(), Status>) -> String {
    let status = result.expect_err("a conflict");
    assert_eq!((status.code, status.reason), (409, "Conflict"));
    status.message
}

#[test]
fn another_value_for_a_field_that_somebody_owns_is_a_conflict_until_it_is_forced() {
    let mut story = Story::of(&CONFIG_MAPS);
    story.write("creator", |map| map["data"] = json!({"a": "1", "b": "2"}));
    let wanted = || json!({"data": {"a": "9", "b": "2"}});
    assert_eq!(
        conflict(story.try_apply("m", wanted(), false)),
        "Apply failed with 1 conflict: conflict with \"creator\" using v1: .data.a"
    );
    story.try_apply("m", wanted(), true).expect("forced");
    assert_eq!(story.object()["data"], json!({"a": "9", "b": "2"}));
    let expected = json!({
        "creator": {"f:data": {".": {}, "f:b": {}}},
        "m (Apply)": {"f:data": {"f:a": {}, "f:b": {}}},
    });
    assert_eq!(story.owners(), expected);
}

#[test]
fn what_is_applied_no_more_goes_unless_somebody_else_owns_it() {
    let mut story = Story::of(&CONFIG_MAPS);
    story.apply("one", json!({"data": {"a": "1", "b": "2", "c": "3"}}));
    story.apply("two", json!({"data": {"b": "2"}}));
    story.write("writer", |map| map["data"]["c"] = json!("4"));
    story.apply("one", json!({"metadata": {"labels": {"l": "1"}}}));
    assert_eq!(story.object()["data"], json!({"b": "2", "c": "4"}));
    let expected = json!({
        "one (Apply)": {"f:metadata": {"f:labels": {"f:l": {}}}},
        "two (Apply)": {"f:data": {"f:b": {}}},
        "writer": {"f:data": {"f:c": {}}},
    });
    assert_eq!(story.owners(), expected);
    story.apply("two", json!({}));
    assert_eq!(story.object()["data"], json!({"c": "4"}));
}

#[test]
fn the_last_field_of_a_map_takes_the_map_with_it() {
    let mut story = Story::of(&CONFIG_MAPS);
    story.apply("one", json!({"data": {"a": "1"}}));
    story.apply("one", json!({}));
    assert_eq!(story.object().get("data"), None);
    assert_eq!(story.owners(), json!({}));
}

#[test]
fn items_have_keys_with_defaults_and_keep_what_others_put_into_them() {
    let mut story = Story::of(&SERVICES);
    story.apply(
        "one",
        json!({"spec": {"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]}}),
    );
    story.write("defaults", |service| {
        service["spec"]["ports"][0]["protocol"] = json!("TCP")
    });
    story.apply(
        "two",
        json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "name": "dns"}]}}),
    );
    let ports = json!([
        {"port": 53, "protocol": "TCP", "name": "dns"}, {"port": 53, "protocol": "UDP"},
    ]);
    assert_eq!(story.object()["spec"]["ports"], ports);
    // The item stays for the other, who has the key of it too.
    story.apply("one", json!({"spec": {}}));
    let ports = json!([{"port": 53, "protocol": "TCP", "name": "dns"}]);
    assert_eq!(story.object()["spec"]["ports"], ports);
}

#[test]
fn sets_have_members_and_atomic_lists_one_owner() {
    let mut story = Story::of(&PODS);
    let tolerations = |key: &str| json!({"spec": {"tolerations": [{"key": key}]}});
    story.apply("one", json!({"metadata": {"finalizers": ["e.x/a"]}}));
    story.apply("two", json!({"metadata": {"finalizers": ["e.x/b"]}}));
    let finalizers = &story.object()["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["e.x/a", "e.x/b"]));
    story.apply("one", tolerations("k"));
    assert_eq!(story.object()["metadata"]["finalizers"], json!(["e.x/b"]));
    let refusal = conflict(story.try_apply("two", tolerations("l"), false));
    assert!(
        refusal.ends_with("conflict with \"one\": .spec.tolerations"),
        "{refusal}"
    );
}

#[test]
fn what_was_there_before_anybody_applied_has_an_owner_then() {
    let mut story = Story::of(&CONFIG_MAPS);
    story.object = Some(json!({"metadata": {"name": "a"}, "data": {"a": "1"}}));
    let refusal = conflict(story.try_apply("m", json!({"data": {"a": "2"}}), false));
    assert!(
        refusal.contains("\"before-first-apply\" using v1: .data.a"),
        "{refusal}"
    );
    story.apply("m", json!({"data": {"b": "1"}}));
    let owners = story.owners();
    assert_eq!(
        owners["before-first-apply"],
        json!({"f:data": {".": {}, "f:a": {}}})
    );
}

#[test]
fn an_apply_that_changes_nothing_leaves_everything_as_it_is() {
    let mut story = Story::of(&DEPLOYMENTS);
    let wanted = || json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}});
    story.apply("m", wanted());
    let before = story.object().clone();
    story.apply("m", wanted());
    assert_eq!(story.object(), &before);
}

#[test]
fn the_first_server_side_apply_of_kubectl_takes_over_what_it_applied_before() {
    let mut story = Story::of(&CONFIG_MAPS);
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "1"}});
    story.write("kubectl-client-side-apply", |map| {
        map["apiVersion"] = json!("v1");
        map["kind"] = json!("ConfigMap");
        map["metadata"]["annotations"] = json!({LAST: last.to_string()});
        map["data"] = json!({"a": "1", "b": "1"});
    });
    story.write("editor", |map| map["data"]["b"] = json!("2"));
    let wanted = || json!({"data": {"a": "9", "b": "9"}});
    let refusal = conflict(story.try_apply("kubectl", wanted(), false));
    assert!(
        refusal.ends_with("conflict with \"editor\" using v1: .data.b"),
        "{refusal}"
    );
    let refusal = conflict(story.try_apply("other", wanted(), false));
    assert!(
        refusal.starts_with("Apply failed with 2 conflicts"),
        "{refusal}"
    );
    let mut changed = json!({"data": {"a": "9"}});
    story.apply("kubectl", changed.clone());
    assert_eq!(story.object()["data"], json!({"a": "9", "b": "2"}));
    changed["apiVersion"] = json!("v1");
    changed["kind"] = json!("ConfigMap");
    let annotation = &story.object()["metadata"]["annotations"][LAST];
    assert_eq!(*annotation, json!(format!("{changed}\n")));
}

#[test]
fn the_status_is_the_status_parts_alone() {
    let mut story = Story::of(&DEPLOYMENTS);
    let wanted = || json!({"spec": {"replicas": 1}, "status": {"replicas": 7}});
    story.apply("m", wanted());
    assert_eq!(
        story.owners(),
        json!({"m (Apply)": {"f:spec": {"f:replicas": {}}}})
    );
    let writer = Writer {
        subresource: "status",
        ..story.writer("s", "apps/v1")
    };
    story
        .apply_as(writer, wanted(), false)
        .expect("no conflict");
    let owners = story.owners();
    assert_eq!(owners["s (Apply)"], json!({"f:status": {"f:replicas": {}}}));
    let entries = object::items(story.object(), &["metadata", "managedFields"]);
    let parts: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.get("subresource"))
        .collect();
    assert_eq!(parts, [&json!("status")]);
}

#[test]
fn times_move_only_with_what_is_owned() {
    let mut story = Story::of(&CONFIG_MAPS);
    let time = |story: &Story| {
        let entries = object::items(story.object(), &["metadata", "managedFields"]);
        entries[0]["time"].clone()
    };
    story.write("m", |map| map["data"] = json!({"a": "1", "b": "2"}));
    let first = time(&story);
    story.write("m", |map| map["metadata"]["resourceVersion"] = json!("7"));
    assert_eq!(time(&story), first);
    story.write("m", |map| map["data"] = json!({"a": "1"}));
    assert_eq!(time(&story), first, "what is removed is owned by nobody");
    story.write("m", |map| map["data"] = json!({"a": "2"}));
    assert_ne!(time(&story), first);
}

#[test]
fn clients_may_replace_entries_and_make_them_forgotten() {
    let mut story = Story::of(&CONFIG_MAPS);
    story.write("a", |map| map["data"] = json!({"a": "1"}));
    let mut entries = story.object()["metadata"]["managedFields"].clone();
    entries[0]["manager"] = json!("b");
    story.write("c", |map| map["metadata"]["managedFields"] = entries);
    assert_eq!(
        story.owners(),
        json!({"b": {"f:data": {".": {}, "f:a": {}}}})
    );
    let nonsense = json!([{"manager": "x", "operation": "Look"}]);
    story.write("c", |map| map["metadata"]["managedFields"] = nonsense);
    assert_eq!(
        story.owners(),
        json!({"b": {"f:data": {".": {}, "f:a": {}}}})
    );
    story.write("c", |map| drop(meta_mut(map).remove("managedFields")));
    assert_eq!(
        story.owners(),
        json!({"b": {"f:data": {".": {}, "f:a": {}}}})
    );
    story.write("c", |map| map["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(story.owners(), json!({}));
    story.write("c", |map| map["data"]["b"] = json!("2"));
    assert_eq!(
        story.owners(),
        json!({}),
        "not tracked until somebody applies"
    );
}

#[test]
fn what_cannot_be_applied_is_refused_in_upstreams_words() {
    let mut story = Story::of(&CONFIG_MAPS);
    for (wanted, code, expected) in [
        (
            json!({"metadata": {"name": "a", "namespace": "n"}, "dta": {}}),
            500,
            "failed to create typed patch object (n/a; /v1, Kind=ConfigMap): .dta: field not \
             declared in schema",
        ),
        (
            json!({"metadata": {"managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
    ] {
        let refusal = story.try_apply("m", wanted, false).expect_err("refused");
        assert_eq!((refusal.code, refusal.message.as_str()), (code, expected));
    }
}

#[test]
fn an_object_keeps_its_name_when_a_manager_gives_up_all_other_metadata() {
    let mut story = Story::of(&CONFIG_MAPS);
    let wanted = json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "data": {"c": "d"}});
    story.apply("one", wanted);
    story.apply(
        "one",
        json!({"metadata": {"name": "n"}, "data": {"c": "d"}}),
    );
    let metadata = &story.object()["metadata"];
    assert_eq!(
        (&metadata["name"], metadata.get("labels")),
        (&json!("n"), None)
    );
}
