//! Real kubectl and custom resources: from the definition to the last object.

mod common;
mod custom_common;

use std::path::PathBuf;

use common::TestServer;

/// The oldest and the newest kubectl of the Cloud SDK's package: the oldest asks for OpenAPI v2.
fn kubectls() -> Vec<PathBuf> {
    let named =
        |minor: &str| PathBuf::from(format!("/usr/lib/google-cloud-sdk/bin/kubectl.1.{minor}"));
    let all = ["27", "33"].map(named).into_iter();
    all.filter(|program| program.exists()).collect()
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: crontabs.stable.example.com
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: CronTab runs something now and then.
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When to run., pattern: '^(\S+ ){4}\S+$'}
              image: {type: string, default: "cron:1"}
              replicas: {type: integer, minimum: 0}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"#;

const OBJECT: &str = r#"
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: my-cron}
spec: {cronSpec: "* * * * */5", replicas: 2}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_and_its_objects_live_as_kubectl_expects() {
    if kubectls().is_empty() {
        eprintln!("SKIPPED: a_definition_and_its_objects_live_as_kubectl_expects: no kubectl");
    }
    for kubectl in kubectls() {
        let server = TestServer::start().await;
        let _stop = custom_common::run_controllers(&server.api);
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        let apply = async |input: &str, more: &[&str]| {
            let mut args = vec!["apply", "-f", "-"];
            args.extend(more);
            let output = server.run_with_input(&kubectl, &args, input).await;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (
                output.status.success(),
                text(&output.stdout) + &text(&output.stderr),
            )
        };
        let (done, told) = apply(DEFINITION, &[]).await;
        assert!(
            done && told.contains("crontabs.stable.example.com created"),
            "{told}"
        );
        ok("wait --for=condition=Established crd/crontabs.stable.example.com --timeout=30s").await;
        let (done, told) = apply(OBJECT, &[]).await;
        assert!(done, "{told}");
        assert_eq!(told, "crontab.stable.example.com/my-cron created\n");
        let shown = ok("get ct").await;
        assert!(
            shown.starts_with("NAME      SPEC          REPLICAS   AGE\n"),
            "{shown}"
        );
        assert!(shown.contains("my-cron   * * * * */5   2"), "{shown}");
        assert!(
            ok("get all")
                .await
                .contains("crontab.stable.example.com/my-cron")
        );
        assert_eq!(
            ok("get ct my-cron -o jsonpath={.spec.image}").await,
            "cron:1"
        );
        let explained = ok("explain crontabs.spec").await;
        assert!(explained.contains("When to run."), "{explained}");
        let (done, told) = apply(&OBJECT.replace("replicas: 2", "replicas: 3"), &[]).await;
        assert!(done && told.contains("configured"), "{told}");
        let (done, told) = apply(&OBJECT.replace("replicas: 2", "replcas: 3"), &[]).await;
        assert!(
            !done && told.contains("unknown field \"spec.replcas\""),
            "{told}"
        );
        let (done, told) = apply(&OBJECT.replace("* * * * */5", "often"), &[]).await;
        assert!(
            !done && told.contains("spec.cronSpec in body should match"),
            "{told}"
        );
        ok("scale ct my-cron --replicas=5").await;
        assert_eq!(ok("get ct my-cron -o jsonpath={.spec.replicas}").await, "5");
        let (done, told) = apply(
            &OBJECT.replace("replicas: 2", "image: \"cron:2\""),
            &["--server-side", "--force-conflicts"],
        )
        .await;
        assert!(done && told.contains("serverside-applied"), "{told}");
        assert_eq!(
            ok("get ct my-cron -o jsonpath={.spec.image}").await,
            "cron:2"
        );
        ok("patch ct my-cron --type=merge -p {\"metadata\":{\"labels\":{\"a\":\"b\"}}}").await;
        assert!(ok("get ct -l a=b -o name").await.contains("my-cron"));
        assert!(
            ok("api-resources --api-group=stable.example.com")
                .await
                .contains("crontabs")
        );
        assert!(ok("describe ct my-cron").await.contains("Cron Spec:"));
        check_published(&ok("get --raw /openapi/v2").await, "definitions");
        let v3 = ok("get --raw /openapi/v3/apis/stable.example.com/v1").await;
        check_published(&v3, "components/schemas");
        assert!(
            ok("get --raw /openapi/v3")
                .await
                .contains("apis/stable.example.com/v1?hash=")
        );
        ok("delete ct my-cron --timeout=30s").await;
        ok("delete crd crontabs.stable.example.com --timeout=30s").await;
        let gone = server.fails(&kubectl, &["get", "crontabs"]).await;
        // Which of the two depends on what kubectl still has in its cache.
        let words = [
            "doesn't have a resource type",
            "could not find the requested resource",
        ];
        assert!(words.iter().any(|one| gone.contains(one)), "{gone}");
        server.stop().await;
    }
}

/// The type of the kind is there, with its own fields and those of all objects.
fn check_published(document: &str, place: &str) {
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    let path = format!("/{place}/com.example.stable.v1.CronTab");
    let found = document.pointer(&path).expect("published");
    assert_eq!(
        found["x-kubernetes-group-version-kind"][0]["kind"],
        "CronTab"
    );
    let properties = &found["properties"];
    assert_eq!(
        properties["spec"]["properties"]["image"]["default"],
        "cron:1"
    );
    assert!(properties.get("metadata").is_some());
}
