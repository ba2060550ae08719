//! What the fake promises to those who use it.

use super::*;

async fn end(vmm: &FakeVmm, spec: &BootSpec) -> Option<ReportEvent> {
    let mut reports = vmm.reports(&spec.machine, spec.boot, 0).await.unwrap();
    let mut last = None;
    while let Some(report) = reports.recv().await {
        last = Some(report.event);
    }
    last
}

#[tokio::test]
async fn a_machine_is_resumed_once_from_what_was_saved_and_not_from_nothing() {
    let vmm = FakeVmm::new();
    let mut spec = crate::shim::tests::spec().boot;
    spec.isolation = IsolationClass::Emulated;
    vmm.boot(spec.clone()).await.unwrap();
    vmm.suspend(&spec.machine, spec.boot).await.unwrap();
    assert_eq!(end(&vmm, &spec).await, Some(ReportEvent::Suspended));
    vmm.kill(&spec.machine, spec.boot).await.unwrap();
    assert_eq!(vmm.suspended(), std::slice::from_ref(&spec.machine));
    spec.resume = true;
    spec.boot = BootId(spec.boot.0 + 1);
    vmm.boot(spec.clone()).await.unwrap();
    assert_eq!(vmm.alive().len(), 1);
    spec.boot = BootId(spec.boot.0 + 1);
    vmm.boot(spec.clone()).await.unwrap();
    let end = end(&vmm, &spec).await;
    assert!(matches!(end, Some(ReportEvent::Failed { .. })), "{end:?}");
}

#[tokio::test]
async fn a_container_machine_is_not_suspended() {
    let vmm = FakeVmm::new();
    let spec = crate::shim::tests::spec().boot;
    vmm.boot(spec.clone()).await.unwrap();
    let refused = vmm.suspend(&spec.machine, spec.boot).await;
    assert!(matches!(refused, Err(VmmError::CannotSuspend { .. })));
    assert_eq!(vmm.alive().len(), 1);
}

#[tokio::test]
async fn what_was_copied_into_a_machine_can_be_had_again_and_signals_are_noted() {
    let vmm = FakeVmm::new();
    let spec = crate::shim::tests::spec().boot;
    vmm.boot(spec.clone()).await.unwrap();
    let (machine, boot) = (&spec.machine, spec.boot);
    let place = |path: &str| (String::from("main"), String::from(path));
    let (container, path) = place("/data");
    let mut into = vmm
        .copy(machine, boot, Copy::Into { container, path })
        .await
        .unwrap();
    into.input.send(Input::Stdin("tar".into())).await.unwrap();
    into.input.send(Input::CloseStdin).await.unwrap();
    let done = Output::End(ExecEnd::Exited { exit_code: 0 });
    assert_eq!(into.output.recv().await, Some(done.clone()));
    for (path, is_there) in [("/data", true), ("/other", false)] {
        let (container, path) = place(path);
        let copy = Copy::OutOf { container, path };
        let mut out = vmm.copy(machine, boot, copy).await.unwrap();
        let first = out.output.recv().await;
        if is_there {
            assert_eq!(first, Some(Output::Stdout("tar".into())));
            assert_eq!(out.output.recv().await, Some(done.clone()));
        } else {
            assert!(matches!(first, Some(Output::End(ExecEnd::Failed { .. }))));
        }
    }
    vmm.signal(machine, boot, None, "HUP".into()).await.unwrap();
    assert_eq!(vmm.signals(), [(machine.clone(), None, "HUP".to_owned())]);
    assert_eq!(
        vmm.processes(machine, boot).await.unwrap().len(),
        spec.spec.containers.len()
    );
    let used = vmm.statistics(machine, boot).await.unwrap();
    assert_eq!(
        used.memory_limit_bytes,
        u64::from(spec.guest.memory_mb) << 20
    );
    vmm.kill(machine, boot).await.unwrap();
    assert!(vmm.processes(machine, boot).await.is_err());
}
