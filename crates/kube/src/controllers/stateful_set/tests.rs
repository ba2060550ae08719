//! StatefulSets against a small world in which pods are made, become ready, fail and go.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "a:0"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
        "status": {}})
}

/// A cluster with one StatefulSet, and a kubelet that does what it is told.
struct World {
    set: Value,
    pods: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
    revisions: Vec<Value>,
    made: u32,
}

impl World {
    fn new(set: Value) -> Self {
        Self {
            set,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            revisions: Vec::new(),
            made: 0,
        }
    }

    fn update(&mut self) -> Value {
        match history::record(&self.set, &self.revisions, HASH_LABEL) {
            Record::Present(revision) => revision,
            Record::Renumbered(revision) => {
                let name = object::name(&revision).to_owned();
                self.revisions.retain(|one| object::name(one) != name);
                self.revisions.push(revision.clone());
                revision
            }
            Record::New(revision) => {
                self.revisions.push(revision.clone());
                revision
            }
        }
    }

    fn plan(&mut self) -> Plan {
        let update = self.update();
        let current = object::text(&self.set, &["status", "currentRevision"]);
        let current = self
            .revisions
            .iter()
            .find(|one| object::name(one) == current);
        let current = current.unwrap_or(&update).clone();
        let pods: Vec<_> = self.pods.values().cloned().collect();
        let view = View {
            set: &self.set,
            pods: &pods,
            claims: &self.claims,
            current: &current,
            update: &update,
        };
        plan(&view, Timestamp::UNIX_EPOCH)
    }

    /// One look of the controller.
    fn sync(&mut self) -> usize {
        let plan = self.plan();
        let changes = plan.actions.len() + usize::from(plan.status != self.set["status"]);
        self.set["status"] = plan.status;
        for action in plan.actions {
            match action {
                Action::CreateClaim { claim, .. } | Action::UpdateClaim(claim) => {
                    self.claims.insert(object::name(&claim).to_owned(), claim);
                }
                Action::CreatePod(mut pod) => {
                    self.made += 1;
                    pod["metadata"]["uid"] = format!("p{}", self.made).into();
                    pod["status"] = json!({"phase": "Pending"});
                    let name = object::name(&pod).to_owned();
                    assert!(self.pods.insert(name, pod).is_none(), "made twice");
                }
                Action::UpdatePod(pod) => {
                    self.pods.insert(object::name(&pod).to_owned(), pod);
                }
                Action::DeletePod { pod, .. } => {
                    let pod = self.pods.get_mut(object::name(&pod)).expect("there");
                    pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:30Z".into();
                }
            }
        }
        changes
    }

    fn set_phase(&mut self, name: &str, phase: &str) {
        if let Some(pod) = self.pods.get_mut(name)
            && !pods_are_over(pod)
        {
            let ready = if phase == "Running" { "True" } else { "False" };
            pod["status"] = json!({"phase": phase, "conditions": [{"type": "Ready",
                "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
        }
    }

    fn let_go(&mut self, name: &str) {
        let is_going = self.pods.get(name).is_some_and(object::is_terminating);
        if is_going {
            self.pods.remove(name);
        }
    }

    /// Everything that wants to happen happens, until nothing does.
    fn settle(&mut self) {
        for _ in 0..200 {
            let names: Vec<_> = self.pods.keys().cloned().collect();
            for name in &names {
                self.let_go(name);
                self.set_phase(name, "Running");
            }
            let after: Vec<_> = self.pods.keys().cloned().collect();
            if self.sync() == 0 && names == after {
                return;
            }
        }
        panic!("never comes to rest: {:?}", self.names());
    }

    fn names(&self) -> Vec<&str> {
        self.pods.keys().map(String::as_str).collect()
    }

    fn images(&self) -> Vec<&str> {
        let images = self.pods.values();
        images
            .map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap_or(""))
            .collect()
    }
}

fn is_well(pod: &Value) -> bool {
    crate::controllers::pods::is_ready(pod) && !object::is_terminating(pod)
}

fn pods_are_over(pod: &Value) -> bool {
    crate::controllers::pods::is_finished(pod)
}

#[test]
fn pods_come_one_by_one_each_when_the_one_before_is_ready() {
    let mut world = World::new(set());
    world.sync();
    assert_eq!(world.names(), ["web-0"]);
    world.sync();
    assert_eq!(world.names(), ["web-0"]);
    world.set_phase("web-0", "Running");
    world.sync();
    assert_eq!(world.names(), ["web-0", "web-1"]);
    world.settle();
    assert_eq!(world.names(), ["web-0", "web-1", "web-2"]);
    let claims: Vec<_> = world.claims.keys().map(String::as_str).collect();
    assert_eq!(claims, ["data-web-0", "data-web-1", "data-web-2"]);
    let pod = &world.pods["web-1"];
    assert_eq!(pod["spec"]["hostname"], "web-1");
    assert_eq!(pod["spec"]["subdomain"], "web");
    assert_eq!(object::label(pod, identity::INDEX_LABEL), Some("1"));
    assert_eq!(
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "data-web-1"
    );
    let status = &world.set["status"];
    for field in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "currentReplicas",
    ] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn in_parallel_all_come_and_go_at_once() {
    let mut set = set();
    set["spec"]["podManagementPolicy"] = "Parallel".into();
    set["spec"]["ordinals"] = json!({"start": 5});
    let mut world = World::new(set);
    world.sync();
    assert_eq!(world.names(), ["web-5", "web-6", "web-7"]);
    world.set["spec"]["replicas"] = 0.into();
    world.sync();
    assert!(world.pods.values().all(object::is_terminating));
}

#[test]
fn an_update_goes_from_the_last_to_the_partition_and_back() {
    let mut world = World::new(set());
    world.settle();
    let first = world.set["status"]["currentRevision"].clone();
    world.set["spec"]["template"]["spec"]["containers"][0]["image"] = "a:1".into();
    world.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2.into();
    world.sync();
    let going: Vec<_> = world
        .pods
        .values()
        .filter(|pod| object::is_terminating(pod))
        .collect();
    assert_eq!(going.len(), 1);
    assert_eq!(object::name(going[0]), "web-2");
    world.settle();
    assert_eq!(world.images(), ["a:0", "a:0", "a:1"]);
    assert_eq!(world.set["status"]["updatedReplicas"], 1);
    assert_eq!(world.set["status"]["currentRevision"], first);
    // A pod below the partition that is lost comes back as it was.
    world.pods.remove("web-0");
    world.settle();
    assert_eq!(world.images(), ["a:0", "a:0", "a:1"]);
    world.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0.into();
    world.settle();
    assert_eq!(world.images(), ["a:1"; 3]);
    assert_ne!(world.set["status"]["currentRevision"], first);
    world.set["spec"]["template"]["spec"]["containers"][0]["image"] = "a:0".into();
    world.settle();
    assert_eq!(world.images(), ["a:0"; 3]);
    assert_eq!(world.set["status"]["currentRevision"], first);
    assert_eq!(world.revisions.len(), 2);
}

#[test]
fn on_delete_only_what_somebody_deletes_is_made_anew() {
    let mut set = set();
    set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let mut world = World::new(set);
    world.settle();
    world.set["spec"]["template"]["spec"]["containers"][0]["image"] = "a:1".into();
    world.settle();
    assert_eq!(world.images(), ["a:0"; 3]);
    world.pods.remove("web-1");
    world.settle();
    assert_eq!(world.images(), ["a:0", "a:1", "a:0"]);
}

#[test]
fn a_failed_pod_is_made_anew_and_says_so() {
    let mut world = World::new(set());
    world.settle();
    world.set_phase("web-1", "Failed");
    let plan = world.plan();
    let Some(Action::DeletePod { why: Some(why), .. }) = plan.actions.last() else {
        panic!("deleted: {plan:?}");
    };
    assert_eq!(why.reason, "RecreatingFailedPod");
    assert_eq!(
        why.message,
        "StatefulSet n/web is recreating failed Pod web-1"
    );
    world.settle();
    assert_eq!(world.set["status"]["readyReplicas"], 3);
}

#[test]
fn pods_that_are_too_many_and_have_failed_hold_nobody_up() {
    let mut world = World::new(set());
    world.settle();
    world.set_phase("web-1", "Failed");
    world.set_phase("web-2", "Failed");
    world.set["spec"]["replicas"] = 0.into();
    world.settle();
    assert!(world.pods.is_empty());
}

#[test]
fn claims_go_with_the_set_or_with_the_pod_if_that_is_wanted() {
    let mut set = set();
    set["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let mut world = World::new(set);
    world.settle();
    let owner = |world: &World, claim: &str| {
        world.claims[claim]["metadata"]["ownerReferences"][0]["kind"].clone()
    };
    assert_eq!(owner(&world, "data-web-2"), "StatefulSet");
    world.set["spec"]["replicas"] = 2.into();
    world.sync();
    assert_eq!(owner(&world, "data-web-2"), "Pod");
    // The pod has gone and its claim not yet: a new one waits.
    world.settle();
    world.set["spec"]["replicas"] = 3.into();
    world.settle();
    assert_eq!(world.names(), ["web-0", "web-1"]);
    world.claims.remove("data-web-2");
    world.settle();
    assert_eq!(owner(&world, "data-web-2"), "StatefulSet");
    world.set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] = "Retain".into();
    world.settle();
    assert_eq!(owner(&world, "data-web-2"), Value::Null);
}

#[test]
fn a_pod_is_available_after_min_ready_seconds() {
    let mut set = set();
    set["spec"]["minReadySeconds"] = 10.into();
    let mut world = World::new(set);
    world.sync();
    world.set_phase("web-0", "Running");
    let plan = world.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(10)));
    assert_eq!(plan.status["availableReplicas"], 0);
    assert_eq!(plan.status["readyReplicas"], 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// However the world goes on, an ordered set never makes a pod before all lower ones are
    /// ready, never gives two up at a time while nothing is broken, and ends as it is wanted.
    #[test]
    fn an_ordered_set_keeps_its_order_and_ends_as_wanted(
        steps in prop::collection::vec((0..7u8, 0..5u8), 1..60)
    ) {
        let mut world = World::new(set());
        let mut image = 0;
        for (step, which) in steps {
            let name = format!("web-{which}");
            match step {
                0 => world.set["spec"]["replicas"] = which.into(),
                1 => {
                    image = (image + 1) % 3;
                    let containers = &mut world.set["spec"]["template"]["spec"]["containers"];
                    containers[0]["image"] = format!("a:{image}").into();
                }
                2 => world.set_phase(&name, "Running"),
                3 => world.set_phase(&name, "Failed"),
                4 => world.let_go(&name),
                _ => {
                    let before = world.pods.clone();
                    world.sync();
                    for name in world.pods.keys().filter(|name| !before.contains_key(*name)) {
                        let ordinal: usize = name["web-".len()..].parse().unwrap();
                        for lower in 0..ordinal {
                            let lower = before.get(&format!("web-{lower}"));
                            let is_ready = lower.is_some_and(is_well);
                            prop_assert!(is_ready);
                        }
                    }
                    let going = world.pods.iter().filter(|(name, pod)| {
                        object::is_terminating(pod) && !object::is_terminating(&before[*name])
                    });
                    prop_assert!(going.count() <= 1);
                }
            }
        }
        world.settle();
        let wanted = world.set["spec"]["replicas"].as_i64().unwrap();
        prop_assert_eq!(i64::try_from(world.pods.len()).unwrap(), wanted);
        let image = format!("a:{image}");
        prop_assert!(world.images().iter().all(|one| *one == image));
        let status = &world.set["status"];
        prop_assert_eq!(status["replicas"].as_i64(), Some(wanted));
        prop_assert_eq!(&status["currentRevision"], &status["updateRevision"]);
    }
}
