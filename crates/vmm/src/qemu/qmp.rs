//! QEMU's monitor protocol: one JSON object per line, answers in the order of the commands.
//!
//! The greeting is read with the first command, so that a boot need not wait for it. Answers carry
//! the number of their command: whoever gave up on one does not disturb the next.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// QEMU is not trusted: its guest may have taken it over. What we ask for is short.
const LINE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    #[error("cannot talk to QEMU's monitor")]
    Io(#[from] io::Error),
    #[error("QEMU closed its monitor")]
    Closed,
    #[error("QEMU's monitor does not keep to its protocol")]
    Malformed,
    #[error("QEMU refused {command}: {reason}")]
    Refused { command: String, reason: String },
}

/// `major.minor.micro` of a QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

impl Version {
    /// Since 8.2 memory is saved to files by name, which from 9.1 on is the only way that is not
    /// deprecated; before that only descriptors could be given.
    pub(super) fn saves_to_files(self) -> bool {
        (self.major, self.minor) >= (8, 2)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[derive(Deserialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    qmp: Hello,
}

#[derive(Deserialize)]
struct Hello {
    version: Versions,
}

#[derive(Deserialize)]
struct Versions {
    qemu: Version,
}

/// Our end of the monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
    version: Option<Version>,
    commands: u64,
}

impl Qmp {
    pub(super) fn new(stream: net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            unread: Vec::new(),
            version: None,
            commands: 0,
        })
    }

    /// Which QEMU this is. Waits for its greeting.
    pub(super) async fn version(&mut self) -> Result<Version, QmpError> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let greeting = self.line().await?;
        let greeting: Greeting =
            serde_json::from_value(greeting).map_err(|_| QmpError::Malformed)?;
        let version = greeting.qmp.version.qemu;
        self.version = Some(version);
        self.talk("qmp_capabilities", json!({}), &[]).await?;
        Ok(version)
    }

    /// Carries out a command and returns what QEMU answers.
    pub(super) async fn execute(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.version().await?;
        self.talk(command, arguments, &[]).await
    }

    /// Carries out a command that takes a descriptor.
    pub(super) async fn execute_with(
        &mut self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, QmpError> {
        self.version().await?;
        self.talk(command, arguments, &[fd.as_raw_fd()]).await
    }

    async fn talk(
        &mut self,
        command: &str,
        arguments: Value,
        fds: &[RawFd],
    ) -> Result<Value, QmpError> {
        self.commands += 1;
        let id = self.commands;
        let message = json!({ "execute": command, "arguments": arguments, "id": id });
        let mut line = serde_json::to_vec(&message).map_err(io::Error::other)?;
        line.push(b'\n');
        self.send(&line, fds).await?;
        loop {
            // What has no number of ours is an event, or the answer to a command given up.
            let mut answer = self.line().await?;
            if answer["id"] != json!(id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason: error["desc"].as_str().unwrap_or("no reason").to_owned(),
                });
            }
            return Ok(answer["return"].take());
        }
    }

    /// The descriptors go with the first byte.
    async fn send(&mut self, bytes: &[u8], fds: &[RawFd]) -> Result<(), QmpError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rights = [ControlMessage::ScmRights(fds)];
            let control = if sent == 0 && !fds.is_empty() {
                &rights[..]
            } else {
                &[]
            };
            let fd = self.stream.as_raw_fd();
            let iov = [IoSlice::new(&bytes[sent..])];
            let flags = MsgFlags::MSG_NOSIGNAL;
            let send = || Ok(sendmsg::<()>(fd, &iov, control, flags, None)?);
            sent += self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// May be dropped: what was read stays.
    async fn line(&mut self) -> Result<Value, QmpError> {
        loop {
            if let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|_| QmpError::Malformed);
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(QmpError::Malformed);
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.unread) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::AsFd;

    use super::*;

    const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},
        "package":""},"capabilities":[]}}"#;

    /// A monitor that answers every command with what `answer` makes of it.
    fn monitor(answer: impl Fn(&Value) -> Vec<String> + Send + 'static) -> Qmp {
        let (ours, theirs) = net::UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            writeln!(writer, "{}", GREETING.replace('\n', "")).unwrap();
            for line in BufReader::new(theirs).lines() {
                let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
                for line in answer(&command) {
                    writeln!(writer, "{line}").unwrap();
                }
            }
        });
        Qmp::new(ours).unwrap()
    }

    fn returned(command: &Value, value: &Value) -> String {
        json!({ "return": value, "id": command["id"] }).to_string()
    }

    #[tokio::test]
    async fn events_and_answers_to_others_are_passed_over() {
        let mut qmp = monitor(|command| {
            vec![
                json!({ "event": "STOP", "data": {} }).to_string(),
                json!({ "return": "late", "id": 77 }).to_string(),
                returned(command, &command["execute"]),
            ]
        });
        assert_eq!(qmp.execute("stop", json!({})).await.unwrap(), "stop");
        let version = qmp.version().await.unwrap();
        assert_eq!(version.to_string(), "7.2.22");
        assert!(!version.saves_to_files());
    }

    #[tokio::test]
    async fn a_refusal_says_what_was_refused_and_why() {
        let mut qmp = monitor(|command| {
            if command["execute"] == "qmp_capabilities" {
                return vec![returned(command, &json!({}))];
            }
            let error = json!({ "class": "GenericError", "desc": "no room" });
            vec![json!({ "error": error, "id": command["id"] }).to_string()]
        });
        let file = tempfile::tempfile().unwrap();
        let error = qmp
            .execute_with("getfd", json!({ "fdname": "memory" }), file.as_fd())
            .await;
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "QEMU refused getfd: no room");
    }

    #[tokio::test]
    async fn a_monitor_that_goes_away_or_talks_nonsense_is_an_error() {
        for said in ["", "nonsense\n", "{}\n"] {
            let (ours, mut theirs) = net::UnixStream::pair().unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            drop(theirs);
            let mut qmp = Qmp::new(ours).unwrap();
            assert!(qmp.version().await.is_err(), "{said}");
        }
    }
}
