//! What pods use: the numbers behind `kubectl top` and HorizontalPodAutoscalers.
//!
//! The API server answers for `metrics.k8s.io` with them, and autoscalers are given the same ones
//! ([`ResourceMetrics`]). Where they come from is behind [`PodUsage`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::{Api, Selector};
use crate::controllers::metrics::{MetricQuery, Metrics, NoMetrics};
use crate::label_selector;
use crate::object;
use crate::resource::PODS;

const NANOS: f64 = 1e9;

/// What containers use, over a time that ended at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub at: Timestamp,
    pub window: Duration,
    /// By name of the container.
    pub containers: BTreeMap<String, Used>,
}

/// What one container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Billionths of a processor, on the average of the window.
    pub cpu_nanos: u64,
    /// At its end.
    pub memory_bytes: u64,
}

impl Usage {
    /// All containers together.
    pub fn sum(&self) -> Used {
        self.containers
            .values()
            .fold(Used::default(), |sum, one| sum.plus(*one))
    }
}

impl Used {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu_nanos: self.cpu_nanos.saturating_add(other.cpu_nanos),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

/// Whoever runs pods and knows what they use.
pub trait PodUsage: Send + Sync + std::fmt::Debug + 'static {
    /// What these pods use, by uid. A pod of which nothing is known yet is not in it.
    fn of<'a>(&'a self, pods: &'a [Value]) -> BoxFuture<'a, HashMap<String, Usage>>;
}

/// Resource metrics for autoscalers. There are no custom and no external ones.
#[derive(Debug, Clone)]
pub struct ResourceMetrics {
    api: Api,
    usage: Arc<dyn PodUsage>,
}

impl ResourceMetrics {
    pub fn new(api: Api, usage: Arc<dyn PodUsage>) -> Self {
        Self { api, usage }
    }

    async fn resource(
        &self,
        namespace: &str,
        resource: &str,
        container: Option<&str>,
        selector: &Value,
    ) -> Option<BTreeMap<String, f64>> {
        let selector = Selector::parse(&PODS, &label_selector::format(selector), "").ok()?;
        let pods = self.api.list(&PODS, Some(namespace), &selector).await;
        let (pods, _) = pods.ok()?;
        let usage = self.usage.of(&pods).await;
        let mut numbers = BTreeMap::new();
        for pod in &pods {
            let Some(usage) = usage.get(object::uid(pod)) else {
                continue;
            };
            let used = match container {
                Some(name) => usage.containers.get(name).copied(),
                None => Some(usage.sum()),
            };
            if let Some(number) = used.and_then(|used| number(used, resource)) {
                numbers.insert(object::name(pod).to_owned(), number);
            }
        }
        Some(numbers)
    }
}

/// In cores or bytes.
fn number(used: Used, resource: &str) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    match resource {
        "cpu" => Some(used.cpu_nanos as f64 / NANOS),
        "memory" => Some(used.memory_bytes as f64),
        _ => None,
    }
}

impl Metrics for ResourceMetrics {
    fn get<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, f64>, NoMetrics>> {
        async move {
            let api = query.api();
            let numbers = match query {
                MetricQuery::Resource {
                    namespace,
                    resource,
                    container,
                    selector,
                } => {
                    self.resource(namespace, resource, container, selector)
                        .await
                }
                MetricQuery::Pods { .. }
                | MetricQuery::Object { .. }
                | MetricQuery::External { .. } => None,
            };
            let numbers = numbers.filter(|numbers| !numbers.is_empty());
            numbers.ok_or(NoMetrics { api })
        }
        .boxed()
    }
}
