//! The answers of a genuine 1.36 API server to odd and wrong requests, in
//! `testdata/status-errors.txt`: each request is sent to ours, and must be answered so.
//!
//! A section there is what curl was called with, and what came back. Some bodies are cut short;
//! of those, what is there must match. Revisions and uids differ from server to server, so digits
//! of revisions are compared as `N` and uids as `U`.

use serde_json::Value;

use super::http::{Answer, Http, Sent};
use crate::common::TestServer;

const RECORDED: &str = include_str!("../../testdata/status-errors.txt");

/// Sections that show something else than an error, and differ on every server.
const OTHER_PATHS: [&str; 3] = ["/openid/v1/jwks", "/livez?verbose", "configmaps?limit=1"];

#[derive(Debug)]
struct Recorded {
    title: String,
    sent: Sent,
    is_watch: bool,
    body: String,
    /// Absent where the record is cut short.
    status: Option<u16>,
    warning: Option<String>,
}

fn recorded() -> Vec<Recorded> {
    let sections = RECORDED.split("\n## ");
    sections
        .map(|section| parse(section.trim_start_matches("## ")))
        .collect()
}

fn parse(section: &str) -> Recorded {
    let (title, rest) = section.split_once('\n').expect("a line");
    let rest = rest.trim_end();
    let (body, end) = match rest.rsplit_once("\n[") {
        Some((body, end)) if end.ends_with(']') && !end.contains('\n') => (body, Some(end)),
        _ => (rest, None),
    };
    let status = end
        .and_then(|end| end.split(' ').next())
        .map(|code| code.parse().expect("code"));
    let warning = body.lines().find_map(|line| line.strip_prefix("warning: "));
    let sent = sent(title);
    Recorded {
        title: title.to_owned(),
        is_watch: sent.path.contains("watch=1"),
        sent,
        body: if warning.is_some() {
            String::new()
        } else {
            body.to_owned()
        },
        status,
        warning: warning.map(str::to_owned),
    }
}

/// The request of a command line. Its JSON has no spaces, and a header ends where the next word
/// begins with a dash or the URL.
fn sent(title: &str) -> Sent {
    const HOST: &str = "https://127.0.0.1:16443";
    let (options, path) = title.split_once(HOST).expect("a URL");
    let words: Vec<&str> = options.split(' ').collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    let header = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let path = path.replace(' ', "%20");
    // One record is cut within its URL.
    let path = match path.as_str() {
        "/api/v1/name" => "/api/v1/namespaces/default/pods".to_owned(),
        _ => path,
    };
    let mut sent = Sent::new(
        after("-X").unwrap_or("GET"),
        &path,
        after("-d").unwrap_or(""),
    );
    if let Some(media) = header("Content-Type:") {
        sent.media = media.to_owned();
    }
    if let Some(accept) = header("Accept:") {
        sent.accept = accept.to_owned();
    }
    sent
}

/// What differs from server to server.
fn blurred(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let is_word_before = out.ends_with(|c: char| c.is_ascii_alphanumeric());
        let len = from
            .find(|c: char| !c.is_ascii_hexdigit() && c != '-')
            .unwrap_or(from.len());
        let word = &from[..len];
        if !is_word_before && len == 36 && word.matches('-').count() == 4 {
            out.push('U');
        } else {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            // Revisions stand behind words that say so.
            let is_revision = digits
                && ["resource version: ", "current: ", "("]
                    .iter()
                    .any(|word| out.ends_with(word));
            out.push_str(if is_revision { "N" } else { word });
        }
        rest = &from[len..];
    }
    out.push_str(rest);
    out
}

/// Closes what a record that is cut short has left open.
fn closed(text: &str) -> String {
    let mut open = Vec::new();
    let (mut in_text, mut escaped) = (false, false);
    for c in text.chars() {
        match (in_text, c) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => in_text = !in_text,
            (false, '{') => open.push('}'),
            (false, '[') => open.push(']'),
            (false, '}' | ']') => drop(open.pop()),
            _ => {}
        }
    }
    let quote = if in_text { "\"" } else { "" };
    let brackets: String = open.iter().rev().collect();
    format!("{text}{quote}{brackets}")
}

fn differs(at: &str, expected: &Value, is: &Value, is_whole: bool) -> Option<String> {
    match (expected, is) {
        (Value::Object(expected), Value::Object(is)) => {
            let fields = expected.iter().find_map(|(name, value)| {
                let is = is.get(name).unwrap_or(&Value::Null);
                differs(&format!("{at}/{name}"), value, is, is_whole)
            });
            let more = is
                .keys()
                .find(|name| is_whole && !expected.contains_key(*name));
            fields.or_else(|| more.map(|name| format!("{at}/{name} should not be there")))
        }
        (Value::Array(expected), Value::Array(is)) if expected.len() == is.len() => {
            let mut pairs = expected.iter().zip(is).enumerate();
            pairs.find_map(|(index, (one, other))| {
                differs(&format!("{at}/{index}"), one, other, is_whole)
            })
        }
        (Value::String(_), Value::String(_)) if at.ends_with("/resourceVersion") => None,
        (Value::String(expected), Value::String(is)) => {
            let (expected, is) = (blurred(expected), blurred(is));
            let same = if is_whole {
                expected == is
            } else {
                is.starts_with(&expected)
            };
            (!same).then(|| format!("{at}: {expected:?} expected, not {is:?}"))
        }
        (expected, is) => (expected != is).then(|| format!("{at}: {expected} expected, not {is}")),
    }
}

/// What we can answer in is fewer forms than upstream's.
fn with_our_forms(body: &str) -> String {
    let theirs = "application/json, application/yaml, application/vnd.kubernetes.protobuf, \
                  application/json;stream=watch, \
                  application/vnd.kubernetes.protobuf;stream=watch";
    body.replace(
        theirs,
        "application/json, application/yaml, application/json;stream=watch",
    )
}

fn judge(recorded: &Recorded, answer: &Answer) -> Option<String> {
    if let Some(status) = recorded.status
        && status != answer.status
    {
        return Some(format!("{status} expected"));
    }
    if let Some(warning) = &recorded.warning {
        let given = answer
            .headers
            .get("warning")
            .map(|value| value.to_str().expect("text"));
        return (given != Some(warning)).then(|| format!("warning {warning} expected: {given:?}"));
    }
    if !recorded.body.starts_with('{') {
        let same = recorded.body.trim() == answer.text.trim();
        return (!same).then(|| format!("{:?} expected", recorded.body));
    }
    let body = with_our_forms(&recorded.body);
    let whole: Result<Value, _> = serde_json::from_str(&body);
    let is_whole = whole.is_ok();
    let expected =
        whole.unwrap_or_else(|_| serde_json::from_str(&closed(&body)).expect("closable"));
    differs("", &expected, &answer.json(), is_whole)
}

async fn answer(http: &Http, recorded: &Recorded) -> Answer {
    if !recorded.is_watch || recorded.status != Some(200) {
        return http.send(&recorded.sent).await;
    }
    // A stream has no end: what is awaited is its last recorded line.
    let last = recorded.body.lines().last().unwrap_or_default();
    let last: Value = serde_json::from_str(last).expect("an event");
    let kind = last["type"].as_str().expect("a type");
    let events = http.watch(&recorded.sent.path, kind).await;
    Answer {
        status: 200,
        headers: hyper::HeaderMap::new(),
        text: events.last().map(Value::to_string).unwrap_or_default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_in_upstreams_words() {
    let server = TestServer::start().await;
    let http = Http::new(&server);
    let path = "/api/v1/namespaces/default/configmaps";
    let ap = r#"{"metadata":{"name":"ap"},"data":{"a":"b"}}"#;
    assert_eq!(http.send(&Sent::new("POST", path, ap)).await.status, 201);
    let rev = server.store.current_rev();
    server.store.compact(rev).await.expect("compacted");
    let mut wrong = Vec::new();
    let mut count = 0;
    for mut recorded in recorded() {
        if OTHER_PATHS
            .iter()
            .any(|other| recorded.title.contains(other))
        {
            continue;
        }
        count += 1;
        if recorded.is_watch && recorded.status == Some(200) {
            let last = recorded.body.trim_end().lines().last().unwrap_or_default();
            recorded.body = last.to_owned();
        }
        let answer = answer(&http, &recorded).await;
        if let Some(problem) = judge(&recorded, &answer) {
            let text: String = answer.text.chars().take(600).collect();
            wrong.push(format!(
                "{}\n  {problem}\n  {} {text}",
                recorded.title, answer.status
            ));
        }
    }
    server.stop().await;
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 15, "{count} requests");
}
