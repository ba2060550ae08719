//! Outcomes and what they amount to: by example, and over random histories.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::supervisor::tests::machine;

fn now(ms: u64) -> Now {
    Now {
        elapsed: Duration::from_millis(ms),
        unix: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn spec(name: &str, container: Option<&str>) -> CheckSpec {
    CheckSpec {
        name: name.into(),
        container: container.map(Into::into),
        probe: Probe::Tcp { port: 80 },
        interval_ms: 5_000,
        timeout_ms: 1_000,
        grace_ms: 0,
        success_threshold: 1,
        failure_threshold: 3,
        stop_when_critical: false,
    }
}

fn checks(all: Vec<CheckSpec>) -> Checks {
    let mut spec = machine(vec![]);
    spec.checks = all;
    let index = BTreeMap::from([("a", 0), ("b", 1)]);
    Checks::new(&spec, &index).unwrap()
}

fn outcome(passed: bool, output: &str) -> Outcome {
    let output = output.into();
    Outcome { passed, output }
}

fn reports(effects: &[Effect]) -> Vec<(Health, &str)> {
    let reports = effects.iter().filter_map(|effect| match effect {
        Effect::Health(report) => Some((report.status, report.output.as_str())),
        Effect::Probe { .. }
        | Effect::Start { .. }
        | Effect::Signal { .. }
        | Effect::Kill { .. }
        | Effect::Report(_)
        | Effect::End(_) => None,
    });
    reports.collect()
}

/// Makes the probe that is due and gives it that outcome.
fn probe(checks: &mut Checks, ms: u64, outcome: &Outcome) -> (Vec<Effect>, Option<usize>) {
    let mut effects = Vec::new();
    checks.settle(now(ms), &mut effects);
    let round = effects.iter().find_map(|effect| match effect {
        Effect::Probe { check: 0, round } => Some(*round),
        _ => None,
    });
    let round = round.expect("a probe is due");
    let stop = checks.probed(now(ms), 0, round, outcome, &mut effects);
    (effects, stop)
}

use Health::{Critical, Passing, Warning};

#[test]
fn a_check_is_warning_until_thresholds_are_reached_and_tells_changes_only() {
    let mut check = spec("web", None);
    check.success_threshold = 2;
    check.failure_threshold = 2;
    let mut checks = checks(vec![check]);
    let (good, bad) = (outcome(true, "200"), outcome(false, "refused"));
    let (effects, _) = probe(&mut checks, 0, &good);
    assert_eq!(reports(&effects), [(Warning, "not checked yet")]);
    // Soon again, since nothing is known yet.
    assert_eq!(checks.next_deadline(), Some(Duration::from_secs(1)));
    let (effects, _) = probe(&mut checks, 1_000, &good);
    assert_eq!(reports(&effects), [(Passing, "200")]);
    assert_eq!(checks.next_deadline(), Some(Duration::from_secs(6)));
    assert_eq!(reports(&probe(&mut checks, 6_000, &good).0), []);
    assert_eq!(reports(&probe(&mut checks, 11_000, &bad).0), []);
    assert_eq!(
        reports(&probe(&mut checks, 16_000, &bad).0),
        [(Critical, "refused")]
    );
    assert_eq!(reports(&probe(&mut checks, 21_000, &good).0), []);
    assert_eq!(
        reports(&probe(&mut checks, 26_000, &good).0),
        [(Passing, "200")]
    );
    // What it says while it stands as it stood waits for its time, and is not lost.
    let other = outcome(true, "201");
    for ms in [31_000, 36_000, 41_000, 46_000, 51_000] {
        assert_eq!(reports(&probe(&mut checks, ms, &other).0), []);
    }
    assert_eq!(
        reports(&probe(&mut checks, 56_000, &other).0),
        [(Passing, "201")]
    );
}

#[test]
fn failures_within_the_grace_do_not_count() {
    let mut check = spec("web", None);
    check.grace_ms = 10_000;
    check.failure_threshold = 1;
    let mut checks = checks(vec![check]);
    let bad = outcome(false, "refused");
    for ms in [0, 1_000, 2_000, 9_000] {
        let (effects, _) = probe(&mut checks, ms, &bad);
        assert!(
            reports(&effects)
                .iter()
                .all(|(status, _)| *status == Warning)
        );
    }
    assert_eq!(
        reports(&probe(&mut checks, 10_000, &bad).0),
        [(Critical, "refused")]
    );
}

#[test]
fn a_check_follows_the_runs_of_its_container() {
    let mut check = spec("a/web", Some("a"));
    check.failure_threshold = 1;
    check.stop_when_critical = true;
    let mut checks = checks(vec![check]);
    let mut effects = Vec::new();
    checks.settle(now(0), &mut effects);
    assert_eq!((effects.len(), checks.next_deadline()), (0, None));
    checks.begin(now(0), Some(1), &mut effects);
    assert!(effects.is_empty());
    checks.begin(now(0), Some(0), &mut effects);
    assert!(!checks.all_pass(0) && checks.are_there(0) && !checks.are_there(1));
    assert_eq!(probe(&mut checks, 0, &outcome(true, "")).1, None);
    assert!(checks.all_pass(0));
    assert_eq!(probe(&mut checks, 5_000, &outcome(false, "")).1, Some(0));
    let mut effects = Vec::new();
    checks.settle(now(10_000), &mut effects);
    checks.end(now(10_000), 0, &mut effects);
    let (Some(Effect::Probe { round, .. }), late) = (effects.first(), outcome(true, "")) else {
        panic!("{effects:?}");
    };
    let round = *round;
    // The outcome of an earlier run, before and after the next one has begun.
    assert_eq!(
        checks.probed(now(10_000), 0, round, &late, &mut effects),
        None
    );
    checks.begin(now(11_000), Some(0), &mut effects);
    checks.settle(now(11_000), &mut effects);
    checks.probed(now(11_000), 0, round, &late, &mut effects);
    assert!(!checks.all_pass(0));
    checks.stop();
    assert_eq!(checks.next_deadline(), None);
}

#[test]
fn checks_that_cannot_be_made_are_refused() {
    let http = |method: &str, path: &str, header: (&str, &str)| Probe::Http {
        port: 80,
        method: method.into(),
        path: path.into(),
        headers: vec![(header.0.into(), header.1.into())],
        tls: None,
    };
    let good = ("Host", "a b");
    let with = |probe| CheckSpec {
        probe,
        ..spec("x", None)
    };
    let mut stops = spec("x", None);
    stops.stop_when_critical = true;
    for bad in [
        vec![spec("x", None), spec("x", Some("a"))],
        vec![spec("x", Some("c"))],
        vec![stops],
        vec![with(Probe::Tcp { port: 0 })],
        vec![with(Probe::Exec { command: vec![] })],
        vec![with(http("GET /", "/", good))],
        vec![with(http("GET", "a", good))],
        vec![with(http("GET", "/ HTTP/1.1\r\nX: y", good))],
        vec![with(http("GET", "/", ("A:", "b")))],
        vec![with(http("GET", "/", ("A", "b\r\nC: d")))],
        (0..=CHECKS_MAX)
            .map(|n| spec(&n.to_string(), None))
            .collect(),
    ] {
        let mut spec = machine(vec![]);
        spec.checks = bad;
        let index = BTreeMap::from([("a", 0)]);
        assert!(Checks::new(&spec, &index).is_err(), "{:?}", spec.checks);
    }
    checks(vec![with(http("HEAD", "/healthz?x=%20", good))]);
}

#[derive(Debug, Clone)]
enum Step {
    Passes(u64),
    Answer(bool, u8),
    Begin,
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..4_000u64).prop_map(Step::Passes),
        4 => (any::<bool>(), 0..3u8).prop_map(|(passed, word)| Step::Answer(passed, word)),
        1 => Just(Step::Begin),
        1 => Just(Step::End),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// The model remembers every outcome of a run and derives the status from the whole list.
    #[test]
    fn the_status_is_what_the_last_outcomes_say_and_reports_are_rare(
        successes in 1..4u32,
        failures in 1..4u32,
        interval_ms in 100..3_000u64,
        grace_ms in prop_oneof![Just(0), 1..5_000u64],
        steps in steps(),
    ) {
        let mut check = spec("a/x", Some("a"));
        (check.success_threshold, check.failure_threshold) = (successes, failures);
        (check.interval_ms, check.grace_ms) = (interval_ms, grace_ms);
        let mut checks = checks(vec![check]);
        let (mut ms, mut probing, mut begun) = (0, None, None);
        let mut history: Vec<Option<bool>> = Vec::new();
        let mut model = Warning;
        let mut told: Option<(Health, u64)> = None;
        for step in steps {
            let mut effects = Vec::new();
            match step {
                Step::Passes(some) => ms += some,
                Step::Begin => {
                    checks.begin(now(ms), Some(0), &mut effects);
                    (begun, probing, model) = (Some(ms), None, Warning);
                    history.clear();
                }
                Step::End => {
                    checks.end(now(ms), 0, &mut effects);
                    (begun, probing, model) = (None, None, Critical);
                }
                Step::Answer(passed, word) => if let (Some(round), Some(begun)) = (probing, begun) {
                    checks.probed(now(ms), 0, round, &outcome(passed, &word.to_string()), &mut effects);
                    probing = None;
                    let counts = passed || ms - begun >= grace_ms;
                    history.push(counts.then_some(passed));
                    let last = |count: u32, what: bool| {
                        let row = history.iter().rev().take_while(|one| **one == Some(what));
                        row.count() >= count as usize
                    };
                    if last(successes, true) {
                        model = Passing;
                    } else if last(failures, false) {
                        model = Critical;
                    }
                },
            }
            checks.settle(now(ms), &mut effects);
            for effect in effects {
                match effect {
                    Effect::Probe { round, .. } => {
                        prop_assert!(probing.is_none() && begun.is_some());
                        probing = Some(round);
                    }
                    Effect::Health(report) => {
                        prop_assert_eq!(report.status, model);
                        if let Some((status, at)) = told {
                            prop_assert!(status != report.status || ms - at >= interval_ms);
                        }
                        told = Some((report.status, ms));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert!(told.is_none_or(|(status, _)| status == model));
            if begun.is_some() && probing.is_none() {
                prop_assert!(checks.next_deadline().is_some());
            }
        }
    }
}
