//! The work queues of controllers.

use std::collections::HashMap;
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prometheus::{Opts, Registry};

use super::{QUEUE_BUCKETS, counters, gauges, histograms, register};

/// Each family has one series for each queue.
#[derive(Debug)]
pub(super) struct Queues {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
}

impl Queues {
    pub(super) fn new(registry: &Registry) -> Self {
        let opts = |name: &str, help: &str| Opts::new(format!("workqueue_{name}"), help);
        let name = &["name"];
        let queues = Self {
            depth: gauges(opts("depth", "Names that wait."), name),
            adds: counters(opts("adds_total", "Names that were put in."), name),
            retries: counters(
                opts("retries_total", "Names that are looked at again later."),
                name,
            ),
            waited: histograms(
                opts("queue_duration_seconds", "Time that a name waits."),
                QUEUE_BUCKETS,
                name,
            ),
            worked: histograms(
                opts("work_duration_seconds", "Time that a name is worked on."),
                QUEUE_BUCKETS,
                name,
            ),
        };
        register(registry, &queues.depth);
        register(registry, &queues.adds);
        register(registry, &queues.retries);
        register(registry, &queues.waited);
        register(registry, &queues.worked);
        queues
    }

    pub(super) fn of(&self, name: &str) -> QueueMeter {
        let name = &[name];
        QueueMeter {
            depth: self.depth.with_label_values(name),
            adds: self.adds.with_label_values(name),
            retries: self.retries.with_label_values(name),
            waited: self.waited.with_label_values(name),
            worked: self.worked.with_label_values(name),
            since: HashMap::new(),
        }
    }
}

/// Counts what happens in one queue.
#[derive(Debug)]
pub(crate) struct QueueMeter {
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    waited: Histogram,
    worked: Histogram,
    /// Names that wait or are worked on, since when.
    since: HashMap<String, Instant>,
}

impl QueueMeter {
    pub(crate) fn added(&mut self, name: &str) {
        self.adds.inc();
        self.depth.inc();
        self.since.insert(name.to_owned(), Instant::now());
    }

    pub(crate) fn taken(&mut self, name: &str) {
        self.depth.dec();
        if let Some(since) = self.since.get_mut(name) {
            self.waited.observe(since.elapsed().as_secs_f64());
            *since = Instant::now();
        }
    }

    /// `is_again`: it will be looked at again later.
    pub(crate) fn finished(&mut self, name: &str, is_again: bool) {
        if let Some(since) = self.since.remove(name) {
            self.worked.observe(since.elapsed().as_secs_f64());
        }
        if is_again {
            self.retries.inc();
        }
    }
}
