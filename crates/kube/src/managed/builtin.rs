//! The built-in table as a [`Schema`]: its markers are upstream's, which were made for this.

use serde_json::Value;

use super::schema::{ANY, Member, Scalar, Schema, Shape};
use crate::schema::{self, Field, Kind, Type};

/// The type of `metadata` of everything, custom resources too.
pub(crate) fn object_meta() -> &'static dyn Schema {
    match schema::type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
        Some(meta) => meta.get(),
        None => &ANY,
    }
}

impl Schema for Type {
    fn shape(&self) -> Shape<'_> {
        if self.atomic {
            Shape::AtomicMap
        } else {
            Shape::Map
        }
    }

    fn member(&self, name: &str) -> Member<'_> {
        match self.field(name) {
            Some(field) => Member::Declared(field),
            None => Member::Unknown,
        }
    }

    fn item(&self) -> &dyn Schema {
        &ANY
    }

    /// The two types with a key that has a default.
    fn default_of(&self, name: &str) -> Option<Value> {
        let is_port = matches!(self.short_name(), "ContainerPort" | "ServicePort");
        (is_port && name == "protocol").then(|| "TCP".into())
    }
}

impl Schema for Field {
    fn shape(&self) -> Shape<'_> {
        let is_atomic = self.flags.contains(&"atomic");
        match &self.kind {
            Kind::List(_) => self.flags.iter().fold(Shape::AtomicList, |shape, flag| {
                match (*flag, flag.strip_prefix("map=")) {
                    (_, Some(keys)) => Shape::Keyed(keys),
                    ("set", None) => Shape::Set,
                    (_, None) => shape,
                }
            }),
            Kind::Message(_) | Kind::Map(_) | Kind::Scalar(schema::Scalar::Raw) if is_atomic => {
                Shape::AtomicMap
            }
            kind @ (Kind::Scalar(_) | Kind::Message(_) | Kind::Map(_)) => kind.shape(),
        }
    }

    fn member(&self, name: &str) -> Member<'_> {
        self.kind.member(name)
    }

    fn item(&self) -> &dyn Schema {
        self.kind.item()
    }
}

impl Schema for Kind {
    fn shape(&self) -> Shape<'_> {
        match self {
            Kind::Scalar(scalar) => of_scalar(*scalar),
            Kind::Message(message) => message.get().shape(),
            Kind::List(_) => Shape::AtomicList,
            Kind::Map(_) => Shape::Map,
        }
    }

    fn member(&self, name: &str) -> Member<'_> {
        match self {
            Kind::Message(message) => message.get().member(name),
            Kind::Map(value) => Member::Entry(&**value),
            Kind::Scalar(schema::Scalar::Raw | schema::Scalar::Fields) => Member::Entry(&ANY),
            Kind::Scalar(_) | Kind::List(_) => Member::Unknown,
        }
    }

    fn item(&self) -> &dyn Schema {
        match self {
            Kind::List(item) => &**item,
            Kind::Scalar(_) | Kind::Message(_) | Kind::Map(_) => &ANY,
        }
    }

    fn default_of(&self, name: &str) -> Option<Value> {
        match self {
            Kind::Message(message) => message.get().default_of(name),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

fn of_scalar(scalar: schema::Scalar) -> Shape<'static> {
    use crate::schema::Scalar as Table;
    match scalar {
        Table::String | Table::Bytes => Shape::Scalar(Scalar::String),
        Table::Bool => Shape::Scalar(Scalar::Bool),
        Table::Int32 | Table::Int64 | Table::Double => Shape::Scalar(Scalar::Number),
        Table::IntOrString | Table::Quantity | Table::Time | Table::MicroTime => {
            Shape::Scalar(Scalar::Any)
        }
        Table::Raw
        | Table::Fields
        | Table::Json
        | Table::SchemaOrArray
        | Table::SchemaOrBool
        | Table::SchemaOrStrings => Shape::Any,
    }
}
