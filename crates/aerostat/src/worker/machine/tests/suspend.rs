//! Machines whose memory is saved, and what becomes of it.

use super::*;

const CLEAR: Effect = Effect::Clear { boot: BootId(1) };
const DISCARD: Effect = Effect::Discard { boot: BootId(1) };

fn emulated() -> Machine {
    machine(json!({"image": "x", "isolation": "emulated", "restart": {"policy": "no"}})).started()
}

fn saved(boot: u64) -> Event {
    report(boot, 5, ReportEvent::Suspended)
}

fn suspended() -> Machine {
    let mut machine = emulated();
    let boot = BootId(1);
    assert_eq!(machine.then(10, Event::Suspend), [Effect::Suspend { boot }]);
    assert_eq!(machine.shown_state(), MachineState::Suspending);
    assert_eq!(newest(&machine), ("suspend", "suspending", "user"));
    assert_eq!(machine.then(11, saved(1)), [CLEAR]);
    assert_eq!(machine.then(12, Event::Cleared { boot }), []);
    assert_eq!(machine.shown_state(), MachineState::Suspended);
    assert_eq!(newest(&machine), ("suspend", "suspended", "flyd"));
    machine
}

#[test]
fn a_suspended_machine_goes_on_where_it_stood_and_its_memory_is_used_once() {
    let mut machine = suspended();
    assert!(!machine.holds_room() && machine.present_boot().is_none());
    let boot = BootId(2);
    assert_eq!(machine.then(20, Event::Start), [Effect::Prepare { boot }]);
    assert!(machine.resumes());
    assert_eq!(machine.runs(21), [DISCARD]);
    assert_eq!(newest(&machine), ("start", "started", "flyd"));
    assert_eq!(
        machine.recover(at(22))[0],
        DISCARD,
        "until it is known to be gone"
    );
    machine.then(23, Event::Discarded { boot: BootId(1) });
    assert_eq!(machine.saved, None);
}

#[test]
fn a_resume_that_fails_before_it_is_ready_becomes_a_boot_from_the_start() {
    let mut machine = suspended();
    machine.then(20, Event::Start);
    let (boot, images) = (BootId(2), images(&machine));
    let deadline = at(80);
    machine.then(
        21,
        Event::Prepared {
            boot,
            images,
            deadline,
        },
    );
    let reason = "cannot be read".to_owned();
    let failed = report(2, 1, ReportEvent::Failed { reason });
    assert_eq!(machine.then(22, failed), [Effect::Clear { boot }]);
    let told = machine.events[0].request.clone().unwrap();
    assert!(told.message.contains("starts afresh: cannot be read"));
    let cleared = machine.then(23, Event::Cleared { boot });
    assert_eq!(cleared, [DISCARD, Effect::Prepare { boot: BootId(3) }]);
    assert!(!machine.resumes());
    machine.then(23, Event::Discarded { boot: BootId(1) });
    machine.runs(24);
    assert_eq!(machine.restarts, 0, "it is no restart");
}

#[test]
fn memory_is_not_used_with_another_image() {
    let mut machine = suspended();
    machine.then(20, Event::Start);
    let mut other = images(&machine);
    other[0].digest = "sha256:other".into();
    let boot = BootId(2);
    let prepared = Event::Prepared {
        boot,
        images: other,
        deadline: at(80),
    };
    assert_eq!(machine.then(21, prepared), [Effect::Clear { boot }]);
    let cleared = machine.then(22, Event::Cleared { boot });
    assert_eq!(cleared, [DISCARD, Effect::Prepare { boot: BootId(3) }]);
}

#[test]
fn an_image_that_is_missing_leaves_the_memory_for_later() {
    let mut machine = suspended();
    machine.then(20, Event::Start);
    let (boot, container, reason) = (BootId(2), "app".to_owned(), "no registry".to_owned());
    let unprepared = Event::Unprepared {
        boot,
        container,
        reason,
    };
    assert_eq!(machine.then(21, unprepared), []);
    assert_eq!(machine.shown_state(), MachineState::Suspended);
    assert_eq!(machine.saved, Some(BootId(1)));
}

#[test]
fn a_stop_an_update_or_a_restart_drops_the_memory() {
    let stop = Event::Stop {
        signal: None,
        grace: None,
    };
    let mut machine = suspended();
    assert_eq!(machine.then(20, stop.clone()), [DISCARD]);
    assert_eq!(machine.shown_state(), MachineState::Stopped);

    let mut machine = suspended();
    let restart = Event::Restart {
        signal: None,
        grace: None,
        force: false,
    };
    let afresh = [DISCARD, Effect::Prepare { boot: BootId(2) }];
    assert_eq!(machine.then(20, restart), afresh);
    assert!(!machine.resumes());

    let mut machine = suspended();
    let effects = machine.then(20, changes::update(&machine.clone(), false));
    assert!(matches!(&effects[..], [Effect::Retire(_), DISCARD]));
    assert_eq!(machine.shown_state(), MachineState::Stopped);

    // While it is being saved, the body is left to end so.
    let mut machine = emulated();
    machine.then(10, Event::Suspend);
    assert_eq!(machine.then(11, stop), []);
    assert_eq!(machine.shown_state(), MachineState::Stopping);
    assert_eq!(machine.then(12, saved(1)), [CLEAR]);
    assert_eq!(
        machine.then(13, Event::Cleared { boot: BootId(1) }),
        [DISCARD]
    );
    assert_eq!(machine.shown_state(), MachineState::Stopped);
}

#[test]
fn a_suspended_machine_is_destroyed_without_force() {
    let mut machine = suspended();
    let destroy = Event::Destroy { force: false };
    assert_eq!(machine.then(20, destroy), [Effect::Forget]);
    machine.then(21, Event::Forgotten);
    assert_eq!(machine.saved, None);
}

#[test]
fn a_start_while_it_is_saved_brings_it_back_at_once() {
    let mut machine = emulated();
    machine.then(10, Event::Suspend);
    assert_eq!(machine.then(11, Event::Start), []);
    machine.then(12, saved(1));
    let cleared = machine.then(13, Event::Cleared { boot: BootId(1) });
    assert_eq!(cleared, [Effect::Prepare { boot: BootId(2) }]);
    assert!(machine.resumes());
}

#[test]
fn a_machine_that_cannot_be_saved_goes_on() {
    let mut container = machine(json!({"image": "x"})).started();
    let refused = container.apply(at(10), Event::Suspend);
    assert!(matches!(refused, Err(Refused::Vmm { .. })));

    let mut machine = emulated();
    machine.then(10, Event::Suspend);
    let (boot, reason) = (BootId(1), "disk full".to_owned());
    let refused = Event::SuspendRefused { boot, reason };
    assert_eq!(machine.then(11, refused), [DISCARD]);
    assert_eq!(machine.shown_state(), MachineState::Started);
    assert_eq!(newest(&machine), ("suspend", "started", "flyd"));
    assert!(machine.apply(at(12), Event::Suspend).is_ok());
    // One that hangs is ended, and what follows is up to the policy.
    assert_eq!(machine.then(400, Event::Tick), [CLEAR]);
    assert_eq!(machine.then(401, Event::Cleared { boot }), [DISCARD]);
    assert_eq!(machine.shown_state(), MachineState::Stopped);
}

#[test]
fn a_worker_that_died_while_it_saved_goes_on_saving_or_hears_that_it_was_saved() {
    let mut machine = emulated();
    machine.then(10, Event::Suspend);
    let boot = BootId(1);
    let again = [Effect::Adopt { boot, after: 1 }, Effect::Suspend { boot }];
    assert_eq!(machine.recover(at(11)), again);
    let mut machine = emulated();
    assert_eq!(machine.then(10, saved(1)), [CLEAR]);
    machine.then(11, Event::Cleared { boot });
    assert_eq!(machine.shown_state(), MachineState::Suspended);
}
