//! How the values of custom resources merge: their structural schemas as nodes for the owners of
//! fields.

use serde_json::Value;

use super::kind::Kind;
use super::schema::{Additional, ListType, Schema, Type};
use crate::managed::object_meta;
use crate::managed::schema::{self as merge, ANY, Member, Scalar, Shape};

impl merge::Schema for Kind {
    fn shape(&self) -> Shape<'_> {
        Shape::Map
    }

    fn member(&self, name: &str) -> Member<'_> {
        member(&self.schema, name, true)
    }

    fn item(&self) -> &dyn merge::Schema {
        &ANY
    }
}

impl merge::Schema for Schema {
    fn shape(&self) -> Shape<'_> {
        if self.int_or_string {
            return Shape::Scalar(Scalar::Any);
        }
        match self.kind {
            Some(Type::Object) if self.atomic_map => Shape::AtomicMap,
            Some(Type::Object) => Shape::Map,
            Some(Type::Array) => match &self.list {
                ListType::Atomic => Shape::AtomicList,
                ListType::Set => Shape::Set,
                ListType::Map(_) => Shape::Keyed(&self.keys_joined),
            },
            Some(Type::String) => Shape::Scalar(Scalar::String),
            Some(Type::Integer | Type::Number) => Shape::Scalar(Scalar::Number),
            Some(Type::Boolean) => Shape::Scalar(Scalar::Bool),
            Some(Type::Null) => Shape::Scalar(Scalar::Any),
            None => Shape::Any,
        }
    }

    fn member(&self, name: &str) -> Member<'_> {
        member(self, name, self.embedded)
    }

    fn item(&self) -> &dyn merge::Schema {
        match &self.items {
            Some(items) => &**items,
            None => &ANY,
        }
    }

    fn default_of(&self, name: &str) -> Option<Value> {
        self.properties.get(name)?.default.clone()
    }
}

fn member<'a>(schema: &'a Schema, name: &str, is_resource: bool) -> Member<'a> {
    match name {
        "apiVersion" | "kind" if is_resource => return Member::Declared(&ANY),
        "metadata" if is_resource => return Member::Declared(object_meta()),
        _ => {}
    }
    if let Some(property) = schema.properties.get(name) {
        return Member::Declared(property);
    }
    match &schema.additional {
        Additional::Schema(inner) => Member::Entry(&**inner),
        Additional::Any => Member::Entry(&ANY),
        Additional::No if schema.preserve_unknown => Member::Entry(&ANY),
        Additional::No => Member::Unknown,
    }
}
