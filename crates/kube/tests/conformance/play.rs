//! Plays scenarios against a server of their own, with its controllers and a kubelet on paper.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{Answer, Http};
use super::lifecycle;
use super::scenario::{Act, Behaviour, Check, Exchange, parse};
use crate::common::TestServer;
use crate::kubelet;

/// For `<~`: as long as controllers on a loaded machine may take.
const EVENTUALLY: Duration = Duration::from_secs(30);

/// What was kept for later requests.
type Kept = BTreeMap<String, String>;

pub(super) fn scenarios(file: &str) -> Vec<Behaviour> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let path = dir.join(file).with_extension("txt");
    parse(&std::fs::read_to_string(path).expect("read"))
}

async fn play(file: &str) {
    let server = TestServer::start().await;
    kubelet::start(&server.api);
    let http = Http::new(&server);
    let only = std::env::var("BEHAVIOUR").unwrap_or_default();
    let mut problems = Vec::new();
    for behaviour in scenarios(file).iter().filter(|it| it.name.contains(&only)) {
        if let Some(why) = &behaviour.open {
            eprintln!("OPEN: {}: {why}", behaviour.name);
            continue;
        }
        match run(&http, behaviour).await {
            Ok(()) => eprintln!("ok: {}", behaviour.name),
            Err(problem) => problems.push(format!("## {}\n{problem}", behaviour.name)),
        }
    }
    server.stop().await;
    let count = problems.len();
    assert!(
        problems.is_empty(),
        "{file}: {count} behaviours differ\n{}",
        problems.join("\n")
    );
}

async fn run(http: &Http, behaviour: &Behaviour) -> Result<(), String> {
    let mut kept = Kept::new();
    for step in &behaviour.steps {
        let outcome = match &step.act {
            Act::Exchange(exchange) => play_exchange(http, exchange, &mut kept).await,
            Act::Lifecycle(life) => lifecycle::run(http, life).await,
        };
        outcome.map_err(|problem| format!("line {}: {problem}", step.line))?;
    }
    Ok(())
}

async fn play_exchange(http: &Http, exchange: &Exchange, kept: &mut Kept) -> Result<(), String> {
    let mut sent = exchange.sent.clone();
    sent.path = filled(&sent.path, kept);
    sent.body = filled(&sent.body, kept);
    let begin = Instant::now();
    loop {
        let answer = http.send(&sent).await;
        let Err(problem) = judge(exchange, &answer, kept) else {
            return Ok(());
        };
        if !exchange.eventually || begin.elapsed() > EVENTUALLY {
            let text: String = answer.text.chars().take(1500).collect();
            let (method, path) = (&sent.method, &sent.path);
            return Err(format!(
                "{method} {path}: {problem}\n{} {text}",
                answer.status
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn judge(exchange: &Exchange, answer: &Answer, kept: &mut Kept) -> Result<(), String> {
    if answer.status != exchange.status {
        return Err(format!("{} expected", exchange.status));
    }
    let json = match exchange.sent.path.contains("watch=true") {
        true => answer.events(),
        false => answer.json(),
    };
    for check in &exchange.checks {
        holds(check, answer, &json, kept)?;
    }
    Ok(())
}

fn holds(check: &Check, answer: &Answer, json: &Value, kept: &mut Kept) -> Result<(), String> {
    let fine = match check {
        Check::Equals { at, value } => {
            let value: Value =
                serde_json::from_str(&filled(value, kept)).map_err(|error| error.to_string())?;
            json.pointer(at).unwrap_or(&Value::Null) == &value
        }
        Check::Some { at } => json.pointer(at).is_some_and(|value| !value.is_null()),
        Check::None { at } => json.pointer(at).is_none_or(Value::is_null),
        Check::Count { at, count } => match json.pointer(at) {
            Some(Value::Array(items)) => items.len() == *count,
            Some(Value::Object(items)) => items.len() == *count,
            _ => *count == 0,
        },
        Check::Text { part } => answer.text.contains(&filled(part, kept)),
        Check::Header { name, part } => {
            let values = answer.headers.get_all(name.as_str()).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .any(|value| value.contains(part))
        }
        Check::Keep { name, at } => {
            let value = json.pointer(at).unwrap_or(&Value::Null);
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            kept.insert(name.clone(), text);
            true
        }
    };
    if fine {
        Ok(())
    } else {
        Err(format!("not so: {check:?}"))
    }
}

fn filled(text: &str, kept: &Kept) -> String {
    kept.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// What a genuine server was seen to answer, and conformance has no name for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_a_genuine_server() {
    play("answers").await;
}

/// Every file of scenarios, and its test.
macro_rules! files {
    ($($test:ident $file:literal)*) => {
        pub(super) const FILES: &[&str] = &[$($file),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                play($file).await;
            }
        )*
    };
}

files! {
    kinds_live_through_their_whole_life "lifecycles"
    discovery_chunks_and_tables_are_as_asked "discovery"
    watches_tell_what_happened "watch"
    unknown_fields_are_told "validation"
    definitions_make_resources "custom"
    owners_take_along_what_they_own "garbage"
    namespaces_and_identities_are_kept "cluster"
    workloads_do_their_arithmetic "workloads"
    quotas_and_limits_hold "quota"
    services_have_endpoints "services"
}
