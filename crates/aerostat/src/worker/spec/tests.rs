//! What a boot is given.

use serde_json::json;
use types::{HostId, IsolationClass, MachineId, NetworkId};

use super::*;
use crate::worker::capacity::Reservation;
use crate::worker::check;
use crate::worker::handle::CreateRequest;
use crate::worker::machine::New;
use crate::worker::ports::Allocation;

fn machine(config: serde_json::Value) -> Machine {
    let request = CreateRequest {
        reservation: Reservation {
            id: ulid::Ulid::nil(),
        },
        id: MachineId::from_bits(1),
        app: "web".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        name: "one".into(),
        config: check(serde_json::from_value(config).unwrap()).unwrap(),
        launch: false,
        lease: None,
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: crate::worker::SecretsWanted::default(),
    };
    let ipv4 = std::net::Ipv4Addr::new(172, 19, 0, 2);
    let allocation = Allocation {
        field: 0x1_0000,
        ipv4,
        uid: 1,
    };
    let (host, isolation) = (HostId::new(2), IsolationClass::Container);
    let given = New {
        request,
        isolation,
        region: "local".into(),
        host,
        allocation,
    };
    Machine::create(given, jiff::Timestamp::UNIX_EPOCH)
}

fn image() -> ReadyImage {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    ReadyImage {
        rootfs: "/image".into(),
        identity: types::machine::ImageIdentity::default(),
        settings: ImageSettings {
            entrypoint: words("/entry"),
            cmd: words("a b"),
            env: words("A=image B=image=x"),
            user: "www".into(),
            working_dir: "/srv".into(),
            stop_signal: None,
        },
    }
}

pub(super) fn spec(config: serde_json::Value) -> BootSpec {
    let attachment = BootNetwork {
        ifname: "m00010000".into(),
        host_netns: "/run/netns/aero-0002".into(),
        machine_netns: None,
        mac: vmm::MacAddress([0; 6]),
        owner_uid: 1,
    };
    let settings = Settings {
        boot_timeout: Duration::from_secs(60),
        rootfs_mib_default: 512,
    };
    let machine = machine(config);
    let images = vec![image(); machine.config.containers().len()];
    boot_spec(&machine, BootId(1), &images, attachment, settings, 5).unwrap()
}

fn command_of(container: serde_json::Value) -> String {
    let mut container = container;
    container["name"] = "c".into();
    container["image"] = "x".into();
    spec(json!({"containers": [container]})).spec.containers[0]
        .command
        .join(" ")
}

#[test]
fn commands_are_merged_as_kubernetes_and_docker_do() {
    assert_eq!(command_of(json!({})), "/entry a b");
    assert_eq!(command_of(json!({"cmd": ["c"]})), "/entry c");
    assert_eq!(command_of(json!({"entrypoint": ["/mine"]})), "/mine");
    assert_eq!(
        command_of(json!({"entrypoint": ["/mine"], "cmd": ["c"]})),
        "/mine c"
    );
    assert_eq!(
        command_of(json!({"exec": ["x"], "entrypoint": ["/y"], "cmd": ["z"]})),
        "x"
    );
}

#[test]
fn a_container_with_nothing_to_run_is_refused_by_name() {
    let machine = machine(json!({"image": "x"}));
    let empty = ReadyImage {
        settings: ImageSettings::default(),
        ..image()
    };
    let error = check_commands(&machine, &[empty]).unwrap_err();
    assert_eq!(error.container, "app");
}

#[test]
fn the_environment_comes_from_the_image_the_platform_and_the_configuration() {
    let from = json!([{"env_var": "IP", "field_ref": "private_ip"}]);
    let container = json!({"name": "c", "image": "x", "env": {"A": "own"}, "env_from": from});
    let spec = spec(json!({"containers": [container], "env": {"FLY_REGION": "mine"}}));
    let env = &spec.spec.containers[0].env;
    assert_eq!(env["A"], "own");
    assert_eq!(env["B"], "image=x");
    assert_eq!(env["PATH"], PATH_DEFAULT);
    assert_eq!(env["FLY_REGION"], "mine");
    assert_eq!(env["FLY_APP_NAME"], "web");
    assert_eq!(env["FLY_IMAGE_REF"], "docker.io/library/x:latest");
    assert_eq!(env["FLY_VM_MEMORY_MB"], "256");
    assert_eq!(env["IP"], "fdaa:0:7:a7b:2:1:0:2");
    assert_eq!(env["FLY_PRIVATE_IP"], env["IP"]);
}

#[test]
fn names_sizes_and_stops_have_their_defaults() {
    let plain = spec(json!({"image": "x"}));
    let container = &plain.spec.containers[0];
    assert_eq!(container.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(
        (container.user.as_str(), container.working_dir.as_str()),
        ("www", "/srv")
    );
    assert_eq!(plain.spec.hostname, "00000000000001");
    assert_eq!(plain.spec.network.nameservers, ["fdaa::3"]);
    assert_eq!(plain.rootfs_size_bytes, 512 << 20);
    assert_eq!(plain.keep, None);
    let given = spec(json!({
        "containers": [{"name": "c", "image": "x"}],
        "dns": {"hostname": "web-0", "nameservers": ["fdaa::9"]},
        "rootfs": {"size_gb": 2, "persist": "restart"},
    }));
    assert!(given.keep.is_some_and(|keep| !keep.any_version));
    assert_eq!(given.spec.containers[0].stop_signal, None);
    assert_eq!(given.spec.hostname, "web-0");
    assert_eq!(given.spec.network.nameservers, ["fdaa::9"]);
    assert_eq!(given.rootfs_size_bytes, 2 << 30);
}
