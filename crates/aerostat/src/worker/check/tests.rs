//! What is let through, and what is refused by which name.

use base64::Engine as _;
use serde_json::json;
use types::guest::{Probe, ProbeTls};
use types::machine::{Persist, RestartPolicy};

use super::containers::CONTAINERS_MAX;
use super::files::FILES_BYTES_MAX;
use super::*;

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
        field(json!({"image": "x", "services": [{"internal_port": 80}]})),
        "config.services"
    );
    let other = container("web", json!({"gpu": 1}));
    assert_eq!(
        field(json!({"containers": [other]})),
        "config.containers[0].gpu"
    );
    let standby = read(json!({"image": "x", "standbys": ["1"]})).unwrap_err();
    assert_eq!(standby.field, "config.standbys");
    assert!(standby.reason.contains("service"), "{standby}");
    let empty = json!({"image": "x", "services": [], "checks": {}, "mounts": null, "size": ""});
    assert!(read(empty).is_ok());
}

#[test]
fn writable_layers_stay_for_as_long_as_they_are_asked_to() {
    for (said, persist) in [
        (json!(null), Persist::Never),
        (json!("never"), Persist::Never),
        (json!(1), Persist::Never),
        (json!("restart"), Persist::Restart),
        (json!(2), Persist::Restart),
        (json!("always"), Persist::Always),
        (json!(3), Persist::Always),
    ] {
        let config = json!({"image": "x", "rootfs": {"persist": said}});
        assert_eq!(read(config).unwrap().persist(), persist, "{said}");
        let older = json!({"image": "x", "guest": {"persist_rootfs": said}});
        assert_eq!(read(older).unwrap().persist(), persist, "{said}");
    }
    let two = json!({"image": "x", "rootfs": {"persist": "always"},
        "guest": {"persist_rootfs": "restart"}});
    assert_eq!(field(two), "config.guest.persist_rootfs");
    let unknown = json!({"image": "x", "rootfs": {"persist": "sometimes"}});
    let error = serde_json::from_value::<MachineConfig>(unknown).unwrap_err();
    assert!(error.to_string().contains("never, restart or always"));
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
        assert!(error.ends_with("files[0].guest_path"), "{path}: {error}");
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

#[test]
fn a_size_is_a_preset_or_numbers() {
    let size = |size: &str| read(json!({"image": "x", "size": size})).map(|c| c.guest());
    let guest = size("shared-cpu-2x").unwrap();
    assert_eq!(
        (guest.cpu_kind.as_str(), guest.cpus, guest.memory_mb),
        ("shared", 2, 512)
    );
    let guest = size("performance-16x").unwrap();
    assert_eq!(
        (guest.cpu_kind.as_str(), guest.cpus, guest.memory_mb),
        ("performance", 16, 32768)
    );
    let unknown = size("shared-cpu-3x").unwrap_err();
    assert_eq!(unknown.field, "config.size");
    assert!(unknown.reason.contains("shared-cpu-4x"), "{unknown}");
    assert!(size("a10").unwrap_err().reason.contains("graphics"));
    let both = json!({"image": "x", "size": "shared-cpu-1x", "guest": {"cpus": 2}});
    assert_eq!(field(both), "config.size");
}

#[test]
fn processes_become_containers_of_one_image() {
    let config = json!({
        "image": "nginx",
        "env": {"A": "1", "B": "1"},
        "restart": {"policy": "always", "max_retries": 3},
        "files": [{"guest_path": "/x", "raw_value": "eA=="}],
        "processes": [{"cmd": ["a"], "env": {"A": "2"}}, {"exec": ["b"], "user": "www"}],
    });
    let config = read(config).unwrap();
    let containers = config.containers();
    assert_eq!(config.container_names(), ["process-1", "process-2"]);
    assert_eq!(containers[0].cmd, ["a"]);
    assert_eq!(
        (
            containers[0].env["A"].as_str(),
            containers[0].env["B"].as_str()
        ),
        ("2", "1")
    );
    assert_eq!(containers[1].user.as_deref(), Some("www"));
    assert!(
        containers
            .iter()
            .all(|c| c.image == "nginx" && c.files.len() == 1)
    );
    let restart = containers[0].restart.clone().unwrap();
    assert_eq!(
        (restart.policy, restart.max_retries),
        (RestartPolicy::OnFailure, Some(3))
    );
    let mixed = json!({"containers": [container("a", json!({}))], "processes": [{}]});
    assert_eq!(field(mixed), "config.processes");
    let init = json!({"image": "x", "init": {"cmd": ["a"]}, "processes": [{}]});
    assert_eq!(field(init), "config.init");
    let other = json!({"image": "x", "processes": [{"gpu": 1}]});
    assert_eq!(field(other), "config.processes[0].gpu");
}

#[test]
fn directories_are_named_and_mounted_inside() {
    let mounting = |mount: Value| {
        json!({
            "volumes": [{"name": "tmp", "temp_dir": {"storage_type": "memory", "size_mb": 5}}],
            "containers": [container("a", json!({"mounts": [mount]}))],
        })
    };
    let good = mounting(json!({"name": "tmp", "path": "/data", "sub_path": "a/b"}));
    let directories = read(good).unwrap().directories();
    assert_eq!(directories[0].size_bytes, 5 << 20);
    assert!(directories[0].memory);
    for (mount, member) in [
        (json!({"name": "other", "path": "/data"}), "name"),
        (json!({"name": "tmp", "path": "data"}), "path"),
        (json!({"name": "tmp", "path": "/"}), "path"),
        (
            json!({"name": "tmp", "path": "/a", "sub_path": "../x"}),
            "sub_path",
        ),
        (
            json!({"name": "tmp", "path": "/a", "sub_path": "/x"}),
            "sub_path",
        ),
    ] {
        let expected = format!("config.containers[0].mounts[0].{member}");
        assert_eq!(field(mounting(mount)), expected);
    }
    let twice = json!([{"name": "tmp", "path": "/a"}, {"name": "tmp", "path": "/a/"}]);
    let mut config = mounting(json!({}));
    config["containers"][0]["mounts"] = twice;
    assert_eq!(field(config), "config.containers[0].mounts[1].path");
    let tmp = json!({"name": "tmp", "temp_dir": {}});
    assert_eq!(
        field(json!({"image": "x", "volumes": [tmp]})),
        "config.volumes"
    );
    let one = |volumes: Value| {
        field(json!({"volumes": volumes, "containers": [container("a", json!({}))]}))
    };
    assert_eq!(one(json!([tmp, tmp])), "config.volumes[1].name");
    assert_eq!(one(json!([{"name": "x"}])), "config.volumes[0].temp_dir");
    assert_eq!(
        one(json!([{"name": "x", "image": "y"}])),
        "config.volumes[0].image"
    );
}

#[test]
fn checks_have_the_platforms_defaults_and_bounds() {
    let checks = |check: Value| json!({"image": "x", "checks": {"up": check}});
    let config = read(checks(
        json!({"type": "http", "port": 80, "kind": "readiness"}),
    ))
    .unwrap();
    let check = &config.checks()[0];
    assert!(check.readiness);
    let spec = &check.spec;
    assert_eq!((spec.name.as_str(), &spec.container), ("up", &None));
    assert_eq!(
        (spec.interval_ms, spec.timeout_ms, spec.grace_ms),
        (15_000, 2_000, 1_000)
    );
    assert_eq!((spec.success_threshold, spec.failure_threshold), (1, 1));
    let get = Probe::Http {
        port: 80,
        method: "GET".into(),
        path: "/".into(),
        headers: vec![],
        tls: None,
    };
    assert_eq!(spec.probe, get);
    for (check, member) in [
        (json!({"type": "tcp"}), "port"),
        (json!({"type": "tcp", "port": 1, "path": "/"}), "path"),
        (json!({"type": "http", "port": 1, "path": "x"}), "path"),
        (
            json!({"type": "http", "port": 1, "protocol": "ftp"}),
            "protocol",
        ),
        (
            json!({"type": "http", "port": 1, "tls_skip_verify": true}),
            "tls_skip_verify",
        ),
        (
            json!({"type": "http", "port": 1, "protocol": "https", "tls_server_name": "a b"}),
            "tls_server_name",
        ),
        (
            json!({"type": "http", "port": 1, "method": "A B"}),
            "method",
        ),
        (
            json!({"type": "tcp", "port": 1, "interval": "10ms"}),
            "interval",
        ),
        (
            json!({"type": "tcp", "port": 1, "timeout": "1h"}),
            "timeout",
        ),
        (
            json!({"type": "tcp", "port": 1, "kind": "liveness"}),
            "kind",
        ),
        (
            json!({"type": "tcp", "port": 1, "tls_skip_verify": true}),
            "tls_skip_verify",
        ),
    ] {
        assert_eq!(field(checks(check)), format!("config.checks.up.{member}"));
    }
    let named = json!({"image": "x", "checks": {"a b": {"type": "tcp", "port": 1}}});
    assert_eq!(field(named), "config.checks");
}

#[test]
fn containers_have_checks_of_their_own_and_may_be_waited_for() {
    let config =
        |check: Value| json!({"containers": [container("a", json!({"healthchecks": [check]}))]});
    let exec = json!({"name": "up", "exec": {"command": ["true"]}, "kind": "liveness"});
    let checks = read(config(exec.clone())).unwrap().checks();
    let spec = &checks[0].spec;
    assert_eq!(
        (spec.name.as_str(), spec.container.as_deref()),
        ("a/up", Some("a"))
    );
    assert_eq!(
        (spec.interval_ms, spec.timeout_ms, spec.grace_ms),
        (10_000, 2_000, 0)
    );
    assert_eq!((spec.success_threshold, spec.failure_threshold), (1, 3));
    assert!(spec.stop_when_critical && !checks[0].readiness);
    for (check, member) in [
        (json!({"name": "up"}), ""),
        (
            json!({"name": "up", "tcp": {"port": 1}, "exec": {"command": ["x"]}}),
            "",
        ),
        (json!({"name": "", "tcp": {"port": 1}}), ".name"),
        (json!({"name": "up", "tcp": {}}), ".tcp.port"),
        (
            json!({"name": "up", "exec": {"command": []}}),
            ".exec.command",
        ),
        (
            json!({"name": "up", "tcp": {"port": 1}, "interval": 0}),
            ".interval",
        ),
        (
            json!({"name": "up", "tcp": {"port": 1}, "failure_threshold": 0}),
            ".failure_threshold",
        ),
        (
            json!({"name": "up", "tcp": {"port": 1}, "unhealthy": "kill"}),
            ".unhealthy",
        ),
        (
            json!({"name": "up", "http": {"port": 1, "scheme": "ftp"}}),
            ".http.scheme",
        ),
        (
            json!({"name": "up", "http": {"port": 1, "scheme": "http", "tls_server_name": "a"}}),
            ".http.tls_server_name",
        ),
    ] {
        let expected = format!("config.containers[0].healthchecks[0]{member}");
        assert_eq!(field(config(check)), expected);
    }
    let waiting = |checks: Value| {
        let on = json!({"depends_on": [{"name": "a", "condition": "healthy"}]});
        let checked = container("a", json!({"healthchecks": checks}));
        json!({"containers": [checked, container("b", on)]})
    };
    assert!(read(waiting(json!([exec]))).is_ok());
    assert_eq!(field(waiting(json!([]))), "config.containers[1].depends_on");
}

#[test]
fn https_is_verified_unless_it_is_said_otherwise() {
    let tls = |check: Value| {
        let config = read(json!({"image": "x", "checks": {"up": check}})).unwrap();
        match &config.checks()[0].spec.probe {
            Probe::Http { tls, .. } => tls.clone(),
            Probe::Tcp { .. } | Probe::Exec { .. } => panic!("no check of HTTP"),
        }
    };
    let asked = |server_name: &str, verify| {
        let server_name = server_name.to_owned();
        Some(ProbeTls {
            server_name,
            verify,
        })
    };
    let check = json!({"type": "http", "port": 1, "tls_skip_verify": false, "tls_server_name": ""});
    assert_eq!(tls(check), None);
    let check = json!({"type": "http", "port": 1, "protocol": "https", "tls_server_name": "a.b"});
    assert_eq!(tls(check), asked("a.b", true));
    let check = json!({"type": "http", "port": 1, "protocol": "https", "tls_skip_verify": true});
    assert_eq!(tls(check), asked("", false));
    let health = json!({"name": "up", "http": {"port": 1, "scheme": "HTTPS"}});
    let containers = json!([{"name": "a", "image": "x", "healthchecks": [health]}]);
    let config = read(json!({"containers": containers})).unwrap();
    let spec = &config.checks()[0].spec;
    assert!(matches!(&spec.probe, Probe::Http { tls: Some(tls), .. } if tls.verify));
    assert!(config.check_class(types::IsolationClass::Container).is_ok());
    let refused = config.check_class(types::IsolationClass::Emulated);
    assert_eq!(refused.unwrap_err().field, "check a/up");
}

#[test]
fn metadata_changes_within_the_largest_size() {
    let config = read(json!({"image": "x", "metadata": {"a": "1"}})).unwrap();
    let changed = config.with_metadata([("b".to_owned(), "2".to_owned())].into());
    assert_eq!(changed.unwrap().as_given().metadata["b"], "2");
    let large = "x".repeat(CONFIG_BYTES_MAX + FILES_BYTES_MAX / 3 * 4);
    assert!(
        config
            .with_metadata([("b".to_owned(), large)].into())
            .is_err()
    );
}
