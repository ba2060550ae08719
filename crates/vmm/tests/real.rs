//! Machines that really run: as root, from an image of Debian's busybox, in namespaces made here.

#[path = "real/asks.rs"]
mod asks;
mod fixture;
#[path = "real/health.rs"]
mod health;
mod jail;
#[path = "real/mounts.rs"]
mod mounts;
mod suspend;
#[path = "../src/firecracker/tests/tiny.rs"]
mod tiny;

use std::time::{Duration, Instant};

use fixture::{Fixture, collect, container, exec};
use types::IsolationClass;
use types::api::{LogQuery, TerminalSize};
use types::guest::{ContainerReport, ContainerReportState, ExecEnd, ExecRequest};
use types::machine::{Restart, RestartPolicy};
use vmm::{Input, Report, ReportEvent, Vmm, VmmError};

const SHELL_LOOP: &str =
    "echo hello; echo oops >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done";

fn ready(report: &Report) -> bool {
    report.event == ReportEvent::Ready
}

fn started(report: &Report) -> bool {
    let state = match &report.event {
        ReportEvent::Container(ContainerReport { state, .. }) => state,
        _ => return false,
    };
    matches!(state, ContainerReportState::Started { .. })
}

/// The whole life of a machine that has an image: the same for every class.
async fn lives(class: IsolationClass) {
    let Some(fixture) = Fixture::new("lives", class) else {
        return;
    };
    let vmm = &fixture.vmm;
    let began = Instant::now();
    let mut reports = fixture.boot(1, vec![container("main", SHELL_LOOP)]).await;
    fixture.wait(&mut reports, ready).await;
    eprintln!("{class}: ready after {} ms", began.elapsed().as_millis());
    fixture.wait(&mut reports, started).await;
    eprintln!("{class}: started after {} ms", began.elapsed().as_millis());
    eprintln!("{class}: shim {}", fixture.shim_memory());

    let output = fixture.exec(exec("echo out; echo err >&2; exit 3")).await;
    assert_eq!(output.stdout, "out\n");
    assert_eq!(output.stderr, "err\n");
    assert_eq!(output.end, ExecEnd::Exited { exit_code: 3 });

    let mut tty = exec("tty; stty size; read line; echo got $line; exit 4");
    tty.tty = true;
    tty.stdin = true;
    tty.size = Some(TerminalSize {
        width: 100,
        height: 30,
    });
    let io = vmm
        .exec(&fixture.machine, fixture.boot_id(1), tty)
        .await
        .unwrap();
    io.input.send(Input::Stdin("abc\n".into())).await.unwrap();
    let output = collect(io).await;
    assert!(output.stdout.contains("/dev/pts/"), "{output:?}");
    assert!(output.stdout.contains("30 100"), "{output:?}");
    assert!(output.stdout.contains("got abc"), "{output:?}");
    assert_eq!(output.end, ExecEnd::Exited { exit_code: 4 });

    let missing = ExecRequest {
        command: vec!["/no/such".into()],
        ..exec("")
    };
    let output = fixture.exec(missing).await;
    assert!(
        !matches!(output.end, ExecEnd::Exited { exit_code: 0 }),
        "{output:?}"
    );

    let query = LogQuery::default();
    assert_eq!(fixture.logs(query.clone()).await, "1 hello\n2 oops\n");
    let mut follow = vmm
        .logs(
            &fixture.machine,
            LogQuery {
                follow: true,
                ..query.clone()
            },
        )
        .await
        .unwrap();
    assert_eq!(follow.recv().await.unwrap().bytes.last(), Some(&b'\n'));

    let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
    let grace = Duration::from_secs(20);
    vmm.stop(machine, boot, Some("SIGTERM".into()), grace)
        .await
        .unwrap();
    let end = fixture.end(&mut reports).await;
    let ReportEvent::Exited { exit } = end.event else {
        panic!("{end:?}");
    };
    assert_eq!((exit.exit_code, exit.requested_stop), (7, true));
    // The follower ends with the boot.
    while follow.recv().await.is_some() {}
    let again = fixture.all_reports(1).await;
    assert_eq!(again.last().unwrap().seq, end.seq);
    assert!(again.iter().map(|report| report.seq).eq(1..=end.seq));
    assert_eq!(fixture.logs(query).await, "1 hello\n2 oops\n");
    vmm.kill(machine, boot).await.unwrap();
    vmm.kill(machine, boot).await.unwrap();
    assert_eq!(vmm.present().await.unwrap(), [(machine.clone(), None)]);
    vmm.forget(machine).await.unwrap();
    assert_eq!(vmm.present().await.unwrap(), []);
    fixture.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_machine_lives_and_leaves_nothing() {
    lives(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_machine_lives_and_leaves_nothing() {
    lives(IsolationClass::Emulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fails_is_restarted_and_its_previous_log_is_kept() {
    let Some(fixture) = Fixture::new("restart", IsolationClass::Container) else {
        return;
    };
    let mut main = container(
        "main",
        "echo run; test -e /done && sleep 600; touch /done; exit 9",
    );
    main.restart = Restart {
        policy: RestartPolicy::Always,
        max_retries: None,
    };
    let mut reports = fixture.boot(1, vec![main]).await;
    fixture.wait(&mut reports, started).await;
    fixture
        .wait(&mut reports, |report| {
            matches!(
                &report.event,
                ReportEvent::Container(ContainerReport {
                    state: ContainerReportState::Exited { exit, restart_after_ms: Some(_) },
                    ..
                }) if exit.exit_code == 9
            )
        })
        .await;
    let again = fixture.wait(&mut reports, started).await;
    let ReportEvent::Container(again) = again.event else {
        panic!("{again:?}");
    };
    assert_eq!(again.run, 1);
    let previous = LogQuery {
        previous: true,
        ..LogQuery::default()
    };
    assert_eq!(fixture.logs(previous).await, "1 run\n");
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_boot_begins_only_when_told_and_is_gone_with_its_worker() {
    for class in [IsolationClass::Container, IsolationClass::Emulated] {
        let Some(mut fixture) = Fixture::new("prepared", class) else {
            continue;
        };
        let spec = fixture.spec(1, vec![container("main", SHELL_LOOP)]);
        fixture.vmm.prepare(spec.clone()).await.unwrap();
        // The worker dies, and another one comes.
        fixture.hold(None);
        let gone = fixture.vmm.reports(&fixture.machine, fixture.boot_id(1), 0);
        assert!(matches!(gone.await, Err(VmmError::Gone { .. })), "{class}");
        fixture
            .vmm
            .kill(&fixture.machine, fixture.boot_id(1))
            .await
            .unwrap();
        fixture.assert_no_process_left();

        // Prepared twice: the first one's shim makes room.
        fixture.vmm.prepare(spec.clone()).await.unwrap();
        fixture
            .vmm
            .kill(&fixture.machine, fixture.boot_id(1))
            .await
            .unwrap();
        fixture.vmm.prepare(spec.clone()).await.unwrap();
        let mut reports = fixture.boot_spec(spec).await;
        fixture.wait(&mut reports, started).await;
        fixture.clean().await;
    }
}

async fn loses_its_shim(class: IsolationClass) {
    let Some(fixture) = Fixture::new("loses its shim", class) else {
        return;
    };
    let mut reports = fixture.boot(1, vec![container("main", SHELL_LOOP)]).await;
    fixture.wait(&mut reports, started).await;
    // A boot that exists is left alone, also after a crash of the worker.
    let spec = fixture.spec(1, vec![container("main", SHELL_LOOP)]);
    fixture.vmm.boot(spec.clone()).await.unwrap();
    fixture.kill_shim();
    let end = fixture.end(&mut reports).await;
    assert!(matches!(&end.event, ReportEvent::Failed { reason } if reason.contains("killed")));
    assert_eq!(fixture.all_reports(1).await.last(), Some(&end));
    fixture.vmm.boot(spec).await.unwrap();
    assert_eq!(fixture.all_reports(1).await.last(), Some(&end));
    let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
    let present = fixture.vmm.present().await.unwrap();
    assert_eq!(present, [(machine.clone(), Some(boot))]);
    if class == IsolationClass::Emulated {
        fixture.eventually(async || !fixture.has_qemu()).await;
    }
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_is_told_and_kill_leaves_no_container() {
    loses_its_shim(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_virtual_machine_along() {
    loses_its_shim(IsolationClass::Emulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_virtual_machine_is_told_and_leaves_nothing() {
    let Some(fixture) = Fixture::new("killed vm", IsolationClass::Emulated) else {
        return;
    };
    let mut reports = fixture.boot(1, vec![container("main", SHELL_LOOP)]).await;
    fixture.wait(&mut reports, started).await;
    fixture.kill_qemu();
    let end = fixture.end(&mut reports).await;
    assert!(
        matches!(&end.event, ReportEvent::Failed { reason } if reason.contains("signal: 9")),
        "{end:?}"
    );
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_that_is_not_ready_in_time_fails() {
    let Some(fixture) = Fixture::new("timeout", IsolationClass::Emulated) else {
        return;
    };
    let mut spec = fixture.spec(1, vec![container("main", SHELL_LOOP)]);
    spec.boot_timeout = Duration::from_millis(100);
    fixture.vmm.boot(spec).await.unwrap();
    let all = fixture.all_reports(1).await;
    assert!(
        matches!(&all[..], [Report { event: ReportEvent::Failed { reason }, .. }]
            if reason.contains("not ready within 100ms")),
        "{all:?}"
    );
    assert!(!fixture.has_qemu());
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_that_no_longer_answers_is_given_up() {
    let Some(fixture) = Fixture::new("watchdog", IsolationClass::Emulated) else {
        return;
    };
    let mut reports = fixture.boot(1, vec![container("main", SHELL_LOOP)]).await;
    fixture.wait(&mut reports, started).await;
    fixture.freeze_qemu();
    let end = fixture.end(&mut reports).await;
    assert!(
        matches!(&end.event, ReportEvent::Failed { reason }
            if reason.contains("has not answered for 60s")),
        "{end:?}"
    );
    assert!(!fixture.has_qemu());
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_too_much_memory_is_killed_and_that_is_recorded() {
    let Some(fixture) = Fixture::new("memory", IsolationClass::Container) else {
        return;
    };
    let mut main = container("main", "exec tail -c 1000000000 /dev/zero");
    main.restart.policy = RestartPolicy::No;
    let mut reports = fixture.boot(1, vec![main]).await;
    let end = fixture.end(&mut reports).await;
    let ReportEvent::Exited { exit } = end.event else {
        panic!("{end:?}");
    };
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.exit_code, 137);
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_end_is_killed_after_the_grace() {
    let Some(fixture) = Fixture::new("grace", IsolationClass::Container) else {
        return;
    };
    let main = container(
        "main",
        "trap '' TERM; sleep 600 & while :; do sleep 1; done",
    );
    let mut reports = fixture.boot(1, vec![main]).await;
    fixture.wait(&mut reports, started).await;
    let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
    let grace = Duration::from_millis(300);
    fixture
        .vmm
        .stop(machine, boot, Some("SIGTERM".into()), grace)
        .await
        .unwrap();
    let end = fixture.end(&mut reports).await;
    let ReportEvent::Exited { exit } = end.event else {
        panic!("{end:?}");
    };
    assert_eq!(exit.exit_code, 137);
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_fails_with_a_reason_and_two_containers_are_kept_apart() {
    let Some(fixture) = Fixture::new("two", IsolationClass::Container) else {
        return;
    };
    let mut bad = container("bad", "");
    bad.command = vec!["/no/such".into()];
    bad.restart.policy = RestartPolicy::No;
    let good = container("good", "echo $A; id -u; sleep 600");
    let mut reports = fixture.boot(1, vec![bad, good]).await;
    let failed = fixture
        .wait(&mut reports, |report| {
            matches!(
                &report.event,
                ReportEvent::Container(ContainerReport {
                    container,
                    state: ContainerReportState::Failed { .. } | ContainerReportState::Exited { .. },
                    ..
                }) if container == "bad"
            )
        })
        .await;
    eprintln!("{failed:?}");
    let query = LogQuery {
        container: Some("good".into()),
        ..LogQuery::default()
    };
    fixture
        .eventually(async || fixture.logs(query.clone()).await == "1 \n1 0\n")
        .await;
    assert!(
        fixture
            .vmm
            .logs(&fixture.machine, LogQuery::default())
            .await
            .is_err()
    );
    fixture.clean().await;
}

/// Linux does not run under every KVM that starts guests, so this guest never says hello.
#[tokio::test(flavor = "multi_thread")]
async fn a_firecracker_guest_that_is_never_heard_of_fails_in_time_and_leaves_nothing() {
    let test = "a_firecracker_guest_that_is_never_heard_of_…";
    let Some(fixture) = Fixture::with_firecracker(test, &tiny::kernel()) else {
        return;
    };
    let mut spec = fixture.spec(1, vec![container("main", SHELL_LOOP)]);
    spec.boot_timeout = Duration::from_secs(8);
    let boot = fixture.boot_id(1);
    fixture.vmm.boot(spec).await.unwrap();
    let reports = fixture.vmm.reports(&fixture.machine, boot, 0).await;
    let end = fixture.end(&mut reports.unwrap()).await;
    let ReportEvent::Failed { reason } = end.event else {
        panic!("{end:?}");
    };
    assert!(reason.contains("not ready within 8s"), "{reason}");
    assert!(
        reason.contains(tiny::HELLO.trim()),
        "its last words: {reason}"
    );
    assert!(!fixture.has_firecracker());

    // The jailer's change of user lets it outlive its shim; the worker's `kill` finds it.
    let mut reports = fixture.boot(2, vec![container("main", SHELL_LOOP)]).await;
    fixture.eventually(async || fixture.has_firecracker()).await;
    let console = fixture.data().join("console.log");
    let said = async || std::fs::read_to_string(&console).is_ok_and(|text| text.contains("tiny"));
    fixture.eventually(said).await;
    fixture.kill_shim();
    let end = fixture.end(&mut reports).await;
    assert!(matches!(&end.event, ReportEvent::Failed { reason } if reason.contains("killed")));
    fixture.kill(2).await;
    assert!(!fixture.has_firecracker());
    fixture.clean().await;
}
