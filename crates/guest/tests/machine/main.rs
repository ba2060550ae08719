//! A whole machine over a duplex: both ends of the protocol, the supervisor and the reaper.

mod asks;
mod fixture;
mod health;
#[cfg(feature = "tls")]
mod tls;
mod volumes;

use std::time::Duration;

use fixture::{Host, Plain, machine, read_all, reaper, request, shell};
use guest::wire::host::FromProcess;
use guest::{Ended, Guest};
use types::api::TerminalSize;
use types::guest::{ContainerReportState, ExecEnd, GuestMessage, HostMessage};

#[tokio::test]
async fn a_machine_starts_says_what_its_containers_write_and_exits() {
    let mut host = Host::start(vec![shell("a", "echo out; echo err >&2; exit 3")]).await;
    let report = host.report().await;
    assert!(
        matches!(report.state, ContainerReportState::Started { .. }),
        "{report:?}"
    );
    let report = host.report().await;
    assert!(
        matches!(report.state, ContainerReportState::Exited { .. }),
        "{report:?}"
    );
    // Everything that it wrote comes before its exit.
    let mut lines: Vec<_> = std::str::from_utf8(&host.log).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
    let exit = host.exit().await;
    assert_eq!(
        (exit.exit_code, exit.signal, exit.requested_stop),
        (3, -1, false)
    );
    assert!(host.receiver.next().await.unwrap().is_none());
    let Host {
        served,
        connection,
        sender,
        receiver,
        ..
    } = host;
    drop((connection, sender, receiver));
    assert_eq!(served.await.unwrap(), Ended::Exited(exit));
}

#[tokio::test]
async fn nothing_of_a_large_output_is_lost_behind_a_slow_host() {
    let mut host = Host::start(vec![shell("a", "seq 1 200000")]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.exit().await;
    let lines = std::str::from_utf8(&host.log).unwrap().lines();
    assert!(lines.eq((1..=200_000).map(|number| number.to_string())));
}

#[tokio::test]
async fn a_stop_asks_then_kills() {
    let mut host = Host::start(vec![shell(
        "a",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done",
    )])
    .await;
    host.first_output().await;
    host.stop(Duration::from_secs(20)).await;
    let exit = host.exit().await;
    assert_eq!((exit.exit_code, exit.requested_stop), (5, true));

    let mut host = Host::start(vec![shell(
        "a",
        "trap '' TERM; echo up; sleep 1000; sleep 1000",
    )])
    .await;
    host.first_output().await;
    host.stop(Duration::from_millis(200)).await;
    let exit = host.exit().await;
    assert_eq!(
        (exit.exit_code, exit.signal, exit.requested_stop),
        (137, 9, true)
    );
}

#[tokio::test]
async fn exec_tells_output_and_exit_code_and_passes_on_input() {
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    let request_1 = request("a", "echo out; echo err >&2; exit 7");
    let (_input, mut output) = host.connection.exec(request_1).await.unwrap();
    let all = read_all(&mut output).await;
    assert_eq!(
        all,
        (
            "out\n".into(),
            "err\n".into(),
            ExecEnd::Exited { exit_code: 7 }
        )
    );

    let mut cat = request("a", "cat; kill -9 $$");
    cat.stdin = true;
    let (mut input, mut output) = host.connection.exec(cat).await.unwrap();
    let text = "x".repeat(300_000);
    let sent = tokio::spawn(async move {
        input.stdin(text.as_bytes()).await.unwrap();
        input.close_stdin().await.unwrap();
        (input, text)
    });
    let (stdout, _, end) = read_all(&mut output).await;
    assert_eq!(stdout, sent.await.unwrap().1);
    assert_eq!(end, ExecEnd::Exited { exit_code: 137 });

    // A process in the background holds the output open; the exec ends all the same.
    let background = request("a", "sleep 30 & echo started");
    let (_input, mut output) = host.connection.exec(background).await.unwrap();
    assert_eq!(read_all(&mut output).await.0, "started\n");

    for (container, reason) in [("b", "no container"), ("", "no container")] {
        let (_input, mut output) = host.connection.exec(request(container, "")).await.unwrap();
        let (_, _, end) = read_all(&mut output).await;
        assert!(
            matches!(&end, ExecEnd::Failed { reason: r } if r.contains(reason)),
            "{end:?}"
        );
    }
    let mut missing = request("a", "");
    missing.command.clear();
    let (_input, mut output) = host.connection.exec(missing).await.unwrap();
    assert!(matches!(
        read_all(&mut output).await.2,
        ExecEnd::Failed { .. }
    ));
    host.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn exec_with_a_terminal_has_its_size_and_is_told_new_ones() {
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    let script = "stty size; read line; stty size; echo got $line; exit 4";
    let mut tty = request("a", script);
    tty.tty = true;
    tty.stdin = true;
    tty.size = Some(TerminalSize {
        width: 100,
        height: 30,
    });
    let (mut input, mut output) = host.connection.exec(tty).await.unwrap();
    let first = output.next().await.unwrap();
    assert_eq!(first, Some(FromProcess::Stdout("30 100\r\n".into())));
    let size = TerminalSize {
        width: 120,
        height: 40,
    };
    input.resize(size).await.unwrap();
    input.stdin(b"hello\n").await.unwrap();
    let (stdout, _, end) = read_all(&mut output).await;
    assert!(
        stdout.contains("40 120\r\n") && stdout.contains("got hello"),
        "{stdout:?}"
    );
    assert_eq!(end, ExecEnd::Exited { exit_code: 4 });
    host.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_exec_whose_stream_is_dropped_is_killed() {
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    let script = "echo $$; exec sleep 1000";
    let (input, mut output) = host.connection.exec(request("a", script)).await.unwrap();
    let Some(FromProcess::Stdout(pid)) = output.next().await.unwrap() else {
        panic!("no pid");
    };
    let pid: i32 = std::str::from_utf8(&pid).unwrap().trim().parse().unwrap();
    drop((input, output));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn attach_sees_output_and_gives_input_and_ends_with_the_run() {
    let mut container = shell("a", "read line; echo got $line; exit 6");
    container.stdin = true;
    let mut host = Host::start(vec![container]).await;
    host.report().await;
    let (mut input, mut output) = host.connection.attach("a").await.unwrap();
    input.stdin(b"hello\n").await.unwrap();
    let (stdout, _, end) = read_all(&mut output).await;
    assert_eq!(
        (stdout.as_str(), end),
        ("got hello\n", ExecEnd::Exited { exit_code: 6 })
    );
    assert_eq!(host.exit().await.exit_code, 6);
}

#[tokio::test]
async fn a_command_that_does_not_exist_and_a_machine_that_cannot_be_prepared_say_why() {
    let mut host = Host::connect(Guest::new(Plain, reaper())).await;
    let mut spec = machine(vec![shell("a", "")]);
    spec.hostname = "unwanted".into();
    let start = HostMessage::Start(Box::new(spec.clone()));
    host.sender.send(&start).await.unwrap();
    let reason = "cannot set host name: it is not wanted".to_owned();
    assert_eq!(host.message().await, GuestMessage::Refused { reason });
    // Nothing was started, so it may be tried again.
    spec.hostname = "m".into();
    let start = HostMessage::Start(Box::new(spec));
    host.sender.send(&start).await.unwrap();
    assert_eq!(host.message().await, GuestMessage::Ready);
    host.exit().await;
}

#[tokio::test]
async fn the_next_connection_begins_with_the_state_of_everything() {
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    let started = host.report().await;
    let Host {
        guest,
        served,
        connection,
        sender,
        receiver,
        ..
    } = host;
    drop((connection, sender, receiver));
    assert_eq!(served.await.unwrap(), Ended::Disconnected);
    let mut host = Host::connect(guest).await;
    assert_eq!(host.report().await, started);
    assert_eq!(host.message().await, GuestMessage::Ready);
    host.stop(Duration::ZERO).await;
    assert_eq!(host.exit().await.signal, 9);
}
