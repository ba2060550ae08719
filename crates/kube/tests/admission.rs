//! Admission as in-process callers meet it.

mod common;

mod admission {
    mod builtin;
    mod certificates;
    pub(crate) mod hook;
    mod mutations;
    mod policies;
    mod quota;
    mod webhooks;
    pub(crate) mod world;
}
