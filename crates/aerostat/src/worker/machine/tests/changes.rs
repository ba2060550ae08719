//! Restarts, updates, schedules, metadata, cordons, checks and processes.

use types::guest::HealthReport;
use types::machine::{Health, RestartPolicy};

use super::*;

pub(super) fn update(machine: &Machine, launch: bool) -> Event {
    Event::Update(Box::new(Update {
        config: Arc::clone(&machine.config),
        isolation: machine.isolation,
        version: new_version(at(50)),
        launch,
        current_version: None,
        cordon: false,
        secrets: SecretsWanted::default(),
    }))
}

fn restart(force: bool) -> Event {
    Event::Restart {
        signal: None,
        grace: None,
        force,
    }
}

#[test]
fn a_restart_is_one_step_and_nobody_sees_it_stopped() {
    let mut machine = machine(json!({"image": "x"})).started();
    let boot = BootId(1);
    assert!(matches!(
        machine.then(10, restart(false))[..],
        [Effect::Signal { .. }]
    ));
    assert_eq!(machine.shown_state(), MachineState::Restarting);
    assert_eq!(newest(&machine), ("restart", "restarting", "user"));
    assert_eq!(machine.then(11, exit(1, 0)), [Effect::Clear { boot }]);
    assert_eq!(machine.shown_state(), MachineState::Restarting);
    let told = machine.events[0]
        .request
        .clone()
        .unwrap()
        .exit_event
        .unwrap();
    assert!(told.requested_stop && told.restarting);
    let cleared = machine.then(12, Event::Cleared { boot });
    assert_eq!(cleared, [Effect::Prepare { boot: BootId(2) }]);
    machine.runs(13);
    let boot = BootId(2);
    assert_eq!(machine.then(20, restart(true)), [Effect::Clear { boot }]);
    assert_eq!(
        machine.then(21, Event::Cleared { boot }),
        [Effect::Prepare { boot: BootId(3) }]
    );
}

#[test]
fn a_restart_of_a_machine_that_rests_starts_it() {
    let mut machine = machine(json!({"image": "x"}));
    let boot = BootId(1);
    assert_eq!(machine.then(1, restart(false)), [Effect::Prepare { boot }]);
    assert_eq!(newest(&machine), ("restart", "starting", "user"));
    let again = machine.then(2, restart(false));
    assert_eq!(
        again,
        [Effect::Abandon, Effect::Prepare { boot: BootId(2) }]
    );
}

#[test]
fn an_update_keeps_a_machine_that_rests_at_rest() {
    let mut created = machine(json!({"image": "x"}));
    let effects = created.then(1, update(&created.clone(), false));
    assert!(matches!(effects[..], [Effect::Retire(_)]));
    assert_eq!(created.shown_state(), MachineState::Created);
    assert_eq!(newest(&created), ("update", "created", "user"));
    let launched = created.then(2, update(&created.clone(), true));
    assert!(matches!(
        launched[..],
        [Effect::Retire(_), Effect::Prepare { .. }]
    ));
    assert_eq!(newest(&created), ("update", "starting", "user"));

    let mut running = machine(json!({"image": "x"})).started();
    running.then(10, update(&running.clone(), false));
    assert_eq!(running.shown_state(), MachineState::Updating);
    running.then(11, exit(1, 0));
    running.then(12, Event::Cleared { boot: BootId(1) });
    assert_eq!(running.shown_state(), MachineState::Stopped);
}

const HOUR: i64 = 3600;

#[test]
fn a_schedule_starts_a_machine_that_rests_and_counts_from_its_creation() {
    let config = json!({"image": "x", "schedule": "hourly", "restart": {"policy": "no"}});
    let mut machine = machine(config).started();
    assert_eq!(machine.due(), Some(at(HOUR)));
    machine.then(10, exit(1, 0));
    machine.then(10, Event::Cleared { boot: BootId(1) });
    assert!(!machine.is_scheduled_now(at(HOUR - 1)));
    assert!(machine.is_scheduled_now(at(HOUR)));
    machine.then(HOUR, Event::Tick);
    let due = machine.then(HOUR, Event::Scheduled { lacks: None });
    assert_eq!(due, [Effect::Prepare { boot: BootId(2) }]);
    assert_eq!(newest(&machine), ("start", "starting", "flyd"));
    machine.runs(HOUR + 1);
    // It runs when the next one is due: that one is left out.
    machine.then(2 * HOUR, Event::Tick);
    assert_eq!(machine.due(), Some(at(3 * HOUR)));
    machine.then(2 * HOUR + 5, exit(2, 0));
    machine.then(2 * HOUR + 5, Event::Cleared { boot: BootId(2) });
    // Those that were missed run once.
    let missed = 7 * HOUR + 5;
    machine.then(missed, Event::Tick);
    assert!(machine.is_scheduled_now(at(missed)));
    machine.then(missed, Event::Scheduled { lacks: None });
    assert_eq!(machine.due(), Some(at(8 * HOUR)));
}

#[test]
fn a_start_by_schedule_for_which_there_is_no_room_is_told_and_left_out() {
    let mut machine = machine(json!({"image": "x", "schedule": "daily"}));
    let lacks = Some("insufficient memory".to_owned());
    assert_eq!(machine.then(24 * HOUR, Event::Scheduled { lacks }), []);
    assert_eq!(machine.shown_state(), MachineState::Created);
    assert_eq!(newest(&machine), ("start", "failed", "flyd"));
    assert_eq!(machine.due(), Some(at(48 * HOUR)));
}

#[test]
fn metadata_changes_without_a_new_version() {
    let mut machine = machine(json!({"image": "x", "metadata": {"a": "1", "b": "2"}}));
    let version = machine.version.clone();
    let change = |values: &[(&str, Option<&str>)], replace, version: Option<String>| {
        let values = values.iter();
        let values = values.map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
        Event::Metadata(MetadataChange {
            values: values.collect(),
            replace,
            version,
        })
    };
    let given = [("a", None), ("b", Some("")), ("c", Some("3"))];
    machine.then(1, change(&given, false, Some(version.to_string())));
    let metadata = |machine: &Machine| machine.config.as_given().metadata.clone();
    assert_eq!(
        metadata(&machine),
        [("c".to_owned(), "3".to_owned())].into()
    );
    machine.then(2, change(&[("d", Some("4"))], true, None));
    assert_eq!(
        metadata(&machine),
        [("d".to_owned(), "4".to_owned())].into()
    );
    assert_eq!(machine.version, version);
    assert_eq!(machine.events.len(), 1, "no event tells of it");
    let stale = machine.apply(at(3), change(&[], false, Some("01".into())));
    assert!(matches!(stale, Err(Refused::StaleVersion { .. })));
}

#[test]
fn a_machine_is_cordoned_once_and_by_an_update() {
    let mut machine = machine(json!({"image": "x"}));
    machine.then(1, Event::Cordon(true));
    assert_eq!(newest(&machine), ("cordon", "created", "user"));
    machine.then(2, Event::Cordon(true));
    assert_eq!(machine.events.len(), 2);
    assert!(machine.show(1).cordoned);
    machine.then(3, update(&machine.clone(), false));
    assert!(machine.cordoned, "an update leaves it as it is");
    machine.then(4, Event::Cordon(false));
    assert_eq!(newest(&machine), ("uncordon", "created", "user"));
}

#[test]
fn checks_decide_whether_services_use_a_machine() {
    let checks = json!({
        "ready": {"type": "tcp", "port": 1, "kind": "readiness"},
        "seen": {"type": "tcp", "port": 2},
    });
    let mut machine = machine(json!({"image": "x", "checks": checks})).started();
    let told = |second: i64, check: &str, status, output: &str| {
        let health = HealthReport {
            check: check.into(),
            status,
            output: output.into(),
            unix_ms: 0,
        };
        let seq = u64::try_from(second).unwrap();
        report(1, seq, ReportEvent::Health(health))
    };
    assert!(
        !machine.show(1).serves(),
        "not before it is known to be ready"
    );
    machine.then(3, told(3, "ready", Health::Passing, "ok"));
    machine.then(4, told(4, "seen", Health::Critical, "refused"));
    machine.then(5, told(5, "stranger", Health::Critical, ""));
    let shown = machine.show(1);
    assert!(shown.serves());
    assert_eq!(shown.checks.len(), 2);
    assert_eq!(shown.checks[0].output, "ok");
    machine.then(6, told(6, "ready", Health::Passing, "another text"));
    assert_eq!(machine.checks[0].output, "ok", "not so soon");
    machine.then(40, told(40, "ready", Health::Passing, "another text"));
    assert_eq!(machine.checks[0].output, "another text");
    machine.then(41, told(41, "ready", Health::Critical, "refused"));
    assert!(!machine.show(1).serves());
    machine.then(42, Event::ShimGone { boot: BootId(1) });
    assert!(
        machine
            .checks
            .iter()
            .all(|check| check.status == Health::Warning)
    );
}

#[test]
fn a_machine_of_several_processes_ends_with_the_first_and_tells_its_exit() {
    let config = |policy: &str| {
        json!({
            "image": "x",
            "processes": [{"cmd": ["a"]}, {"cmd": ["b"]}],
            "restart": {"policy": policy},
        })
    };
    let ended = |exit_code, restart_after_ms| {
        let exit = ExitEvent {
            exit_code,
            ..ExitEvent::default()
        };
        let state = ContainerReportState::Exited {
            exit,
            restart_after_ms,
        };
        let container = "process-2".to_owned();
        let run = 0;
        report(
            1,
            5,
            ReportEvent::Container(ContainerReport {
                container,
                run,
                state,
            }),
        )
    };
    let mut failing = machine(config("on-failure")).started();
    assert_eq!(
        failing.then(9, ended(1, Some(100))),
        [],
        "it is started again in its place"
    );
    for (policy, expected) in [
        ("no", MachineState::Stopped),
        ("always", MachineState::Starting),
    ] {
        let mut machine = machine(config(policy)).started();
        let boot = BootId(1);
        let stopping = machine.then(10, ended(0, None));
        assert!(matches!(stopping[..], [Effect::Signal { .. }]));
        // What the others say when they are stopped is not how the machine has ended.
        let killed = report(
            1,
            9,
            ReportEvent::Exited {
                exit: unseen_exit(at(11)),
            },
        );
        assert_eq!(machine.then(11, killed), [Effect::Clear { boot }]);
        let told = machine.events[0]
            .request
            .clone()
            .unwrap()
            .exit_event
            .unwrap();
        assert_eq!((told.exit_code, told.requested_stop), (0, false));
        machine.then(12, Event::Cleared { boot });
        assert_eq!(machine.shown_state(), expected);
    }
    assert_eq!(failing.config.restart().policy, RestartPolicy::OnFailure);
}

#[test]
fn a_boot_that_had_not_begun_when_the_worker_died_begins_anew() {
    let mut machine = machine(json!({"image": "x", "restart": {"policy": "no"}}));
    machine.then(1, Event::Start);
    let boot = BootId(1);
    let prepared = Event::Prepared {
        boot,
        images: images(&machine),
        deadline: at(60),
    };
    machine.then(2, prepared);
    assert_eq!(machine.recover(at(3)), [Effect::Adopt { boot, after: 0 }]);
    assert_eq!(
        machine.then(4, Event::BootGone { boot }),
        [Effect::Clear { boot }]
    );
    let again = machine.then(5, Event::Cleared { boot });
    assert_eq!(again, [Effect::Prepare { boot: BootId(2) }]);
}

#[test]
fn a_size_is_shown_in_numbers_so_that_it_can_be_sent_back() {
    let machine = machine(json!({"image": "x", "size": "performance-2x"}));
    let shown = machine.show(1).config;
    assert_eq!(shown.guest.clone().unwrap().memory_mb, 4096);
    assert!(check(shown).is_ok());
}
