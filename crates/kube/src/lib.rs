//! Kubernetes: API server, scheduler and provider. Reaches machines only through `client`.
//!
//! [`api`] is the API without HTTP: in-process callers and the HTTP server share it. Objects are
//! JSON values, resources are rows of [`resource`], types are rows of [`schema`]; only the rules
//! that are truly one kind's own ([`defaults`], [`validation`], [`admission`]) are code.

mod admission;
pub mod api;
mod cel;
pub mod controllers;
mod convert;
pub mod custom;
mod defaults;
pub mod egress;
mod fresh;
#[doc(hidden)]
pub mod fuzz;
pub mod identity;
mod label_selector;
mod managed;
mod metrics;
pub mod object;
mod patch;
pub mod pki;
pub mod provider;
pub mod quantity;
pub mod rbac;
pub mod resource;
mod rollout;
pub mod scheduler;
pub mod schema;
pub mod secrecy;
mod selectors;
pub mod server;
pub mod services;
pub mod status;
pub mod streams;
mod strict;
mod table;
pub mod time;
pub mod usage;
mod validation;
mod yaml;
