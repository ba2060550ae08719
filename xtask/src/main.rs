//! Development tasks: `cargo xtask tidy`, `cargo xtask guest`.

fn main() {}
