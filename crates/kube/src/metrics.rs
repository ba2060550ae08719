//! Numbers for Prometheus, under upstream's names. A cluster has its own, so that those of several
//! in one process do not mix.
//!
//! What is counted often is an atomic that was looked up before; a request looks its series up by
//! its labels, whose words are of the table of resources, so that no stranger makes new ones.

mod process;
mod queue;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::api::Api;

pub(crate) use queue::QueueMeter;

/// Upstream's, in seconds.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// A commit takes between a tenth of a millisecond and seconds.
const WRITE_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From ten nanoseconds in steps of ten, as upstream has it.
const QUEUE_BUCKETS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

/// The labels of a request's duration; its count has the code too.
const REQUEST: [&str; 7] = [
    "verb",
    "dry_run",
    "group",
    "version",
    "resource",
    "subresource",
    "scope",
];
const REQUEST_CODE: [&str; 8] = [
    "verb",
    "dry_run",
    "group",
    "version",
    "resource",
    "subresource",
    "scope",
    "code",
];
const LONG_RUNNING: [&str; 6] = [
    "verb",
    "group",
    "version",
    "resource",
    "subresource",
    "scope",
];

/// The numbers of one cluster.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) durations: HistogramVec,
    pub(crate) mutating: IntGauge,
    pub(crate) reading: IntGauge,
    pub(crate) long_running: IntGaugeVec,
    pub(crate) writes: Writes,
    objects: IntGaugeVec,
    revision: IntGauge,
    is_writable: IntGauge,
    queues: queue::Queues,
}

/// How long the store takes until a write is on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    pub(crate) create: Histogram,
    pub(crate) update: Histogram,
    pub(crate) delete: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let ours =
            |name: &str, help: &str| Opts::new(name, help).const_label("component", "apiserver");
        let requests = ours(
            "apiserver_request_total",
            "Requests by what they are about and the code of the answer.",
        );
        let durations = ours(
            "apiserver_request_duration_seconds",
            "Time from a request to the end of its answer.",
        );
        let in_flight = Opts::new(
            "apiserver_current_inflight_requests",
            "Requests that are being answered, those that change something and those that do not.",
        );
        let long_running = ours(
            "apiserver_longrunning_requests",
            "Watches and other streams that are open.",
        );
        let objects = Opts::new(
            "apiserver_storage_objects",
            "Objects in the store by resource.",
        );
        let revision = Opts::new(
            "aerostat_store_revision",
            "The newest revision of the store.",
        );
        let is_writable = Opts::new(
            "aerostat_store_writable",
            "1 as long as the store takes writes; 0 when its disk is full or fails.",
        );
        let writes = Opts::new(
            "aerostat_store_write_duration_seconds",
            "Time until a write is on the disk, by what it does.",
        );
        let writes = histograms(writes, WRITE_BUCKETS, &["operation"]);
        let in_flight = gauges(in_flight, &["request_kind"]);
        let metrics = Self {
            requests: counters(requests, &REQUEST_CODE),
            durations: histograms(durations, DURATION_BUCKETS, &REQUEST),
            mutating: in_flight.with_label_values(&["mutating"]),
            reading: in_flight.with_label_values(&["readOnly"]),
            long_running: gauges(long_running, &LONG_RUNNING),
            writes: Writes {
                create: writes.with_label_values(&["create"]),
                update: writes.with_label_values(&["update"]),
                delete: writes.with_label_values(&["delete"]),
            },
            objects: gauges(objects, &["resource"]),
            revision: gauge(revision),
            is_writable: gauge(is_writable),
            queues: queue::Queues::new(&registry),
            registry,
        };
        metrics.register(&in_flight);
        metrics.register(&writes);
        metrics.register(&metrics.requests);
        metrics.register(&metrics.durations);
        metrics.register(&metrics.long_running);
        metrics.register(&metrics.objects);
        metrics.register(&metrics.revision);
        metrics.register(&metrics.is_writable);
        metrics
    }
}

impl Metrics {
    fn register<C: Collector + Clone + 'static>(&self, family: &C) {
        register(&self.registry, family);
    }

    /// For the queue of a controller.
    pub(crate) fn queue(&self, name: &str) -> QueueMeter {
        self.queues.of(name)
    }

    /// Everything in Prometheus' text format; what is only looked at when somebody asks is counted
    /// now.
    pub(crate) fn text(&self, api: &Api) -> String {
        self.objects.reset();
        for row in api.resources().snapshot().rows() {
            // Another version of a resource has the same objects.
            if row.stored_as.is_some() || !row.verbs.contains(&"list") {
                continue;
            }
            let page = api.store().range(&row.prefix(None), None, 1, None);
            if let Ok(page) = page {
                let count = page.entries.len() + page.remaining;
                let gauge = self.objects.with_label_values(&[&row.qualified()]);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.revision
            .set(i64::try_from(api.current_rev()).unwrap_or(i64::MAX));
        self.is_writable.set(i64::from(api.check().is_ok()));
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_default() + &process::text()
    }
}

/// A family whose name and labels are constants of this module.
fn counters(opts: Opts, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(opts, labels).expect("constant names are good")
}

fn gauges(opts: Opts, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(opts, labels).expect("constant names are good")
}

fn gauge(opts: Opts) -> IntGauge {
    IntGauge::with_opts(opts).expect("constant names are good")
}

fn histograms(opts: Opts, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
    HistogramVec::new(opts, labels).expect("constant names are good")
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: &C) {
    let registered = registry.register(Box::new(family.clone()));
    registered.expect("each name stands here once");
}
