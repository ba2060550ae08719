//! The built-in plugins of admission, as in-process callers meet them.

mod admission {
    mod builtin;
    mod quota;
    pub(crate) mod world;
}
