//! Decisions that follow from health checks.

use super::*;
use crate::supervisor::checks::tests::spec as check;

fn probe_of(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Probe { check: 0, round } => Some(*round),
        Effect::Probe { .. }
        | Effect::Start { .. }
        | Effect::Signal { .. }
        | Effect::Kill { .. }
        | Effect::Report(_)
        | Effect::Health(_)
        | Effect::End(_) => None,
    })
}

fn probed(round: u64, passed: bool) -> Event {
    let output = String::new();
    Event::Probed {
        check: 0,
        round,
        outcome: Outcome { passed, output },
    }
}

/// A container whose check stops it at the first failure.
fn watched(policy: RestartPolicy) -> Machine {
    let mut spec = machine(vec![container("a", policy)]);
    let mut live = check("a/live", Some("a"));
    (live.failure_threshold, live.stop_when_critical) = (1, true);
    spec.checks.push(live);
    Machine::new(&spec).unwrap()
}

#[test]
fn a_container_waits_for_another_to_be_healthy_once() {
    let waiting = on(container("b", No), "a", Healthy);
    let mut spec = machine(vec![container("a", Always), waiting]);
    spec.checks.push(check("a/up", Some("a")));
    let mut machine = Machine::new(&spec).unwrap();
    assert_eq!(starts(&machine.apply(now(0), Event::Tick)), [(0, 0)]);
    let effects = machine.apply(now(0), started(0, 0));
    let round = probe_of(&effects).unwrap();
    assert_eq!(starts(&effects), []);
    assert_eq!(starts(&machine.apply(now(0), probed(round, false))), []);
    assert_eq!(machine.next_deadline(), Some(Duration::from_secs(1)));
    let round = probe_of(&machine.apply(now(1), Event::Tick)).unwrap();
    assert_eq!(
        starts(&machine.apply(now(1), probed(round, true))),
        [(1, 0)]
    );
}

#[test]
fn a_dependency_that_ends_without_having_been_healthy_is_lost() {
    let waiting = on(container("b", No), "a", Healthy);
    let mut spec = machine(vec![container("a", No), waiting]);
    spec.checks.push(check("a/up", Some("a")));
    let mut machine = Machine::new(&spec).unwrap();
    machine.apply(now(0), Event::Tick);
    machine.apply(now(0), started(0, 0));
    let effects = machine.apply(now(1), exited(0, 0, 0));
    assert_eq!(end(&effects).unwrap().exit_code, CANNOT_START);
}

#[test]
fn a_critical_container_is_stopped_and_that_counts_as_a_failure() {
    let mut machine = watched(OnFailure);
    machine.apply(now(0), Event::Tick);
    let round = probe_of(&machine.apply(now(0), started(0, 0))).unwrap();
    let effects = machine.apply(now(0), probed(round, false));
    let signal = Effect::Signal {
        container: 0,
        pid: 100,
        signal: 15,
    };
    assert!(effects.contains(&signal), "{effects:?}");
    // It ends as if all were well, and is started again all the same.
    let effects = machine.apply(now(1), exited(0, 0, 0));
    assert!(end(&effects).is_none());
    let health = effects.iter().rev().find_map(|effect| match effect {
        Effect::Health(report) => Some(report.status),
        _ => None,
    });
    // Told before already.
    assert_eq!(health, None);
    assert_eq!(starts(&machine.apply(now(11), Event::Tick)), [(0, 1)]);
    assert!(probe_of(&machine.apply(now(11), started(0, 1))).is_some());
}

#[test]
fn a_critical_container_that_does_not_end_is_killed_also_during_a_stop() {
    for stops in [false, true] {
        let mut machine = watched(No);
        machine.apply(now(0), Event::Tick);
        let round = probe_of(&machine.apply(now(0), started(0, 0))).unwrap();
        machine.apply(now(0), probed(round, false));
        if stops {
            let grace = Duration::from_secs(100);
            let signal = None;
            let effects = machine.apply(now(1), Event::Stop { signal, grace });
            assert_eq!(effects, []);
        }
        let due = machine.next_deadline().unwrap();
        assert!(due <= UNHEALTHY_GRACE, "{due:?}");
        let effects = machine.apply(now(10), Event::Tick);
        let kill = Effect::Kill {
            container: 0,
            pid: 100,
        };
        assert!(effects.contains(&kill), "{effects:?}");
        let effects = machine.apply(now(11), exited(0, 0, 137));
        assert_eq!(end(&effects).unwrap().exit_code, 137);
        assert_eq!(machine.next_deadline(), None);
    }
}

#[test]
fn nobody_is_probed_during_a_stop() {
    let mut machine = watched(Always);
    machine.apply(now(0), Event::Tick);
    let round = probe_of(&machine.apply(now(0), started(0, 0))).unwrap();
    let stop = Event::Stop {
        signal: None,
        grace: Duration::from_secs(100),
    };
    machine.apply(now(1), stop);
    let effects = machine.apply(now(2), probed(round, false));
    assert_eq!(effects, []);
    assert_eq!(probe_of(&machine.apply(now(50), Event::Tick)), None);
}
