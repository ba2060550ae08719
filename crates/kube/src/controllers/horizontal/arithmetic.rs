//! How many pods a metric asks for, and how fast their number may follow. Pure; upstream's rules.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::object;

/// Metrics this near to their target change nothing; upstream's share.
pub(super) const TOLERANCE: f64 = 0.1;

/// Pods by what is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    Ready,
    /// Its metric says nothing yet.
    Unready,
    Missing,
}

/// A pod's metric, and what a full use of it would be: its request, or the target itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) standing: Standing,
    pub(super) value: f64,
    pub(super) full: f64,
}

/// Pods wanted so that the sum of the values comes to `target` (a share of the sum of the full
/// ones). `current` if nothing speaks clearly for a change.
pub(super) fn by_pods(samples: &[Sample], target: f64, current: i64, tolerance: f64) -> i64 {
    let of = |standing: Standing| samples.iter().filter(move |one| one.standing == standing);
    let ratio = |values: &[(f64, f64)]| {
        let (used, full) = values
            .iter()
            .fold((0.0, 0.0), |(used, full), (value, whole)| {
                (used + value, full + whole)
            });
        if full > 0.0 {
            used / full / target
        } else {
            1.0
        }
    };
    let mut values: Vec<_> = of(Standing::Ready)
        .map(|one| (one.value, one.full))
        .collect();
    if values.is_empty() {
        return current;
    }
    let first = ratio(&values);
    let is_near = |ratio: f64| (ratio - 1.0).abs() <= tolerance;
    let (missing, unready) = (of(Standing::Missing), of(Standing::Unready));
    let counts_unready = first > 1.0 && unready.clone().next().is_some();
    if !counts_unready && missing.clone().next().is_none() {
        return if is_near(first) {
            current
        } else {
            ceil(first * length(&values))
        };
    }
    // Who is not heard is taken to speak against the change.
    if first < 1.0 {
        values.extend(missing.map(|one| (one.full * target.max(1.0), one.full)));
    } else {
        values.extend(missing.map(|one| (0.0, one.full)));
    }
    if counts_unready {
        values.extend(unready.map(|one| (0.0, one.full)));
    }
    let second = ratio(&values);
    if is_near(second) || (first < 1.0) != (second < 1.0) {
        return current;
    }
    let wanted = ceil(second * length(&values));
    let is_contrary = if second < 1.0 {
        wanted > current
    } else {
        wanted < current
    };
    if is_contrary { current } else { wanted }
}

/// Pods wanted for one value that is not of pods: as many times the ready ones as it is off.
pub(super) fn by_value(value: f64, target: f64, ready: i64, current: i64, tolerance: f64) -> i64 {
    let ratio = value / target;
    if (ratio - 1.0).abs() <= tolerance {
        return current;
    }
    ceil(ratio * f64::from(i32::try_from(ready).unwrap_or(i32::MAX)))
}

/// Pods wanted so that each has `target` of the value.
pub(super) fn by_average(value: f64, target: f64, current: i64, tolerance: f64) -> i64 {
    let all = target * f64::from(i32::try_from(current).unwrap_or(i32::MAX));
    if all > 0.0 && (value / all - 1.0).abs() <= tolerance {
        return current;
    }
    ceil(value / target)
}

fn length(values: &[(f64, f64)]) -> f64 {
    f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX))
}

/// As upstream rounds: up, and never beyond what a replica count can be.
fn ceil(pods: f64) -> i64 {
    let bounded = pods.ceil().clamp(0.0, f64::from(i32::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within an i32")]
    let whole = bounded as i64;
    whole
}

/// One way, with its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// What was recommended and done before.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) recommended: Vec<(Timestamp, i64)>,
    /// Changes, by how many pods; negative for fewer.
    pub(super) changes: Vec<(Timestamp, i64)>,
}

impl Past {
    /// Forgets what no rule looks at; an hour is the longest that one can.
    pub(super) fn trim(&mut self, now: Timestamp) {
        let keep = |at: &Timestamp| now.duration_since(*at) <= SignedDuration::from_hours(1);
        self.recommended.retain(|(at, _)| keep(at));
        self.changes.retain(|(at, _)| keep(at));
    }
}

fn rules(autoscaler: &Value, way: Way) -> Value {
    let (name, window_s, policies) = match way {
        Way::Up => (
            "scaleUp",
            0,
            json!([{"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15}]),
        ),
        Way::Down => (
            "scaleDown",
            300,
            json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        ),
    };
    let mut rules = autoscaler["spec"]["behavior"][name].clone();
    if !rules.is_object() {
        rules = json!({});
    }
    if let Some(rules) = rules.as_object_mut() {
        object::default(rules, "stabilizationWindowSeconds", window_s);
        object::default(rules, "policies", policies);
        object::default(rules, "selectPolicy", "Max");
    }
    rules
}

/// Metrics this near to their target change nothing, each way.
pub(super) fn tolerance(autoscaler: &Value, way: Way) -> f64 {
    let own = &rules(autoscaler, way)["tolerance"];
    let own = crate::admission::amounts::Amount::of(own);
    own.map_or(TOLERANCE, |own| {
        own.ratio(crate::admission::amounts::Amount::count(1))
    })
}

/// Why a number is not what the metrics ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The number that windows, policies and bounds make of `desired`.
pub(super) fn follow(
    autoscaler: &Value,
    current: i64,
    desired: i64,
    past: &Past,
    now: Timestamp,
) -> (i64, Option<Limited>) {
    let stable = stabilized(autoscaler, current, desired, past, now);
    let bound = |field: &str, default| autoscaler["spec"][field].as_i64().unwrap_or(default);
    let (min, max) = (bound("minReplicas", 1), bound("maxReplicas", 1));
    let limited = |reason, message: &str| {
        let message = message.to_owned();
        Some(Limited { reason, message })
    };
    if stable > current {
        let rate = limit(autoscaler, Way::Up, current, past, now).max(current);
        if stable > rate.min(max) {
            return if rate < max {
                let message = "the desired replica count is increasing faster than the maximum \
                               scale rate";
                (rate, limited("ScaleUpLimit", message))
            } else {
                let message = "the desired replica count is more than the maximum replica count";
                (max, limited("TooManyReplicas", message))
            };
        }
    } else if stable < current {
        let rate = limit(autoscaler, Way::Down, current, past, now).min(current);
        if stable < rate.max(min) {
            return if rate > min {
                let message = "the desired replica count is decreasing faster than the maximum \
                               scale rate";
                (rate, limited("ScaleDownLimit", message))
            } else {
                let message = "the desired replica count is less than the minimum replica count";
                (min, limited("TooFewReplicas", message))
            };
        }
    }
    if stable > max {
        let message = "the desired replica count is more than the maximum replica count";
        return (max, limited("TooManyReplicas", message));
    }
    if stable < min {
        let message = "the desired replica count is less than the minimum replica count";
        return (min, limited("TooFewReplicas", message));
    }
    (stable, None)
}

/// Up only to the least that was asked for within the window, down only to the most.
fn stabilized(autoscaler: &Value, current: i64, desired: i64, past: &Past, now: Timestamp) -> i64 {
    let within = |way: Way| {
        let window_s = rules(autoscaler, way)["stabilizationWindowSeconds"].as_i64();
        let window = SignedDuration::from_secs(window_s.unwrap_or(0));
        let recent = past.recommended.iter();
        recent
            .filter(move |(at, _)| now.duration_since(*at) < window)
            .map(|(_, pods)| *pods)
    };
    let up = within(Way::Up).chain([desired]).min().unwrap_or(desired);
    let down = within(Way::Down).chain([desired]).max().unwrap_or(desired);
    if current < up {
        up
    } else if current > down {
        down
    } else {
        current
    }
}

/// How far the policies let it go.
fn limit(autoscaler: &Value, way: Way, current: i64, past: &Past, now: Timestamp) -> i64 {
    let rules = rules(autoscaler, way);
    let select = object::text(&rules, &["selectPolicy"]);
    if select == "Disabled" {
        return current;
    }
    let limits = object::items(&rules, &["policies"]).iter().map(|policy| {
        let number = |field: &str| policy[field].as_i64().unwrap_or(0);
        let period = SignedDuration::from_secs(number("periodSeconds"));
        let changes = past.changes.iter();
        let moved = |is_meant: fn(i64) -> bool| -> i64 {
            let recent = changes.clone();
            let recent = recent.filter(|(at, _)| now.duration_since(*at) < period);
            let all = recent.map(|(_, pods)| *pods);
            all.filter(|pods| is_meant(*pods)).sum()
        };
        let added = moved(|pods| pods > 0);
        let removed = -moved(|pods| pods < 0);
        let (value, percent) = (number("value"), policy["type"] == "Percent");
        match way {
            Way::Up => {
                let start = current - added;
                if percent {
                    (start * (100 + value) + 99) / 100
                } else {
                    start + value
                }
            }
            Way::Down => {
                let start = current + removed;
                if percent {
                    start * (100 - value) / 100
                } else {
                    start - value
                }
            }
        }
    });
    // "Max" is the greatest change.
    let is_far = matches!(select, "Max" | "") == (way == Way::Up);
    let limit = if is_far { limits.max() } else { limits.min() };
    limit.unwrap_or(current)
}

/// What each pod's container asks for of a resource, summed; none if one does not ask.
pub(super) fn request(pod: &Value, resource: &str, container: Option<&str>) -> Option<f64> {
    let containers = object::items(pod, &["spec", "containers"]).iter();
    let sidecars = object::items(pod, &["spec", "initContainers"]).iter();
    let sidecars = sidecars.filter(|one| one["restartPolicy"] == "Always");
    let mut sum = 0.0;
    for one in containers.chain(sidecars) {
        if container.is_some_and(|name| one["name"] != name) {
            continue;
        }
        let asked = object::at(one, &["resources", "requests", resource])?;
        let asked = crate::admission::amounts::Amount::of(asked)?;
        sum += asked.ratio(crate::admission::amounts::Amount::count(1));
    }
    Some(sum)
}

/// Time after which metrics are asked for again; upstream's.
pub(super) const PERIOD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn samples(ready: &[f64], unready: usize, missing: usize) -> Vec<Sample> {
        let one = |standing, value| Sample {
            standing,
            value,
            full: 1.0,
        };
        let mut all: Vec<_> = ready
            .iter()
            .map(|value| one(Standing::Ready, *value))
            .collect();
        all.extend((0..unready).map(|_| one(Standing::Unready, 0.0)));
        all.extend((0..missing).map(|_| one(Standing::Missing, 0.0)));
        all
    }

    #[test]
    fn as_many_pods_are_wanted_as_bring_the_metric_to_its_target() {
        let cases: [(&[f64], usize, usize, f64, i64); 9] = [
            // Upstream's table: three pods at 30 % use 50, 60, 90 want five.
            (&[0.3, 0.5, 0.7], 0, 0, 0.3, 5),
            (&[1.01, 1.02, 1.03], 0, 0, 1.0, 3),
            (&[0.1, 0.1, 0.1], 0, 0, 0.5, 1),
            (&[0.0, 0.0], 0, 0, 0.5, 0),
            // Those that are not ready damp a rise, and have no say in a fall.
            (&[0.9], 2, 0, 0.3, 3),
            (&[0.2], 2, 0, 0.5, 1),
            // Those that are missing hold against a change either way.
            (&[0.9, 0.9], 0, 1, 0.5, 4),
            (&[0.1, 0.1], 0, 2, 0.5, 4),
            (&[], 0, 3, 0.5, 3),
        ];
        for (ready, unready, missing, target, expected) in cases {
            let all = samples(ready, unready, missing);
            let current = i64::try_from(all.len()).unwrap();
            let wanted = by_pods(&all, target, current, TOLERANCE);
            assert_eq!(wanted, expected, "{ready:?} {unready} {missing} {target}");
        }
        assert_eq!(by_value(20.0, 10.0, 3, 3, TOLERANCE), 6);
        assert_eq!(by_value(10.5, 10.0, 3, 3, TOLERANCE), 3);
        assert_eq!(by_average(35.0, 10.0, 3, TOLERANCE), 4);
        assert_eq!(by_average(31.0, 10.0, 3, TOLERANCE), 3);
    }

    #[test]
    fn it_grows_by_the_default_policies_within_the_bounds() {
        let autoscaler = json!({"spec": {"minReplicas": 2, "maxReplicas": 50}});
        let go = |current, desired, past: &Past| {
            let (pods, limited) = follow(&autoscaler, current, desired, past, at(1000));
            (pods, limited.map(|one| one.reason))
        };
        let none = Past::default();
        assert_eq!(go(1, 3, &none), (3, None));
        assert_eq!(go(3, 40, &none), (7, Some("ScaleUpLimit")));
        assert_eq!(go(30, 90, &none), (50, Some("TooManyReplicas")));
        assert_eq!(go(5, 1, &none), (2, Some("TooFewReplicas")));
        let just_grown = Past {
            changes: vec![(at(990), 4)],
            ..Past::default()
        };
        assert_eq!(go(7, 40, &just_grown), (7, Some("ScaleUpLimit")));
        let long_ago = Past {
            changes: vec![(at(980), 4)],
            ..Past::default()
        };
        assert_eq!(go(7, 40, &long_ago), (14, Some("ScaleUpLimit")));
        // Down only to the most of the last five minutes.
        let busy = Past {
            recommended: vec![(at(800), 9), (at(600), 12)],
            ..Past::default()
        };
        assert_eq!(go(12, 3, &busy), (9, None));
    }

    #[test]
    fn a_behaviour_bounds_the_rate_or_forbids_a_way() {
        let with = |behavior: Value| json!({"spec": {"minReplicas": 1, "maxReplicas": 100, "behavior": behavior}});
        let go = |behavior: Value, current, desired| {
            follow(&with(behavior), current, desired, &Past::default(), at(0)).0
        };
        let pods = |value: i64| json!({"type": "Pods", "value": value, "periodSeconds": 60});
        let percent = |value: i64| json!({"type": "Percent", "value": value, "periodSeconds": 60});
        let down = |policies: Value, select: &str| json!({"scaleDown": {"policies": policies, "selectPolicy": select}});
        assert_eq!(go(down(json!([pods(4), percent(10)]), "Max"), 80, 1), 72);
        assert_eq!(go(down(json!([pods(4), percent(10)]), "Min"), 80, 1), 76);
        assert_eq!(go(down(json!([pods(4)]), "Disabled"), 80, 1), 80);
        let up = json!({"scaleUp": {"policies": [percent(50)], "selectPolicy": "Max"}});
        assert_eq!(go(up, 3, 50), 5);
        let tolerant = with(json!({"scaleUp": {"tolerance": "0.25"}}));
        assert!((tolerance(&tolerant, Way::Up) - 0.25).abs() < 1e-9);
        assert!((tolerance(&tolerant, Way::Down) - TOLERANCE).abs() < 1e-9);
    }
}
