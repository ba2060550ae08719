//! Secrets of the app in what a boot is given.

use super::*;

fn env(world: &World, container: usize) -> std::collections::BTreeMap<String, String> {
    let specs = world.vmm.specs();
    specs.last().unwrap().spec.containers[container].env.clone()
}

fn container(name: &str, more: serde_json::Value) -> serde_json::Value {
    let mut container = json!({"name": name, "image": "x"});
    let (Some(all), Some(more)) = (container.as_object_mut(), more.as_object()) else {
        unreachable!("objects");
    };
    all.extend(more.clone());
    container
}

#[tokio::test]
async fn each_container_gets_the_secrets_that_its_configuration_says() {
    let world = World::new();
    world
        .secrets
        .set(&[("DB", "postgres"), ("KEY", "aGVsbG8=")]);
    let worker = world.start().await;
    let handle = worker.handle();
    let only = json!({"image": "x", "env": {"DB": "of the configuration", "A": "a"}});
    let id = create(&handle, 1, only).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    let all = env(&world, 0);
    assert_eq!((all["DB"].as_str(), all["A"].as_str()), ("postgres", "a"));
    assert_eq!(all["KEY"], "aGVsbG8=");

    let files = json!([{"guest_path": "/run/key", "secret_name": "KEY"}]);
    let some = json!({"containers": [
        container("all", json!({})),
        container("named", json!({"secrets": [{"env_var": "URL", "name": "DB"}], "files": files})),
    ]});
    let id = create(&handle, 2, some).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    assert_eq!(env(&world, 0)["DB"], "postgres");
    let named = env(&world, 1);
    assert_eq!(named["URL"], "postgres");
    assert!(
        !named.contains_key("KEY") && !named.contains_key("DB"),
        "{named:?}"
    );
    let spec = world.vmm.specs().pop().unwrap().spec;
    assert_eq!(spec.containers[1].files[0].content, "aGVsbG8=");

    let processes = json!({"image": "x", "processes": [
        {"exec": ["a"]},
        {"exec": ["b"], "ignore_app_secrets": true, "secrets": [{"env_var": "KEY"}]},
    ]});
    let id = create(&handle, 3, processes).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    assert!(env(&world, 0).contains_key("DB"));
    let ignoring = env(&world, 1);
    assert!(ignoring.contains_key("KEY") && !ignoring.contains_key("DB"));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_boot_that_cannot_have_its_secrets_fails_with_that_reason() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let never = json!({"policy": "no"});
    let asks = container("a", json!({"secrets": [{"env_var": "MISSING"}]}));
    let config = json!({"containers": [asks], "restart": never});
    let id = create(&handle, 1, config).await.unwrap().id;
    let failed = world.until(&id, MachineState::Failed).await;
    let why = serde_json::to_string(&failed).unwrap();
    assert!(why.contains("app has no secret `MISSING`"), "{why}");

    *world.secrets.0.lock().unwrap() = None;
    let config = json!({"image": "x", "restart": never});
    let id = create(&handle, 2, config).await.unwrap().id;
    let failed = world.until(&id, MachineState::Failed).await;
    let why = serde_json::to_string(&failed).unwrap();
    assert!(why.contains("nobody knows the secrets"), "{why}");
    assert!(world.vmm.specs().is_empty(), "nothing was booted");
    // Once they can be had, a start is enough.
    world.secrets.set(&[("DB", "postgres")]);
    handle.start(&id).await.unwrap();
    world.until(&id, MachineState::Started).await;
    assert_eq!(env(&world, 0)["DB"], "postgres");
    worker.shutdown().await;
}

#[tokio::test]
async fn no_row_and_no_statement_holds_a_value() {
    let canary = "canary-4c1d-value";
    let world = World::new();
    world.secrets.set(&[("CANARY", canary)]);
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let machine = world.until(&id, MachineState::Started).await;
    assert_eq!(env(&world, 0)["CANARY"], canary);
    assert!(!format!("{machine:?}").contains(canary));
    worker.shutdown().await;
    let folder = world.ledger().parent().unwrap().to_owned();
    for entry in std::fs::read_dir(folder).unwrap() {
        // A folder among them is of volumes, and empty.
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(canary.len()).any(|w| w == canary.as_bytes()));
    }
}

#[test]
fn what_another_host_was_told_is_no_configuration() {
    let withheld = serde_json::from_value(json!({"image": "x", "withheld": true})).unwrap();
    assert_eq!(check(withheld).unwrap_err().field, "config.withheld");
}
