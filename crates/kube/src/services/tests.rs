//! Services from the API to the Machines API, with its rows in memory and pods on paper.

use std::time::Instant;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use types::service::Target;

use super::fake::Fake;
use super::*;
use crate::api::{Api, DeleteOptions, Part, Patch, Selector};
use crate::controllers::{self, ControllersConfig};
use crate::resource::{ENDPOINT_SLICES, EVENTS, PODS, SERVICES};

const HERE: Option<&str> = Some("default");

struct Cluster {
    api: Api,
    fake: Arc<Fake>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// An API server whose services are in `fake`; nobody looks after them yet.
    async fn new(fake: Arc<Fake>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store::Store::open(&store::Config::new(folder.path().join("k.db"))).unwrap();
        let services: Arc<dyn Services> = Arc::clone(&fake) as _;
        let api = Api::new(store).with_cluster_ips(Arc::new(Vips(services)));
        api.bootstrap().await.unwrap();
        Self {
            api,
            fake,
            stop: CancellationToken::new(),
            _folder: folder,
        }
    }

    fn run(&self) {
        let config = ControllersConfig::new("PEM");
        tokio::spawn(controllers::run(
            self.api.clone(),
            config,
            self.stop.clone(),
        ));
        let services: Arc<dyn Services> = Arc::clone(&self.fake) as _;
        tokio::spawn(run(self.api.clone(), services, self.stop.clone()));
    }

    async fn start() -> Self {
        let cluster = Self::new(Arc::default()).await;
        cluster.run();
        cluster
    }

    async fn service(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value, String> {
        let mut service = json!({"metadata": {"name": name}, "spec": {
            "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}});
        change(&mut service["spec"]);
        let made = self.api.create(&SERVICES, HERE, service).await;
        made.map_err(|status| status.message)
    }

    /// A pod that runs and is ready.
    async fn pod(&self, name: &str, app: &str, address: &str) {
        let pod = json!({"metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let mut pod = self.api.create(&PODS, HERE, pod).await.unwrap();
        pod["status"]["podIPs"] = json!([{"ip": address}]);
        pod["status"]["podIP"] = address.into();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        self.api.update_status(&PODS, HERE, pod).await.unwrap();
    }

    /// Waits until the service has these backends.
    async fn backends(&self, name: &str, expected: &[&str]) {
        let what = format!("backends of {name} are {expected:?}");
        eventually(&what, async || {
            let services = self.fake.services();
            let Some(service) = services.get(name) else {
                return false;
            };
            let backends = service.spec.backends.iter();
            let addresses = backends.map(|backend| match &backend.target {
                Target::Address(address) => address.to_string(),
                Target::Machine(id) => id.to_string(),
            });
            addresses.collect::<Vec<_>>() == expected
        })
        .await;
    }
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_service_leads_to_its_ready_pods_as_long_as_it_is_there() {
    let cluster = Cluster::start().await;
    let service = cluster.service("web", |_| {}).await.unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let vip = cluster.fake.services()["web.default"].vip.unwrap();
    assert_eq!(address, vip.to_string());
    assert_eq!(service["spec"]["clusterIPs"], json!([address]));
    cluster.pod("a", "web", "fdaa::a").await;
    cluster.pod("b", "web", "fdaa::b").await;
    cluster.pod("c", "db", "fdaa::c").await;
    cluster
        .backends("web.default", &["fdaa::a", "fdaa::b"])
        .await;
    let unready = cluster
        .api
        .set_pod_condition("default", "a", "Ready", "False", None);
    unready.await.unwrap();
    cluster.backends("web.default", &["fdaa::b"]).await;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
    let patched = cluster.api.patch(&PODS, Part::Object, HERE, "c", &patch);
    patched.await.unwrap();
    cluster
        .backends("web.default", &["fdaa::b", "fdaa::c"])
        .await;
    assert_eq!(cluster.fake.services()["web.default"].vip, Some(vip));
    let options = DeleteOptions::default();
    let deleted = cluster.api.delete(&SERVICES, HERE, "web", &options);
    deleted.await.unwrap();
    eventually("gone", async || cluster.fake.services().is_empty()).await;
    // The slices go with it.
    eventually("slices gone", async || {
        let everything = Selector::default();
        let listed = cluster.api.list(&ENDPOINT_SLICES, None, &everything);
        listed.await.unwrap().0.is_empty()
    })
    .await;
}

#[tokio::test]
async fn slices_of_a_service_without_selector_are_honoured() {
    let cluster = Cluster::start().await;
    let no_selector = |spec: &mut Value| drop(spec.as_object_mut().unwrap().remove("selector"));
    cluster.service("db", no_selector).await.unwrap();
    let slice = json!({"metadata": {"name": "db-1", "labels": {controllers::SERVICE_LABEL: "db"}},
        "addressType": "IPv6", "endpoints": [{"addresses": ["fdaa::d"]}],
        "ports": [{"port": 5432}]});
    let made = cluster.api.create(&ENDPOINT_SLICES, HERE, slice).await;
    made.unwrap();
    cluster.backends("db.default", &["fdaa::d"]).await;
    let ports = &cluster.fake.services()["db.default"].spec.backends[0].ports;
    assert_eq!(ports[&80], 5432);
}

#[tokio::test]
async fn a_headless_service_has_no_address_and_its_pods_names() {
    let cluster = Cluster::start().await;
    let headless = |spec: &mut Value| spec["clusterIP"] = "None".into();
    let service = cluster.service("web", headless).await.unwrap();
    assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    cluster.pod("a", "web", "fdaa::a").await;
    cluster.backends("web.default", &["fdaa::a"]).await;
    assert!(cluster.fake.services()["web.default"].spec.headless);
}

#[tokio::test]
async fn without_an_address_nothing_is_stored_and_an_existing_service_is_left_alone() {
    let cluster = Cluster::new(Arc::default()).await;
    cluster.fake.set_away(true);
    let refused = cluster.service("web", |_| {}).await.unwrap_err();
    assert!(refused.contains("the directory is away"), "{refused}");
    assert!(cluster.api.get(&SERVICES, HERE, "web").await.is_err());
    cluster.fake.set_away(false);
    cluster.service("web", |_| {}).await.unwrap();
    let puts = cluster.fake.puts();
    let again = cluster.service("web", |_| {}).await.unwrap_err();
    assert!(again.contains("already exists"), "{again}");
    assert_eq!(cluster.fake.puts(), puts);
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_is_right_is_not_written_again() {
    let fake = Arc::<Fake>::default();
    let cluster = Cluster::new(Arc::clone(&fake)).await;
    for orphan in ["old.default", "by-hand"] {
        fake.put(orphan, &ServiceSpec::default()).await.unwrap();
    }
    let service = cluster.service("web", |_| {}).await.unwrap();
    let puts = fake.puts();
    cluster.run();
    eventually("swept", async || fake.services().len() == 2).await;
    assert!(fake.services().contains_key("by-hand"));
    // Its allocation said all that there is to say.
    assert_eq!(fake.puts(), puts);
    let address = fake.services()["web.default"].vip.unwrap().to_string();
    assert_eq!(service["spec"]["clusterIP"], address);
}

#[tokio::test]
async fn a_name_is_looked_at_again_after_a_panic() {
    let cluster = Cluster::start().await;
    cluster.service("web", |_| {}).await.unwrap();
    cluster.backends("web.default", &[]).await;
    cluster.fake.panic_once();
    cluster.pod("web-0", "web", "fdaa:0:7:a7b:2:1:1:2").await;
    cluster
        .backends("web.default", &["fdaa:0:7:a7b:2:1:1:2"])
        .await;
}

#[tokio::test]
async fn a_failure_is_told_and_tried_again() {
    let cluster = Cluster::start().await;
    cluster.service("web", |_| {}).await.unwrap();
    cluster.fake.set_away(true);
    cluster.pod("a", "web", "fdaa::a").await;
    eventually("told", async || {
        let everything = Selector::default();
        let events = cluster.api.list(&EVENTS, None, &everything).await.unwrap();
        let mut events = events.0.iter();
        events.any(|event| event["reason"] == "FailedToSyncService")
    })
    .await;
    cluster.fake.set_away(false);
    cluster.backends("web.default", &["fdaa::a"]).await;
}

const AT: &str = "fdaa:0:7:a7b:2:0:1:1";

/// A door that leads to nobody.
#[derive(Debug)]
struct PaperDoor;

impl Door for PaperDoor {
    fn open(&self, _: Ipv6Addr) -> BoxFuture<'_, std::io::Result<std::net::SocketAddr>> {
        let at = format!("[{AT}]:6443").parse().unwrap();
        Box::pin(std::future::ready(Ok(at)))
    }
}

impl Cluster {
    fn keep_kubernetes(&self, fake: &Arc<Fake>) {
        let services: Arc<dyn Services> = Arc::clone(fake) as _;
        let config = Kubernetes {
            ca_pem: "PEM".into(),
            door: Some(Arc::new(PaperDoor)),
            among: Among::Alone,
        };
        let (api, stop) = (self.api.clone(), self.stop.clone());
        tokio::spawn(keep_kubernetes(api, services, config, stop));
    }

    /// The address of `kubernetes.default`, once it is not `other`.
    async fn kubernetes(&self, other: &str) -> String {
        let found = std::sync::Mutex::new(String::new());
        eventually("kubernetes.default", async || {
            let service = self.api.get(&SERVICES, HERE, "kubernetes").await;
            let service = service.unwrap_or_default();
            let address = object::text(&service, &["spec", "clusterIP"]);
            *found.lock().unwrap() = address.to_owned();
            !address.is_empty() && address != other
        })
        .await;
        found.into_inner().unwrap()
    }
}

#[tokio::test]
async fn kubernetes_default_leads_to_this_server_and_keeps_its_address() {
    let cluster = Cluster::start().await;
    cluster.keep_kubernetes(&cluster.fake);
    cluster.backends("kubernetes.default", &[AT]).await;
    let address = cluster.kubernetes("").await;
    for resource in [&SERVICES, &ENDPOINT_SLICES] {
        let deleted = cluster.api.get(resource, HERE, "kubernetes").await.unwrap();
        let options = DeleteOptions::now().with_uid(object::uid(&deleted));
        let done = cluster.api.delete(resource, HERE, "kubernetes", &options);
        done.await.unwrap();
        eventually("it is back", async || {
            let again = cluster.api.get(resource, HERE, "kubernetes").await;
            again.is_ok_and(|again| object::uid(&again) != object::uid(&deleted))
        })
        .await;
        cluster.backends("kubernetes.default", &[AT]).await;
        assert_eq!(cluster.kubernetes("").await, address);
    }
}

#[tokio::test]
async fn an_address_of_another_fleet_is_given_up() {
    let cluster = Cluster::new(Arc::default()).await;
    cluster.keep_kubernetes(&cluster.fake);
    let before = cluster.kubernetes("").await;
    cluster.stop.cancel();
    // The state is brought to a fleet whose directory has given that address to another service.
    let fake = Arc::<Fake>::default();
    let taken = fake.put("web.default", &ServiceSpec::default()).await;
    assert_eq!(taken.unwrap().vip.unwrap().to_string(), before);
    let services: Arc<dyn Services> = Arc::clone(&fake) as _;
    let there = Cluster {
        api: cluster
            .api
            .clone()
            .with_cluster_ips(Arc::new(Vips(services))),
        fake: Arc::clone(&fake),
        stop: CancellationToken::new(),
        _folder: tempfile::tempdir().unwrap(),
    };
    there.keep_kubernetes(&fake);
    let after = there.kubernetes(&before).await;
    let vip = fake.services()["kubernetes.default"].vip.unwrap();
    assert_eq!(after, vip.to_string());
}
