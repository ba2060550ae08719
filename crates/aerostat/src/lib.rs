//! One host of Aerostat: every role, their assembly and the command line.
//!
//! The modules stand in the order in which a request meets them: the command line (`cli`) talks to
//! the Machines API (`api`), which asks the `directory` who may and `placement` who can; the
//! `worker` owns its machines and tells the `catalog`, which `dns` reads. `app` puts them together.
#![forbid(unsafe_code)]

pub mod api;
mod app;
pub mod catalog;
pub mod cli;
mod clusters;
pub mod config;
pub mod directory;
pub mod dns;
pub mod drain;
mod files;
pub mod fleet;
pub mod garbage;
pub mod gateway;
mod holder;
mod host;
pub mod mesh;
pub mod placement;
pub mod proxy;
pub mod rpc;
pub mod secrets;
pub mod tokens;
pub mod worker;
