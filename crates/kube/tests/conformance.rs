//! Behaviours that conformance asks of a cluster and that need no running pod, each by its name.
//!
//! What is sent and what must come back stands in `conformance/*.txt`, one heading per behaviour;
//! [`conformance::scenario`] says how to read them. `docs/conformance.md` is the table of all.

mod common;
#[path = "admission/hook.rs"]
#[allow(dead_code, reason = "each program of tests uses a part of it")]
mod hook;
mod kubelet;

mod conformance {
    mod errors;
    mod hooks;
    mod http;
    mod lifecycle;
    mod play;
    mod scenario;
    mod table;
}
