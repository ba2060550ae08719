//! nftables through its own library: one script, one transaction.
//!
//! The kernel makes whoever closes a netlink socket wait until what its transactions replaced has
//! been freed, some ten milliseconds. A program per transaction pays that each time, a session once.

mod sys;

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::NetError;

/// Lines of its complaint that an error carries.
const COMPLAINT_LINES_MAX: usize = 4;

/// Transactions in one network namespace: that of the thread that runs the first. Later ones must
/// run there as well, since names of links are looked up where the caller is.
#[derive(Default)]
pub(crate) struct Session {
    context: Mutex<Option<sys::Context>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Runs `script`: all of it or nothing.
    pub(crate) fn apply(&self, action: &'static str, script: &str) -> Result<(), NetError> {
        self.run(action, script, false).map(drop)
    }

    fn run(&self, action: &'static str, script: &str, json: bool) -> Result<String, NetError> {
        // Who panics in here leaves a context that still serves.
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match context.take() {
            Some(opened) => Ok(opened),
            None => sys::Context::open(),
        };
        let opened = context.insert(opened.map_err(|source| NetError::NftLibrary { source })?);
        let answer = opened.run(script, json);
        let answer = answer.map_err(|source| NetError::NftLibrary { source })?;
        if answer.succeeded {
            return Ok(answer.output);
        }
        let lines = answer.complaint.lines().take(COMPLAINT_LINES_MAX);
        let complaint = lines.collect::<Vec<_>>().join(" / ");
        Err(NetError::Nft { action, complaint })
    }
}

/// Runs `script` in the calling thread's network namespace: all of it or nothing.
pub(crate) fn apply(action: &'static str, script: &str) -> Result<(), NetError> {
    Session::default().apply(action, script)
}

/// The objects of one kind (`table`, `set`) in the calling thread's network namespace.
pub(crate) fn list(kind: &str) -> Result<Vec<Value>, NetError> {
    let output = Session::default().run("list", &format!("list {kind}s"), true)?;
    let mut root: Value =
        serde_json::from_str(&output).map_err(|source| NetError::NftJson { source })?;
    let Some(Value::Array(objects)) = root.get_mut("nftables").map(Value::take) else {
        return Ok(Vec::new());
    };
    let of_kind = |mut object: Value| object.get_mut(kind).map(Value::take);
    Ok(objects.into_iter().filter_map(of_kind).collect())
}
