//! What a machine that runs is asked: signals, processes, statistics, copies. Both classes.

use tokio::sync::mpsc;
use types::IsolationClass;
use types::guest::ExecEnd;
use types::machine::RestartPolicy;
use vmm::{Copy, Input, Report, ReportEvent, Vmm, VmmError};

use crate::fixture::{Fixture, collect, container, exec};
use crate::started;

/// A machine with one container that says `up` when it listens and has its traps.
async fn up(
    test: &str,
    class: IsolationClass,
    script: &str,
) -> Option<(Fixture, mpsc::Receiver<Report>)> {
    let fixture = Fixture::new(test, class)?;
    let mut main = container("main", script);
    main.restart.policy = RestartPolicy::No;
    let mut reports = fixture.boot(1, vec![main]).await;
    fixture.wait(&mut reports, started).await;
    let query = types::api::LogQuery::default();
    fixture
        .eventually(async || fixture.logs(query.clone()).await.contains("up"))
        .await;
    Some((fixture, reports))
}

/// A directory out of the container, and into another one.
async fn copies(fixture: &Fixture) {
    let (vmm, machine, boot) = (&fixture.vmm, &fixture.machine, fixture.boot_id(1));
    let path = |path: &str| ("main".to_owned(), path.to_owned());
    let (container, out_of) = path("/etc");
    let copy = Copy::OutOf {
        container,
        path: out_of,
    };
    let mut io = vmm.copy(machine, boot, copy).await.unwrap();
    let mut archive = Vec::new();
    while let Some(vmm::Output::Stdout(bytes)) = io.output.recv().await {
        archive.extend_from_slice(&bytes);
    }
    let (container, into) = path("/copy");
    let copy = Copy::Into {
        container,
        path: into,
    };
    let io = vmm.copy(machine, boot, copy).await.unwrap();
    io.input.send(Input::Stdin(archive.into())).await.unwrap();
    // An archive says where it ends, and nobody may listen after that.
    let _ = io.input.send(Input::CloseStdin).await;
    assert_eq!(collect(io).await.end, ExecEnd::Exited { exit_code: 0 });
    let output = fixture.exec(exec("cat /copy/etc/passwd")).await;
    assert_eq!(output.stdout, "root:x:0:0::/root:/bin/sh\n");
}

async fn answers(class: IsolationClass) {
    let script = "nc -l -p 8080 & trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done";
    let Some((fixture, mut reports)) = up("answers", class, script).await else {
        return;
    };
    let (vmm, machine, boot) = (&fixture.vmm, &fixture.machine, fixture.boot_id(1));
    let listening = async || {
        let all = vmm.processes(machine, boot).await.unwrap();
        let mut all = all.into_iter();
        all.find(|one| !one.listen_sockets.is_empty())
    };
    // It was started in the background.
    fixture
        .eventually(async || listening().await.is_some())
        .await;
    let listening = listening().await.unwrap();
    assert_eq!(listening.container, "main");
    assert!(
        listening.listen_sockets[0].address.ends_with(":8080"),
        "{listening:?}"
    );
    let used = vmm.statistics(machine, boot).await.unwrap();
    assert!(
        used.memory_bytes > 0 && used.memory_limit_bytes > 64 << 20,
        "{used:?}"
    );
    assert!(
        used.cpu_ns > 0 && used.containers["main"].processes >= 2,
        "{used:?}"
    );
    eprintln!("{class}: {used:?}");

    copies(&fixture).await;
    let mut beside = exec("true");
    beside.machine = true;
    match vmm.exec(machine, boot, beside).await {
        Err(VmmError::Refused { reason, .. }) => {
            assert_eq!(class, IsolationClass::Container);
            assert!(reason.contains("nothing beside"), "{reason}");
        }
        // It holds no shell, and says so.
        Ok(io) => assert!(matches!(collect(io).await.end, ExecEnd::Failed { .. })),
        Err(error) => panic!("{error}"),
    }
    for (container, signal) in [(Some("other"), "TERM"), (None, "NONSENSE")] {
        let container = container.map(str::to_owned);
        let error = vmm.signal(machine, boot, container, signal.into()).await;
        assert!(matches!(error, Err(VmmError::Refused { .. })), "{error:?}");
    }
    vmm.signal(machine, boot, Some("main".into()), "SIGUSR1".into())
        .await
        .unwrap();
    let end = fixture.end(&mut reports).await;
    let ReportEvent::Exited { exit } = end.event else {
        panic!("{end:?}");
    };
    assert_eq!((exit.exit_code, exit.requested_stop), (9, false));
    let gone = vmm.statistics(machine, boot).await;
    assert!(
        matches!(gone, Err(VmmError::Gone { .. } | VmmError::Refused { .. })),
        "{gone:?}"
    );
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_machine_answers() {
    answers(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_machine_answers() {
    answers(IsolationClass::Emulated).await;
}
