//! One metric of an autoscaler: what is asked for it, and how many pods the answer means. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::arithmetic::{self, Sample, Standing, Way};
use super::metrics::{MetricQuery, NoMetrics};
use crate::admission::amounts::Amount;
use crate::controllers::pods::{is_ready, phase};
use crate::object;

/// Why no number could be had: upstream's reason, and words.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A metric as the specification names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) kind: &'a str,
    pub(super) spec: &'a Value,
}

impl<'a> Source<'a> {
    pub(super) fn of(metric: &'a Value) -> Self {
        let kind = object::text(metric, &["type"]);
        let source = Self {
            kind,
            spec: &Value::Null,
        };
        Self {
            kind,
            spec: &metric[source.field()],
        }
    }

    /// Where the specification and the status have it.
    pub(super) fn field(self) -> &'static str {
        match self.kind {
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            _ => "external",
        }
    }

    pub(super) fn is_by_pod(self) -> bool {
        matches!(self.kind, "Resource" | "ContainerResource" | "Pods")
    }

    fn is_resource(self) -> bool {
        matches!(self.kind, "Resource" | "ContainerResource")
    }

    fn name(self) -> &'a str {
        object::text(self.spec, &["name"])
    }

    /// What upstream calls it when it says why it scales.
    pub(super) fn title(self) -> String {
        let name = self.name();
        let metric = object::text(self.spec, &["metric", "name"]);
        let is_average = self.spec["target"].get("averageValue").is_some();
        match self.kind {
            "Resource" | "ContainerResource" if is_average => format!("{name} resource"),
            "Resource" => format!("{name} resource utilization (percentage of request)"),
            "ContainerResource" => {
                format!("{name} container resource utilization (percentage of request)")
            }
            "Pods" => format!("pods metric {metric}"),
            "Object" if !is_average => {
                let kind = object::text(self.spec, &["describedObject", "kind"]);
                format!("{kind} metric {metric}")
            }
            _ => {
                let selector = printed(&self.spec["metric"]["selector"]);
                format!("external metric {metric}({selector})")
            }
        }
    }

    /// What upstream says when it counts the metrics that have no number.
    pub(super) fn failed(self, fault: &Fault) -> String {
        let name = self.name();
        let subject = match self.kind {
            "Resource" => format!("{name} resource"),
            "ContainerResource" => format!("{name} container"),
            "Pods" => "pods".to_owned(),
            "Object" => "object".to_owned(),
            _ => format!("{} external", object::text(self.spec, &["metric", "name"])),
        };
        format!("failed to get {subject} metric value: {}", fault.message)
    }

    fn fault(self, message: impl Into<String>) -> Fault {
        let reason = match self.kind {
            "Resource" | "ContainerResource" => "FailedGetResourceMetric",
            "Pods" => "FailedGetPodsMetric",
            "Object" => "FailedGetObjectMetric",
            _ => "FailedGetExternalMetric",
        };
        let message = message.into();
        Fault { reason, message }
    }

    pub(super) fn query(self, namespace: &'a str, selector: &'a Value) -> MetricQuery<'a> {
        let metric = &self.spec["metric"];
        match self.kind {
            "Resource" | "ContainerResource" => MetricQuery::Resource {
                namespace,
                resource: self.name(),
                container: self.spec["container"].as_str(),
                selector,
            },
            "Pods" => MetricQuery::Pods {
                namespace,
                metric,
                selector,
            },
            "Object" => MetricQuery::Object {
                namespace,
                metric,
                object: &self.spec["describedObject"],
            },
            _ => MetricQuery::External { namespace, metric },
        }
    }

    pub(super) fn unanswered(self, error: &NoMetrics) -> Fault {
        let name = self.name();
        let subject = if self.is_resource() {
            format!("failed to get {name} utilization: unable to get metrics for resource {name}")
        } else {
            let name = object::text(self.spec, &["metric", "name"]);
            format!("unable to get metric {name}")
        };
        self.fault(format!("{subject}: {error}"))
    }

    fn target(self, field: &str) -> Option<f64> {
        let amount = Amount::of(&self.spec["target"][field])?;
        Some(amount.ratio(Amount::count(1)))
    }

    /// Pods wanted by the use of each, and what the status tells of it.
    pub(super) fn by_pods(
        self,
        autoscaler: &Value,
        pods: &[Value],
        current: i64,
        values: &BTreeMap<String, f64>,
    ) -> Result<(i64, Value), Fault> {
        let name = self.name();
        let percent = self.spec["target"]["averageUtilization"].as_f64();
        let mut samples = Vec::new();
        for pod in pods {
            let full = match percent {
                Some(_) => arithmetic::request(pod, name, self.spec["container"].as_str()),
                None => Some(1.0),
            };
            let full = full.ok_or_else(|| {
                let pod = object::name(pod);
                self.fault(format!(
                    "failed to get {name} utilization: missing request for {name} in Pod {pod}"
                ))
            })?;
            samples.push(sample(pod, values.get(object::name(pod)), full));
        }
        let goal = percent.map(|percent| percent / 100.0);
        let goal = goal.or_else(|| self.target("averageValue"));
        let goal = goal.ok_or_else(|| self.fault("the target has no value"))?;
        let used: f64 = values.values().sum();
        let full: f64 = samples.iter().map(|one| one.full).sum();
        let ratio = if full > 0.0 { used / full / goal } else { 1.0 };
        let way = if ratio > 1.0 { Way::Up } else { Way::Down };
        let tolerance = arithmetic::tolerance(autoscaler, way);
        let count = u32::try_from(values.len().max(1)).unwrap_or(u32::MAX);
        let mut told = json!({"averageValue": milli(used / f64::from(count))});
        if percent.is_some() && full > 0.0 {
            told["averageUtilization"] = whole(used / full * 100.0).into();
        }
        let wanted = arithmetic::by_pods(&samples, goal, current, tolerance);
        Ok((wanted, told))
    }

    /// Pods wanted by one number, and what the status tells of it.
    pub(super) fn by_sum(
        self,
        autoscaler: &Value,
        pods: &[Value],
        current: i64,
        sum: f64,
    ) -> Result<(i64, Value), Fault> {
        let tolerance = |goal: f64| {
            let way = if sum > goal { Way::Up } else { Way::Down };
            arithmetic::tolerance(autoscaler, way)
        };
        if let Some(goal) = self.target("averageValue") {
            let count = f64::from(i32::try_from(current.max(1)).unwrap_or(i32::MAX));
            let told = json!({"averageValue": milli(sum / count)});
            let tolerance = tolerance(goal * count);
            return Ok((arithmetic::by_average(sum, goal, current, tolerance), told));
        }
        let goal = self.target("value");
        let goal = goal.ok_or_else(|| self.fault("the target has no value"))?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let ready = i64::try_from(ready).unwrap_or(i64::MAX);
        let wanted = arithmetic::by_value(sum, goal, ready, current, tolerance(goal));
        Ok((wanted, json!({"value": milli(sum)})))
    }
}

/// As quantities of metrics are written: with the largest suffix that leaves a whole number.
fn milli(value: f64) -> String {
    let mut number = whole((value * 1000.0).ceil());
    let mut suffixes = ["m", "", "k", "M", "G", "T", "P", "E"]
        .into_iter()
        .peekable();
    let mut suffix = suffixes.next().unwrap_or_default();
    while number % 1000 == 0 && number != 0 && suffixes.peek().is_some() {
        number /= 1000;
        suffix = suffixes.next().unwrap_or_default();
    }
    if number == 0 {
        return "0".into();
    }
    format!("{number}{suffix}")
}

/// As Go prints the selector of a metric: `nil` if there is none.
fn printed(selector: &Value) -> String {
    let Some(labels) = selector["matchLabels"].as_object() else {
        return "nil".into();
    };
    let labels: String = labels
        .iter()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:\
         []LabelSelectorRequirement{{}},}}"
    )
}

fn whole(value: f64) -> i64 {
    format!("{value:.0}").parse().unwrap_or(i64::MAX)
}

fn sample(pod: &Value, value: Option<&f64>, full: f64) -> Sample {
    let standing = match value {
        _ if phase(pod) == "Pending" || !is_ready(pod) => Standing::Unready,
        None => Standing::Missing,
        Some(_) => Standing::Ready,
    };
    Sample {
        standing,
        value: value.copied().unwrap_or(0.0),
        full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> Vec<Value> {
        let pod = |index: usize| {
            json!({"metadata": {"name": format!("p{index}")},
                "spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
        };
        (0..count).map(pod).collect()
    }

    #[test]
    fn a_metric_is_asked_for_and_its_answer_means_pods() {
        let metric = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let source = Source::of(&metric);
        let values = BTreeMap::from([("p0".to_owned(), 0.5), ("p1".to_owned(), 0.5)]);
        let (wanted, told) = source.by_pods(&json!({}), &pods(2), 2, &values).unwrap();
        assert_eq!(wanted, 4);
        assert_eq!(
            told,
            json!({"averageValue": "500m", "averageUtilization": 100})
        );
        let fault = source.unanswered(&NoMetrics {
            api: "resource metrics API",
        });
        assert_eq!(fault.reason, "FailedGetResourceMetric");
        assert_eq!(
            fault.message,
            "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics \
             returned from resource metrics API"
        );
        let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "10"}}});
        let external = Source::of(&external);
        assert_eq!(external.by_sum(&json!({}), &[], 2, 35.0).unwrap().0, 4);
        assert_eq!(milli(0.25), "250m");
        assert_eq!([milli(0.0), milli(2.0), milli(50e6)], ["0", "2", "50M"]);
        assert_eq!(
            source.title(),
            "cpu resource utilization (percentage of request)"
        );
        assert_eq!(external.title(), "external metric jobs(nil)");
        let selector = json!({"matchLabels": {"queue": "a"}});
        let go = "&LabelSelector{MatchLabels:map[string]string{queue: a,},MatchExpressions:\
                  []LabelSelectorRequirement{},}";
        assert_eq!(printed(&selector), go);
    }
}
