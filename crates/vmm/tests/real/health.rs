//! Health checks and ends of containers: both classes.

use tokio::sync::mpsc;
use types::IsolationClass;
use types::guest::{CheckSpec, ContainerReport, ContainerReportState, Probe};
use types::machine::{ExitEvent, Health, RestartPolicy};
use vmm::{Report, ReportEvent, Vmm};

use crate::fixture::{Fixture, container};

fn check(name: &str, probe: Probe) -> CheckSpec {
    CheckSpec {
        name: name.into(),
        container: Some("main".into()),
        probe,
        interval_ms: 300,
        timeout_ms: 5_000,
        grace_ms: 0,
        success_threshold: 1,
        failure_threshold: 1,
        stop_when_critical: false,
    }
}

fn health(report: &Report, check: &str, status: Health) -> bool {
    matches!(&report.event, ReportEvent::Health(health)
        if health.check == check && health.status == status)
}

async fn is_watched(class: IsolationClass) {
    let Some(fixture) = Fixture::new("watched", class) else {
        return;
    };
    let script = "mkdir -p /www; echo fine >/www/healthz; touch /alive; \
        trap 'exit 0' TERM; httpd -p 8080 -h /www; while :; do sleep 0.1; done";
    let mut main = container("main", script);
    main.restart.policy = RestartPolicy::OnFailure;
    let exec = ["sh", "-c", "test -e /alive"].map(String::from).to_vec();
    let mut live = check("main/live", Probe::Exec { command: exec });
    (live.stop_when_critical, live.failure_threshold) = (true, 2);
    let mut web = check(
        "web",
        Probe::Http {
            port: 8080,
            method: "GET".into(),
            path: "/healthz".into(),
            headers: Vec::new(),
            tls: None,
        },
    );
    web.container = None;
    let mut spec = fixture.spec(1, vec![main]);
    spec.spec.checks = vec![live, web, check("main/tcp", Probe::Tcp { port: 8080 })];
    let mut reports = fixture.boot_spec(spec).await;
    let mut wanted = vec!["main/live", "web", "main/tcp"];
    while !wanted.is_empty() {
        let passing = |report: &Report| {
            wanted
                .iter()
                .any(|check| health(report, check, Health::Passing))
        };
        let found = fixture.wait(&mut reports, passing).await;
        wanted.retain(|check| !health(&found, check, Health::Passing));
    }
    if class == IsolationClass::Emulated {
        // Else a machine without memory stands still for minutes before anything is killed.
        let kept = crate::fixture::exec("cat /sys/kernel/mm/lru_gen/min_ttl_ms");
        assert_eq!(fixture.exec(kept).await.stdout.trim(), "1000");
    }
    fixture.exec(crate::fixture::exec("rm /alive")).await;
    fixture
        .wait(&mut reports, |report| {
            health(report, "main/live", Health::Critical)
        })
        .await;
    // It ends well, but was asked to because it was not.
    fixture
        .wait(&mut reports, |report| {
            matches!(
                &report.event,
                ReportEvent::Container(ContainerReport {
                    state: ContainerReportState::Exited { exit, restart_after_ms: Some(_) },
                    ..
                }) if exit.exit_code == 0
            )
        })
        .await;
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_a_container_machine_are_made_in_its_network() {
    is_watched(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_an_emulated_machine_are_made() {
    is_watched(IsolationClass::Emulated).await;
}

async fn exit_of(fixture: &Fixture, reports: &mut mpsc::Receiver<Report>) -> ExitEvent {
    match fixture.end(reports).await.event {
        ReportEvent::Exited { exit } => exit,
        other => panic!("{other:?}"),
    }
}

/// A program for awk that takes memory in pieces so small that nobody refuses one.
const GROW: &str = "BEGIN { while (1) a[i++] = sprintf(\"%100000s\", \"\") }";

/// Exit code, signal, whether for want of memory.
async fn ends(class: IsolationClass) {
    for (script, expected) in [
        ("exit 0", (0, -1, false)),
        // Process 1 is spared its own signals, so this one is sent from outside.
        ("exec sleep 600", (137, 9, false)),
        ("exec awk \"$GROW\"", (137, 9, true)),
        // A child was killed for it: one container got over that, the other did not.
        ("awk \"$GROW\"; exit 0", (0, -1, false)),
        ("awk \"$GROW\" || exit 5", (5, -1, true)),
    ] {
        let Some(fixture) = Fixture::new("ends", class) else {
            return;
        };
        let mut main = container("main", script);
        main.env.insert("GROW".into(), GROW.into());
        main.restart.policy = RestartPolicy::No;
        let mut reports = fixture.boot(1, vec![main]).await;
        if script.contains("sleep") {
            fixture.wait(&mut reports, crate::started).await;
            let (machine, boot) = (&fixture.machine, fixture.boot_id(1));
            let sent = fixture.vmm.signal(machine, boot, None, "SIGKILL".into());
            sent.await.unwrap();
        }
        let exit = exit_of(&fixture, &mut reports).await;
        let found = (exit.exit_code, exit.signal, exit.oom_killed);
        assert_eq!(found, expected, "{script}");
        assert!(!exit.requested_stop);
        fixture.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_machine_tells_exactly_how_it_ended() {
    ends(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_machine_tells_exactly_how_it_ended() {
    ends(IsolationClass::Emulated).await;
}
