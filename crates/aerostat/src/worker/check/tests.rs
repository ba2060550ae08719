//! What is let through, and what is refused by which name.

use super::*;
use serde_json::json;

fn read(config: Value) -> Result<CheckedConfig, Invalid> {
    check(serde_json::from_value(config).unwrap())
}

fn field(config: Value) -> String {
    read(config).unwrap_err().field
}

fn container(name: &str, other: Value) -> Value {
    let mut value = json!({"name": name, "image": "nginx"});
    value
        .as_object_mut()
        .unwrap()
        .extend(other.as_object().unwrap().clone());
    value
}

#[test]
fn an_image_becomes_one_container_with_the_machines_environment() {
    let config = read(json!({"image": "nginx", "env": {"A": "1"}, "init": {"cmd": ["x"]}}));
    let containers = config.unwrap().containers();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].name, ONLY_CONTAINER);
    assert_eq!(containers[0].cmd, ["x"]);
    assert_eq!(containers[0].env["A"], "1");
}

#[test]
fn a_containers_own_environment_beats_the_machines() {
    let own = container("web", json!({"env": {"A": "2"}}));
    let config = read(json!({"env": {"A": "1", "B": "1"}, "containers": [own]})).unwrap();
    let env = &config.containers()[0].env;
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("2", "1"));
}

#[test]
fn what_is_not_built_is_refused_by_name_and_empty_members_are_not() {
    assert_eq!(
        field(json!({"image": "x", "mounts": [{"volume": "v"}]})),
        "config.mounts[0].volume"
    );
    assert_eq!(
        field(json!({"image": "x", "schedule": "daily"})),
        "config.schedule"
    );
    let checked = container("web", json!({"healthchecks": [1]}));
    assert_eq!(
        field(json!({"containers": [checked]})),
        "config.containers[0].healthchecks"
    );
    let empty = json!({"image": "x", "services": [], "checks": {}, "mounts": null, "size": ""});
    assert!(read(empty).is_ok());
}

#[test]
fn a_root_filesystem_that_never_persists_is_what_there_is() {
    assert!(read(json!({"image": "x", "rootfs": {"persist": "never"}})).is_ok());
    let kept = json!({"image": "x", "rootfs": {"persist": "always"}});
    assert_eq!(field(kept), "config.rootfs.persist");
}

#[test]
fn sizes_have_bounds() {
    let guest = |guest: Value| json!({"image": "x", "guest": guest});
    assert_eq!(
        field(guest(json!({"memory_mb": 63}))),
        "config.guest.memory_mb"
    );
    assert_eq!(field(guest(json!({"cpus": 0}))), "config.guest.cpus");
    assert_eq!(field(guest(json!({"cpus": 65}))), "config.guest.cpus");
    assert_eq!(
        field(guest(json!({"cpu_kind": "x"}))),
        "config.guest.cpu_kind"
    );
    assert_eq!(
        field(guest(json!({"gpu_kind": "a10"}))),
        "config.guest.gpu_kind"
    );
    assert!(read(guest(json!({"memory_mb": 64}))).is_ok());
}

#[test]
fn files_stay_inside_and_are_base64_and_bounded() {
    let files = |file: Value| json!({"containers": [container("a", json!({"files": [file]}))]});
    for path in ["etc/x", "/etc/../x", "/etc/", "", "/a\0"] {
        let error = field(files(json!({"guest_path": path})));
        assert!(error.ends_with("files.guest_path"), "{path}: {error}");
    }
    let error = field(files(json!({"guest_path": "/x", "raw_value": "*"})));
    assert!(error.ends_with("raw_value"));
    let large = base64::engine::general_purpose::STANDARD.encode(vec![0; FILES_BYTES_MAX + 1]);
    assert_eq!(
        field(files(json!({"guest_path": "/x", "raw_value": large}))),
        "config"
    );
}

#[test]
fn a_configuration_has_a_largest_size_and_most_containers() {
    let env = json!({"A": "x".repeat(CONFIG_BYTES_MAX + FILES_BYTES_MAX / 3 * 4)});
    assert_eq!(field(json!({"image": "x", "env": env})), "config");
    let many: Vec<Value> = (0..=CONTAINERS_MAX)
        .map(|n| container(&format!("c{n}"), json!({})))
        .collect();
    assert_eq!(field(json!({"containers": many})), "config.containers");
}

#[test]
fn containers_have_different_names_and_never_wait_in_a_circle() {
    let pair = |a: Value, b: Value| json!({"containers": [container("a", a), container("b", b)]});
    let on = |name: &str| json!({"depends_on": [{"name": name, "condition": "started"}]});
    let same = json!({"containers": [container("a", json!({})), container("a", json!({}))]});
    assert_eq!(field(same), "config.containers");
    assert!(read(pair(json!({}), on("a"))).is_ok());
    assert!(field(pair(on("b"), on("a"))).ends_with("depends_on"));
    assert!(field(pair(on("c"), json!({}))).ends_with("depends_on"));
}

#[test]
fn signals_are_those_of_linux() {
    for signal in ["SIGTERM", "TERM", "9"] {
        assert!(check_signal("x", signal).is_ok(), "{signal}");
    }
    for signal in ["SIGNONE", "", "0", "65", "sigterm"] {
        assert!(check_signal("x", signal).is_err(), "{signal}");
    }
}

#[test]
fn an_image_or_containers_must_be_there() {
    assert_eq!(field(json!({})), "config.image");
    assert_eq!(field(json!({"image": "../x"})), "config.image");
}
