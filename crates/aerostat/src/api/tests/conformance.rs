//! A session of which every answer is checked against the document that Fly.io publishes, and
//! against ours.

use serde_json::{Value, json};

use super::fixture::{Server, server};
use super::openapi::official;
use super::schema::Document;
use crate::api::openapi::document;

/// Where what Fly's servers and clients do is not what their document says, or where ours cannot
/// say what it does: path and query, the beginning of what the checker finds, and why.
const DIFFERENCES: [(&str, &str, &str); 3] = [
    (
        "",
        "/status: ",
        "the document knows two words for errors; Fly's servers have more, and so do we",
    ),
    (
        "/apps/{app_name}/machines?summary=true",
        "/0: \"config\" is missing",
        "our document describes the list without `summary`",
    ),
    (
        "/apps/{app_name}/machines?summary=true",
        "/0: \"host_status\" is missing",
        "our document describes the list without `summary`",
    ),
];

fn is_known(path: &str, problem: &str) -> bool {
    DIFFERENCES
        .iter()
        .any(|(p, begin, _)| (p.is_empty() || *p == path) && problem.starts_with(begin))
}

struct Session {
    server: Server,
    official: Document,
    ours: Document,
    id: String,
    problems: Vec<String>,
}

impl Session {
    async fn begin() -> Self {
        Self {
            server: server().await,
            official: official(),
            ours: Document(document()),
            id: String::new(),
            problems: Vec::new(),
        }
    }

    /// Asks, and checks status and body. `path` is that of the document, with a query if need be.
    async fn ask(&mut self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let real = path
            .replace("{app_name}", "web")
            .replace("{machine_id}", &self.id)
            .replace("{org_slug}", "personal")
            .replace("{key}", "k");
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (got, answer) = self.server.ask(method, &format!("/v1{real}"), &text).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let template = path.split('?').next().unwrap_or_default();
        // The document tells few of the errors, and gives all of them one form.
        let mut problems = match status {
            400.. => self.official.problems_of("ErrorResponse", &answer),
            _ => self.official.problems(method, template, status, &answer),
        };
        let own = template
            .replace("{app_name}", "{app}")
            .replace("{machine_id}", "{id}")
            .replace("{org_slug}", "{org}");
        problems.extend(
            self.ours
                .problems(method, &format!("/v1{own}"), status, &answer),
        );
        problems.retain(|problem| !is_known(path, problem));
        let problems = problems
            .iter()
            .map(|problem| format!("{method} {path} {problem}"));
        self.problems.extend(problems);
        answer
    }
}

#[tokio::test]
async fn the_answers_of_a_session_are_those_of_both_documents() {
    let mut session = Session::begin().await;
    let null = || Value::Null;
    let app = json!({"app_name": "web", "org_slug": "personal"});
    session.ask("POST", "/apps", app, 201).await;
    session
        .ask("GET", "/apps?org_slug=personal", null(), 200)
        .await;
    session.ask("GET", "/apps/{app_name}", null(), 200).await;
    session.ask("GET", "/platform/regions", null(), 200).await;
    let placement = json!({"org_slug": "personal", "count": 2});
    session
        .ask("POST", "/platform/placements", placement, 200)
        .await;
    let create = json!({"name": "one", "config": {
        "image": "localhost/hello:1", "env": {"A": "b"}, "metadata": {"k": "v"},
        "isolation": "emulated", "stop_config": {"signal": "SIGTERM", "timeout": "3s"},
        "restart": {"policy": "on-failure", "max_retries": 3},
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "init": {"cmd": ["sleep", "1"]}, "dns": {"searches": ["x"]}, "rootfs": {"size_gb": 1},
        "checks": {"up": {"type": "tcp", "port": 80, "interval": "10s", "timeout": "1s"}},
    }});
    let machines = "/apps/{app_name}/machines";
    let machine = session.ask("POST", machines, create.clone(), 200).await;
    session.id = machine["id"].as_str().unwrap_or_default().to_owned();
    let at = |verb: &str| format!("/apps/{{app_name}}/machines/{{machine_id}}{verb}");
    session
        .ask("GET", &at("/wait?state=started"), null(), 200)
        .await;
    session.ask("GET", &at(""), null(), 200).await;
    for query in [
        "",
        "?state=started,stopped",
        "?summary=true",
        "?started",
        "?metadata.k=v",
    ] {
        let list = session
            .ask("GET", &format!("{machines}{query}"), null(), 200)
            .await;
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{query}");
    }
    session
        .ask("GET", "/orgs/{org_slug}/machines?limit=1", null(), 200)
        .await;
    session
        .ask("GET", &at("/ps?sort_by=cpu&order=desc"), null(), 200)
        .await;
    session.ask("GET", &at("/memory"), null(), 200).await;
    let exec = json!({"cmd": "cat 'a b'", "timeout": 5, "stdin": "hello"});
    session.ask("POST", &at("/exec"), exec, 200).await;
    session
        .ask("POST", &at("/signal"), json!({"signal": "SIGHUP"}), 200)
        .await;
    session.ask("POST", &at("/lease?ttl=30"), null(), 201).await;
    session.ask("GET", &at("/lease"), null(), 200).await;
    let held = session.ask("POST", &at("/cordon"), null(), 409).await;
    let message = held["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("lease currently held by"), "{held}");
    changes(&mut session, create).await;
    let none = Vec::<String>::new();
    assert_eq!(session.problems, none);
}

/// The verbs that change a machine, with its lease given back.
async fn changes(session: &mut Session, create: Value) {
    let null = || Value::Null;
    let at = |verb: &str| format!("/apps/{{app_name}}/machines/{{machine_id}}{verb}");
    let lease = session.ask("GET", &at("/lease"), null(), 200).await;
    let nonce = lease["data"]["nonce"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let path = format!("/v1/apps/web/machines/{}/lease", session.id);
    let given_back = session.server.ask_with(&nonce, "DELETE", &path, "").await;
    assert_eq!(
        given_back.1,
        json!({"status": "success", "data": {"ok": true}})
    );
    session.ask("GET", &at("/lease"), null(), 404).await;
    session.ask("POST", &at("/cordon"), null(), 200).await;
    session.ask("POST", &at("/uncordon"), null(), 200).await;
    let metadata = json!({"metadata": {"k": "w", "z": null}, "updated_at": "2026-01-01T00:00:00Z"});
    session
        .ask("PUT", &at("/metadata"), metadata.clone(), 204)
        .await;
    session.ask("PATCH", &at("/metadata"), metadata, 204).await;
    let stale = json!({"metadata": {}, "machine_version": "01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    session.ask("PUT", &at("/metadata"), stale, 412).await;
    session.ask("GET", &at("/metadata"), null(), 200).await;
    session
        .ask("POST", &at("/metadata/{key}"), json!({"value": "x"}), 204)
        .await;
    session
        .ask("GET", &at("/metadata/{key}"), null(), 200)
        .await;
    session
        .ask("DELETE", &at("/metadata/{key}"), null(), 204)
        .await;
    session
        .ask("GET", &at("/metadata/{key}"), null(), 404)
        .await;
    session.ask("POST", &at("/suspend"), null(), 200).await;
    session
        .ask("GET", &at("/wait?state=suspended"), null(), 200)
        .await;
    session.ask("POST", &at("/start"), null(), 200).await;
    session.ask("GET", &at("/wait"), null(), 200).await;
    session
        .ask(
            "POST",
            &at("/restart?timeout=1s&signal=SIGTERM"),
            null(),
            200,
        )
        .await;
    session
        .ask("GET", &at("/wait?state=settled&state=started"), null(), 200)
        .await;
    session.ask("POST", &at(""), create, 200).await;
    session.ask("GET", &at("/versions"), null(), 200).await;
    session.ask("GET", &at("/wait"), null(), 200).await;
    session
        .ask("POST", &at("/stop"), json!({"timeout": "1s"}), 200)
        .await;
    session
        .ask("GET", &at("/wait?state=stopped"), null(), 200)
        .await;
    session
        .ask("GET", &at("/wait?state=started&timeout=1"), null(), 412)
        .await;
    session
        .ask("GET", &at("/wait?timeout=61"), null(), 400)
        .await;
    session
        .ask("GET", &at("/events?limit=50"), null(), 200)
        .await;
    session.ask("DELETE", &at("?kill=true"), null(), 200).await;
    session
        .ask("GET", &at("/wait?state=destroyed"), null(), 200)
        .await;
    session.ask("DELETE", "/apps/{app_name}", null(), 202).await;
    session.ask("GET", "/apps/{app_name}", null(), 404).await;
}
