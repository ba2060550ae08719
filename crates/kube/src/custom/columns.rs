//! Printer columns: what `kubectl get` shows of a custom resource.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::jsonpath::Path;
use crate::object;
use crate::time;

/// A column beside the name.
#[derive(Debug)]
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    /// The path as the definition writes it.
    source: String,
    path: Path,
}

/// The columns of a version; only the age if it names none.
pub(crate) fn of_version(version: &Value) -> Vec<Column> {
    let all = object::items(version, &["additionalPrinterColumns"]);
    let age = json!({
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": "CreationTimestamp is a timestamp representing the server time when this \
                        object was created. It is not guaranteed to be set in happens-before order \
                        across separate operations. Clients may not set this value. It is \
                        represented in RFC3339 form and is in UTC.\n\nPopulated by the system. \
                        Read-only. Null for lists. More info: \
                        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    });
    let own = all.iter().filter_map(Column::parse);
    let mut columns: Vec<_> = own.collect();
    if columns.is_empty() {
        columns.extend(Column::parse(&age));
    }
    columns
}

impl Column {
    fn parse(column: &Value) -> Option<Self> {
        let text = |field: &str| object::text(column, &[field]).to_owned();
        Some(Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            source: text("jsonPath"),
            path: Path::parse(&text("jsonPath")).ok()?,
        })
    }

    /// As a Table defines it.
    pub(crate) fn definition(&self) -> Value {
        let description = match self.description.as_str() {
            "" => format!(
                "Custom resource definition column (in JSONPath format): {}",
                self.source
            ),
            text => text.to_owned(),
        };
        json!({"name": self.name, "type": self.kind, "format": self.format,
            "description": description, "priority": self.priority})
    }

    pub(crate) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.first(object) else {
            return Value::Null;
        };
        match (self.kind.as_str(), found) {
            ("string", Value::String(text)) => json!(text),
            ("string", Value::Null) => Value::Null,
            ("string", other) => json!(other.to_string()),
            ("integer", Value::Number(_)) => {
                #[expect(clippy::cast_possible_truncation, reason = "as Go converts it")]
                let whole = found.as_f64().map(|number| number as i64);
                json!(found.as_i64().or(whole))
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => match time::parse(text) {
                Some(then) => json!(time::age(Some(then), now)),
                None => json!("<invalid>"),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_the_type_of_their_column_makes_of_the_value() {
        let version = json!({"additionalPrinterColumns": [
            {"name": "Ready", "type": "string", "jsonPath": ".ready"},
            {"name": "Size", "type": "integer", "jsonPath": ".size"},
            {"name": "Load", "type": "number", "jsonPath": ".load"},
            {"name": "On", "type": "boolean", "jsonPath": ".on"},
            {"name": "Since", "type": "date", "jsonPath": ".since"},
            {"name": "None", "type": "string", "jsonPath": ".none"},
        ]});
        let object = json!({"ready": "True", "size": 3.0, "load": 0.5, "on": true,
            "since": "1970-01-01T00:00:00Z"});
        let now = Timestamp::from_second(300).expect("a time");
        let cells: Vec<_> = of_version(&version)
            .iter()
            .map(|column| column.cell(&object, now))
            .collect();
        assert_eq!(json!(cells), json!(["True", 3, 0.5, true, "5m", null]));
        let wrong = json!({"ready": {"a": 1}, "size": "x", "on": "true", "since": "x"});
        let cells: Vec<_> = of_version(&version)
            .iter()
            .map(|column| column.cell(&wrong, now))
            .collect();
        assert_eq!(
            json!(cells),
            json!(["{\"a\":1}", null, null, null, "<invalid>", null])
        );
        assert_eq!(of_version(&json!({})).len(), 1);
    }
}
