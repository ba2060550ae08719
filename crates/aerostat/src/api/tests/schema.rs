//! A checker for the part of JSON Schema that OpenAPI documents of this API use.

use serde_json::Value;

/// An OpenAPI document.
pub(super) struct Document(pub(super) Value);

impl Document {
    /// What is wrong with `value` as an answer to `method` and `template` with `status`.
    pub(super) fn problems(
        &self,
        method: &str,
        template: &str,
        status: u16,
        value: &Value,
    ) -> Vec<String> {
        let operation = &self.0["paths"][template][method.to_ascii_lowercase()];
        let answers = &operation["responses"];
        if !operation.is_object() {
            return vec![format!("{method} {template} is not in the document")];
        }
        let answer = match &answers[status.to_string()] {
            Value::Null => &answers["default"],
            answer => answer,
        };
        if answer.is_null() {
            return vec![format!("{method} {template} has no answer {status}")];
        }
        let schema = &self.resolve(answer)["content"]["application/json"]["schema"];
        let mut problems = Vec::new();
        self.check(schema, value, "", &mut problems);
        problems
    }

    /// What is wrong with `value` as what the document calls `name`.
    pub(super) fn problems_of(&self, name: &str, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        let schema = &self.0["components"]["schemas"][name];
        self.check(schema, value, "", &mut problems);
        problems
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap_or_default();
                let found = self.0.pointer(pointer);
                found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => schema,
        }
    }

    /// Panics if a reference of the document leads nowhere.
    pub(super) fn check_references(&self) {
        self.walk(&self.0);
    }

    fn walk(&self, value: &Value) {
        match value {
            Value::Object(members) => {
                self.resolve(value);
                members.values().for_each(|member| self.walk(member));
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if let Some(kinds) = kinds(schema)
            && !kinds.iter().any(|kind| is(kind, value))
        {
            problems.push(format!("{at}: {value} is no {}", kinds.join(" or ")));
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            problems.push(format!("{at}: {value} is none of {}", schema["enum"]));
        }
        if !schema["const"].is_null() && schema["const"] != *value {
            problems.push(format!("{at}: {value} is not {}", schema["const"]));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check(part, value, at, problems);
        }
        for choice in ["anyOf", "oneOf"] {
            let Some(parts) = schema[choice].as_array() else {
                continue;
            };
            let fits = |part: &Value| {
                let mut problems = Vec::new();
                self.check(part, value, at, &mut problems);
                problems.is_empty()
            };
            if !parts.iter().any(fits) {
                problems.push(format!("{at}: {value} fits no part of {choice}"));
            }
        }
        match value {
            Value::Object(members) => self.check_members(schema, members, at, problems),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, &format!("{at}/{index}"), problems);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn check_members(
        &self,
        schema: &Value,
        members: &serde_json::Map<String, Value>,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().unwrap_or_default()) {
                problems.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, member) in members {
            let known = &schema["properties"][name];
            let schema = match known {
                Value::Null => &schema["additionalProperties"],
                known => known,
            };
            self.check(schema, member, &format!("{at}/{name}"), problems);
        }
    }
}

/// The types that a schema allows, if it says.
fn kinds(schema: &Value) -> Option<Vec<&str>> {
    match &schema["type"] {
        Value::String(kind) => Some(vec![kind]),
        Value::Array(kinds) => Some(kinds.iter().filter_map(Value::as_str).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn the_checker_finds_what_does_not_fit() {
    let document = Document(serde_json::json!({
        "paths": {"/x": {"get": {"responses": {"200": {"content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/X"}}}}}}}},
        "components": {"schemas": {"X": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "array", "items": {"type": "integer"}},
            "b": {"enum": ["c"]}}}}},
    }));
    let problems = |value| document.problems("GET", "/x", 200, &value);
    assert_eq!(
        problems(serde_json::json!({"a": [1], "b": "c", "z": 1})),
        Vec::<String>::new()
    );
    assert_eq!(problems(serde_json::json!({"b": "d"})).len(), 2);
    assert_eq!(
        problems(serde_json::json!({"a": ["x"]})),
        ["/a/0: \"x\" is no integer"]
    );
    assert_eq!(problems(serde_json::json!([])), [": [] is no object"]);
}
