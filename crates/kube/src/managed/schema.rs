//! How values merge, as the owner of fields needs to know it.
//!
//! A [`Schema`] is one node of a type: the built-in table implements it for its types and fields
//! (`builtin`), a custom resource for the nodes of its structural schema. Everything in this module
//! walks values and nodes side by side and asks a node only two things: which [`Shape`] values
//! have, and which node a member has.
//!
//! To implement it for a structural schema: answer [`Shape::Map`] for an object (or
//! [`Shape::AtomicMap`] with `x-kubernetes-map-type: atomic`), with [`Member::Declared`] for a
//! property and [`Member::Entry`] for `additionalProperties` (or [`ANY`] where unknown fields are
//! preserved); for an array by `x-kubernetes-list-type`: `map` is [`Shape::Keyed`], `set`
//! [`Shape::Set`], everything else [`Shape::AtomicList`]; for `int-or-string` and formats that
//! are no strings on the wire `Shape::Scalar(Scalar::Any)`.

use std::fmt;

use serde_json::Value;

/// One node of a type.
pub(crate) trait Schema: fmt::Debug + Send + Sync {
    fn shape(&self) -> Shape<'_>;

    /// The node of a member of a map.
    fn member(&self, name: &str) -> Member<'_>;

    /// The node of the items of a list; [`ANY`] if the node is not one of a list.
    fn item(&self) -> &dyn Schema;

    /// What the member `name` of an item of a keyed list is when it is left out. Asked of the node
    /// of the item, for the keys of the list only.
    fn default_of(&self, name: &str) -> Option<Value> {
        let _ = name;
        None
    }
}

/// What is owned as one, and what in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    Scalar(Scalar),
    /// Owned and replaced as a whole.
    AtomicMap,
    /// Owned and replaced as a whole.
    AtomicList,
    /// Members have owners of their own.
    Map,
    /// A list of different scalars, each with owners of its own.
    Set,
    /// A list of maps that these members, separated by commas, tell apart.
    Keyed(&'a str),
    /// Nothing is known: maps are in parts, the rest is whole.
    Any,
}

/// What a scalar may be, for the errors of an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    String,
    Number,
    Bool,
    Any,
}

/// What a map has under a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Member<'a> {
    /// A field of the type: it has no owner beside those of its parts.
    Declared(&'a dyn Schema),
    /// An entry of a map of strings to something: to be there is a part of its own.
    Entry(&'a dyn Schema),
    /// Nothing: the type has no such field.
    Unknown,
}

impl<'a> Member<'a> {
    /// The node; that of anything for a name that the type does not know.
    pub(super) fn schema(self) -> &'a dyn Schema {
        match self {
            Member::Declared(schema) | Member::Entry(schema) => schema,
            Member::Unknown => &ANY,
        }
    }
}

/// The node of which nothing is known.
#[derive(Debug)]
pub(crate) struct Any;

/// See [`Shape::Any`].
pub(crate) static ANY: Any = Any;

impl Schema for Any {
    fn shape(&self) -> Shape<'_> {
        Shape::Any
    }

    fn member(&self, _: &str) -> Member<'_> {
        Member::Entry(&ANY)
    }

    fn item(&self) -> &dyn Schema {
        &ANY
    }
}

/// What a value is to the walkers, after a node of any type has been settled by the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// A scalar, or something atomic.
    Leaf,
    Map,
    List(Items<'a>),
}

/// By what the items of an associative list are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Items<'a> {
    Values,
    Keys(&'a str),
}

/// The form of `value` under this node. Null takes the form that the node has.
pub(super) fn form<'a>(schema: &'a dyn Schema, value: &Value) -> Form<'a> {
    match schema.shape() {
        Shape::Scalar(_) | Shape::AtomicMap | Shape::AtomicList => Form::Leaf,
        Shape::Map => Form::Map,
        Shape::Set => Form::List(Items::Values),
        Shape::Keyed(keys) => Form::List(Items::Keys(keys)),
        Shape::Any if value.is_object() || value.is_null() => Form::Map,
        Shape::Any => Form::Leaf,
    }
}
