//! Kubernetes' dialect of JSONPath: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Used by printer columns, where the first result counts; [`simple`] reads the plain paths of
//! scale and of selectable fields.

use serde_json::Value;

/// Values that are followed at a time. Recursive steps could make more of an object than there is
/// memory, and nobody looks beyond the first.
const RESULTS_MAX: usize = 1000;
/// Bytes of a path, which also bounds how deep filters nest. Real ones are a tenth of that.
const PATH_BYTES_MAX: usize = 1024;

/// A path, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Wildcard,
    /// This and everything below it.
    Recursive,
    Union(Vec<Step>),
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    /// None: the left side exists.
    test: Option<(Operator, Operand)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
}

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    #[error("unexpected path string, expected a \"name1.name2\" or \".name1.name2\"")]
    Start,
    #[error("unterminated {what}")]
    Unterminated { what: &'static str },
    #[error("unrecognized character in path at {rest:?}")]
    Character { rest: String },
    #[error("invalid array index {text:?}")]
    Index { text: String },
    #[error("unrecognized operand {text:?} in filter")]
    Operand { text: String },
}

impl Path {
    /// Reads a path, with or without `$` and the dot in front.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(text);
        if text.is_empty() {
            return Err(PathError::Start);
        }
        let rest = text.strip_prefix('$').unwrap_or(text);
        Ok(Self {
            steps: steps(rest)?,
        })
    }

    /// The values that the path leads to in `value`.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        follow(&self.steps, value)
    }

    /// The first of [`Path::find`].
    pub(crate) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }
}

/// The keys of a path that names one field: `.spec.replicas`. None if it is more than that.
pub(crate) fn simple(text: &str) -> Option<Vec<String>> {
    let path = Path::parse(text).ok().filter(|_| text.starts_with('.'))?;
    let keys = path.steps.into_iter().map(|step| match step {
        Step::Key(key) if !text.contains('[') => Some(key),
        _ => None,
    });
    keys.collect()
}

fn steps(mut rest: &str) -> Result<Vec<Step>, PathError> {
    let mut steps = Vec::new();
    let mut is_first = true;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Recursive);
            if after.starts_with('[') {
                rest = after;
            } else {
                rest = name(after, &mut steps)?;
            }
        } else if rest.starts_with('[') {
            rest = bracket(rest, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.starts_with('[') {
                rest = after;
            } else if after.is_empty() && is_first {
                // The whole.
                return Ok(steps);
            } else {
                rest = name(after, &mut steps)?;
            }
        } else if is_first {
            rest = name(rest, &mut steps)?;
        } else {
            let rest = rest.chars().take(20).collect();
            return Err(PathError::Character { rest });
        }
        is_first = false;
    }
    Ok(steps)
}

/// A key or `*`; a backslash takes away the meaning of what follows it.
fn name<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, PathError> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => key.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = index;
                break;
            }
            ' ' | '}' | '{' | ']' | '(' | ')' | '"' | '\'' | '@' | '?' => {
                let rest = text[index..].chars().take(20).collect();
                return Err(PathError::Character { rest });
            }
            c => key.push(c),
        }
    }
    if key.is_empty() {
        let rest = text.chars().take(20).collect();
        return Err(PathError::Character { rest });
    }
    steps.push(if &text[..end] == "*" {
        Step::Wildcard
    } else {
        Step::Key(key)
    });
    Ok(&text[end..])
}

/// The end of what opens `text`, before its closing bracket; quotes are passed over.
fn inside(text: &str) -> Result<(&str, &str), PathError> {
    let mut quote = None;
    let mut depth = 0;
    let mut is_escaped = false;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[1..index], &text[index + 1..]));
                }
            }
            (None, _) => {}
        }
    }
    Err(PathError::Unterminated { what: "array" })
}

fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, PathError> {
    let (inner, rest) = inside(text)?;
    let inner = inner.trim();
    if let Some(filter) = inner.strip_prefix("?(") {
        let filter = filter
            .strip_suffix(')')
            .ok_or(PathError::Unterminated { what: "filter" })?;
        steps.push(Step::Filter(self::filter(filter)?));
        return Ok(rest);
    }
    let parts = split(inner, ',');
    let mut union = parts
        .iter()
        .map(|part| selector(part.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    steps.push(match union.len() {
        1 => union.remove(0),
        _ => Step::Union(union),
    });
    Ok(rest)
}

fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut quote, mut from) = (Vec::new(), None, 0);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c == separator => {
                parts.push(&text[from..index]);
                from = index + c.len_utf8();
            }
            (None, _) => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn selector(text: &str) -> Result<Step, PathError> {
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(key) = quoted(text) {
        return Ok(Step::Key(key));
    }
    let wrong = || PathError::Index {
        text: text.chars().take(20).collect(),
    };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    let parts: Vec<_> = text.split(':').collect();
    match parts[..] {
        [index] => number(index)?.map(Step::Index).ok_or_else(wrong),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, by] => {
            let by = number(by)?.unwrap_or(1);
            if by < 1 {
                return Err(wrong());
            }
            Ok(Step::Slice(number(from)?, number(to)?, by))
        }
        _ => Err(wrong()),
    }
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    Some(out)
}

fn filter(text: &str) -> Result<Filter, PathError> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                let found = OPERATORS
                    .iter()
                    .find(|(sign, _)| text[index..].starts_with(sign));
                if let Some((sign, operator)) = found {
                    let right = operand(text[index + sign.len()..].trim())?;
                    return Ok(Filter {
                        left: operand(text[..index].trim())?,
                        test: Some((*operator, right)),
                    });
                }
            }
            (Some(_), _) => {}
        }
    }
    Ok(Filter {
        left: operand(text.trim())?,
        test: None,
    })
}

fn operand(text: &str) -> Result<Operand, PathError> {
    if let Some(path) = text.strip_prefix('@') {
        return Ok(Operand::Path(steps(path)?));
    }
    if let Some(text) = quoted(text) {
        return Ok(Operand::Value(text.into()));
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Operand::Value(value)),
        Ok(_) | Err(_) => Err(PathError::Operand {
            text: text.chars().take(20).collect(),
        }),
    }
}

fn follow<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            take(step, value, &mut next);
            if next.len() >= RESULTS_MAX {
                next.truncate(RESULTS_MAX);
                break;
            }
        }
        found = next;
    }
    found
}

fn take<'a>(step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Key(key), value) => next.extend(value.get(key)),
        (Step::Index(index), Value::Array(items)) => next.extend(nth(items, *index)),
        (Step::Slice(from, to, by), Value::Array(items)) => {
            let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let at = |index: i64| if index < 0 { index + len } else { index }.clamp(0, len);
            let (from, to) = (at(from.unwrap_or(0)), at(to.unwrap_or(len)));
            let by = usize::try_from(*by).unwrap_or(1);
            let indexes = (from..to).step_by(by);
            next.extend(indexes.filter_map(|index| nth(items, index)));
        }
        (Step::Wildcard, Value::Array(items)) => next.extend(items),
        (Step::Wildcard, Value::Object(map)) => next.extend(map.values()),
        (Step::Recursive, value) => everything(value, next),
        (Step::Union(steps), value) => steps.iter().for_each(|step| take(step, value, next)),
        (Step::Filter(filter), Value::Array(items)) => {
            next.extend(items.iter().filter(|item| holds(filter, item)));
        }
        (Step::Index(_) | Step::Slice(..) | Step::Wildcard | Step::Filter(_), _) => {}
    }
}

fn nth(items: &[Value], index: i64) -> Option<&Value> {
    let len = i64::try_from(items.len()).ok()?;
    let index = if index < 0 { index + len } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn everything<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    if found.len() >= RESULTS_MAX {
        return;
    }
    found.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| everything(item, found)),
        Value::Object(map) => map.values().for_each(|value| everything(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds(filter: &Filter, item: &Value) -> bool {
    let value = |operand: &Operand| match operand {
        Operand::Path(steps) => follow(steps, item).first().copied().cloned(),
        Operand::Value(value) => Some(value.clone()),
    };
    let left = value(&filter.left);
    let Some((operator, right)) = &filter.test else {
        return left.is_some();
    };
    let (Some(left), Some(right)) = (left, value(right)) else {
        return false;
    };
    use std::cmp::Ordering;
    let ordering = match (&left, &right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Number(_), Value::Number(_)) => left
            .as_f64()
            .zip(right.as_f64())
            .and_then(|(left, right)| left.partial_cmp(&right)),
        _ => (left == right).then_some(Ordering::Equal),
    };
    match operator {
        Operator::Equal => ordering == Some(Ordering::Equal),
        Operator::NotEqual => ordering != Some(Ordering::Equal),
        Operator::Less => ordering == Some(Ordering::Less),
        Operator::LessOrEqual => ordering.is_some_and(Ordering::is_le),
        Operator::Greater => ordering == Some(Ordering::Greater),
        Operator::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str) -> Vec<Value> {
        let object = json!({
            "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"},
                {"type": "Synced", "status": "False"}]},
        });
        let path = Path::parse(path).expect("a path");
        path.find(&object).into_iter().cloned().collect()
    }

    #[test]
    fn the_paths_of_real_definitions_lead_where_they_should() {
        for (path, expected) in [
            (".metadata.name", json!(["a"])),
            ("{.metadata.name}", json!(["a"])),
            ("metadata.name", json!(["a"])),
            ("$.metadata.name", json!(["a"])),
            (
                ".metadata.labels.app\\.kubernetes\\.io/name",
                json!(["web"]),
            ),
            (
                ".metadata.labels['app\\.kubernetes\\.io/name']",
                json!(["web"]),
            ),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type == 'Synced')].status",
                json!(["False"]),
            ),
            (".spec.ports[0].port", json!([80])),
            (".spec.ports[-1].port", json!([443])),
            (".spec.ports[*].name", json!(["http", "https"])),
            (".spec.ports[0:1].name", json!(["http"])),
            (".spec.ports[0,1].port", json!([80, 443])),
            (".spec.ports[?(@.port>100)].name", json!(["https"])),
            (".spec.ports[?(@.port)].port", json!([80, 443])),
            ("..port", json!([80, 443])),
            (".spec.none.deeper", json!([])),
        ] {
            assert_eq!(Value::from(find(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_and_a_greedy_one_ends() {
        for path in [
            "",
            ".a[",
            ".a[x]",
            ".a[?(@.b==)]",
            ".a[?(x==1)]",
            "a b",
            ".a..",
            ".a.b[",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
        let deep = (0..60).fold(json!(1), |value, _| json!({"a": value, "b": [1, 2, 3]}));
        let greedy = Path::parse(&"..*".repeat(20)).expect("a path");
        assert!(greedy.find(&deep).len() <= RESULTS_MAX);
    }

    #[test]
    fn simple_paths_name_one_field() {
        let keys = simple(".spec.replicas").expect("simple");
        assert_eq!(keys, ["spec", "replicas"]);
        for path in [
            "spec.replicas",
            ".spec.a[0]",
            ".spec[*]",
            "..a",
            ".spec['a']",
        ] {
            assert_eq!(simple(path), None, "{path}");
        }
    }
}
