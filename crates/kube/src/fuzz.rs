//! What a fuzzer calls: whatever a client sends may cost an error and nothing else.

pub use crate::api::fuzz::{body, patch};
pub use crate::custom::fuzz::{custom, json_path};
pub use crate::server::fuzz::{exec_message, request};
