//! What `init enter` is told to become, and the conversation about it.
//!
//! ```text
//! PID 1                        enter (child)              the process (grandchild)
//!   | -- length, plan (JSON) --> |                           |
//!   |                            | -- fork, namespaces ----> |
//!   | <-- PID, or 0 and why ---- |                           |
//!   |        (watches the PID)  exits                        |
//!   | -- go ---------------------------------------------->  |
//!   | <-- why not, or the end of the stream at execve ------ |
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

/// Longest plan: an environment as long as the kernel allows, and more.
const PLAN_BYTES_MAX: u32 = 8 << 20;

/// Longest reason.
const REASON_BYTES_MAX: u64 = 4 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// Programs to try in this order; the first that exists is run.
    pub(crate) candidates: Vec<String>,
    /// With the name as the first.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) tty: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A container to be: new namespaces over this root.
    New {
        root: String,
        /// What it gets as /dev/shm instead of memory of its own.
        shared_memory: Option<String>,
    },
    /// A container that is: the namespaces of its main process.
    Existing { main: i32 },
    /// Where PID 1 is.
    Beside,
}

pub(crate) fn send_plan(stream: &mut UnixStream, plan: &Plan) -> io::Result<()> {
    let bytes = serde_json::to_vec(plan)?;
    let length = u32::try_from(bytes.len()).ok();
    let length = length.filter(|length| *length <= PLAN_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("command and environment are too long"))?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&bytes)
}

pub(crate) fn receive_plan(stream: &mut UnixStream) -> io::Result<Plan> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length).min(PLAN_BYTES_MAX);
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The PID of the process, or why there is none.
pub(crate) fn receive_pid(stream: &mut UnixStream) -> io::Result<i32> {
    let mut pid = [0; 4];
    stream.read_exact(&mut pid)?;
    match i32::from_le_bytes(pid) {
        0 => Err(io::Error::other(receive_reason(stream)?)),
        pid => Ok(pid),
    }
}

/// Lets the process go, and returns when it has become its program.
pub(crate) fn go(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[1])?;
    let reason = receive_reason(stream)?;
    if reason.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(reason))
}

fn receive_reason(stream: &mut UnixStream) -> io::Result<String> {
    let mut reason = Vec::new();
    stream.take(REASON_BYTES_MAX).read_to_end(&mut reason)?;
    Ok(String::from_utf8_lossy(&reason).into_owned())
}
