//! Health checks that are really made.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use types::guest::{
    CheckSpec, ContainerReportState, ContainerSpec, ExecEnd, GuestMessage, HealthReport, Probe,
};
use types::machine::{DependsOn, DependsOnCondition, Health, RestartPolicy};

use crate::fixture::{Host, machine, read_all, request, shell};

pub(crate) fn check(name: &str, probe: Probe) -> CheckSpec {
    CheckSpec {
        name: name.into(),
        container: Some("a".into()),
        probe,
        interval_ms: 100,
        timeout_ms: 500,
        grace_ms: 0,
        success_threshold: 1,
        failure_threshold: 1,
        stop_when_critical: false,
    }
}

fn http(port: u16) -> Probe {
    Probe::Http {
        port,
        method: "GET".into(),
        path: "/healthz".into(),
        headers: vec![("X-Check".into(), "yes".into())],
        tls: None,
    }
}

fn exec(script: &str) -> Probe {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    Probe::Exec { command }
}

pub(crate) async fn start(containers: Vec<ContainerSpec>, checks: Vec<CheckSpec>) -> Host {
    let mut spec = machine(containers);
    spec.checks = checks;
    Host::start_spec(spec).await
}

/// The next report of a check with that status.
async fn until(host: &mut Host, check: &str, status: Health) -> HealthReport {
    loop {
        if let GuestMessage::Health(report) = host.message().await
            && report.check == check
            && report.status == status
        {
            return report;
        }
    }
}

/// A server that gives each connection the next answer, and the last one ever after.
fn server(answers: Vec<&'static str>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut piece = [0; 512];
            while !request.ends_with("\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(length @ 1..) => request += &String::from_utf8_lossy(&piece[..length]),
                    Ok(0) | Err(_) => break,
                }
            }
            if !request.ends_with("\r\n\r\n") {
                // A probe that ran out of time on a busy machine.
                continue;
            }
            let number = asked.fetch_add(1, Ordering::Relaxed);
            assert!(
                request.starts_with("GET /healthz HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("\r\nX-Check: yes\r\n"), "{request}");
            let answer = answers[number.min(answers.len() - 1)];
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, count)
}

#[tokio::test]
async fn http_checks_follow_what_the_server_says() {
    let (port, asked) = server(vec![
        "HTTP/1.1 503 Busy\r\n\r\nwarming up",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]);
    let checks = vec![check("a/web", http(port))];
    let mut host = start(vec![shell("a", "sleep 1000")], checks).await;
    let report = until(&mut host, "a/web", Health::Warning).await;
    assert_eq!(report.output, "not checked yet");
    let report = until(&mut host, "a/web", Health::Critical).await;
    assert_eq!(report.output, "HTTP 503 warming up");
    let report = until(&mut host, "a/web", Health::Passing).await;
    assert_eq!(report.output, "HTTP 200 ok");
    // It is made again, though nothing is told.
    let before = asked.load(Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    while asked.load(Ordering::Relaxed) < before + 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_reason() {
    let (port, _) = server(vec!["nonsense\r\n"]);
    let checks = vec![check("a/web", http(port))];
    let mut host = start(vec![shell("a", "sleep 1000")], checks).await;
    let report = until(&mut host, "a/web", Health::Critical).await;
    assert_eq!(report.output, "the answer is not HTTP/1.1");
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn tcp_checks_pass_while_somebody_listens_and_a_silent_server_is_late() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let checks = vec![
        check("a/tcp", Probe::Tcp { port }),
        check("a/http", http(port)),
    ];
    let mut host = start(vec![shell("a", "sleep 1000")], checks).await;
    let (mut connected, mut late) = (None, None);
    while connected.is_none() || late.is_none() {
        match host.message().await {
            GuestMessage::Health(report) if report.status == Health::Passing => {
                connected = Some(report);
            }
            GuestMessage::Health(report) if report.status == Health::Critical => {
                late = Some(report);
            }
            _ => {}
        }
    }
    assert_eq!(
        connected.unwrap().output,
        format!("connected to [::1]:{port}")
    );
    let late = late.unwrap();
    assert_eq!(
        (late.check.as_str(), late.output.as_str()),
        ("a/http", "no answer within 500ms")
    );
    drop(listener);
    let refused = until(&mut host, "a/tcp", Health::Critical).await;
    assert!(refused.output.contains("refused"), "{}", refused.output);
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn exec_checks_tell_output_and_are_killed_when_they_are_late() {
    let directory = tempfile::tempdir().unwrap();
    let (good, pid) = (directory.path().join("good"), directory.path().join("pid"));
    let script = format!("yes | head -c 5000; test -e {}", good.display());
    let late = format!("echo $$ >{}; exec sleep 1000", pid.display());
    let checks = vec![check("a/exec", exec(&script)), check("a/late", exec(&late))];
    let mut host = start(vec![shell("a", "sleep 1000")], checks).await;
    let report = until(&mut host, "a/exec", Health::Critical).await;
    assert!(
        report.output.starts_with("exit code 1: y\ny\n"),
        "{}",
        report.output
    );
    assert!(report.output.len() <= 1024);
    std::fs::write(&good, "").unwrap();
    until(&mut host, "a/exec", Health::Passing).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // Each of those that are late ends; the newest may run.
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        let text = std::fs::read_to_string(&pid).unwrap_or_default();
        seen.extend(text.trim().parse::<i32>().ok());
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for pid in seen.iter().take(2) {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    let (_input, mut output) = host.connection.exec(request("a", "true")).await.unwrap();
    assert_eq!(
        read_all(&mut output).await.2,
        ExecEnd::Exited { exit_code: 0 }
    );
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn a_container_waits_until_another_is_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("up");
    let mut second = shell("b", "test -e $0");
    second.command = vec!["test".into(), "-e".into(), file.to_str().unwrap().into()];
    second.depends_on.push(DependsOn {
        name: "a".into(),
        condition: DependsOnCondition::Healthy,
    });
    let script = format!("sleep 0.5; touch {}; exec sleep 1000", file.display());
    let probe = exec(&format!("test -e {}", file.display()));
    let mut host = start(
        vec![shell("a", &script), second],
        vec![check("a/up", probe)],
    )
    .await;
    loop {
        if let GuestMessage::Container(report) = host.message().await
            && report.container == "b"
            && let ContainerReportState::Exited { exit, .. } = report.state
        {
            assert_eq!(exit.exit_code, 0);
            break;
        }
    }
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn a_critical_container_gets_its_stop_signal_and_its_policy_decides() {
    let mut main = shell(
        "a",
        "trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done",
    );
    main.stop_signal = Some("USR1".into());
    main.restart.policy = RestartPolicy::OnFailure;
    let mut live = check("a/live", exec("exit 3"));
    (live.stop_when_critical, live.grace_ms) = (true, 500);
    let mut host = start(vec![main], vec![live]).await;
    loop {
        if let GuestMessage::Container(report) = host.message().await
            && let ContainerReportState::Exited {
                exit,
                restart_after_ms,
            } = report.state
        {
            assert_eq!((exit.exit_code, exit.restarting), (0, true));
            assert!(restart_after_ms.is_some());
            break;
        }
    }
    host.stop(Duration::ZERO).await;
    assert_eq!(host.exit().await.exit_code, 0);
}
