//! PID 1 inside a guest.

fn main() {}
