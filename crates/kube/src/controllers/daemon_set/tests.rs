//! DaemonSets against nodes that come and go and a kubelet that does what it is told.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "log", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "log"}},
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "log"}},
                "spec": {"containers": [{"name": "c"}]}}},
        "status": {}})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"zone": name}}})
}

struct World {
    set: Value,
    nodes: Vec<Value>,
    pods: Vec<Value>,
    hash: String,
    made: u32,
}

impl World {
    fn new(set: Value, nodes: u32) -> Self {
        Self {
            set,
            nodes: (0..nodes)
                .map(|index| node(&format!("node-{index}")))
                .collect(),
            pods: Vec::new(),
            hash: "h0".into(),
            made: 0,
        }
    }

    fn sync(&mut self) -> usize {
        let plan = plan(
            &self.set,
            &self.pods,
            &self.nodes,
            &self.hash,
            Timestamp::UNIX_EPOCH,
        );
        let changes = plan.create.len() + plan.delete.len();
        let changes = changes + usize::from(plan.status != self.set["status"]);
        self.set["status"] = plan.status;
        for gone in plan.delete {
            let is_it = |pod: &&mut Value| object::uid(pod) == object::uid(&gone);
            let pod = self.pods.iter_mut().find(is_it).expect("there");
            pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:30Z".into();
        }
        for mut pod in plan.create {
            self.made += 1;
            pod["metadata"]["uid"] = format!("p{}", self.made).into();
            pod["metadata"]["creationTimestamp"] = format!("{:04}", self.made).into();
            pod["status"] = json!({"phase": "Pending"});
            self.pods.push(pod);
        }
        changes
    }

    fn run(&mut self, index: usize) {
        if let Some(pod) = self.pods.get_mut(index) {
            let node = plan::node_of(pod).to_owned();
            pod["spec"]["nodeName"] = node.into();
            pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready",
                "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
        }
    }

    fn collect(&mut self) {
        self.pods.retain(|pod| !object::is_terminating(pod));
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.collect();
            (0..self.pods.len()).for_each(|index| self.run(index));
            if self.sync() == 0 {
                return;
            }
        }
        panic!("never comes to rest");
    }

    fn available(&self) -> usize {
        let is_there =
            |pod: &&Value| crate::controllers::pods::is_ready(pod) && !object::is_terminating(pod);
        self.pods.iter().filter(is_there).count()
    }

    fn places(&self) -> Vec<&str> {
        let mut places: Vec<_> = self.pods.iter().map(plan::node_of).collect();
        places.sort_unstable();
        places
    }
}

#[test]
fn each_node_that_matches_has_one_pod() {
    let mut set = set();
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "node-1"});
    let mut world = World::new(set, 3);
    world.settle();
    assert_eq!(world.places(), ["node-1"]);
    let pod = &world.pods[0];
    assert_eq!(object::label(pod, HASH_LABEL), Some("h0"));
    assert!(object::items(pod, &["spec", "tolerations"]).len() >= 6);
    world.set["spec"]["template"]["spec"]["nodeSelector"] = Value::Null;
    world.nodes[2]["spec"] = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    world.settle();
    assert_eq!(world.places(), ["node-0", "node-1"]);
    world.nodes[0]["spec"] = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    world.nodes[1]["spec"] = json!({"taints": [{"key": "a", "effect": "NoExecute"}]});
    world.settle();
    assert_eq!(
        world.places(),
        ["node-0"],
        "what is there may stay, unless it is thrown out"
    );
    let status = &world.set["status"];
    assert_eq!(
        (
            &status["desiredNumberScheduled"],
            &status["numberMisscheduled"]
        ),
        (&json!(0), &json!(1))
    );
}

#[test]
fn a_failed_pod_is_replaced_and_says_so() {
    let mut world = World::new(set(), 2);
    world.settle();
    world.pods[0]["status"]["phase"] = "Failed".into();
    world.pods[0]["metadata"]["name"] = "log-x".into();
    let plan = plan(
        &world.set,
        &world.pods,
        &world.nodes,
        "h0",
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(plan.news[0].reason, "FailedDaemonPod");
    world.settle();
    assert_eq!(world.available(), 2);
}

#[test]
fn on_delete_nothing_moves_by_itself() {
    let mut set = set();
    set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let mut world = World::new(set, 2);
    world.settle();
    world.hash = "h1".into();
    world.settle();
    assert_eq!(world.made, 2);
    assert_eq!(world.set["status"]["updatedNumberScheduled"], Value::Null);
    world.pods.remove(0);
    world.settle();
    assert_eq!(world.set["status"]["updatedNumberScheduled"], 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A rolling update of healthy pods keeps its bounds at every step and ends with the new.
    #[test]
    fn a_rolling_update_keeps_its_bounds(
        max in 1..4usize, surges in any::<bool>(), steps in prop::collection::vec(0..9usize, 1..60)
    ) {
        let mut set = set();
        let update = &mut set["spec"]["updateStrategy"]["rollingUpdate"];
        update["maxSurge"] = if surges { max.into() } else { 0.into() };
        update["maxUnavailable"] = if surges { 0.into() } else { max.into() };
        let mut world = World::new(set, 5);
        world.settle();
        world.hash = "h1".into();
        for step in steps {
            match step {
                0..6 => world.run(step),
                6 => world.collect(),
                _ => drop(world.sync()),
            }
            let staying = world.pods.iter().filter(|pod| !object::is_terminating(pod)).count();
            if surges {
                prop_assert!(world.available() >= 5 && staying <= 5 + max);
            } else {
                prop_assert!(world.available() >= 5 - max && staying <= 5);
            }
        }
        world.settle();
        prop_assert_eq!(world.pods.len(), 5);
        prop_assert_eq!(&world.set["status"]["updatedNumberScheduled"], 5);
        prop_assert_eq!(&world.set["status"]["numberAvailable"], 5);
    }
}
