//! Bodies that Go made: upstream publishes every object of its API with all fields set, in
//! protobuf and in JSON beside it, and both must be read as the same object.

use std::path::Path;

use kube::schema::{self, Type, protobuf};
use serde_json::Value;

use super::programs;

/// Of a file `<group>.<version>.<kind>`, the type in our table.
fn type_of(name: &str) -> Option<&'static Type> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (group, version) = rest.rsplit_once('.')?;
    let package = group.split('.').next()?;
    let names = [
        format!("io.k8s.api.{package}.{version}.{kind}"),
        format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"),
    ];
    let found = names.iter().find_map(|name| schema::type_named(name));
    found.map(schema::TypeRef::get)
}

/// The first place where they differ.
fn differs(at: &str, go: &Value, ours: &Value) -> Option<String> {
    match (go, ours) {
        (Value::Object(go), Value::Object(ours)) => {
            let more = ours.keys().filter(|name| !go.contains_key(*name));
            go.keys().chain(more).find_map(|name| {
                let null = &Value::Null;
                let (go, ours) = (go.get(name).unwrap_or(null), ours.get(name).unwrap_or(null));
                differs(&format!("{at}/{name}"), go, ours)
            })
        }
        (Value::Array(go), Value::Array(ours)) if go.len() == ours.len() => {
            let mut pairs = go.iter().zip(ours).enumerate();
            pairs.find_map(|(index, (go, ours))| differs(&format!("{at}/{index}"), go, ours))
        }
        (go, ours) => (go != ours).then(|| format!("{at}: {ours} should be {go}")),
    }
}

fn compare(dir: &Path, name: &str, schema: &'static Type) -> Option<String> {
    let read = |kind: &str| std::fs::read(dir.join(format!("{name}.{kind}"))).expect("a file");
    let decoded = match protobuf::decode(schema, &read("pb")) {
        Ok(decoded) => decoded,
        Err(error) => return Some(error.to_string()),
    };
    let mut json: Value = serde_json::from_slice(&read("json")).expect("JSON");
    // Fields of kind and version are the envelope's; the types of options do not have them.
    let words = ["kind", "apiVersion"].map(|word| (word, json[word].clone()));
    let unknown = match schema::decode(schema, &mut json) {
        Ok(unknown) => unknown,
        Err(error) => return Some(format!("its JSON: {error}")),
    };
    for (word, value) in words {
        json[word] = value;
    }
    let unknown: Vec<_> = unknown
        .iter()
        .filter(|path| !matches!(path.as_str(), "kind" | "apiVersion"))
        .collect();
    if !unknown.is_empty() {
        return Some(format!("not in the table: {unknown:?}"));
    }
    differs("", &json, &decoded)
}

#[test]
fn what_go_wrote_in_protobuf_is_what_it_wrote_in_json() {
    let test = "what_go_wrote_in_protobuf_is_what_it_wrote_in_json";
    let Some(dir) = programs::get(test, "bodies") else {
        return;
    };
    let files = std::fs::read_dir(&dir).expect("a directory");
    let names = files.filter_map(|file| {
        let name = file.expect("a file").file_name().into_string().ok()?;
        name.strip_suffix(".pb").map(str::to_owned)
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    let (mut count, mut wrong, mut other) = (0, Vec::new(), Vec::new());
    for name in names {
        let Some(schema) = type_of(&name) else {
            other.push(name);
            continue;
        };
        count += 1;
        if let Some(problem) = compare(&dir, &name, schema) {
            wrong.push(format!("{name}: {problem}"));
        }
    }
    eprintln!("{count} kinds; not ours: {}", other.join(" "));
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 60, "{count} kinds");
}
