//! Suspension, signals, questions and copies.

use std::time::Duration;

use guest::wire::host::{Connection, FromGuest};
use guest::{Ended, Guest};
use types::guest::{ExecEnd, GuestMessage, HostMessage, Resume};

use crate::fixture::{Host, Plain, read_all, reaper, request, shell};

/// Ends a connection as before a suspension, and makes another one.
async fn suspend(host: Host) -> (Guest<Plain>, Vec<u8>) {
    let Host {
        guest,
        served,
        connection,
        sender,
        mut receiver,
        mut log,
    } = host;
    sender.finish().await.unwrap();
    while let Some(heard) = receiver.next().await.unwrap() {
        if let FromGuest::Log(chunk) = heard {
            log.extend(chunk.bytes);
        }
    }
    connection.close().await;
    assert_eq!(served.await.unwrap(), Ended::Disconnected);
    (guest, log)
}

async fn resumed(guest: Guest<Plain>, unix_ms: i64, log: Vec<u8>) -> Host {
    let (ours, theirs) = tokio::io::duplex(4096);
    let this = guest.clone();
    let served = tokio::spawn(async move { this.serve(theirs).await });
    let connection = Connection::new(ours);
    let entropy = "aGk=".to_owned();
    let resume = Resume { unix_ms, entropy };
    let (sender, receiver) = connection.control_again(resume).await.unwrap();
    Host {
        guest,
        served,
        connection,
        sender,
        receiver,
        log,
    }
}

#[tokio::test]
async fn a_suspended_machine_loses_no_line_and_is_ready_when_it_has_told_everything() {
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; exec sleep 1000";
    let mut host = Host::start(vec![shell("a", script)]).await;
    let started = host.report().await;
    for _ in 0..5 {
        host.first_output().await;
        let running = request("a", "sleep 1000");
        let (_input, mut output) = host.connection.exec(running).await.unwrap();
        let (guest, log) = suspend(host).await;
        assert!(
            !matches!(output.next().await, Ok(Some(_))),
            "execs are hung up"
        );
        host = resumed(guest, 5, log).await;
        assert_eq!(host.report().await, started);
        assert_eq!(host.message().await, GuestMessage::Ready);
    }
    while !host.log.ends_with(b"\n3000\n") {
        if let Some(FromGuest::Log(chunk)) = host.receiver.next().await.unwrap() {
            host.log.extend(chunk.bytes);
        }
    }
    let lines = std::str::from_utf8(&host.log).unwrap().lines();
    assert!(lines.eq((1..=3000).map(|number| number.to_string())));
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn a_resume_that_fails_or_has_nothing_to_go_on_from_is_refused() {
    let guest = Guest::new(Plain, reaper());
    let mut host = resumed(guest, 5, Vec::new()).await;
    let reason = "the machine has not started".to_owned();
    assert_eq!(host.message().await, GuestMessage::Refused { reason });
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    let (guest, log) = suspend(host).await;
    let mut host = resumed(guest, 6, log).await;
    let reason = "cannot resume: that is not what was sent".to_owned();
    assert_eq!(host.message().await, GuestMessage::Refused { reason });
    let (guest, log) = suspend(host).await;
    let mut host = resumed(guest, 5, log).await;
    host.report().await;
    assert_eq!(host.message().await, GuestMessage::Ready);
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn signals_reach_one_container_or_all() {
    let script = "trap 'echo one' USR1; trap 'exit 3' USR2; echo up; while :; do sleep 0.05; done";
    let mut host = Host::start(vec![shell("a", script), shell("b", script)]).await;
    let up = |log: &[u8], word: &str| String::from_utf8_lossy(log).matches(word).count();
    let signal = |container: Option<&str>, signal: &str| HostMessage::Signal {
        container: container.map(str::to_owned),
        signal: signal.to_owned(),
    };
    while up(&host.log, "up") < 2 {
        if let Some(FromGuest::Log(chunk)) = host.receiver.next().await.unwrap() {
            host.log.extend(chunk.bytes);
        }
    }
    host.sender
        .send(&signal(Some("a"), "SIGUSR1"))
        .await
        .unwrap();
    while up(&host.log, "one") < 1 {
        if let Some(FromGuest::Log(chunk)) = host.receiver.next().await.unwrap() {
            host.log.extend(chunk.bytes);
        }
    }
    for nonsense in [signal(Some("c"), "USR1"), signal(None, "NO")] {
        host.sender.send(&nonsense).await.unwrap();
    }
    host.sender.send(&signal(None, "usr2")).await.unwrap();
    assert_eq!(host.exit().await.exit_code, 3);
    assert_eq!(up(&host.log, "one"), 1);
}

#[tokio::test]
async fn processes_and_statistics_are_answered_once_the_machine_has_started() {
    let host = Host::connect(Guest::new(Plain, reaper())).await;
    let error = host.connection.processes().await.unwrap_err();
    assert!(error.to_string().contains("has not started"), "{error}");
    let mut host = Host::start(vec![shell("a", "exec sleep 1000")]).await;
    host.report().await;
    let all = host.connection.processes().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].container, "a");
    assert_eq!(host.connection.statistics().await.unwrap().processes, 1);
    host.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn files_are_copied_into_a_container_and_out_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut container = shell("a", "sleep 1000");
    container.working_dir = directory.path().to_str().unwrap().to_owned();
    container.user = "0:0".into();
    let mut host = Host::start(vec![container]).await;
    host.report().await;
    std::fs::create_dir(directory.path().join("from")).unwrap();
    let content = "x".repeat(1 << 20);
    std::fs::write(directory.path().join("from/file"), &content).unwrap();
    let (_input, mut output) = host.connection.get_files("a", "/from").await.unwrap();
    let (archive, _, end) = read_all(&mut output).await;
    assert_eq!(end, ExecEnd::Exited { exit_code: 0 });
    let (mut input, mut output) = host.connection.put_files("a", "/to/new").await.unwrap();
    input.stdin(archive.as_bytes()).await.unwrap();
    input.close_stdin().await.unwrap();
    let (_, _, end) = read_all(&mut output).await;
    assert_eq!(end, ExecEnd::Exited { exit_code: 0 });
    let copy = std::fs::read_to_string(directory.path().join("to/new/from/file"));
    assert_eq!(copy.unwrap(), content);
    // Half an archive, a path that is not there, a container that is not there.
    let (mut input, mut output) = host.connection.put_files("a", "/to").await.unwrap();
    input.stdin(&archive.as_bytes()[..3000]).await.unwrap();
    input.close_stdin().await.unwrap();
    assert!(matches!(
        read_all(&mut output).await.2,
        ExecEnd::Failed { .. }
    ));
    for (container, path) in [("a", "/missing"), ("b", "/")] {
        let (_input, mut output) = host.connection.get_files(container, path).await.unwrap();
        assert!(matches!(
            read_all(&mut output).await.2,
            ExecEnd::Failed { .. }
        ));
    }
    // One that hangs up half-way disturbs nobody.
    let (input, output) = host.connection.get_files("a", "/from").await.unwrap();
    drop((input, output));
    assert!(host.connection.processes().await.is_ok());
    host.stop(Duration::ZERO).await;
}
