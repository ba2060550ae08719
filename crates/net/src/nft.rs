//! The `nft` program: one script, one transaction.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::error::NetError;

/// Where Debian keeps it; the caller's PATH may lack sbin.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Lines of its complaint that an error carries.
const STDERR_LINES_MAX: usize = 4;

/// Runs `script` in the calling thread's network namespace: all of it or nothing.
pub(crate) fn apply(action: &'static str, script: &str) -> Result<(), NetError> {
    run(action, &["-f", "-"], script).map(drop)
}

/// The objects of one kind (`table`, `set`) in the calling thread's network namespace.
pub(crate) fn list(kind: &str) -> Result<Vec<Value>, NetError> {
    let plural = format!("{kind}s");
    let output = run("list", &["-j", "list", &plural], "")?;
    let mut root: Value =
        serde_json::from_slice(&output.stdout).map_err(|source| NetError::NftJson { source })?;
    let Some(Value::Array(objects)) = root.get_mut("nftables").map(Value::take) else {
        return Ok(Vec::new());
    };
    let of_kind = |mut object: Value| object.get_mut(kind).map(Value::take);
    Ok(objects.into_iter().filter_map(of_kind).collect())
}

fn run(action: &'static str, args: &[&str], stdin: &str) -> Result<Output, NetError> {
    let start = || {
        let mut child = Command::new("nft")
            .args(args)
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = start().map_err(|source| NetError::NftStart { source })?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr
        .lines()
        .take(STDERR_LINES_MAX)
        .collect::<Vec<_>>()
        .join(" / ");
    Err(NetError::Nft { action, stderr })
}
