//! Structural schemas: what the values of a custom resource look like, in a form that is quick to
//! walk beside a value.
//!
//! A schema comes from a definition that [`super::structural`] has found sound, so reading is
//! lenient here: what is not understood does not restrict.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;
use crate::object;

/// The types of JSON that a schema can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    Null,
}

impl Type {
    pub(crate) const NAMES: &'static [&'static str] = &[
        "array", "boolean", "integer", "null", "number", "object", "string",
    ];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            "null" => Type::Null,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::Null => "null",
        }
    }
}

/// What the values of keys look like that `properties` does not name.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// There are none.
    #[default]
    No,
    /// Anything.
    Any,
    Schema(Box<Schema>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    /// A map that is replaced as a whole by server-side apply.
    pub(crate) atomic_map: bool,
    pub(crate) list: ListType,
    /// The keys of a list map, separated by commas.
    pub(crate) keys_joined: String,
    pub(crate) properties: BTreeMap<Box<str>, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) default: Option<Value>,
    /// Only of values that have some.
    pub(crate) checks: Option<Box<Checks>>,
    pub(crate) rules: Vec<Rule>,
    /// There are rules here or below.
    pub(crate) has_rules: bool,
    /// There are defaults here or below.
    pub(crate) has_defaults: bool,
}

/// What a value has to fulfil beyond its type.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) format: Option<String>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) length_min: Option<u64>,
    pub(crate) items_max: Option<u64>,
    pub(crate) items_min: Option<u64>,
    pub(crate) properties_max: Option<u64>,
    pub(crate) properties_min: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Schema>,
}

#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    /// None if the expression is not one; the definition was refused then.
    pub(crate) regex: Option<Regex>,
}

/// Memory that one regular expression may take when it is compiled.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Compiles a regular expression of a stranger.
pub(crate) fn regex(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
}

impl Schema {
    /// Reads an `openAPIV3Schema`.
    pub(crate) fn parse(source: &Value) -> Self {
        let mut schema = Self::parse_node(source);
        schema.rules = Rule::parse_all(source);
        for (name, property) in entries(source, "properties") {
            schema
                .properties
                .insert(name.as_str().into(), Self::parse(property));
        }
        schema.additional = match source.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(inner @ Value::Object(_)) => Additional::Schema(Box::new(Self::parse(inner))),
            _ => Additional::No,
        };
        let items = source.get("items").filter(|items| items.is_object());
        schema.items = items.map(|items| Box::new(Self::parse(items)));
        let children = || schema.children();
        let has_rules = children().any(|child| child.has_rules);
        let has_defaults = children().any(|child| child.has_defaults);
        schema.has_rules = has_rules || !schema.rules.is_empty();
        schema.has_defaults = has_defaults || schema.default.is_some();
        schema
    }

    /// Everything but what is below. Also what stands below `allOf` and the like: schemas without
    /// types of their own.
    fn parse_node(source: &Value) -> Self {
        let flag = |name: &str| source.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| object::text(source, &[name]);
        let keys = object::items(source, &["x-kubernetes-list-map-keys"]).iter();
        let keys: Vec<_> = keys.filter_map(Value::as_str).map(str::to_owned).collect();
        Self {
            kind: Type::parse(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            keys_joined: keys.join(","),
            list: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map(keys),
                _ => ListType::Atomic,
            },
            default: source.get("default").filter(|one| !one.is_null()).cloned(),
            checks: Checks::parse(source).map(Box::new),
            ..Self::default()
        }
    }

    fn parse_nested(source: &Value) -> Self {
        let mut schema = Self::parse_node(source);
        for (name, property) in entries(source, "properties") {
            schema
                .properties
                .insert(name.as_str().into(), Self::parse_nested(property));
        }
        let items = source.get("items").filter(|items| items.is_object());
        schema.items = items.map(|items| Box::new(Self::parse_nested(items)));
        if let Some(inner @ Value::Object(_)) = source.get("additionalProperties") {
            schema.additional = Additional::Schema(Box::new(Self::parse_nested(inner)));
        }
        schema
    }

    fn children(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional {
            Additional::Schema(inner) => Some(&**inner),
            Additional::No | Additional::Any => None,
        };
        let below = self.items.as_deref().into_iter().chain(additional);
        self.properties.values().chain(below)
    }

    /// The schema of a field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Schema> {
        if let Some(property) = self.properties.get(name) {
            return Some(property);
        }
        match &self.additional {
            Additional::Schema(inner) => Some(inner),
            Additional::No | Additional::Any => None,
        }
    }

    /// Whether an object may have a key of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.properties.contains_key(name) || !matches!(self.additional, Additional::No)
    }
}

impl Checks {
    fn parse(source: &Value) -> Option<Self> {
        let flag = |name: &str| source.get(name).and_then(Value::as_bool).unwrap_or(false);
        let number = |name: &str| source.get(name).and_then(Value::as_f64);
        let count = |name: &str| source.get(name).and_then(Value::as_u64);
        let text = |name: &str| Some(object::text(source, &[name])).filter(|text| !text.is_empty());
        let nested = |name: &str| {
            let all = object::items(source, &[name]).iter();
            all.map(Schema::parse_nested).collect()
        };
        let required = object::items(source, &["required"]).iter();
        let checks = Self {
            format: text("format").map(str::to_owned),
            allowed: object::items(source, &["enum"]).to_vec(),
            pattern: text("pattern").map(|text| Pattern {
                text: text.to_owned(),
                regex: regex(text).ok(),
            }),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            length_max: count("maxLength"),
            length_min: count("minLength"),
            items_max: count("maxItems"),
            items_min: count("minItems"),
            properties_max: count("maxProperties"),
            properties_min: count("minProperties"),
            required: required
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            all_of: nested("allOf"),
            any_of: nested("anyOf"),
            one_of: nested("oneOf"),
            not: source.get("not").map(Schema::parse_nested),
        };
        (!checks.is_empty()).then_some(checks)
    }

    fn is_empty(&self) -> bool {
        let numbers = [self.maximum, self.minimum, self.multiple_of];
        let counts = [
            self.length_max,
            self.length_min,
            self.items_max,
            self.items_min,
            self.properties_max,
            self.properties_min,
        ];
        self.format.is_none()
            && self.pattern.is_none()
            && self.not.is_none()
            && numbers.iter().all(Option::is_none)
            && counts.iter().all(Option::is_none)
            && self.allowed.is_empty()
            && self.required.is_empty()
            && [&self.all_of, &self.any_of, &self.one_of]
                .iter()
                .all(|all| all.is_empty())
    }
}

pub(crate) fn entries<'a>(
    source: &'a Value,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let map = source.get(name).and_then(Value::as_object);
    map.into_iter().flatten()
}
