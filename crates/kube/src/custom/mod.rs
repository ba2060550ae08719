//! Custom resources: kinds that users define by a CustomResourceDefinition.
//!
//! ```text
//!   definition ── rules of definitions (definition, structural, rules) ──> stored
//!        │ watch
//!        v
//!   keeper ── a row per served version ──> resource::Catalog ──> API, discovery, OpenAPI, ...
//!                        │
//!                        └─ Kind: schema, columns, scale, conversion
//!   naming, removal: what the controllers do to the status of a definition
//! ```
//!
//! Objects of custom resources go the same way through the API as all others; where a built-in
//! kind has code or a type in the schema table, they have their [`Kind`].

mod columns;
pub(crate) mod controller;
mod convert;
pub(crate) mod definition;
mod format;
pub(crate) mod fuzz;
mod jsonpath;
pub(crate) mod keeper;
mod kind;
mod merge;
mod naming;
mod prune;
mod rules;
mod schema;
mod structural;
mod typing;
mod validate;

pub use kind::Kind;
