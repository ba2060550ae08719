//! Suspension and resumption, and what kills at the worst moments leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use types::IsolationClass;
use vmm::{Report, ReportEvent, Vmm, VmmError};

use crate::fixture::{Fixture, container, exec};
use crate::{ready, started};

/// Counts in memory, and tells on disk and in its log.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; echo $i; sleep 0.1; done";
/// The count, once there is one: it may just be written.
const COUNT: &str = "until grep . /count; do sleep 0.1; done";
/// When the first process began, in ticks since its kernel began.
const BEGAN: &str = "cut -d' ' -f22 /proc/1/stat";

async fn counting(fixture: &Fixture, boot: u64) -> mpsc::Receiver<Report> {
    let mut reports = fixture.boot(boot, vec![container("main", COUNTER)]).await;
    fixture.wait(&mut reports, ready).await;
    fixture.wait(&mut reports, started).await;
    reports
}

async fn resumed(fixture: &Fixture, boot: u64) -> mpsc::Receiver<Report> {
    let mut spec = fixture.spec(boot, vec![container("main", COUNTER)]);
    spec.resume = true;
    fixture.vmm.boot(spec).await.unwrap();
    let (machine, boot) = (&fixture.machine, fixture.boot_id(boot));
    fixture.vmm.reports(machine, boot, 0).await.unwrap()
}

async fn suspend(fixture: &Fixture, boot: u64) {
    let (machine, boot) = (&fixture.machine, fixture.boot_id(boot));
    fixture.vmm.suspend(machine, boot).await.unwrap();
}

async fn output(fixture: &Fixture, boot: u64, script: &str) -> String {
    fixture.exec_in(boot, exec(script)).await.stdout
}

fn failed(report: &Report, with: &str) -> bool {
    matches!(&report.event, ReportEvent::Failed { reason } if reason.contains(with))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_machine_goes_on_where_it_stood() {
    let Some(fixture) = Fixture::new("suspend", IsolationClass::Emulated) else {
        return;
    };
    let mut reports = counting(&fixture, 1).await;
    let began = output(&fixture, 1, BEGAN).await;
    let mut count: u64 = 0;
    for boot in 1..4 {
        let text = output(&fixture, boot, COUNT).await;
        let later: u64 = text.trim().parse().unwrap();
        assert!(later > count, "{later} after {count}");
        count = later;
        let start = Instant::now();
        suspend(&fixture, boot).await;
        assert_eq!(
            fixture.end(&mut reports).await.event,
            ReportEvent::Suspended
        );
        eprintln!("suspended in {} ms", start.elapsed().as_millis());
        assert!(!fixture.has_qemu());
        let memory = fixture.data().join("suspended/memory");
        let mode = fs::metadata(&memory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fixture.kill(boot).await;
        assert!(memory.exists());
        let present = fixture.vmm.present().await.unwrap();
        assert_eq!(present, [(fixture.machine.clone(), None)]);

        let start = Instant::now();
        reports = resumed(&fixture, boot + 1).await;
        // Ready is what it says when it has told how everything is.
        fixture.wait(&mut reports, started).await;
        fixture.wait(&mut reports, ready).await;
        eprintln!("ready after {} ms", start.elapsed().as_millis());
        assert_eq!(output(&fixture, boot + 1, BEGAN).await, began);
        eprintln!("answered after {} ms", start.elapsed().as_millis());
        let clock = output(&fixture, boot + 1, "date +%s").await;
        let clock: u64 = clock.trim().parse().unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(
            clock.abs_diff(now.as_secs()) <= 5,
            "{clock} instead of {now:?}"
        );
        assert!(!memory.exists(), "nobody else may go on from it");
    }
    // A boot that does not resume begins anew, also when something is saved.
    suspend(&fixture, 4).await;
    assert_eq!(
        fixture.end(&mut reports).await.event,
        ReportEvent::Suspended
    );
    fixture.kill(4).await;
    counting(&fixture, 5).await;
    assert!(!fixture.data().join("suspended").exists());
    let text = output(&fixture, 5, COUNT).await;
    assert!(text.trim().parse::<u64>().unwrap() < count, "{text}");
    fixture.kill(5).await;
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_from_fails_the_boot_with_a_reason() {
    let Some(fixture) = Fixture::new("unusable", IsolationClass::Emulated) else {
        return;
    };
    let mut reports = resumed(&fixture, 1).await;
    let end = fixture.end(&mut reports).await;
    assert!(failed(&end, "nothing is saved"), "{end:?}");
    fixture.kill(1).await;

    let mut reports = counting(&fixture, 2).await;
    suspend(&fixture, 2).await;
    assert_eq!(
        fixture.end(&mut reports).await.event,
        ReportEvent::Suspended
    );
    fixture.kill(2).await;
    let saved = fixture.data().join("suspended");
    let about = fs::read_to_string(saved.join("about.json")).unwrap();
    let other = about.replace("QEMU ", "QEMU 9");
    assert_ne!(about, other);
    fs::write(saved.join("about.json"), other).unwrap();
    let end = fixture.end(&mut resumed(&fixture, 3).await).await;
    assert!(failed(&end, "was saved with the program QEMU 9"), "{end:?}");
    fixture.kill(3).await;

    // As long as it should be, and yet no memory.
    fs::write(saved.join("about.json"), &about).unwrap();
    let bytes = fs::metadata(saved.join("memory")).unwrap().len();
    fs::write(
        saved.join("memory"),
        vec![7; usize::try_from(bytes).unwrap()],
    )
    .unwrap();
    let end = fixture.end(&mut resumed(&fixture, 4).await).await;
    assert!(failed(&end, "QEMU"), "{end:?}");
    fixture.kill(4).await;

    fs::write(saved.join("memory"), "short").unwrap();
    let end = fixture.end(&mut resumed(&fixture, 5).await).await;
    assert!(failed(&end, "5 bytes instead of"), "{end:?}");
    fixture.kill(5).await;

    fixture
        .vmm
        .discard_suspended(&fixture.machine)
        .await
        .unwrap();
    fixture
        .vmm
        .discard_suspended(&fixture.machine)
        .await
        .unwrap();
    assert!(!saved.exists());
    counting(&fixture, 6).await;
    fixture.kill(6).await;
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_machine_cannot_be_suspended_and_lives_on() {
    let Some(fixture) = Fixture::new("no suspend", IsolationClass::Container) else {
        return;
    };
    let _reports = counting(&fixture, 1).await;
    let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
    let refused = fixture.vmm.suspend(machine, boot).await;
    assert!(
        matches!(refused, Err(VmmError::CannotSuspend { .. })),
        "{refused:?}"
    );
    assert_eq!(output(&fixture, 1, "echo alive").await, "alive\n");
    let mut spec = fixture.spec(2, vec![container("main", COUNTER)]);
    spec.resume = true;
    let refused = fixture.vmm.boot(spec).await;
    assert!(
        matches!(refused, Err(VmmError::CannotSuspend { .. })),
        "{refused:?}"
    );
    fixture.clean().await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Shim,
    Qemu,
}

/// Kills the victim when the shim of `boot` stands at the point where it is held.
async fn kill_held(fixture: &Fixture, boot: u64, victim: Victim) {
    fixture.eventually(async || fixture.is_held(boot)).await;
    match victim {
        Victim::Shim => fixture.kill_shim(),
        Victim::Qemu => {
            fixture.kill_qemu();
            fixture.release(boot);
        }
    }
}

/// The last report of a boot that lost its shim or QEMU at that point while it was suspended.
async fn killed_while_suspended(
    fixture: &mut Fixture,
    boot: u64,
    point: &str,
    victim: Victim,
) -> Report {
    fixture.hold(Some(point));
    let mut reports = counting(fixture, boot).await;
    suspend(fixture, boot).await;
    kill_held(fixture, boot, victim).await;
    let end = fixture.end(&mut reports).await;
    fixture.kill(boot).await;
    fixture.assert_no_process_left();
    end
}

async fn killed_while_resumed(
    fixture: &mut Fixture,
    boot: u64,
    point: &str,
    victim: Victim,
) -> Report {
    fixture.hold(Some(point));
    let mut reports = resumed(fixture, boot).await;
    kill_held(fixture, boot, victim).await;
    let end = fixture.end(&mut reports).await;
    fixture.kill(boot).await;
    fixture.assert_no_process_left();
    end
}

async fn survives_kills_of(victim: Victim) {
    let Some(mut fixture) = Fixture::new("kills", IsolationClass::Emulated) else {
        return;
    };
    let fixture = &mut fixture;
    let saved = fixture.data().join("suspended");
    let unfinished = fixture.data().join("suspended.new");

    let end = killed_while_suspended(fixture, 1, "paused", victim).await;
    assert!(failed(&end, ""), "{end:?}");
    assert!(!saved.exists());

    let end = killed_while_suspended(fixture, 2, "saved", victim).await;
    match victim {
        Victim::Shim => assert!(failed(&end, "shim was killed"), "{end:?}"),
        // The memory was complete, and the shim has brought it to its end.
        Victim::Qemu => assert_eq!(end.event, ReportEvent::Suspended),
    }
    assert_eq!(saved.exists(), victim == Victim::Qemu);
    assert!(!unfinished.exists(), "kill() has tidied up");

    let end = killed_while_suspended(fixture, 3, "completed", victim).await;
    assert_eq!(end.event, ReportEvent::Suspended, "it is complete");

    let end = killed_while_resumed(fixture, 4, "loaded", victim).await;
    assert!(failed(&end, ""), "{end:?}");
    if victim == Victim::Shim {
        assert!(saved.exists(), "nothing went on from it");
        let end = killed_while_resumed(fixture, 5, "taken", victim).await;
        assert!(failed(&end, ""), "{end:?}");
    }
    assert!(!saved.exists(), "it was taken");
    fixture.hold(None);
    let end = fixture.end(&mut resumed(fixture, 6).await).await;
    assert!(failed(&end, "nothing is saved"), "{end:?}");
    fixture.kill(6).await;

    let mut reports = counting(fixture, 7).await;
    suspend(fixture, 7).await;
    assert_eq!(
        fixture.end(&mut reports).await.event,
        ReportEvent::Suspended
    );
    fixture.kill(7).await;
    let end = killed_while_resumed(fixture, 8, "continued", victim).await;
    assert!(failed(&end, ""), "{end:?}");
    assert!(!saved.exists());
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_at_any_point_leaves_all_or_nothing() {
    survives_kills_of(Victim::Shim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_killed_at_any_point_leaves_all_or_nothing() {
    survives_kills_of(Victim::Qemu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_ready_is_not_suspended() {
    let Some(fixture) = Fixture::new("not ready", IsolationClass::Emulated) else {
        return;
    };
    let mut reports = fixture.boot(1, vec![container("main", COUNTER)]).await;
    let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
    let refused = fixture.vmm.suspend(machine, boot).await;
    assert!(
        matches!(refused, Err(VmmError::Refused { .. })),
        "{refused:?}"
    );
    fixture.wait(&mut reports, ready).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    fixture.clean().await;
}
