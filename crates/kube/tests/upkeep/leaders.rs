//! Two processes with one state: one leads, and when it is gone the other does, and nothing is done
//! twice.

use kube::controllers::{ControllersConfig, Leadership, lead, run};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::World;

/// What a process with this name runs: controllers and a scheduler.
fn process(world: &World, name: &str) -> Vec<JoinHandle<()>> {
    let leadership = Leadership::Elected {
        identity: name.into(),
    };
    let config = ControllersConfig {
        leadership: leadership.clone(),
        ..ControllersConfig::new("PEM")
    };
    let api = world.server.api.clone();
    let controllers = run(api.clone(), config, CancellationToken::new());
    let scheduler = async move {
        let work = || kube::scheduler::run(api.clone(), CancellationToken::new());
        let lease = "kube-scheduler".to_owned();
        lead(
            api.clone(),
            leadership,
            lease,
            CancellationToken::new(),
            work,
        )
        .await;
    };
    vec![tokio::spawn(controllers), tokio::spawn(scheduler)]
}

const HOLDERS: &str = "-n kube-system get lease kube-controller-manager kube-scheduler -o \
                       jsonpath={.items[*].spec.holderIdentity}";

/// Waits for the counts of the events about pods.
async fn told(world: &World, expected: &str) {
    for reason in ["Scheduled", "SuccessfulCreate"] {
        let counts =
            format!("get events --field-selector reason={reason} -o jsonpath={{.items[*].count}}");
        world.until(&counts, |counts| counts == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_takes_over_when_the_leader_is_gone_and_nothing_is_done_twice() {
    let test = "the_next_takes_over_when_the_leader_is_gone_and_nothing_is_done_twice";
    let Some(world) = World::without_controllers(test).await else {
        return;
    };
    world
        .apply(&serde_json::json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "fra"}}))
        .await;
    let room = serde_json::json!({"cpu": "4", "memory": "8Gi", "pods": "50"});
    let status = serde_json::json!({"status": {"capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    world
        .ok(&format!(
            "patch node fra --subresource=status --type=merge -p {status}"
        ))
        .await;
    // A new node is tainted until something says that it is ready.
    world
        .run("taint node fra node.kubernetes.io/not-ready:NoSchedule-")
        .await;
    let first = process(&world, "first");
    world
        .until(HOLDERS, |holders| holders == "first first")
        .await;
    let second = process(&world, "second");
    world
        .ok("create deployment web --image=web:1 --replicas=3")
        .await;
    let nodes = "get pods -l app=web -o jsonpath={.items[*].spec.nodeName}";
    world.until(nodes, |nodes| nodes == "fra fra fra").await;
    told(&world, "1 1 1").await;
    // As with kill -9: it says nothing, and its lease stays.
    first.iter().for_each(JoinHandle::abort);
    world.ok("scale deployment web --replicas=5").await;
    world
        .until(nodes, |nodes| nodes == "fra fra fra fra fra")
        .await;
    assert_eq!(world.ok(HOLDERS).await, "second second");
    let transitions = "-n kube-system get lease kube-scheduler -o \
                       jsonpath={.spec.leaseTransitions}";
    assert_eq!(world.ok(transitions).await, "1");
    told(&world, "1 1 1 1 1").await;
    let pods = world.ok("get pods -l app=web -o name").await;
    assert_eq!(pods.lines().count(), 5, "{pods}");
    second.iter().for_each(JoinHandle::abort);
    world.server.stop().await;
}
