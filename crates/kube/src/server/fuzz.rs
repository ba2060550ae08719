//! What a fuzzer calls of the server: request lines and the messages of `exec`.

use bytes::Bytes;
use serde_json::json;

use super::query::Query;
use super::{auth, codec, exec, logs, options, router};
use crate::api::User;
use crate::api::fuzz::continue_token;
use crate::object;
use crate::resource::{Catalog, PODS, Row};

/// Reads `data` as a request line and an `Accept` header, one line each.
///
/// # Panics
/// If a name leads out of its namespace, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (line, accept) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, uri) = line.split_once(' ').unwrap_or(("GET", line));
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let Ok(method) = method.parse() else { return };
    let query = Query::parse(Some(query));
    let _ = codec::negotiate_text(accept);
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web", "n": "5"}},
        "spec": {"nodeName": "fra", "containers": [{"name": "web"}]},
    });
    let resources = Catalog::default();
    let target = router::target(&method, path, &query);
    let somebody = User::authenticated("somebody".into(), Vec::new());
    let asked = auth::asked(&method, path, &query, target.as_ref());
    let _ = asked.refusal(&somebody, "");
    let row = target.as_ref().and_then(|target| target.row(&resources));
    if let (Some(target), Some(resource)) = (&target, &row) {
        let (namespace, name) = (target.namespace.as_deref(), target.name.as_deref());
        let key = resource.key(namespace, name.unwrap_or_default());
        let prefix = resource.prefix(namespace);
        let rest = key.strip_prefix(&prefix).expect("in its namespace");
        assert!(!rest.contains('/'), "{key}");
    }
    let row = row.unwrap_or(Row::BuiltIn(&PODS));
    let resource = &*row;
    let _ = options::write(&query, "CreateOptions");
    let _ = options::delete(&query, &codec::Body::default());
    if let Ok(list) = options::list(resource, &query, 1000) {
        list.selector.matches(&pod);
        list.selector.matches(&json!(null));
        if let Some(token) = &list.continue_token {
            continue_token(token);
        }
    }
    let _ = logs::parse(&pod, &query);
    if let Ok(exec) = exec::parse(&pod, false, &query) {
        assert_eq!(exec.container, "web");
        assert!(!object::name(&pod).is_empty());
    }
}

/// Reads `data` as a message of a client of `exec`.
///
/// # Panics
/// Whatever a fuzzer is to find.
#[doc(hidden)]
pub fn exec_message(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    for stdin in [false, true] {
        if let Some(event) = exec::parse_message(&data, stdin) {
            assert!(stdin || !matches!(event, crate::streams::ExecInput::Stdin(_)));
        }
    }
}
