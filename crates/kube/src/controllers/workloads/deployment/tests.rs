//! Rolling updates of Deployments against ReplicaSets that obey, at their own pace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::sets::{HASH_LABEL, available, find_new, hash, number, total, wanted};
use super::{Plan, plan, status};
use crate::object;
use crate::rollout::Limits;

fn deployment(replicas: i64, image: &str, surge: Value, unavailable: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}},
        },
        "status": {},
    })
}

/// The ReplicaSets and what has become of their pods.
#[derive(Default)]
struct World {
    sets: BTreeMap<String, Value>,
    made: u32,
}

impl World {
    fn sets(&self) -> Vec<Value> {
        self.sets.values().cloned().collect()
    }

    /// One look of the controller. Tells whether there was anything to do.
    fn look(&mut self, deployment: &mut Value) -> bool {
        let old_pods = {
            let sets = self.sets();
            let new = find_new(deployment, &sets).map(object::name);
            let mut old = sets.iter().filter(|set| Some(object::name(set)) != new);
            old.any(|set| number(set, &["status", "replicas"]) > 0)
        };
        let Plan {
            create,
            update,
            delete,
        } = plan(deployment, &self.sets(), old_pods);
        let is_busy = create.is_some() || !update.is_empty() || !delete.is_empty();
        if let Some(mut set) = create {
            self.made += 1;
            let created = format!("1970-01-01T00:00:{:02}Z", self.made);
            set["metadata"]["creationTimestamp"] = created.into();
            set["status"] = json!({"replicas": 0});
            self.sets.insert(object::name(&set).to_owned(), set);
        }
        for set in update {
            self.sets.insert(object::name(&set).to_owned(), set);
        }
        for set in delete {
            self.sets.remove(object::name(&set));
        }
        let (status, _) = status(deployment, &self.sets(), Timestamp::UNIX_EPOCH);
        deployment["status"] = status;
        is_busy
    }

    /// Every set gets the pods that it wants; of those that are new as many become available as
    /// `pace` allows.
    fn pods(&mut self, pace: i64) {
        for set in self.sets.values_mut() {
            let size = wanted(set);
            let serving = (available(set).min(size) + pace).min(size);
            set["status"] = json!({"replicas": size, "readyReplicas": serving,
                "availableReplicas": serving});
        }
    }

    fn serving(&self) -> i64 {
        let each = self
            .sets
            .values()
            .map(|set| available(set).min(wanted(set)));
        each.sum()
    }
}

fn share() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4i64).prop_map(Value::from),
        (0..101u8).prop_map(|percent| Value::from(format!("{percent}%"))),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Look,
    Pods(i64),
    Scale(i64),
    Image(u8),
    Pause(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Look),
        4 => (0..4i64).prop_map(Step::Pods),
        1 => (0..12i64).prop_map(Step::Scale),
        1 => (0..3u8).prop_map(Step::Image),
        1 => any::<bool>().prop_map(Step::Pause),
    ]
}

proptest! {
    #[test]
    fn no_look_breaks_the_bounds_and_in_the_end_only_the_new_is_left(
        surge in share(), unavailable in share(), replicas in 0..12i64,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::default();
        let mut deployment = deployment(replicas, "a", surge, unavailable);
        for step in steps {
            match step {
                Step::Look => {
                    let (all, serving) = (total(&world.sets()), world.serving());
                    let before = world.sets();
                    let outdated = before.iter().any(|set| super::sets::is_outdated(&deployment, set));
                    world.look(&mut deployment);
                    let limits = Limits::of(&deployment);
                    let goal = wanted(&deployment);
                    let now = total(&world.sets());
                    prop_assert!(now <= all.max(goal + limits.surge), "{now} pods");
                    // Scaling in proportion takes from every set alike, as upstream does.
                    if !outdated && deployment["spec"]["paused"] != true {
                        let enough = (goal - limits.unavailable).min(serving);
                        prop_assert!(world.serving() >= enough, "{} serve", world.serving());
                    }
                }
                Step::Pods(pace) => world.pods(pace),
                Step::Scale(replicas) => deployment["spec"]["replicas"] = replicas.into(),
                Step::Image(image) => {
                    let image = format!("image:{image}");
                    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
                }
                Step::Pause(paused) => deployment["spec"]["paused"] = paused.into(),
            }
        }
        deployment["spec"]["paused"] = false.into();
        let mut looks = 0;
        loop {
            let is_busy = world.look(&mut deployment);
            let before = world.sets();
            world.pods(1);
            if !is_busy && before == world.sets() && !world.look(&mut deployment) {
                break;
            }
            looks += 1;
            prop_assert!(looks < 200, "{:#?}", world.sets);
        }
        let sets = world.sets();
        let new = find_new(&deployment, &sets).expect("made");
        prop_assert_eq!(wanted(new), wanted(&deployment));
        prop_assert_eq!(total(&sets), wanted(&deployment));
        prop_assert!(sets.len() <= 2, "history is bounded");
        let conditions = object::items(&deployment, &["status", "conditions"]);
        let progressing = conditions.iter().find(|one| one["type"] == "Progressing");
        prop_assert_eq!(&progressing.expect("told")["reason"], "NewReplicaSetAvailable");
    }
}

#[test]
fn the_hash_is_the_templates_alone() {
    let one = deployment(1, "a:1", json!(1), json!(0));
    let mut more = deployment(5, "a:1", json!(3), json!(1));
    more["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(hash(&one), hash(&more));
    assert_eq!(hash(&one), "6b8d4796bd");
    assert_ne!(hash(&one), hash(&deployment(1, "a:2", json!(1), json!(0))));
    more["status"]["collisionCount"] = 1.into();
    assert_ne!(hash(&one), hash(&more));
}

#[test]
fn a_set_carries_hash_owner_and_revision_and_going_back_is_a_new_revision() {
    let mut world = World::default();
    let mut deployment = deployment(2, "a:1", json!(1), json!(0));
    deployment["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first",
        "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let settle = |world: &mut World, deployment: &mut Value| {
        for _ in 0..30 {
            world.look(deployment);
            world.pods(1);
        }
    };
    settle(&mut world, &mut deployment);
    let first = world.sets().remove(0);
    let label = first["spec"]["template"]["metadata"]["labels"][HASH_LABEL].clone();
    assert_eq!(first["spec"]["selector"]["matchLabels"][HASH_LABEL], label);
    assert_eq!(
        object::name(&first),
        format!("web-{}", label.as_str().unwrap())
    );
    let annotations = &first["metadata"]["annotations"];
    let expected = json!({"deployment.kubernetes.io/revision": "1",
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3", "kubernetes.io/change-cause": "first"});
    assert_eq!(annotations, &expected);
    let image = |deployment: &mut Value, image: &str| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    };
    image(&mut deployment, "a:2");
    settle(&mut world, &mut deployment);
    image(&mut deployment, "a:1");
    settle(&mut world, &mut deployment);
    let back = &world.sets[object::name(&first)];
    let annotations = &back["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(
        annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
    assert_eq!(wanted(back), 2);
}

#[test]
fn recreating_waits_for_the_end_of_the_old_pods() {
    let mut world = World::default();
    let mut deployment = deployment(2, "a:1", json!(1), json!(0));
    deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    world.look(&mut deployment);
    world.pods(2);
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "a:2".into();
    assert!(world.look(&mut deployment));
    assert_eq!((world.sets.len(), total(&world.sets())), (1, 0));
    assert!(!world.look(&mut deployment), "old pods still run");
    world.pods(2);
    assert!(world.look(&mut deployment));
    assert_eq!((world.sets.len(), total(&world.sets())), (2, 2));
}

#[test]
fn a_rollout_that_stands_still_exceeds_its_deadline() {
    let mut world = World::default();
    let mut deployment = deployment(1, "a:1", json!(1), json!(0));
    world.look(&mut deployment);
    let (first, again) = status(&deployment, &world.sets(), Timestamp::UNIX_EPOCH);
    deployment["status"] = first;
    assert_eq!(again.map(|again| again.as_secs()), Some(601));
    let later = Timestamp::from_second(601).unwrap();
    let (late, again) = status(&deployment, &world.sets(), later);
    assert_eq!(again, None);
    let conditions = object::items(&late, &["conditions"]);
    let progressing = conditions.iter().find(|one| one["type"] == "Progressing");
    let progressing = progressing.unwrap();
    assert_eq!(progressing["reason"], "ProgressDeadlineExceeded");
    assert_eq!(progressing["status"], "False");
    deployment["status"] = late;
    world.pods(1);
    let (done, _) = status(&deployment, &world.sets(), later);
    let conditions = object::items(&done, &["conditions"]);
    let progressing = conditions.iter().find(|one| one["type"] == "Progressing");
    assert_eq!(progressing.unwrap()["reason"], "NewReplicaSetAvailable");
}
