//! Quotas: counted before the write, by one place for all writers.

use kube::resource::{CONFIG_MAPS, PODS, SECRETS, SERVICES};
use serde_json::json;

use super::world::{HERE, World, pod};

#[tokio::test]
async fn of_many_writers_at_once_only_as_many_get_in_as_there_is_room() {
    let world = World::new().await;
    world
        .quota(
            "q",
            json!({"hard": {"count/configmaps": "10", "configmaps": "7"}}),
        )
        .await;
    let writers = (0..40).map(|number| {
        let api = world.api.clone();
        tokio::spawn(async move {
            let object = json!({"metadata": {"name": format!("c{number}")}});
            api.create(&CONFIG_MAPS, HERE, object).await.is_ok()
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut let_in = 0;
    for writer in writers {
        let_in += usize::from(writer.await.expect("no panic"));
    }
    assert_eq!(let_in, 7);
    assert_eq!(
        world.used("q").await,
        json!({"count/configmaps": "7", "configmaps": "7"})
    );
    assert_eq!(
        world
            .refused(&CONFIG_MAPS, json!({"metadata": {"name": "late"}}))
            .await,
        "configmaps \"late\" is forbidden: exceeded quota: q, requested: configmaps=1, used: \
         configmaps=7, limited: configmaps=7"
    );
}

#[tokio::test]
async fn a_write_that_fails_gives_back_what_it_held() {
    let world = World::new().await;
    world.quota("q", json!({"hard": {"secrets": "5"}})).await;
    let secret = json!({"metadata": {"name": "s"}});
    world.made(&SECRETS, secret.clone()).await;
    world.refused(&SECRETS, secret).await;
    for _ in 0..200 {
        if world.used("q").await == json!({"secrets": "1"}) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} are held", world.used("q").await);
}

#[tokio::test]
async fn pods_have_to_say_what_they_need_and_are_counted_by_it() {
    let world = World::new().await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"});
    world.quota("compute", json!({"hard": hard})).await;
    assert_eq!(
        world.refused(&PODS, pod("bare", json!({}))).await,
        "pods \"bare\" is forbidden: failed quota: compute: must specify limits.memory for: c; \
         requests.cpu for: c"
    );
    let needs = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": "256Mi"}});
    world.made(&PODS, pod("a", needs("600m"))).await;
    assert_eq!(
        world.refused(&PODS, pod("b", needs("500m"))).await,
        "pods \"b\" is forbidden: exceeded quota: compute, requested: requests.cpu=500m, used: \
         requests.cpu=600m, limited: requests.cpu=1"
    );
    world.made(&PODS, pod("b", needs("400m"))).await;
    assert_eq!(
        world.used("compute").await,
        json!({"pods": "2", "requests.cpu": "1", "limits.memory": "512Mi"})
    );
}

#[tokio::test]
async fn scopes_choose_which_pods_count() {
    let world = World::new().await;
    world
        .quota(
            "best",
            json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}),
        )
        .await;
    world
        .quota(
            "other",
            json!({"hard": {"pods": "1"}, "scopes": ["NotBestEffort"]}),
        )
        .await;
    world.made(&PODS, pod("a", json!({}))).await;
    world
        .made(&PODS, pod("b", json!({"requests": {"cpu": "1m"}})))
        .await;
    let message = world.refused(&PODS, pod("c", json!({}))).await;
    assert!(
        message.contains("exceeded quota: best, requested: pods=1"),
        "{message}"
    );
}

#[tokio::test]
async fn services_are_counted_when_they_are_made_and_when_they_change() {
    let world = World::new().await;
    world
        .quota(
            "q",
            json!({"hard": {"services": "1", "services.nodeports": "0"}}),
        )
        .await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let mut made = world.made(&SERVICES, service("s")).await;
    made["spec"]["ports"][0]["port"] = json!(81);
    world
        .api
        .update(&SERVICES, HERE, made)
        .await
        .expect("adds nothing");
    assert_eq!(
        world.used("q").await,
        json!({"services": "1", "services.nodeports": "0"})
    );
    let message = world.refused(&SERVICES, service("t")).await;
    assert!(
        message.contains("exceeded quota: q, requested: services=1"),
        "{message}"
    );
}
