//! Rules that a schema states in CEL: `x-kubernetes-validations`.
//!
//! A rule is compiled when it is first needed and evaluated with the part of the object that its
//! schema stands at as `self`, and with what that was before as `oldSelf`.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::schema::{Additional, Schema, entries};
use super::typing;
use super::validate::old_item;
use crate::cel::infer::{Names, infer};
use crate::cel::types::Type;
use crate::cel::{Budget, EvaluateError, Expression, Variables};
use crate::object::{items, text};
use crate::status::Cause;

/// Upstream's bound of a message that an expression makes.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// Faults that are told of the rules of one schema.
const CAUSES_MAX: usize = 50;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    rule: String,
    message: String,
    message_expression: String,
    reason: String,
    field_path: String,
    /// `oldSelf` is an optional value, and the rule counts for new objects too.
    optional_old: bool,
    uses_old: bool,
    compiled: OnceLock<Option<Expression>>,
    compiled_message: OnceLock<Option<Expression>>,
}

impl Rule {
    pub(crate) fn parse_all(schema: &Value) -> Vec<Self> {
        let all = items(schema, &["x-kubernetes-validations"]).iter();
        all.map(Self::parse).collect()
    }

    fn parse(source: &Value) -> Self {
        let text = |field: &str| text(source, &[field]).to_owned();
        let rule = text("rule");
        Self {
            uses_old: names_old(&rule),
            message: text("message").trim().to_owned(),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old: source["optionalOldSelf"] == true,
            rule,
            compiled: OnceLock::new(),
            compiled_message: OnceLock::new(),
        }
    }

    /// None for an expression that is not one; its definition was refused then.
    fn expression(&self) -> Option<&Expression> {
        let compile = || Expression::compile(&self.rule).ok();
        self.compiled.get_or_init(compile).as_ref()
    }

    fn own_message(&self, variables: &Variables, budget: &mut Budget) -> Option<String> {
        let compile = || Expression::compile(&self.message_expression).ok();
        let expression = self.compiled_message.get_or_init(compile).as_ref()?;
        let told = expression.evaluate(variables, budget).ok()?;
        let text = told.as_str()?.trim();
        let is_fine = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
        is_fine.then(|| text.to_owned())
    }

    fn broken(
        &self,
        path: &str,
        value: &Value,
        variables: &Variables,
        budget: &mut Budget,
    ) -> Cause {
        let computed = Some(&self.message_expression).filter(|text| !text.is_empty());
        let computed = computed.and_then(|_| self.own_message(variables, budget));
        let message = computed.unwrap_or_else(|| self.spoken("failed rule: "));
        let (reason, message) = match self.reason.as_str() {
            "FieldValueForbidden" => ("FieldValueForbidden", format!("Forbidden: {message}")),
            "FieldValueRequired" => ("FieldValueRequired", format!("Required value: {message}")),
            "FieldValueDuplicate" => (
                "FieldValueDuplicate",
                format!("Duplicate value: {}", shown(value)),
            ),
            _ => (
                "FieldValueInvalid",
                match value {
                    // Upstream shows of these no more than that.
                    Value::Object(_) | Value::Array(_) => format!("Invalid value: {message}"),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                        format!("Invalid value: {value}: {message}")
                    }
                },
            ),
        };
        let field = join_path(path, &self.field_path);
        Cause {
            reason,
            message,
            field,
        }
    }

    /// Its message, or itself.
    fn spoken(&self, lead: &str) -> String {
        match self.message.as_str() {
            "" => format!("{lead}{}", self.rule.trim()),
            message => message.to_owned(),
        }
    }
}

/// How an error shows a value: lists and objects by their types.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!("object"),
        Value::Array(_) => json!("array"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Whether an expression speaks of what was before.
fn names_old(rule: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    rule.split(|c: char| !is_word(c))
        .any(|word| word == "oldSelf")
}

/// A `fieldPath` below a path: `.spec.a` or `['a']`.
fn join_path(path: &str, below: &str) -> String {
    let mut out = path.to_owned();
    let below = below.replace("['", ".").replace("']", "");
    for word in below.split('.').filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(word);
    }
    if out.is_empty() {
        "<nil>".to_owned()
    } else {
        out
    }
}

/// What is wrong with the rules of a schema.
pub(crate) fn check(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    // Parsed whole once, because a rule is typed by the schema that it stands at.
    let parsed = Schema::parse(schema);
    if parsed.has_rules {
        let mut total = Total::default();
        check_node(
            schema,
            &parsed,
            path,
            Place {
                is_root: true,
                times: Some(1.0),
                uncorrelated: None,
            },
            &mut total,
            &mut causes,
        );
        if total.sum > typing::TOTAL_MAX {
            for (at, _) in &total.most {
                let why = "contributed to estimated rule cost total exceeding cost limit for \
                           entire OpenAPIv3 schema";
                causes.push(Cause::forbidden(at, why));
            }
        }
        if let Some(factor) = typing::over(total.sum, typing::TOTAL_MAX) {
            let why = format!(
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema \
                 exceeds budget by factor of {factor} (try simplifying the rule, or adding \
                 maxItems, maxProperties, and maxLength where arrays, maps, and strings are \
                 declared)"
            );
            causes.push(Cause::forbidden(path, &why));
        }
    }
    causes.truncate(CAUSES_MAX);
    causes
}

/// Where a node stands: how often at the most, and whether it is the object.
#[derive(Clone)]
struct Place {
    is_root: bool,
    /// None below a list or map without a bound.
    times: Option<f64>,
    /// Where the list is whose items cannot be told apart from before to after.
    uncorrelated: Option<String>,
}

/// What all rules may cost, and those that cost the most.
#[derive(Default)]
struct Total {
    sum: f64,
    most: Vec<(String, f64)>,
}

impl Total {
    /// As many as upstream tells.
    const MOST: usize = 4;

    fn add(&mut self, at: &str, cost: f64) {
        self.sum += cost;
        self.most.push((at.to_owned(), cost));
        self.most.sort_by(|one, other| other.1.total_cmp(&one.1));
        self.most.truncate(Self::MOST);
    }
}

fn check_node(
    source: &Value,
    schema: &Schema,
    path: &str,
    place: Place,
    total: &mut Total,
    causes: &mut Vec<Cause>,
) {
    if !schema.has_rules || causes.len() >= CAUSES_MAX {
        return;
    }
    for (index, rule) in items(source, &["x-kubernetes-validations"])
        .iter()
        .enumerate()
    {
        let at = format!("{path}.x-kubernetes-validations[{index}]");
        check_rule(rule, schema, &at, &place, total, causes);
    }
    let place = Place {
        is_root: false,
        ..place
    };
    let elements = |known: &Schema| {
        let is_map = matches!(known.list, super::schema::ListType::Map(_));
        let here = known.items.is_some() && !is_map;
        place.uncorrelated.clone().or(here.then(|| path.to_owned()))
    };
    let uncorrelated = elements(schema);
    for (name, below) in entries(source, "properties") {
        if let Some(known) = schema.properties.get(name.as_str()) {
            let at = format!("{path}.properties[{name}]");
            check_node(below, known, &at, place.clone(), total, causes);
        }
    }
    let place = Place {
        uncorrelated,
        times: place
            .times
            .zip(typing::bound(schema))
            .map(|(one, other)| one * other),
        ..place
    };
    if let (Some(below), Some(known)) = (source.get("items"), &schema.items) {
        let at = format!("{path}.items");
        check_node(below, known, &at, place.clone(), total, causes);
    }
    if let (Some(below), Additional::Schema(known)) =
        (source.get("additionalProperties"), &schema.additional)
    {
        let at = format!("{path}.additionalProperties");
        check_node(below, known, &at, place, total, causes);
    }
}

fn check_rule(
    rule: &Value,
    schema: &Schema,
    at: &str,
    place: &Place,
    total: &mut Total,
    causes: &mut Vec<Cause>,
) {
    let source = text(rule, &["rule"]);
    if source.trim().is_empty() {
        let why = "rule is not specified";
        causes.push(Cause::required(format!("{at}.rule"), why));
        return;
    }
    wording(rule, at, causes);
    let is_optional = rule["optionalOldSelf"] == true;
    let Some(itself) = typing::type_of(schema, place.is_root, "selfType") else {
        let why = "Internal error: internal error: failed to construct type information for \
                   x-kubernetes-validations rules: unable to convert structural schema to CEL \
                   declarations";
        let at = at.rsplit_once('[').map_or(at, |(at, _)| at);
        causes.push(Cause::new("InternalError", at, why.to_owned()));
        return;
    };
    let old = match is_optional {
        true => Type::Optional(Box::new(itself.clone())),
        false => itself.clone(),
    };
    let names = Names(vec![
        ("self".to_owned(), itself),
        ("oldSelf".to_owned(), old),
    ]);
    for field in ["rule", "messageExpression"] {
        let source = text(rule, &[field]);
        if source.trim().is_empty() {
            continue;
        }
        let at = format!("{at}.{field}");
        let cost = match compiled(source, field, &names, schema, place.is_root, is_optional) {
            Ok(cost) => cost * place.times.unwrap_or_else(|| typing::times_max(schema)),
            Err(why) => {
                let why = format!("Invalid value: {}: {why}", as_go_writes(rule));
                causes.push(Cause::new("FieldValueInvalid", at, why));
                continue;
            }
        };
        total.add(&at, cost);
        if let Some(factor) = typing::over(cost, typing::RULE_MAX) {
            let why = format!(
                "estimated {field} cost exceeds budget by factor of {factor} (try simplifying the \
                 rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                 strings are declared)"
            );
            causes.push(Cause::forbidden(&at, &why));
        }
    }
    old_and_path(rule, schema, at, place, causes);
}

/// What a rule says of what was before, and of where it is about.
fn old_and_path(rule: &Value, schema: &Schema, at: &str, place: &Place, causes: &mut Vec<Cause>) {
    let source = text(rule, &["rule"]);
    let uses_old = names_old(source);
    if let (true, Some(list)) = (uses_old, &place.uncorrelated) {
        let why = format!(
            "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
        );
        causes.push(Cause::invalid(format!("{at}.rule"), &json!(source), &why));
    }
    if rule["optionalOldSelf"].is_boolean() && !uses_old {
        let why = "may not be set if oldSelf is not used in rule";
        let value = &rule["optionalOldSelf"];
        causes.push(Cause::invalid(format!("{at}.optionalOldSelf"), value, why));
    }
    let below = text(rule, &["fieldPath"]);
    if !below.is_empty() && !is_path(schema, below) {
        let why = "must be a valid path";
        causes.push(Cause::invalid(
            format!("{at}.fieldPath"),
            &json!(below),
            why,
        ));
    }
}

/// Compiles one expression of a rule and tells what it may cost.
fn compiled(
    source: &str,
    field: &str,
    names: &Names,
    schema: &Schema,
    is_root: bool,
    is_optional: bool,
) -> Result<f64, String> {
    let (lead, wanted, what) = match field {
        "rule" => ("", "bool", "cel expression must evaluate to a bool"),
        _ => (
            "messageExpression ",
            "string",
            "messageExpression must evaluate to a string",
        ),
    };
    let expression = Expression::compile(source).map_err(|error| format!("{lead}{error}"))?;
    let found = infer(source, names);
    let found = found.map_err(|told| format!("{lead}compilation failed: {told}"))?;
    let cost = typing::check(expression.code(), schema, is_root, is_optional);
    match found {
        Some(found) if found.to_string() != wanted => Err(what.to_owned()),
        // What the types allow is allowed; the cost of what only they know is small.
        Some(_) => Ok(cost.unwrap_or(1.0)),
        None => cost.map_err(|why| format!("compilation failed: ERROR: <input>:1:1: {why}")),
    }
}

/// The rule as upstream's errors show it: a structure of Go.
fn as_go_writes(rule: &Value) -> String {
    let escaped = |field: &str| {
        let text = json!(text(rule, &[field])).to_string();
        let text = text.replace('<', "\\u003c").replace('>', "\\u003e");
        text.replace('&', "\\u0026")
    };
    let reason = rule.get("reason").filter(|reason| !reason.is_null());
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\
         \"OptionalOldSelf\":{}}}",
        escaped("rule"),
        escaped("message"),
        escaped("messageExpression"),
        reason.unwrap_or(&Value::Null),
        escaped("fieldPath"),
        rule.get("optionalOldSelf").unwrap_or(&Value::Null),
    )
}

/// Whether `path` leads to a field: `.a.b`, `['a']`; items of lists cannot be named.
fn is_path(schema: &Schema, path: &str) -> bool {
    let mut here = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name = if let Some(quoted) = rest.strip_prefix("['") {
            let Some((name, after)) = quoted.split_once("']") else {
                return false;
            };
            rest = after;
            name
        } else if let Some(plain) = rest.strip_prefix('.') {
            let end = plain.find(['.', '[']).unwrap_or(plain.len());
            let (name, after) = plain.split_at(end);
            rest = after;
            name
        } else {
            return false;
        };
        here = match (here.properties.get(name), &here.additional) {
            (Some(below), _) => below,
            (None, Additional::Schema(below)) if !name.is_empty() => below,
            (None, _) => return false,
        };
    }
    true
}

/// The message and the reason of a rule.
fn wording(rule: &Value, at: &str, causes: &mut Vec<Cause>) {
    let message = text(rule, &["message"]);
    if message.trim().contains('\n') {
        let why = "must not contain line breaks";
        causes.push(Cause::invalid(
            format!("{at}.message"),
            &json!(message),
            why,
        ));
    }
    if !message.is_empty() && message.trim().is_empty() {
        let why = "must be non-empty if specified";
        causes.push(Cause::invalid(
            format!("{at}.message"),
            &json!(message),
            why,
        ));
    }
    if message.is_empty() && text(rule, &["rule"]).trim().contains('\n') {
        let why = "message must be specified if rule contains line breaks";
        causes.push(Cause::required(format!("{at}.message"), why));
    }
    let told = rule.get("messageExpression").and_then(Value::as_str);
    if told.is_some_and(|told| !told.is_empty() && told.trim().is_empty()) {
        let why = "messageExpression must be non-empty if specified";
        causes.push(Cause::required(format!("{at}.messageExpression"), why));
    }
    let reason = text(rule, &["reason"]);
    let reasons = [
        "FieldValueDuplicate",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueRequired",
    ];
    if !reason.is_empty() && !reasons.contains(&reason) {
        causes.push(Cause::not_supported(
            format!("{at}.reason"),
            &json!(reason),
            &reasons,
        ));
    }
}

/// The rules that an object breaks.
pub(crate) fn evaluate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut walk = Walk {
        budget: Budget::default(),
        causes: Vec::new(),
        is_over: false,
    };
    walk.node(schema, object, old, "");
    walk.causes
}

struct Walk {
    budget: Budget,
    causes: Vec<Cause>,
    /// The budget is spent, or there is enough to tell.
    is_over: bool,
}

impl Walk {
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if !schema.has_rules || self.is_over || value.is_null() {
            return;
        }
        self.rules(schema, value, old, path);
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    if let Some(below) = schema.field(name) {
                        let old = old.and_then(|old| old.get(name));
                        let at = if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}.{name}")
                        };
                        self.node(below, value, old, &at);
                    }
                }
            }
            Value::Array(all) => {
                let Some(below) = &schema.items else { return };
                for (index, item) in all.iter().enumerate() {
                    let old = old_item(schema, item, old);
                    self.node(below, item, old, &format!("{path}[{index}]"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rules(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        let counts = |rule: &&Rule| match (rule.uses_old, old) {
            (true, Some(_)) => true,
            (true, None) => rule.optional_old,
            // What was let through before may stay as it is.
            (false, old) => old != Some(value),
        };
        let mut rules = schema.rules.iter().filter(counts).peekable();
        if rules.peek().is_none() {
            return;
        }
        let mut variables = Variables::default();
        variables.set("self", value);
        for rule in rules {
            if rule.uses_old {
                match old {
                    _ if rule.optional_old => variables.set_optional("oldSelf", old),
                    Some(old) => variables.set("oldSelf", old),
                    None => {}
                }
            }
            self.rule(rule, value, &variables, path);
            if self.is_over {
                return;
            }
        }
    }

    fn rule(&mut self, rule: &Rule, value: &Value, variables: &Variables, path: &str) {
        let Some(expression) = rule.expression() else {
            return;
        };
        let why = match expression.evaluate(variables, &mut self.budget) {
            Ok(outcome) => match outcome.as_bool() {
                Some(true) => return,
                Some(false) => {
                    let cause = rule.broken(path, value, variables, &mut self.budget);
                    return self.push(cause);
                }
                None => "the rule is not true or false".to_owned(),
            },
            Err(EvaluateError::Budget) => {
                self.is_over = true;
                format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit \
                     for rule: {}",
                    EvaluateError::Budget,
                    rule.spoken("")
                )
            }
            Err(EvaluateError::Failed(why)) if why.starts_with("no such overload") => format!(
                "'{why}': call arguments did not match a supported operator, function or macro \
                 signature for rule: {}",
                rule.spoken("")
            ),
            Err(EvaluateError::Failed(why)) => {
                format!("{why} evaluating rule: {}", rule.spoken(""))
            }
        };
        let field = join_path(path, "");
        self.push(Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", shown(value)),
            field,
        });
    }

    fn push(&mut self, cause: Cause) {
        self.causes.push(cause);
        self.is_over |= self.causes.len() >= CAUSES_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(schema: Value, object: Value, old: Option<Value>) -> Vec<String> {
        let causes = evaluate(&Schema::parse(&schema), &object, old.as_ref());
        let texts = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message));
        texts.collect()
    }

    fn with_rule(rule: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [rule], "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "name": {"type": "string"},
                "list": {"type": "array", "items": {"type": "integer"}}}}}})
    }

    #[test]
    fn rules_are_kept_or_told() {
        let schema = || with_rule(json!({"rule": "self.min <= self.max", "message": "too many"}));
        assert_eq!(
            broken(schema(), json!({"spec": {"min": 1, "max": 2}}), None),
            [""; 0]
        );
        assert_eq!(
            broken(schema(), json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec: Invalid value: too many"]
        );
        let bare = with_rule(json!({"rule": "self.min <= self.max", "fieldPath": ".min",
            "reason": "FieldValueForbidden"}));
        assert_eq!(
            broken(bare, json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec.min: Forbidden: failed rule: self.min <= self.max"]
        );
        let told = with_rule(json!({"rule": "self.min <= self.max",
            "messageExpression": "'min is ' + string(self.min)"}));
        assert_eq!(
            broken(told, json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec: Invalid value: min is 3"]
        );
        let missing = with_rule(json!({"rule": "self.max > 0"}));
        assert_eq!(
            broken(missing, json!({"spec": {}}), None),
            ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.max > 0"]
        );
    }

    #[test]
    fn transitions_are_rules_of_changes() {
        let schema = || {
            with_rule(json!({"rule": "self.name == oldSelf.name",
            "message": "is immutable"}))
        };
        let one = json!({"spec": {"name": "a"}});
        let other = json!({"spec": {"name": "b"}});
        assert_eq!(broken(schema(), one.clone(), None), [""; 0]);
        assert_eq!(broken(schema(), one.clone(), Some(one.clone())), [""; 0]);
        assert_eq!(
            broken(schema(), other.clone(), Some(one.clone())),
            ["spec: Invalid value: is immutable"]
        );
        let optional = || {
            with_rule(json!({"optionalOldSelf": true,
            "rule": "oldSelf.hasValue() || self.name == 'a'"}))
        };
        assert_eq!(broken(optional(), one.clone(), None), [""; 0]);
        assert_eq!(broken(optional(), other.clone(), None).len(), 1);
        assert_eq!(broken(optional(), other, Some(one)), [""; 0]);
    }

    #[test]
    fn a_rule_that_would_never_end_is_stopped() {
        let rule = "self.list.all(a, self.list.all(b, self.list.all(c, self.list.all(d, a + b + c \
                    + d >= 0))))";
        let many: Vec<_> = (0..400).collect();
        let started = std::time::Instant::now();
        let told = broken(
            with_rule(json!({"rule": rule, "message": "slow"})),
            json!({"spec": {"list": many}}),
            None,
        );
        assert!(
            told[0].contains("call cost exceeds limit for rule: slow"),
            "{told:?}"
        );
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }

    #[test]
    fn rules_that_cannot_be_are_refused_with_their_definition() {
        let faults = |rule: &str| {
            let causes = check(&with_rule(json!({"rule": rule})), "schema");
            let texts = causes
                .iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message));
            texts.collect::<Vec<_>>()
        };
        let at = "schema.properties[spec].x-kubernetes-validations[0].rule";
        assert_eq!(
            faults("self.min <= self.max && self.list.all(x, x > 0)"),
            [""; 0]
        );
        let undefined = faults("self.z == 1");
        let told = format!(
            "{at}: Invalid value: {{\"Rule\":\"self.z == 1\",\"Message\":\"\",\"MessageExpression\":\"\",\
             \"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: compilation failed: ERROR: \
             <input>:1:5: undefined field 'z'\n | self.z == 1\n | ....^"
        );
        assert_eq!(undefined, [told]);
        assert!(faults("self.min")[0].ends_with(": cel expression must evaluate to a bool"));
        assert!(faults("self.min > 'a'")[0].contains("applied to '(int, string)'"));
        assert!(faults("self.min <")[0].contains("compilation failed"));
        let cost = "self.list.all(a, self.list.all(b, a + b > 0))";
        assert!(faults(cost)[0].contains("estimated rule cost exceeds budget by factor of more"));
    }
}
