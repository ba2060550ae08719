//! The API as callers see it: a real server on real sockets, a real worker, machines in memory.

mod access;
mod apps;
mod fixture;
mod fleet;
mod forward;
mod graphql;
mod images;
mod leases;
mod machines;
mod mesh;
mod openapi;
mod schema;
mod streams;
mod tokens;
mod watch;
