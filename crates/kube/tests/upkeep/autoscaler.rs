//! As many pods as a metric asks for, with a source of numbers that the test holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use kube::controllers::ControllersConfig;
use kube::controllers::metrics::{MetricQuery, Metrics, NoMetrics};
use serde_json::{Value, json};

use super::world::World;

/// What every pod uses of its processors.
#[derive(Debug)]
struct Use {
    cores: Mutex<f64>,
    api: std::sync::OnceLock<kube::api::Api>,
}

impl Use {
    fn set(&self, cores: f64) {
        *self.cores.lock().expect("held briefly") = cores;
    }
}

impl Metrics for Use {
    fn get<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, f64>, NoMetrics>> {
        Box::pin(async move {
            let api = "resource metrics API";
            let MetricQuery::Resource {
                resource: "cpu", ..
            } = query
            else {
                return Err(NoMetrics { api });
            };
            let cores = *self.cores.lock().expect("held briefly");
            let store = self.api.get().ok_or(NoMetrics { api })?;
            let pods = crate::common::objects::all(store, &kube::resource::PODS).await;
            let pods = pods.iter().map(|pod| kube::object::name(pod).to_owned());
            Ok(pods.map(|pod| (pod, cores)).collect())
        })
    }
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c",
                "image": "a:1", "resources": {"requests": {"cpu": "100m"}}}]}}}})
}

fn autoscaler(name: &str, target: &str, resource: &str) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name}, "spec": {"maxReplicas": 4,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "metrics": [{"type": "Resource", "resource": {"name": resource,
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_as_the_metric_asks_and_the_autoscaler_says_why() {
    let test = "pods_come_and_go_as_the_metric_asks_and_the_autoscaler_says_why";
    let source = Arc::new(Use {
        cores: Mutex::new(0.2),
        api: std::sync::OnceLock::new(),
    });
    let with_metrics = |_: &crate::common::TestServer| ControllersConfig {
        metrics: Some(source.clone()),
        ..ControllersConfig::new("PEM")
    };
    let Some(world) = World::start_with(test, with_metrics).await else {
        return;
    };
    source.api.set(world.server.api.clone()).expect("once");
    world.apply(&deployment()).await;
    world.ok("rollout status deploy/web --timeout=120s").await;
    // 200 % of what is requested, and 50 % are wanted.
    world.apply(&autoscaler("web", "web", "cpu")).await;
    let reason = "New size: 4; reason: cpu resource utilization (percentage of request) above \
                  target";
    world
        .until_says("describe hpa web", &["SuccessfulRescale", reason])
        .await;
    world.ok("rollout status deploy/web --timeout=120s").await;
    let pods = world.ok("get pods -l app=web -o name").await;
    assert_eq!(pods.lines().count(), 4, "{pods}");
    // A tenth of what is wanted; changing the autoscaler makes it look at once.
    source.set(0.005);
    world
        .ok(r#"patch hpa web -p {"spec":{"minReplicas":2}}"#)
        .await;
    let reason = "New size: 2; reason: All metrics below target";
    world
        .until_says("describe hpa web", &["SuccessfulRescale", reason])
        .await;
    world
        .until("get deploy web -o jsonpath={.status.replicas}", |count| {
            count == "2"
        })
        .await;
    world
        .ok(r#"patch hpa web -p {"spec":{"minReplicas":3}}"#)
        .await;
    let reason = "New size: 3; reason: Current number of replicas below Spec.MinReplicas";
    world
        .until_says("describe hpa web", &["SuccessfulRescale", reason])
        .await;
    let active = "ScalingActive True ValidMetricFound the HPA was able to successfully calculate \
                  a replica count from cpu resource utilization (percentage of request)";
    world
        .until_says("describe hpa web", &["cpu on pods", active])
        .await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_without_numbers_or_target_says_what_is_missing() {
    let test = "an_autoscaler_without_numbers_or_target_says_what_is_missing";
    let Some(world) = World::start(test).await else {
        return;
    };
    world.apply(&deployment()).await;
    world.apply(&autoscaler("blind", "web", "memory")).await;
    let first = "failed to get memory utilization: unable to get metrics for resource memory: no \
                 metrics returned from resource metrics API";
    let all = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get memory resource \
         metric value: {first}"
    );
    let parts = [
        "FailedGetResourceMetric",
        first,
        "FailedComputeMetricsReplicas",
        &all,
    ];
    world.until_says("describe hpa blind", &parts).await;
    world.apply(&autoscaler("lost", "nowhere", "cpu")).await;
    let missing = "FailedGetScale the HPA controller was unable to get the target's current \
                   scale: deployments/scale.apps \"nowhere\" not found";
    let event = "deployments/scale.apps \"nowhere\" not found";
    world
        .until_says("describe hpa lost", &[missing, event])
        .await;
    world.server.stop().await;
}
