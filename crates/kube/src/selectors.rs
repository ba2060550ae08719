//! Label and field selectors: which objects a list or a watch is about.

mod escape;

use serde_json::Value;

use self::escape::{terms, unescaped};
use crate::object;
use crate::resource::Resource;
use crate::status::Status;
use crate::validation::names;

/// Both kinds of selector; the default selects everything.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    GreaterThan(i64),
    LessThan(i64),
}

#[derive(Debug, Clone)]
struct FieldRequirement {
    path: Vec<String>,
    equals: bool,
    value: String,
}

impl Selector {
    /// Parses the query parameters `labelSelector` and `fieldSelector`; empty texts select all.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(resource, fields)?,
        })
    }

    /// A field selector of our own, such as `spec.nodeName=region`.
    pub fn fields(resource: &Resource, fields: &str) -> Result<Self, Status> {
        Self::parse(resource, "", fields)
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The name that `metadata.name=` pins, if it does: such a list is a look-up.
    pub fn only_name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|field| field.equals && field.path == ["metadata", "name"])
            .map(|field| field.value.as_str())
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.labels
            .iter()
            .all(|requirement| requirement.matches(object))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.matches(object))
    }
}

impl Requirement {
    fn matches(&self, object: &Value) -> bool {
        let value = object::label(object, &self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => {
                !value.is_some_and(|value| values.iter().any(|one| one == value))
            }
            Test::GreaterThan(limit) => number().is_some_and(|number| number > *limit),
            Test::LessThan(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let value = self
            .path
            .iter()
            .try_fold(object, |value, key| value.get(key));
        let text = match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(_) | Value::Number(_)) => {
                value.map(Value::to_string).unwrap_or_default()
            }
            Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {
                self.absent().to_owned()
            }
        };
        (text == self.value) == self.equals
    }
}

impl FieldRequirement {
    /// What Go has in a field that nobody wrote.
    fn absent(&self) -> &'static str {
        let last = self.path.last().map(String::as_str);
        match last.unwrap_or_default() {
            "replicas" | "succeeded" => "0",
            "hostNetwork" | "unschedulable" => "false",
            _ => "",
        }
    }
}

/// Kinds that upstream has no list of fields for say which ones all have.
fn not_selectable(resource: &Resource, key: &str) -> String {
    if resource.custom.is_none() && selectable(resource).is_empty() {
        return format!(
            "{key:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }
    format!("field label not supported: {key}")
}

/// Field labels beyond `metadata.name` and `metadata.namespace`.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match (resource.group, resource.plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["spec.driver", "spec.nodeName"],
        ("events.k8s.io", "events") => &[
            "reason",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reportingController",
            "type",
        ],
        _ => &[],
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<FieldRequirement>, Status> {
    let mut fields = Vec::new();
    for term in terms(text).into_iter().filter(|term| !term.is_empty()) {
        let (key, equals, value) = if let Some((key, value)) = term.split_once("!=") {
            (key, false, value)
        } else if let Some((key, value)) = term.split_once("==") {
            (key, true, value)
        } else if let Some((key, value)) = term.split_once('=') {
            (key, true, value)
        } else {
            return Err(Status::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{term}'"
            )));
        };
        let value = unescaped(value)?;
        let in_all =
            key == "metadata.name" || (key == "metadata.namespace" && resource.is_namespaced());
        let kind = resource.custom.as_ref();
        let in_custom = kind.is_some_and(|kind| kind.can_select(key));
        if !in_all && !in_custom && !selectable(resource).contains(&key) {
            return Err(Status::bad_request(not_selectable(resource, key)));
        }
        let key = match key {
            "source" => "source.component",
            "status.successful" => "status.succeeded",
            key => key,
        };
        let path = key.split('.').map(str::to_owned).collect();
        fields.push(FieldRequirement {
            path,
            equals,
            value,
        });
    }
    Ok(fields)
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Status> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    if text.trim().is_empty() {
        return Ok(requirements);
    }
    if tokens.peek().starts_with(OTHER_THAN_KEY) {
        return Err(unexpected(
            tokens.peek(),
            "!, identifier, or 'end of string'",
        ));
    }
    loop {
        let requirement = tokens.requirement()?;
        check_words(&requirement)?;
        requirements.push(requirement);
        match tokens.next() {
            "," => {
                let next = tokens.peek();
                if next.is_empty() || next.starts_with(OTHER_THAN_KEY) {
                    return Err(unexpected(next, "identifier after ','"));
                }
            }
            "" => return Ok(requirements),
            other => return Err(unexpected(other, "',' or 'end of string'")),
        }
    }
}

/// What a requirement does not begin with.
const OTHER_THAN_KEY: [char; 6] = ['=', '(', ')', ',', '>', '<'];

/// The key and the values must be such as labels can have.
fn check_words(requirement: &Requirement) -> Result<(), Status> {
    let key = &requirement.key;
    if let Some(why) = names::qualified_fault(key) {
        return Err(unparsed(format!("<nil>: Invalid value: {key:?}: {why}")));
    }
    let values = match &requirement.test {
        Test::In(values) | Test::NotIn(values) => values.as_slice(),
        Test::Exists | Test::Missing | Test::GreaterThan(_) | Test::LessThan(_) => &[],
    };
    for (index, value) in values.iter().enumerate() {
        if let Some(why) = names::label_value_fault(value) {
            let at = format!("values[{index}][{key}]");
            return Err(unparsed(format!("{at}: Invalid value: {value:?}: {why}")));
        }
    }
    Ok(())
}

fn unexpected(found: &str, expected: &str) -> Status {
    Status::bad_request(format!("found '{found}', expected: {expected}"))
}

/// An error inside a requirement.
fn unparsed(why: impl std::fmt::Display) -> Status {
    Status::bad_request(format!("unable to parse requirement: {why}"))
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// The next operator, parenthesis, comma or word; empty at the end.
    fn next(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let operators = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let operator = operators
            .iter()
            .find(|operator| self.rest.starts_with(**operator));
        let len = match operator {
            Some(operator) => operator.len(),
            None => self
                .rest
                .find(|c: char| c.is_whitespace() || "=!(),><".contains(c))
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        token
    }

    fn peek(&self) -> &'a str {
        Tokens { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> Result<Requirement, Status> {
        let first = self.next();
        let missing = first == "!";
        let key = if missing { self.next() } else { first };
        if key.is_empty() || key.starts_with(['=', '!', '(', ')', ',', '>', '<']) {
            return Err(unparsed(unexpected(key, "identifier")));
        }
        let key = key.to_owned();
        if missing {
            return Ok(Requirement {
                key,
                test: Test::Missing,
            });
        }
        if matches!(self.peek(), "" | ",") {
            return Ok(Requirement {
                key,
                test: Test::Exists,
            });
        }
        let test = match self.next() {
            "=" | "==" => Test::In(vec![self.value()]),
            "!=" => Test::NotIn(vec![self.value()]),
            "in" => Test::In(self.values()?),
            "notin" => Test::NotIn(self.values()?),
            ">" => Test::GreaterThan(self.number()?),
            "<" => Test::LessThan(self.number()?),
            other => return Err(unparsed(unexpected(other, "in, notin, =, ==, !=, gt, lt"))),
        };
        Ok(Requirement { key, test })
    }

    /// A value may be empty: `a=` and `a=,b`.
    fn value(&mut self) -> String {
        if matches!(self.peek(), "," | "") {
            String::new()
        } else {
            self.next().to_owned()
        }
    }

    fn number(&mut self) -> Result<i64, Status> {
        let text = self.next();
        text.parse().map_err(|_| {
            unparsed(format!(
                "values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an \
                 integer"
            ))
        })
    }

    fn values(&mut self) -> Result<Vec<String>, Status> {
        match self.next() {
            "(" => {}
            other => return Err(unparsed(unexpected(other, "'('"))),
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                "," | ")" => String::new(),
                _ => self.next().to_owned(),
            });
            match self.next() {
                "," => {}
                ")" => return Ok(values),
                other => return Err(unparsed(unexpected(other, "',' or ')'"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::PODS;

    fn selects(labels: &str, fields: &str) -> bool {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "n": "5"}},
            "spec": {"nodeName": "fra"}, "status": {"phase": "Running"},
        });
        Selector::parse(&PODS, labels, fields)
            .expect("parses")
            .matches(&pod)
    }

    #[test]
    fn labels_select_by_equality_by_set_and_by_existence() {
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "!none",
            "app in (db, web)",
            "app notin (db)",
            "none notin (x)",
            "app=web,n>4",
            "n<6",
            "none!=x",
        ] {
            assert!(selects(yes, ""), "{yes}");
        }
        for no in [
            "none",
            "app=db",
            "!app",
            "app in (db)",
            "app notin (web,db)",
            "n>5",
            "app=",
        ] {
            assert!(!selects(no, ""), "{no}");
        }
    }

    #[test]
    fn fields_select_by_equality() {
        assert!(selects(
            "",
            "spec.nodeName=fra,status.phase!=Failed,metadata.name==web"
        ));
        assert!(!selects("", "status.phase!=Running"));
    }

    #[test]
    fn fields_that_nobody_wrote_are_zero() {
        let job = json!({"metadata": {"name": "a"}, "status": {}});
        let jobs = |fields| Selector::fields(&crate::resource::JOBS, fields).expect("parses");
        assert!(jobs("status.successful=0").matches(&job));
        assert!(!jobs("status.successful=1").matches(&job));
        let refused = Selector::fields(&crate::resource::ROLES, "a.b=c").expect_err("refused");
        assert_eq!(
            refused.message,
            "\"a.b\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }

    #[test]
    fn mistakes_are_told_as_upstream_tells_them() {
        let error = |labels, fields| Selector::parse(&PODS, labels, fields).expect_err("refused");
        assert_eq!(
            error("a in (x", "").message,
            "unable to parse requirement: found '', expected: ',' or ')'"
        );
        assert_eq!(
            error("\u{e9} ? b", "").message,
            "unable to parse requirement: found '?', expected: in, notin, =, ==, !=, gt, lt"
        );
        for (labels, expected) in [
            (
                "=a",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "n>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
                 operators, the value must be an integer",
            ),
        ] {
            assert_eq!(error(labels, "").message, expected, "{labels}");
        }
        for labels in ["-a", "a/b/c", "a=b/c", "a in (x, b/c)"] {
            assert_eq!(error(labels, "").code, 400, "{labels}");
        }
        assert_eq!(
            error("", "metadata.name=a\\").message,
            "invalid field selector: invalid escape sequence: \\"
        );
        assert_eq!(
            error("", "spec.foo=bar").message,
            "field label not supported: spec.foo"
        );
    }
}
