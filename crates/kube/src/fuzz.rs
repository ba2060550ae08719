//! What a fuzzer calls: whatever a client sends may cost an error and nothing else.

pub use crate::api::fuzz::{apply, body, patch, yaml};
pub use crate::custom::fuzz::{custom, json_path};
pub use crate::identity::fuzz::{headers as credentials, token};
pub use crate::managed::fuzz::fields;
pub use crate::server::fuzz::{exec_message, request};
