//! Where the numbers come from by which pods are added and taken away.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde_json::Value;

/// What is asked for. Numbers are in base units: cores, bytes, or whatever the metric counts.
#[derive(Debug, Clone)]
pub enum MetricQuery<'a> {
    /// A resource that pods use, or one container of each: by name of the pod.
    Resource {
        namespace: &'a str,
        resource: &'a str,
        container: Option<&'a str>,
        selector: &'a Value,
    },
    /// A metric of each pod.
    Pods {
        namespace: &'a str,
        metric: &'a Value,
        selector: &'a Value,
    },
    /// A metric of one object: one number, under any name.
    Object {
        namespace: &'a str,
        metric: &'a Value,
        object: &'a Value,
    },
    /// A metric of something outside the cluster: its numbers are summed.
    External {
        namespace: &'a str,
        metric: &'a Value,
    },
}

/// Why there are no numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no metrics returned from {api}")]
pub struct NoMetrics {
    /// Which interface has none.
    pub api: &'static str,
}

/// A source of numbers.
pub trait Metrics: Send + Sync + std::fmt::Debug {
    /// The numbers by name.
    fn get<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, f64>, NoMetrics>>;
}

impl MetricQuery<'_> {
    /// What upstream calls the interface that is asked.
    pub(crate) fn api(&self) -> &'static str {
        match self {
            Self::Resource { .. } => "resource metrics API",
            Self::Pods { .. } | Self::Object { .. } => "custom metrics API",
            Self::External { .. } => "external metrics API",
        }
    }
}
