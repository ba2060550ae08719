//! The API as callers see it: a real server on real sockets, a real worker, machines in memory.

mod access;
mod apps;
mod conformance;
mod fixture;
mod fleet;
mod forward;
mod graphql;
mod idempotency;
mod images;
mod leases;
mod machines;
mod mesh;
mod openapi;
mod orgs;
mod schema;
mod secrets;
mod streams;
mod tokens;
mod verbs;
mod volumes;
mod watch;
