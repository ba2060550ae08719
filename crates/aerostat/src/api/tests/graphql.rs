//! What Fly's command line asks about an app before it destroys a machine.

use serde_json::json;

use super::fixture::server;

/// As fly-go words it.
const QUERY: &str = "query ($appName: String!) { appcompact:app(name: $appName) { id \
    internalNumericId name hostname cnameTarget deployed network status appUrl platformVersion \
    organization { id internalNumericId slug paidPlan } postgresAppRole: role { name } } }";

#[tokio::test]
async fn an_app_is_told_in_the_words_of_the_question() {
    let server = server().await;
    server.app("web").await;
    let ask = async |query: &str, app: &str| {
        let body = json!({"query": query, "variables": {"appName": app}}).to_string();
        server.ask("POST", "/graphql", &body).await
    };
    let (status, answer) = ask(QUERY, "web").await;
    let app = &answer["data"]["appcompact"];
    assert_eq!((status, &app["name"]), (200, &json!("web")), "{answer}");
    assert_eq!(app["deployed"], false);
    assert_eq!(app["postgresAppRole"], json!(null));
    assert_eq!(app["organization"]["slug"], "personal");
    assert_eq!(app["organization"].get("name"), None, "nobody asked");

    let (status, missing) = ask(QUERY, "other").await;
    let message = &missing["errors"][0]["message"];
    assert_eq!((status, &missing["data"]), (200, &json!(null)));
    assert_eq!(message, "Could not find App \"other\"");

    for unknown in ["{ viewer { id } }", "mutation { x }"] {
        assert_eq!(ask(unknown, "web").await.0, 501, "{unknown}");
    }
    let unknown = "query ($appName: String!) { app(name: $appName) { ipAddresses { nodes } } }";
    assert_eq!(ask(unknown, "web").await.0, 501);
    assert_eq!(ask("{ app { id } }", "web").await.0, 400);
    assert_eq!(ask("{", "web").await.0, 400);
}
