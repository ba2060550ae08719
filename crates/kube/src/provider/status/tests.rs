//! Lives of pods, as their status tells them.

use proptest::prelude::*;
use serde_json::json;
use types::machine::{ContainerState, ContainerStatus, ExitEvent, ImageIdentity, PastRun};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(policy: &str, inits: &[&str], mains: &[&str]) -> Pod {
    let named = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|n| json!({"name": n, "image": "localhost/hello:1"}))
            .collect()
    };
    Pod::read(&json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
        "spec": {"restartPolicy": policy, "initContainers": named(inits),
            "containers": named(mains), "nodeName": "local"},
    }))
    .unwrap()
}

fn machine(state: MachineState, containers: Vec<ContainerStatus>) -> Machine {
    Machine {
        id: "00000000000abc".parse().unwrap(),
        name: "u-1".into(),
        state,
        region: "local".into(),
        instance_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        version: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        private_ip: "fdaa:0:1:a7b:2:0:5:2".into(),
        created_at: at(0),
        updated_at: at(50),
        config: types::machine::MachineConfig::default(),
        image_ref: ImageIdentity {
            registry: "localhost".into(),
            repository: "hello".into(),
            tag: "1".into(),
            digest: "sha256:aa".into(),
        },
        events: Vec::new(),
        checks: Vec::new(),
        containers,
        nonce: None,
        host_status: "ok".into(),
        cordoned: false,
        creation_key: None,
        isolation: types::IsolationClass::Container,
        revision: 1,
    }
}

fn container(name: &str, state: ContainerState, restarts: u32) -> ContainerStatus {
    ContainerStatus {
        name: name.into(),
        state,
        image_ref: ImageIdentity::default(),
        restart_count: restarts,
        started_at: (state != ContainerState::Created).then(|| at(10 + i64::from(restarts))),
        exit_event: None,
        last_exit: None,
        message: String::new(),
    }
}

fn exited(name: &str, state: ContainerState, code: i32) -> ContainerStatus {
    ContainerStatus {
        exit_event: Some(ExitEvent {
            exit_code: code,
            exited_at: at(40),
            ..ExitEvent::default()
        }),
        ..container(name, state, 0)
    }
}

fn observe(pod: &Pod, old: &Value, machine: Option<&Machine>, second: i64) -> Value {
    observe_problem(pod, old, machine, None, second)
}

fn observe_problem(
    pod: &Pod,
    old: &Value,
    machine: Option<&Machine>,
    problem: Option<&Problem>,
    second: i64,
) -> Value {
    status(&Observed {
        pod,
        old,
        machine,
        problem,
        host_ip: "fdaa:0:1::1",
        now: at(second),
    })
}

fn new_pod() -> Value {
    json!({"phase": "Pending", "qosClass": "BestEffort", "conditions": [
        {"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).unwrap()
}

#[test]
fn a_running_pod_has_the_status_that_a_kubelet_would_write() {
    let pod = pod("Always", &[], &["web"]);
    let running = machine(
        MachineState::Started,
        vec![container("web", ContainerState::Started, 0)],
    );
    let time = "2027-01-15T08:00:20Z";
    let began = "2027-01-15T08:00:10Z";
    assert_eq!(
        observe(&pod, &new_pod(), Some(&running), 20),
        json!({
            "phase": "Running", "qosClass": "BestEffort", "startTime": time,
            "hostIP": "fdaa:0:1::1", "hostIPs": [{"ip": "fdaa:0:1::1"}],
            "podIP": "fdaa:0:1:a7b:2:0:5:2", "podIPs": [{"ip": "fdaa:0:1:a7b:2:0:5:2"}],
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": time},
                {"type": "Initialized", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": time},
                {"type": "Ready", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": time},
                {"type": "ContainersReady", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": time},
                {"type": "PodScheduled", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "containerStatuses": [{
                "name": "web", "image": "localhost/hello:1",
                "imageID": "localhost/hello@sha256:aa",
                "containerID": "aerostat://00000000000abc/web",
                "restartCount": 0, "ready": true, "started": true,
                "state": {"running": {"startedAt": began}}, "lastState": {}}],
        })
    );
}

#[test]
fn a_second_look_at_the_same_machine_changes_nothing() {
    let pod = pod("Always", &["init"], &["web", "side"]);
    let mut failed = container("side", ContainerState::Failed, 0);
    failed.message = "no such file".into();
    failed.image_ref.digest = "sha256:bb".into();
    for state in [
        MachineState::Starting,
        MachineState::Started,
        MachineState::Stopped,
    ] {
        let machine = machine(
            state,
            vec![
                exited("init", ContainerState::Stopped, 0),
                container("web", ContainerState::Started, 2),
                failed.clone(),
            ],
        );
        let first = observe(&pod, &new_pod(), Some(&machine), 20);
        assert_eq!(observe(&pod, &first, Some(&machine), 99), first, "{state}");
    }
}

#[test]
fn a_pod_waits_while_its_machine_is_made_and_says_for_what() {
    let pod = pod("Always", &[], &["web"]);
    let waiting = |problem: Option<Problem>| {
        let status = observe_problem(&pod, &new_pod(), None, problem.as_ref(), 5);
        assert_eq!(status["phase"], "Pending");
        assert_eq!(condition(&status, "Ready")["status"], "False");
        assert_eq!(condition(&status, "Ready")["reason"], "ContainersNotReady");
        let message = "containers with unready status: [web]";
        assert_eq!(condition(&status, "Ready")["message"], message);
        status["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
    };
    assert_eq!(waiting(None), "ContainerCreating");
    let config = Problem::Config("configmap \"a\" not found".into());
    assert_eq!(waiting(Some(config)), "CreateContainerConfigError");
    let image = |again| Problem::Image {
        message: "no such image".into(),
        again,
    };
    assert_eq!(waiting(Some(image(false))), "ErrImagePull");
    assert_eq!(waiting(Some(image(true))), "ImagePullBackOff");
    let unsupported = Problem::Unsupported("spec.hostNetwork is not supported: …".into());
    assert_eq!(waiting(Some(unsupported)), "ProviderUnsupported");
}

#[test]
fn an_image_that_cannot_be_had_makes_the_pod_wait() {
    let mut web = container("web", ContainerState::Failed, 0);
    web.started_at = None;
    web.message = "no such image".into();
    let failed = machine(MachineState::Failed, vec![web]);
    let pod = pod("Never", &[], &["web"]);
    let reason = |problem: Option<&Problem>| {
        let status = observe_problem(&pod, &new_pod(), Some(&failed), problem, 5);
        assert_eq!(status["phase"], "Pending");
        status["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
    };
    assert_eq!(reason(None), "ErrImagePull");
    let again = Problem::Image {
        message: "no such image".into(),
        again: true,
    };
    assert_eq!(reason(Some(&again)), "ImagePullBackOff");
}

#[test]
fn a_pod_that_can_never_run_and_is_never_restarted_has_failed() {
    let pod = pod("Never", &[], &["web"]);
    let problem = Problem::Unsupported("probes are not built yet".into());
    let status = observe_problem(&pod, &new_pod(), None, Some(&problem), 5);
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "ProviderUnsupported");
    assert_eq!(status["message"], "probes are not built yet");
}

#[test]
fn init_containers_come_first() {
    let pod = pod("Always", &["one", "two"], &["web"]);
    let machine = machine(
        MachineState::Started,
        vec![
            exited("one", ContainerState::Stopped, 0),
            container("two", ContainerState::Started, 0),
            container("web", ContainerState::Created, 0),
        ],
    );
    let status = observe(&pod, &new_pod(), Some(&machine), 20);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(
        condition(&status, "Initialized")["message"],
        "containers with incomplete status: [two]"
    );
    let main = &status["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    assert_eq!(status["initContainerStatuses"][1]["ready"], false);
}

#[test]
fn the_end_of_a_pod_depends_on_its_restart_policy() {
    for (policy, code, state, phase) in [
        ("Never", 0, ContainerState::Stopped, "Succeeded"),
        ("Never", 3, ContainerState::Stopped, "Failed"),
        ("OnFailure", 0, ContainerState::Stopped, "Succeeded"),
        ("OnFailure", 3, ContainerState::Waiting, "Running"),
        ("Always", 0, ContainerState::Waiting, "Running"),
    ] {
        let over = match state {
            ContainerState::Waiting => MachineState::Started,
            _ => MachineState::Stopped,
        };
        let machine = machine(over, vec![exited("web", state, code)]);
        let status = observe(&pod(policy, &[], &["web"]), &new_pod(), Some(&machine), 60);
        assert_eq!(status["phase"], phase, "{policy} {code}");
    }
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let machine = machine(
        MachineState::Stopped,
        vec![
            exited("init", ContainerState::Stopped, 1),
            container("web", ContainerState::Created, 0),
        ],
    );
    let status = observe(
        &pod("Never", &["init"], &["web"]),
        &new_pod(),
        Some(&machine),
        60,
    );
    assert_eq!(status["phase"], "Failed");
    assert_eq!(condition(&status, "Ready")["reason"], "PodFailed");
}

#[test]
fn a_crashing_container_waits_and_remembers_its_last_run() {
    let machine = machine(
        MachineState::Started,
        vec![exited("web", ContainerState::Waiting, 1)],
    );
    let status = observe(
        &pod("Always", &[], &["web"]),
        &new_pod(),
        Some(&machine),
        60,
    );
    let web = &status["containerStatuses"][0];
    assert_eq!(web["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(web["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(web["ready"], false);
}

#[test]
fn a_restarted_container_shows_how_the_run_before_ended() {
    let mut web = container("web", ContainerState::Started, 1);
    web.last_exit = Some(PastRun {
        started_at: Some(at(1)),
        exit_event: ExitEvent {
            exit_code: 137,
            guest_signal: 9,
            oom_killed: true,
            exited_at: at(2),
            ..ExitEvent::default()
        },
    });
    let machine = machine(MachineState::Started, vec![web]);
    let status = observe(
        &pod("Always", &[], &["web"]),
        &new_pod(),
        Some(&machine),
        60,
    );
    let web = &status["containerStatuses"][0];
    assert_eq!(web["restartCount"], 1);
    let last = &web["lastState"]["terminated"];
    assert_eq!(
        (&last["reason"], &last["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    assert_eq!(last["signal"], 9);
}

#[test]
fn the_restart_count_goes_on_when_the_machine_boots_again() {
    let pod = pod("Always", &[], &["web"]);
    let run = |second: i64, restarts: u32| {
        let mut web = container("web", ContainerState::Started, restarts);
        web.started_at = Some(at(second));
        machine(MachineState::Started, vec![web])
    };
    let mut status = new_pod();
    for (second, in_boot, expected) in [
        (10, 0, 0),
        (20, 1, 1),
        (30, 0, 2),
        (40, 1, 3),
        (40, 1, 3),
        (50, 4, 4),
    ] {
        status = observe(&pod, &status, Some(&run(second, in_boot)), second + 1);
        assert_eq!(
            status["containerStatuses"][0]["restartCount"], expected,
            "at {second}"
        );
    }
}

#[test]
fn containers_of_a_machine_that_vanished_have_ended() {
    let running = machine(
        MachineState::Started,
        vec![container("web", ContainerState::Started, 0)],
    );
    for (policy, phase) in [
        ("Never", "Failed"),
        ("Always", "Running"),
        ("OnFailure", "Running"),
    ] {
        let pod = pod(policy, &[], &["web"]);
        let before = observe(&pod, &new_pod(), Some(&running), 20);
        let crashed = Machine {
            state: MachineState::Failed,
            ..running.clone()
        };
        for gone in [None, Some(&crashed)] {
            let status = observe(&pod, &before, gone, 90);
            let ended = &status["containerStatuses"][0]["state"]["terminated"];
            assert_eq!(ended["reason"], "ContainerStatusUnknown");
            assert_eq!(ended["exitCode"], 137);
            assert_eq!(status["phase"], phase, "{policy}");
        }
    }
}

#[test]
fn a_deleted_pod_ends_whatever_its_restart_policy_is() {
    let mut pod = pod("Always", &[], &["web"]);
    pod.metadata.deletion_timestamp = Some(at(30));
    for (code, phase) in [(0, "Succeeded"), (143, "Failed")] {
        let machine = machine(
            MachineState::Stopped,
            vec![exited("web", ContainerState::Stopped, code)],
        );
        assert_eq!(
            observe(&pod, &new_pod(), Some(&machine), 60)["phase"],
            phase
        );
    }
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let mut pod = pod("Always", &[], &["web"]);
    pod.spec.readiness_gates = vec![super::super::pod::ReadinessGate {
        condition_type: "example.com/lb".into(),
    }];
    let machine = machine(
        MachineState::Started,
        vec![container("web", ContainerState::Started, 0)],
    );
    let held = observe(&pod, &new_pod(), Some(&machine), 20);
    assert_eq!(condition(&held, "ContainersReady")["status"], "True");
    assert_eq!(
        condition(&held, "Ready")["reason"],
        "ReadinessGatesNotReady"
    );
    let mut met = held.clone();
    let gate = json!({"type": "example.com/lb", "status": "True"});
    met["conditions"].as_array_mut().unwrap().push(gate.clone());
    let ready = observe(&pod, &met, Some(&machine), 30);
    assert_eq!(condition(&ready, "Ready")["status"], "True");
    assert_eq!(
        condition(&ready, "Ready")["lastTransitionTime"],
        "2027-01-15T08:00:30Z"
    );
    assert_eq!(*condition(&ready, "example.com/lb"), gate);
    let since = |status: &Value| condition(status, "ContainersReady")["lastTransitionTime"].clone();
    assert_eq!(since(&ready), since(&held));
}

fn any_container(name: &'static str) -> impl Strategy<Value = ContainerStatus> {
    (0..5u8, 0..3u32, 0..2i32).prop_map(move |(state, restarts, code)| {
        let state = match state {
            0 => ContainerState::Created,
            1 => ContainerState::Started,
            2 => ContainerState::Waiting,
            3 => ContainerState::Stopped,
            _ => ContainerState::Failed,
        };
        ContainerStatus {
            restart_count: restarts,
            ..exited(name, state, code)
        }
    })
}

fn any_machine() -> impl Strategy<Value = Option<Machine>> {
    let states = prop::sample::select(vec![
        MachineState::Created,
        MachineState::Starting,
        MachineState::Started,
        MachineState::Stopping,
        MachineState::Stopped,
        MachineState::Failed,
        MachineState::Destroyed,
    ]);
    let parts = (
        states,
        any_container("init"),
        any_container("web"),
        any_container("side"),
    );
    prop::option::of(parts.prop_map(|(state, a, b, c)| machine(state, vec![a, b, c])))
}

proptest! {
    #[test]
    fn whatever_machines_do_a_status_keeps_its_promises(
        history in prop::collection::vec(any_machine(), 1..12),
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
    ) {
        let pod = pod(policy, &["init"], &["web", "side"]);
        let mut old = new_pod();
        for (step, machine) in history.iter().enumerate() {
            let second = i64::try_from(step).unwrap() * 10;
            let new = observe(&pod, &old, machine.as_ref(), second);
            prop_assert_eq!(&observe(&pod, &new, machine.as_ref(), second + 5), &new);
            if is_terminal(text(&old, "phase")) {
                prop_assert_eq!(&new["phase"], &old["phase"]);
            }
            if policy == "Always" {
                prop_assert!(!is_terminal(text(&new, "phase")));
            }
            for status in new["containerStatuses"].as_array().unwrap() {
                prop_assert_eq!(status["state"].as_object().unwrap().len(), 1);
                let before = old["containerStatuses"].as_array().into_iter().flatten()
                    .find(|s| s["name"] == status["name"])
                    .map_or(0, |s| s["restartCount"].as_u64().unwrap());
                prop_assert!(status["restartCount"].as_u64().unwrap() >= before);
                prop_assert_eq!(&status["ready"], status["state"].get("running").is_some());
            }
            let ready = condition(&new, "Ready")["status"] == "True";
            let running = |s: &Value| s["state"].get("running").is_some();
            let all = new["containerStatuses"].as_array().unwrap().iter().all(running);
            prop_assert!(!ready || all);
            old = new;
        }
    }
}
