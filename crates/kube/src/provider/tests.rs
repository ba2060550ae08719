//! The provider and the scheduler against a Machines API in memory.

use std::future::Future;

use serde_json::{Value, json};

use types::fleet::HostStatus;

use super::fake::Fake;
use super::*;
use crate::api::{DeleteOptions, Selector};
use crate::object;
use crate::resource::{EVENTS, NODES, PODS};

/// A cluster without HTTP: store, scheduler, provider.
struct Cluster {
    api: Api,
    fake: Arc<Fake>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

fn config() -> ProviderConfig {
    ProviderConfig {
        identity: None,
        region: "local".into(),
        app: "kubernetes".parse().unwrap(),
        org_slug: "personal".into(),
        network: "kubernetes".into(),
        node: NodeConfig {
            name: "local".into(),
            address: "fdaa:0:7:a7b:2:0:1:2".into(),
            cpus: 4,
            memory_mib: 4096,
            storage_mib: 10240,
            pods_max: 100,
            architecture: "amd64".into(),
            kernel_version: "6.1".into(),
            os_image: "Debian".into(),
            kubelet_version: "v1.36.0".into(),
            runtime_version: "0.1.0".into(),
            labels: std::collections::BTreeMap::new(),
            taints: Vec::new(),
        },
        silent_after: Duration::from_millis(300),
    }
}

impl Cluster {
    async fn start() -> Self {
        Self::over(Fake::start()).await
    }

    async fn over(fake: Arc<Fake>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store::Store::open(&store::Config::new(folder.path().join("k.db"))).unwrap();
        let api = Api::new(store);
        api.bootstrap().await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(crate::scheduler::run(api.clone(), stop.clone()));
        let mut cluster = Self {
            api,
            fake,
            stop: stop.clone(),
            _folder: folder,
        };
        cluster.stop = cluster.provider(&stop);
        cluster
    }

    /// Starts a provider that ends before everything else does.
    fn provider(&self, parent: &CancellationToken) -> CancellationToken {
        let stop = parent.child_token();
        let (api, client) = (self.api.clone(), self.fake.client());
        tokio::spawn(run(api, client, config(), stop.clone()));
        stop
    }

    async fn create(&self, name: &str, spec: &Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "localhost/hello:1"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        self.api.create(&PODS, Some("default"), pod).await.unwrap()
    }

    async fn get(&self, name: &str) -> Option<Value> {
        self.api.get(&PODS, Some("default"), name).await.ok()
    }

    /// The pod, once it is as `wanted` says.
    async fn pod(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| async {
            let pod = self.get(name).await;
            pod.filter(|pod| wanted(pod))
        })
        .await
    }

    async fn machine_of(&self, pod: &Value) -> types::machine::Machine {
        eventually(|| async {
            let mut machines = self.fake.machines().into_iter();
            machines.find(|machine| machine.name == object::uid(pod))
        })
        .await
    }

    async fn reasons(&self) -> Vec<String> {
        let (events, _) = self
            .api
            .list(&EVENTS, None, &Selector::default())
            .await
            .unwrap();
        let reason = |event: &Value| object::text(event, &["reason"]).to_owned();
        events.iter().map(reason).collect()
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to pass in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn phase(pod: &Value) -> &str {
    object::text(pod, &["status", "phase"])
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
}

#[tokio::test]
async fn a_pod_lives_and_dies_as_its_machine() {
    let cluster = Cluster::start().await;
    let pod = cluster.create("web", &json!({})).await;
    let machine = cluster.machine_of(&pod).await;
    assert_eq!(machine.config.metadata["kubernetes.io/pod-name"], "web");
    cluster
        .pod("web", |pod| waiting(pod) == "ContainerCreating")
        .await;
    cluster.fake.boot(&machine.id);
    let running = cluster.pod("web", |pod| phase(pod) == "Running").await;
    assert_eq!(running["status"]["podIP"], machine.private_ip);
    assert_eq!(running["spec"]["nodeName"], "local");
    let annotated = cluster
        .pod("web", |pod| {
            !pod["metadata"]["annotations"][MACHINE_ID_ANNOTATION].is_null()
        })
        .await;
    let annotation = &annotated["metadata"]["annotations"][MACHINE_ID_ANNOTATION];
    assert_eq!(annotation, machine.id.as_str());
    let reasons = eventually(|| async {
        let reasons = cluster.reasons().await;
        reasons.contains(&"Started".to_owned()).then_some(reasons)
    })
    .await;
    for reason in ["Scheduled", "Pulling", "Pulled", "Created", "Started"] {
        assert!(
            reasons.iter().any(|r| r == reason),
            "{reason} in {reasons:?}"
        );
    }
    let options = DeleteOptions::default();
    cluster
        .api
        .delete(&PODS, Some("default"), "web", &options)
        .await
        .unwrap();
    eventually(|| async { cluster.get("web").await.is_none().then_some(()) }).await;
    assert!(cluster.fake.machines().is_empty());
}

#[tokio::test]
async fn a_job_like_pod_succeeds_and_keeps_its_machine_for_the_log() {
    let cluster = Cluster::start().await;
    let pod = cluster
        .create("job", &json!({"restartPolicy": "Never"}))
        .await;
    let machine = cluster.machine_of(&pod).await;
    cluster.fake.boot(&machine.id);
    cluster.pod("job", |pod| phase(pod) == "Running").await;
    cluster.fake.end(&machine.id, 0);
    let ended = cluster.pod("job", |pod| phase(pod) == "Succeeded").await;
    let state = &ended["status"]["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["reason"], "Completed");
    assert_eq!(cluster.fake.machines().len(), 1);
}

#[tokio::test]
async fn a_machine_that_ends_by_itself_is_booted_again() {
    let cluster = Cluster::start().await;
    let pod = cluster.create("web", &json!({})).await;
    let machine = cluster.machine_of(&pod).await;
    cluster.fake.boot(&machine.id);
    cluster.pod("web", |pod| phase(pod) == "Running").await;
    cluster.fake.end(&machine.id, 1);
    eventually(|| async {
        let machine = cluster.fake.machines().remove(0);
        (machine.state == types::machine::MachineState::Started).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_room_a_pod_waits_and_gets_its_machine_later() {
    let cluster = Cluster::start().await;
    cluster
        .fake
        .refuse(Some(json!({"error": "no room for 256 MiB",
        "status": "insufficient_capacity", "details": {"retryable": true, "hint": "stop one"}})));
    let pod = cluster.create("web", &json!({})).await;
    eventually(|| async {
        let reasons = cluster.reasons().await;
        reasons
            .contains(&"FailedScheduling".to_owned())
            .then_some(())
    })
    .await;
    let why = "no room for 256 MiB; stop one";
    let state = |pod: &Value| pod["status"]["containerStatuses"][0]["state"].clone();
    cluster
        .pod("web", |pod| state(pod)["waiting"]["message"] == why)
        .await;
    cluster.fake.refuse(None);
    cluster.machine_of(&pod).await;
}

#[tokio::test]
async fn a_machine_whose_pod_was_deleted_by_force_is_destroyed() {
    let cluster = Cluster::start().await;
    let pod = cluster.create("web", &json!({})).await;
    let machine = cluster.machine_of(&pod).await;
    cluster.fake.boot(&machine.id);
    let options = DeleteOptions::now();
    cluster
        .api
        .delete(&PODS, Some("default"), "web", &options)
        .await
        .unwrap();
    eventually(|| async { cluster.fake.machines().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_provider_that_is_started_again_goes_on_where_the_other_stopped() {
    let cluster = Cluster::start().await;
    let kept = cluster.create("kept", &json!({})).await;
    let gone = cluster.create("gone", &json!({})).await;
    let machine = cluster.machine_of(&kept).await;
    cluster.machine_of(&gone).await;
    cluster.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.fake.boot(&machine.id);
    let options = DeleteOptions::now();
    cluster
        .api
        .delete(&PODS, Some("default"), "gone", &options)
        .await
        .unwrap();
    let _stop = cluster.provider(&CancellationToken::new());
    cluster.pod("kept", |pod| phase(pod) == "Running").await;
    let left = eventually(|| async {
        let machines = cluster.fake.machines();
        (machines.len() == 1).then_some(machines)
    })
    .await;
    assert_eq!(left[0].id, machine.id);
}

#[tokio::test]
async fn what_machines_cannot_do_is_said_in_the_pods_status() {
    let cluster = Cluster::start().await;
    cluster.create("host", &json!({"hostNetwork": true})).await;
    let pod = cluster
        .pod("host", |pod| waiting(pod) == "ProviderUnsupported")
        .await;
    let message = object::text(&pod, &["status", "message"]);
    assert!(
        message.starts_with("spec.hostNetwork is not supported"),
        "{message}"
    );
    assert!(cluster.fake.machines().is_empty());
}

#[tokio::test]
async fn a_pod_waits_for_the_config_map_that_it_names() {
    let cluster = Cluster::start().await;
    let env = json!([{"name": "A", "valueFrom":
        {"configMapKeyRef": {"name": "settings", "key": "a"}}}]);
    let containers = json!([{"name": "c", "image": "localhost/hello:1", "env": env}]);
    let pod = cluster
        .create("web", &json!({"containers": containers}))
        .await;
    cluster
        .pod("web", |pod| waiting(pod) == "CreateContainerConfigError")
        .await;
    let settings = json!({"metadata": {"name": "settings"}, "data": {"a": "b"}});
    let config_maps = &crate::resource::CONFIG_MAPS;
    cluster
        .api
        .create(config_maps, Some("default"), settings)
        .await
        .unwrap();
    let machine = cluster.machine_of(&pod).await;
    assert_eq!(machine.config.containers[0].env["A"], "b");
}

#[tokio::test]
async fn a_pod_that_fits_no_node_is_scheduled_when_one_appears() {
    let cluster = Cluster::start().await;
    let selector = json!({"nodeSelector": {"disk": "fast"}});
    cluster.create("web", &selector).await;
    let scheduled = |pod: &Value| {
        let conditions = object::items(pod, &["status", "conditions"]);
        let mut conditions = conditions.iter();
        conditions.find(|c| c["type"] == "PodScheduled").cloned()
    };
    let why = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    cluster
        .pod("web", |pod| {
            scheduled(pod).is_some_and(|c| c["message"] == why)
        })
        .await;
    let patch = crate::api::Patch::Merge(json!({"metadata": {"labels": {"disk": "fast"}}}));
    let part = crate::api::Part::Object;
    cluster
        .api
        .patch(&NODES, part, None, "local", &patch)
        .await
        .unwrap();
    cluster
        .pod("web", |pod| pod["spec"]["nodeName"] == "local")
        .await;
}

#[tokio::test]
async fn many_pods_at_once_each_get_one_machine_and_all_of_them_go() {
    /// More than the syncs that run at a time, so that the queue is used.
    const PODS_COUNT: usize = 60;
    let cluster = Cluster::start().await;
    for number in 0..PODS_COUNT {
        cluster.create(&format!("p{number}"), &json!({})).await;
    }
    let machines = eventually(|| async {
        let machines = cluster.fake.machines();
        (machines.len() == PODS_COUNT).then_some(machines)
    })
    .await;
    for machine in &machines {
        cluster.fake.boot(&machine.id);
    }
    for number in 0..PODS_COUNT {
        let name = format!("p{number}");
        cluster.pod(&name, |pod| phase(pod) == "Running").await;
    }
    assert_eq!(cluster.fake.machines().len(), PODS_COUNT);
    let everything = Selector::default();
    let options = DeleteOptions::default();
    let deleted = cluster
        .api
        .delete_collection(&PODS, Some("default"), &everything, &options);
    assert_eq!(deleted.await.unwrap().len(), PODS_COUNT);
    eventually(|| async { cluster.fake.machines().is_empty().then_some(()) }).await;
    eventually(|| async { cluster.get("p0").await.is_none().then_some(()) }).await;
}

/// The owner of pods that somebody replaces.
fn owned_by(kind: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "u", "controller": true}])
}

fn ready(pod: &Value) -> (&str, &str) {
    let mut conditions = object::items(pod, &["status", "conditions"]).iter();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.map_or(("", ""), |ready| {
        let text = |key| object::text(ready, &[key]);
        (text("status"), text("reason"))
    })
}

impl Cluster {
    /// A pod with this kind of controller, or none, that runs.
    async fn running(&self, name: &str, kind: Option<&str>) -> (Value, types::machine::Machine) {
        let mut pod = json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "localhost/hello:1"}]}});
        if let Some(kind) = kind {
            pod["metadata"]["ownerReferences"] = owned_by(kind);
        }
        let pod = self.api.create(&PODS, Some("default"), pod).await.unwrap();
        let machine = self.machine_of(&pod).await;
        self.fake.boot(&machine.id);
        let running = self.pod(name, |pod| ready(pod).0 == "True").await;
        (running, machine)
    }

    async fn delete(&self, name: &str, options: &DeleteOptions) {
        let deleted = self.api.delete(&PODS, Some("default"), name, options);
        deleted.await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_of_a_silent_host_is_given_up_if_somebody_replaces_it() {
    let cluster = Cluster::start().await;
    let (_, machine) = cluster.running("web", Some("ReplicaSet")).await;
    cluster.fake.set_host(&machine.id, HostStatus::Unreachable);
    let silent = ("False", "HostUnreachable");
    cluster.pod("web", |pod| ready(pod) == silent).await;
    eventually(|| async { cluster.get("web").await.is_none().then_some(()) }).await;
    let reasons = cluster.reasons().await;
    for reason in ["HostUnreachable", "HostSilent"] {
        assert!(reasons.contains(&reason.to_owned()), "{reasons:?}");
    }
    // It may still run, and nobody asks while the host is known to be silent.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.fake.machines().len(), 1);
    assert_eq!(cluster.fake.attempts(), 0);
    cluster.fake.set_host(&machine.id, HostStatus::Ok);
    eventually(|| async { cluster.fake.machines().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_host_that_is_back_in_time_loses_no_pod() {
    let cluster = Cluster::start().await;
    let (_, machine) = cluster.running("web", Some("ReplicaSet")).await;
    cluster.fake.set_host(&machine.id, HostStatus::Unreachable);
    cluster.pod("web", |pod| ready(pod).0 == "False").await;
    cluster.fake.set_host(&machine.id, HostStatus::Ok);
    cluster.pod("web", |pod| ready(pod).0 == "True").await;
    tokio::time::sleep(config().silent_after * 2).await;
    assert_eq!(cluster.fake.machines().len(), 1);
    assert!(cluster.get("web").await.is_some());
}

#[tokio::test]
async fn nothing_is_replaced_while_all_other_hosts_are_silent_at_once() {
    let cluster = Cluster::start().await;
    let (_, machine) = cluster.running("web", Some("ReplicaSet")).await;
    let all = [(HostStatus::Unreachable, 70.0); 2];
    cluster.fake.set_peers(&all);
    cluster.fake.set_host(&machine.id, HostStatus::Unreachable);
    cluster.pod("web", |pod| ready(pod).0 == "False").await;
    let told = || async {
        let reasons = cluster.reasons().await;
        reasons.contains(&"HostsUnreachable".into()).then_some(())
    };
    eventually(told).await;
    tokio::time::sleep(config().silent_after * 2).await;
    assert!(cluster.get("web").await.is_some());
    // Who knows better deletes it.
    cluster.delete("web", &DeleteOptions::default()).await;
    eventually(|| async { cluster.get("web").await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn of_two_machines_of_one_pod_the_older_is_destroyed() {
    let cluster = Cluster::start().await;
    let (pod, machine) = cluster.running("web", Some("ReplicaSet")).await;
    let older = cluster.fake.double(&machine.id);
    let only = || async {
        let machines = cluster.fake.machines();
        (machines.len() == 1).then(|| machines[0].id.clone())
    };
    assert_eq!(eventually(only).await, machine.id);
    assert_ne!(machine.id, older);
    // Also while nobody is looking.
    cluster.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.fake.double(&machine.id);
    let _again = cluster.provider(&CancellationToken::new());
    assert_eq!(eventually(only).await, machine.id);
    let now = cluster.get("web").await.unwrap();
    assert_eq!(object::uid(&now), object::uid(&pod));
}

#[tokio::test]
async fn bare_pods_and_those_of_stateful_sets_wait_for_their_host() {
    let cluster = Cluster::start().await;
    let (_, bare) = cluster.running("bare", None).await;
    let (_, set) = cluster.running("set-0", Some("StatefulSet")).await;
    for machine in [&bare, &set] {
        cluster.fake.set_host(&machine.id, HostStatus::Unreachable);
    }
    for name in ["bare", "set-0"] {
        cluster.pod(name, |pod| ready(pod).0 == "False").await;
    }
    tokio::time::sleep(config().silent_after * 2).await;
    // Deleted with grace it waits for its machine; by force it does not.
    cluster.delete("bare", &DeleteOptions::default()).await;
    cluster.delete("set-0", &DeleteOptions::now()).await;
    assert!(cluster.get("set-0").await.is_none());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(cluster.get("bare").await.is_some());
    assert_eq!(cluster.fake.machines().len(), 2);
    for machine in [&bare, &set] {
        cluster.fake.set_host(&machine.id, HostStatus::Ok);
    }
    eventually(|| async { cluster.fake.machines().is_empty().then_some(()) }).await;
    eventually(|| async { cluster.get("bare").await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_asked_again_without_haste() {
    let cluster = Cluster::start().await;
    let (_, machine) = cluster.running("web", None).await;
    cluster.fake.set_answers(&machine.id, false);
    cluster.delete("web", &DeleteOptions::now()).await;
    eventually(|| async { (cluster.fake.attempts() > 0).then_some(()) }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.fake.attempts(), 1);
    cluster.fake.set_answers(&machine.id, true);
    eventually(|| async { cluster.fake.machines().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn the_node_is_as_large_as_the_hosts_of_its_region_together() {
    for (region, expected) in [
        (json!({}), ["4", "4Gi", "100"]),
        (
            json!({"hosts": 3,
                "host_capacity": {"cpus": 24, "memory_mb": 1000, "disk_mb": 2000}}),
            ["24", "1000Mi", "300"],
        ),
    ] {
        let fake = Fake::start();
        fake.set_region(region);
        let cluster = Cluster::over(fake).await;
        eventually(|| async {
            let node = cluster.api.get(&NODES, None, "local").await.ok()?;
            let capacity = &node["status"]["capacity"];
            let found = ["cpu", "memory", "pods"].map(|part| capacity[part].clone());
            (found == expected && node["status"]["allocatable"] == *capacity).then_some(())
        })
        .await;
    }
}
