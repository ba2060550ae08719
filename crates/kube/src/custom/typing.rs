//! What can be said of a rule before it is run: whether the fields it names are there, and what it
//! may cost at the most.
//!
//! Types are followed as far as the schema tells them; whatever a function returns may be
//! anything. The cost is upstream's in kind and never above it: loops multiply, by the bounds of
//! their lists or by what a request can hold.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr, operators};

use super::schema::{Additional, Schema, Type};
use crate::cel::types as cel;

/// What one rule may cost.
pub(super) const RULE_MAX: f64 = 10_000_000.0;
/// What all rules of a version may cost.
pub(super) const TOTAL_MAX: f64 = 100_000_000.0;
/// Bytes of the largest request.
const REQUEST_BYTES: f64 = 3.0 * 1024.0 * 1024.0;

/// By how much a cost is above its limit, in upstream's words.
pub(super) fn over(cost: f64, max: f64) -> Option<String> {
    let factor = cost / max;
    match factor {
        factor if factor <= 1.0 => None,
        factor if factor > 100.0 => Some("more than 100x".to_owned()),
        factor if factor < 1.5 => Some(format!("{factor:.6}x")),
        factor => Some(format!("{factor:.1}x")),
    }
}

/// How many items a list, or entries a map, may have by its schema.
pub(super) fn bound(schema: &Schema) -> Option<f64> {
    let checks = schema.checks.as_deref()?;
    let bound = match schema.kind {
        Some(Type::Array) => checks.items_max,
        Some(Type::Object) => checks.properties_max,
        _ => None,
    };
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    bound.map(|bound| bound as f64)
}

/// How often a value of the schema can stand in one request.
pub(super) fn times_max(schema: &Schema) -> f64 {
    REQUEST_BYTES / bytes_min(schema, 0)
}

/// How many items a list, or entries a map, can have.
fn items_max(schema: &Schema) -> f64 {
    let element = match (&schema.items, &schema.additional) {
        (Some(items), _) => bytes_min(items, 0),
        (None, Additional::Schema(value)) => bytes_min(value, 0) + 3.0,
        (None, Additional::No | Additional::Any) => return 1.0,
    };
    bound(schema).unwrap_or(REQUEST_BYTES / (element + 1.0))
}

/// Bytes of the shortest JSON of a value.
fn bytes_min(schema: &Schema, level: usize) -> f64 {
    match schema.kind {
        Some(Type::Boolean) => 4.0,
        Some(Type::Integer | Type::Number) => 1.0,
        Some(Type::Object) if level < 10 => {
            let checks = schema.checks.as_deref();
            let required = checks.map_or(&[][..], |checks| &checks.required);
            let fields = required.iter().map(|name| {
                let below = schema.properties.get(name.as_str());
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let key = name.len() as f64 + 3.0;
                key + below.map_or(1.0, |below| bytes_min(below, level + 1))
            });
            2.0 + fields.sum::<f64>()
        }
        _ => 2.0,
    }
}

/// What is known of a value.
#[derive(Clone, Copy)]
enum Known<'a> {
    Anything,
    Of(&'a Schema),
    /// The object itself, with its type and metadata.
    Root(&'a Schema),
    Meta,
    Text,
}

/// The fields of an object, with the types that its schema gives them.
#[derive(Debug)]
struct Fields {
    name: String,
    fields: HashMap<String, cel::Type>,
}

impl cel::Shape for Fields {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn field(&self, name: &str) -> Option<cel::Type> {
        self.fields.get(name).cloned()
    }
}

/// How deep the types of a schema are followed.
const LEVELS_MAX: usize = 30;

/// What a value of the schema is in an expression; `None` if the schema does not say.
pub(super) fn type_of(schema: &Schema, is_root: bool, name: &str) -> Option<cel::Type> {
    below(schema, is_root, name, 0)
}

fn below(schema: &Schema, is_root: bool, name: &str, level: usize) -> Option<cel::Type> {
    if schema.int_or_string || level > LEVELS_MAX {
        return Some(cel::Type::Dyn);
    }
    let format = schema.checks.as_ref();
    let format = format.and_then(|checks| checks.format.as_deref());
    Some(match schema.kind? {
        Type::Array => {
            let items = schema.items.as_deref()?;
            let item = below(items, false, &format!("{name}.@idx"), level + 1)?;
            cel::Type::List(Box::new(item))
        }
        Type::Object => match &schema.additional {
            Additional::Schema(value) => {
                let value = below(value, false, &format!("{name}.@elem"), level + 1)?;
                cel::Type::Map(Box::new(cel::Type::plain("string")), Box::new(value))
            }
            Additional::No | Additional::Any => object(schema, is_root, name, level),
        },
        Type::String => cel::Type::plain(match format {
            Some("byte") => "bytes",
            Some("duration") => "duration",
            Some("date" | "date-time") => "timestamp",
            Some(_) | None => "string",
        }),
        Type::Integer => cel::Type::plain("int"),
        Type::Number => cel::Type::plain("double"),
        Type::Boolean => cel::Type::plain("bool"),
        Type::Null => cel::Type::plain("null"),
    })
}

fn object(schema: &Schema, is_root: bool, name: &str, level: usize) -> cel::Type {
    let own = schema.properties.iter().filter_map(|(field, one)| {
        let known = below(one, false, &format!("{name}.{field}"), level + 1)?;
        Some((field.to_string(), known))
    });
    let mut fields: HashMap<_, _> = own.collect();
    if is_root || schema.embedded {
        let text = || cel::Type::plain("string");
        let names = ["name", "generateName"].map(|field| (field.to_owned(), text()));
        let meta = Fields {
            name: format!("{name}.metadata"),
            fields: names.into_iter().collect(),
        };
        let meta = cel::Type::Object(Rc::new(meta));
        fields.insert("metadata".to_owned(), meta);
        fields.insert("apiVersion".to_owned(), text());
        fields.insert("kind".to_owned(), text());
    }
    let name = name.to_owned();
    cel::Type::Object(Rc::new(Fields { name, fields }))
}

/// How long a string can be by its schema, in bytes.
fn length_max(schema: &Schema) -> f64 {
    let checks = schema.checks.as_deref();
    let most = checks.and_then(|checks| checks.length_max);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    most.map_or(REQUEST_BYTES, |most| most as f64 * 4.0)
}

/// What a function costs that reads the whole of its parts.
fn read(name: &str, parts: &[Known<'_>]) -> f64 {
    const PER_BYTE: f64 = 0.1;
    let size = |known: &Known<'_>| match known {
        Known::Of(schema) if schema.kind == Some(Type::String) => Some(length_max(schema)),
        Known::Of(schema) if schema.kind == Some(Type::Array) => {
            let item = schema
                .items
                .as_deref()
                .filter(|one| one.kind == Some(Type::String));
            Some(items_max(schema) * item.map_or(1.0, |item| 1.0 + length_max(item) * PER_BYTE))
        }
        _ => None,
    };
    let first = parts.first().and_then(size);
    let second = parts.get(1).and_then(size);
    match name {
        "contains" => {
            let second = second.map_or(1.0, |second| second * PER_BYTE);
            first.map_or(0.0, |first| first * PER_BYTE * second)
        }
        "matches" | "find" | "findAll" | "split" | "replace" | "lowerAscii" | "upperAscii" => {
            first.map_or(0.0, |first| first * PER_BYTE)
        }
        "isSorted" | "min" | "max" | "indexOf" | "lastIndexOf" | "join" => first.unwrap_or(0.0),
        operators::EQUALS | operators::NOT_EQUALS => match (first, second) {
            (Some(first), Some(second)) => first.min(second) * PER_BYTE,
            _ => 0.0,
        },
        _ => 0.0,
    }
}

struct Checker<'a> {
    /// Variables that are in sight, the nearest last.
    scope: Vec<(Cow<'a, str>, Known<'a>)>,
}

/// Types an expression whose `self` is a value of `schema`, and returns what it may cost.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub(super) fn check(
    code: &IdedExpr,
    schema: &Schema,
    is_root: bool,
    optional_old: bool,
) -> Result<f64, String> {
    let itself = if is_root || schema.embedded {
        Known::Root(schema)
    } else {
        Known::Of(schema)
    };
    let old = if optional_old {
        Known::Anything
    } else {
        itself
    };
    let mut checker = Checker {
        scope: vec![("self".into(), itself), ("oldSelf".into(), old)],
    };
    checker.expression(code).map(|(_, cost)| cost)
}

impl<'a> Checker<'a> {
    fn expression(&mut self, code: &'a IdedExpr) -> Result<(Known<'a>, f64), String> {
        match &code.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok((Known::Anything, 0.0)),
            Expr::Ident(name) => Ok((self.variable(name)?, 1.0)),
            Expr::Select(select) => {
                let (known, cost) = self.expression(&select.operand)?;
                Ok((field(known, &select.field)?, cost + 1.0))
            }
            Expr::Call(call) => {
                let mut cost = 1.0;
                let mut first = None;
                let target = call.target.as_deref();
                let compares_sets = target.is_some_and(is_of_sets);
                let mut pairs = 1.0;
                let mut parts = Vec::new();
                for part in target.into_iter().chain(&call.args) {
                    let (known, part_cost) = self.expression(part)?;
                    first.get_or_insert(known);
                    parts.push(known);
                    cost += part_cost;
                    if let (true, Known::Of(schema)) = (compares_sets, known) {
                        pairs *= items_max(schema);
                    }
                }
                cost += pairs - 1.0 + read(&call.func_name, &parts);
                // A value that is only weighed is what it was.
                if call.func_name.starts_with("__") && call.args.len() == 1 {
                    return Ok((first.unwrap_or(Known::Anything), cost - 1.0));
                }
                let known = match (call.func_name.as_str(), first) {
                    (operators::INDEX, Some(known)) => element(known),
                    _ => Known::Anything,
                };
                Ok((known, cost))
            }
            Expr::List(list) => self.all(list.elements.iter()),
            Expr::Map(map) => self.all(map.entries.iter().flat_map(|entry| parts(&entry.expr))),
            Expr::Struct(made) => {
                self.all(made.entries.iter().flat_map(|entry| parts(&entry.expr)))
            }
            Expr::Comprehension(each) => {
                let (range, range_cost) = self.expression(&each.iter_range)?;
                let (_, init_cost) = self.expression(&each.accu_init)?;
                let depth = self.scope.len();
                let (one, two) = members(range);
                self.scope
                    .push((each.accu_var.as_str().into(), Known::Anything));
                match &each.iter_var2 {
                    None => self.scope.push((each.iter_var.as_str().into(), one)),
                    Some(second) => {
                        self.scope
                            .push((each.iter_var.as_str().into(), Known::Anything));
                        self.scope.push((second.as_str().into(), two));
                    }
                }
                let (_, step_cost) = self.expression(&each.loop_step)?;
                self.scope.truncate(depth);
                self.scope
                    .push((each.accu_var.as_str().into(), Known::Anything));
                let (_, end_cost) = self.expression(&each.result)?;
                self.scope.truncate(depth);
                let times = match range {
                    Known::Of(schema) | Known::Root(schema) => items_max(schema),
                    Known::Anything | Known::Meta | Known::Text => 1.0,
                };
                let cost = range_cost + init_cost + times * step_cost + end_cost;
                Ok((Known::Anything, cost))
            }
        }
    }

    fn all(
        &mut self,
        parts: impl Iterator<Item = &'a IdedExpr>,
    ) -> Result<(Known<'a>, f64), String> {
        let mut cost = 1.0;
        for part in parts {
            cost += self.expression(part)?.1;
        }
        Ok((Known::Anything, cost))
    }

    fn variable(&self, name: &str) -> Result<Known<'a>, String> {
        const TYPES: [&str; 18] = [
            "bool",
            "bytes",
            "double",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "type",
            "uint",
            "dyn",
            "optional",
            "math",
            "sets",
            "base64",
            "format",
            "strings",
            "lists",
        ];
        let found = self.scope.iter().rev().find(|(known, _)| known == name);
        match found {
            Some((_, known)) => Ok(*known),
            // Names of functions' families are idents too.
            None if TYPES.contains(&name) || name.starts_with('@') => Ok(Known::Anything),
            None => Err(format!(
                "undeclared reference to '{name}' (in container '')"
            )),
        }
    }
}

fn is_of_sets(target: &IdedExpr) -> bool {
    target.expr == Expr::Ident("sets".into())
}

fn parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn field<'a>(known: Known<'a>, name: &str) -> Result<Known<'a>, String> {
    let undefined = || format!("undefined field '{name}'");
    let schema = match known {
        Known::Anything => return Ok(Known::Anything),
        Known::Meta => {
            let is_there = matches!(name, "name" | "generateName");
            return if is_there {
                Ok(Known::Text)
            } else {
                Err(undefined())
            };
        }
        Known::Text => {
            return Err("type 'string' does not support field selection".to_owned());
        }
        Known::Root(schema) => match name {
            "metadata" => return Ok(Known::Meta),
            "apiVersion" | "kind" => return Ok(Known::Text),
            _ => schema,
        },
        Known::Of(schema) => schema,
    };
    if schema.int_or_string {
        return Ok(Known::Anything);
    }
    match schema.kind {
        Some(Type::Object) => match schema.field(name) {
            Some(below) => Ok(Known::Of(below)),
            None if schema.knows(name) => Ok(Known::Anything),
            None => Err(undefined()),
        },
        Some(Type::Array) => Err("type 'list' does not support field selection".to_owned()),
        Some(kind) => {
            let kind = match kind {
                Type::Integer => "int",
                Type::Number => "double",
                Type::Boolean => "bool",
                Type::String
                    if schema
                        .checks
                        .as_ref()
                        .is_some_and(|one| one.format.is_some()) =>
                {
                    return Ok(Known::Anything);
                }
                other => other.as_str(),
            };
            Err(format!("type '{kind}' does not support field selection"))
        }
        None => Ok(Known::Anything),
    }
}

/// What an index leads to.
fn element(known: Known<'_>) -> Known<'_> {
    match known {
        Known::Of(schema) | Known::Root(schema) => match (&schema.items, &schema.additional) {
            (Some(items), _) => Known::Of(items),
            (None, Additional::Schema(value)) => Known::Of(value),
            (None, Additional::No | Additional::Any) => Known::Anything,
        },
        Known::Anything | Known::Meta | Known::Text => Known::Anything,
    }
}

/// The variables of a loop: the only one, and the second of two.
fn members(range: Known<'_>) -> (Known<'_>, Known<'_>) {
    match range {
        Known::Of(schema) if schema.kind == Some(Type::Array) => (element(range), element(range)),
        // Of a map, one variable is the key.
        Known::Of(_) | Known::Root(_) => (Known::Anything, element(range)),
        Known::Anything | Known::Meta | Known::Text => (Known::Anything, Known::Anything),
    }
}
