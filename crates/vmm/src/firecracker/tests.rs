//! The driver against a faithful fake of the API, and against Firecracker itself where there is
//! one.

mod cost;
mod fake;
mod real;
mod tiny;
