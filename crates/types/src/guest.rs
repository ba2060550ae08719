//! The protocol between a host and what runs inside one machine, the same for every isolation
//! class.
//!
//! Transport: one duplex byte stream (a virtio-serial port, vsock or a Unix socket) that carries
//! yamux. The host is the yamux client and opens every stream. Each stream is a sequence of
//! [`Frame`]s and begins with one [`Open`] message from the host:
//!
//! - `Control`, exactly one per boot: the host sends [`HostMessage`]s, the guest [`GuestMessage`]s.
//! - `Exec` and `Attach`: standard input one way, output the other, [`ExecEnd`] last.
//! - `PutFiles` and `GetFiles`: a tar archive as standard input or output, [`ExecEnd`] last.
//! - `Processes` and `Statistics`: one message as the answer.
//!
//! A machine that was suspended keeps no stream: the host connects again and opens `Control` with
//! `resume`, and the guest tells the state of every container and check before it says `Ready`.
//!
//! - `Freeze`: standard output tells that the volume stands still; it does until standard input is
//!   closed, or for [`FREEZE_MS_MAX`]. [`ExecEnd`] last: whether it stood still until then.
//! - `Grow`: one message as the answer.
//!
//! Version 2; 1 had no `Freeze` and `Grow`. Either side refuses a peer whose [`VERSION`] is neither
//! its own nor one less. A host says the older one: it may go on with a guest that was suspended
//! under the version before, and refuses by itself what that guest has not.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::TerminalSize;
use crate::machine::{ExitEvent, Health, Restart};

pub const VERSION: u16 = 2;

/// How long a volume stands still at most, in milliseconds: a host may die in between.
pub const FREEZE_MS_MAX: u64 = 10_000;

/// Largest payload of a frame, in bytes. A specification with its files has to fit.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Name of the virtio-serial port that carries the protocol.
pub const VIRTIO_PORT: &str = "aerostat.control";

/// Port of the guest's vsock that carries the protocol where there is no virtio-serial port. The
/// guest listens; it is told to do so by [`VSOCK_WANTED`] on its kernel's command line.
pub const VSOCK_PORT: u32 = 1024;

/// Word on the kernel's command line.
pub const VSOCK_WANTED: &str = "aerostat.control=vsock";

/// A piece of a stream: `length u32 big-endian | kind u8 | payload`; the length counts the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A JSON message of the stream's own type.
    Message = 0,
    Stdin = 1,
    Stdout = 2,
    Stderr = 3,
    /// No more standard input; empty.
    CloseStdin = 4,
    /// JSON [`TerminalSize`].
    Resize = 5,
    /// A [`LogChunk`], guest to host on the control stream.
    Log = 6,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use FrameKind::{CloseStdin, Log, Message, Resize, Stderr, Stdin, Stdout};
        [Message, Stdin, Stdout, Stderr, CloseStdin, Resize, Log]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Bytes that are no frame, or no message.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("frame of {bytes} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("unexpected frame of kind {0:?}")]
    Unexpected(FrameKind),
    #[error("cannot read message")]
    Message { source: serde_json::Error },
}

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 5;

impl Frame {
    pub fn message<T: Serialize>(message: &T) -> Self {
        // Messages are our own types: maps with string keys and no failing serialisers.
        let payload = serde_json::to_vec(message).expect("a protocol message is JSON");
        Self {
            kind: FrameKind::Message,
            payload,
        }
    }

    pub fn data(kind: FrameKind, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            payload: payload.into(),
        }
    }

    pub fn resize(size: TerminalSize) -> Self {
        Self {
            kind: FrameKind::Resize,
            ..Self::message(&size)
        }
    }

    /// Header and payload, ready to be written.
    ///
    /// # Errors
    /// If the payload is longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let bytes = self.payload.len();
        let length = u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= FRAME_BYTES_MAX);
        let length = length.ok_or(Malformed::TooLong { bytes })?;
        let mut encoded = Vec::with_capacity(HEADER_BYTES + bytes);
        encoded.extend_from_slice(&length.to_be_bytes());
        encoded.push(self.kind as u8);
        encoded.extend_from_slice(&self.payload);
        Ok(encoded)
    }

    /// Reads a header: the kind, and how many bytes of payload follow.
    ///
    /// # Errors
    /// If the kind is unknown or the length is beyond the bound.
    pub fn decode_header(header: [u8; HEADER_BYTES]) -> Result<(FrameKind, usize), Malformed> {
        let [a, b, c, d, kind] = header;
        let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(Malformed::TooLong { bytes });
        }
        Ok((
            FrameKind::from_byte(kind).ok_or(Malformed::Kind(kind))?,
            bytes,
        ))
    }

    /// The payload as a message or terminal size.
    ///
    /// # Errors
    /// If this is a frame of data, or not the JSON of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        match self.kind {
            FrameKind::Message | FrameKind::Resize => serde_json::from_slice(&self.payload)
                .map_err(|source| Malformed::Message { source }),
            FrameKind::Stdin
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::CloseStdin
            | FrameKind::Log => Err(Malformed::Unexpected(self.kind)),
        }
    }
}

/// First message of a stream, from the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "open", rename_all = "snake_case")]
pub enum Open {
    Control {
        version: u16,
        /// After the machine was suspended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Resume>,
    },
    Exec(ExecRequest),
    Attach {
        container: String,
    },
    /// Unpack an archive under a directory of a container, as its user's files.
    PutFiles {
        container: String,
        path: String,
    },
    /// Pack a file or directory of a container.
    GetFiles {
        container: String,
        path: String,
    },
    /// Answered with a `Result`: a [`crate::api::ProcessStat`] for each process (as many as fit into
    /// a frame), or why not.
    Processes,
    /// Answered with a `Result`: [`Statistics`], or why not.
    Statistics,
    /// Write down everything that is on its way to a volume, and let whoever writes more wait.
    Freeze {
        /// [`VolumeSpec::name`].
        volume: String,
    },
    /// Let the file system of a volume take up its disk, which has `bytes` now. Answered with a
    /// `Result`: nothing, or why not.
    Grow {
        volume: String,
        bytes: u64,
    },
}

/// What a guest that was suspended cannot know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Milliseconds since 1970 on the host.
    pub unix_ms: i64,
    /// base64 of 64 random bytes for the kernel's generator, whose state other copies of the same
    /// snapshot would share.
    pub entropy: String,
}

/// Host to guest, on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum HostMessage {
    /// Once, first. The guest answers `Ready`, or `Refused`.
    Start(Box<MachineSpec>),
    /// Stop every container: signal, then kill after the grace. A second one may shorten it.
    Stop {
        signal: Option<String>,
        grace_ms: u64,
    },
    /// Send a signal to the first process of a container, or of each.
    Signal {
        container: Option<String>,
        signal: String,
    },
}

/// Guest to host, on the control stream, beside the [`LogChunk`]s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum GuestMessage {
    /// First, in answer to `Open::Control`.
    Hello { version: u16 },
    /// The specification cannot be carried out; nothing was started.
    Refused { reason: String },
    /// Network and file systems are up, and supervision has begun.
    Ready,
    /// A container changed its state.
    Container(ContainerReport),
    /// The outcome of a check changed, or what it says.
    Health(HealthReport),
    /// Every container has ended for good; nothing follows, and the guest closes the stream.
    /// It ends when the host closes the connection, or 5 s later. The machine's exit is that of the
    /// first container that failed, else of the last that ended.
    Exited { exit: ExitEvent },
}

/// What a container wrote: several lines or a part of one.
///
/// Payload of a frame: `run u32 | stderr u8 | unix_ns i64 | name length u8 | name | bytes`,
/// numbers big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    pub container: String,
    pub run: u32,
    pub stderr: bool,
    /// Nanoseconds since 1970.
    pub unix_ns: i64,
    pub bytes: Vec<u8>,
}

impl LogChunk {
    /// A frame with this chunk. Container names longer than 255 bytes are cut.
    pub fn to_frame(&self) -> Frame {
        let name = &self.container.as_bytes()[..self.container.len().min(255)];
        let mut payload = Vec::with_capacity(14 + name.len() + self.bytes.len());
        payload.extend_from_slice(&self.run.to_be_bytes());
        payload.push(u8::from(self.stderr));
        payload.extend_from_slice(&self.unix_ns.to_be_bytes());
        payload.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        payload.extend_from_slice(name);
        payload.extend_from_slice(&self.bytes);
        Frame {
            kind: FrameKind::Log,
            payload,
        }
    }

    /// `None` if `frame` holds no chunk.
    pub fn from_frame(frame: &Frame) -> Option<Self> {
        if frame.kind != FrameKind::Log {
            return None;
        }
        let (run, rest) = frame.payload.split_first_chunk::<4>()?;
        let (&stderr, rest) = rest.split_first()?;
        let (unix_ns, rest) = rest.split_first_chunk::<8>()?;
        let (&length, rest) = rest.split_first()?;
        let (name, bytes) = rest.split_at_checked(usize::from(length))?;
        Some(Self {
            container: String::from_utf8(name.to_vec()).ok()?,
            run: u32::from_be_bytes(*run),
            stderr: stderr != 0,
            unix_ns: i64::from_be_bytes(*unix_ns),
            bytes: bytes.to_vec(),
        })
    }
}

/// The state of one container, complete each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub container: String,
    /// Number of the run, from 0; the restart count.
    pub run: u32,
    pub state: ContainerReportState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ContainerReportState {
    Started {
        pid: i32,
        unix_ms: i64,
    },
    /// Ended; `restart_after_ms` says when it will be started again, `None` that it will not.
    Exited {
        exit: ExitEvent,
        restart_after_ms: Option<u64>,
    },
    /// Could not be started.
    Failed {
        reason: String,
        restart_after_ms: Option<u64>,
    },
}

/// How a check of a machine or container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Its name in [`MachineSpec::checks`].
    pub check: String,
    pub status: Health,
    /// Cut at 1 KiB.
    pub output: String,
    pub unix_ms: i64,
}

/// What a machine uses, as its own kernel counts (in class `container` its cgroup).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Statistics {
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    /// Since the boot.
    pub cpu_ns: u64,
    pub disk_read_bytes: u64,
    pub disk_write_bytes: u64,
    pub network_receive_bytes: u64,
    pub network_send_bytes: u64,
    pub processes: u32,
    /// By container.
    pub containers: BTreeMap<String, ContainerStatistics>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct ContainerStatistics {
    pub memory_bytes: u64,
    pub cpu_ns: u64,
    pub processes: u32,
    /// Of its writable layer.
    pub disk_used_bytes: u64,
}

/// A process to run beside a container's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub container: String,
    pub command: Vec<String>,
    /// Added to the container's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub tty: bool,
    /// Whether standard input is connected (else it is empty).
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub size: Option<TerminalSize>,
    /// Run it beside the containers instead, in the machine's own file system. Only virtual
    /// machines can.
    #[serde(default)]
    pub machine: bool,
}

/// Guest to host, last message of an exec or attach stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum ExecEnd {
    /// 128 and the signal's number after a signal.
    Exited {
        exit_code: i32,
    },
    Failed {
        reason: String,
    },
}

/// Everything that the guest needs to know to run its containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub machine_id: String,
    pub hostname: String,
    pub network: Network,
    pub containers: Vec<ContainerSpec>,
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    #[serde(default)]
    pub directories: Vec<DirectorySpec>,
    #[serde(default)]
    pub checks: Vec<CheckSpec>,
    /// Milliseconds since 1970 on the host, for guests without a clock of their own.
    pub unix_ms: i64,
}

/// The machine's only interface, `eth0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub ipv6: Ipv6Addr,
    pub gateway_v6: Ipv6Addr,
    pub ipv4: Ipv4Addr,
    pub gateway_v4: Ipv4Addr,
    pub mtu: u32,
    /// For `/etc/resolv.conf`.
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    /// As resolv.conf(5) has them: `ndots:2`, `edns0`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Lines beyond the usual ones for `/etc/hosts`: address and names.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// One container, with image defaults already merged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub working_dir: String,
    /// As in an image's configuration: empty, `name`, `uid`, `name:group` or `uid:gid`.
    pub user: String,
    pub tty: bool,
    pub stdin: bool,
    pub restart: Restart,
    pub stop_signal: Option<String>,
    pub depends_on: Vec<crate::machine::DependsOn>,
    pub files: Vec<FileSpec>,
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// Serial number of the disk that holds the read-only image (VM classes).
    pub image_disk: String,
    /// Serial number of the disk that holds the writable layer, ext4 (VM classes).
    pub upper_disk: String,
}

/// A disk with a file system that outlives the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// What [`MountSpec::source`] calls it.
    pub name: String,
    /// Serial number of the disk (VM classes).
    pub disk: String,
    /// File on the host that holds the file system (class `container`).
    pub file: String,
}

/// A directory that containers share, empty at each boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySpec {
    /// What [`MountSpec::source`] calls it.
    pub name: String,
    /// In memory instead of on the disk of the first container's writable layer.
    pub memory: bool,
    /// 0: no bound of its own.
    pub size_bytes: u64,
}

/// A volume or shared directory in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Name of a volume or directory of the machine.
    pub source: String,
    /// Inside of it; made if it is missing. Relative and without `..`, or empty.
    #[serde(default)]
    pub sub_path: String,
    /// Absolute, without `..`.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

/// A check that the guest makes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Unique in the machine; a container's is `<container>/<check>`.
    pub name: String,
    /// Whose health it is; `None` for the machine's own.
    pub container: Option<String>,
    pub probe: Probe,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// After the (container's) start, in which failures do not count.
    pub grace_ms: u64,
    /// Successes in a row that make it passing.
    pub success_threshold: u32,
    /// Failures in a row that make it critical.
    pub failure_threshold: u32,
    /// Stop the container when it is critical; its restart policy decides.
    pub stop_when_critical: bool,
}

/// What a check does. Ports are those of the machine; it connects to `::1`, `127.0.0.1` or its own
/// address, whichever answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum Probe {
    Tcp {
        port: u16,
    },
    /// Passes with a status of 200 to 399.
    Http {
        port: u16,
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        /// `https`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<ProbeTls>,
    },
    /// Passes with exit code 0. Runs in the check's container, or in the machine's first.
    Exec {
        command: Vec<String>,
    },
}

/// How a check speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeTls {
    /// Asked for and verified; empty: the address.
    pub server_name: String,
    /// Whether an authority that the container's image trusts must vouch for the certificate.
    pub verify: bool,
}

/// A file to write before the container starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute, without `..`.
    pub path: String,
    /// base64.
    pub content: String,
    pub mode: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Option<Result<Frame, Malformed>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        Some(Frame::decode_header(*header).map(|(kind, length)| Frame {
            kind,
            payload: rest[..length.min(rest.len())].to_vec(),
        }))
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let header = [0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(
            Frame::decode_header(header),
            Err(Malformed::TooLong { .. })
        ));
        assert!(matches!(
            Frame::decode_header([0, 0, 0, 0, 9]),
            Err(Malformed::Kind(9))
        ));
        let long = Frame::data(FrameKind::Stdout, vec![0; FRAME_BYTES_MAX + 1]);
        assert!(long.encode().is_err());
    }

    #[test]
    fn messages_keep_their_meaning() {
        let open = Open::Control {
            version: VERSION,
            resume: None,
        };
        assert_eq!(Frame::message(&open).parse::<Open>().unwrap(), open);
        assert!(
            Frame::data(FrameKind::Stdin, *b"{}")
                .parse::<Open>()
                .is_err()
        );
    }

    #[test]
    fn a_log_chunk_survives_the_way_there_and_back() {
        let chunk = LogChunk {
            container: "web".into(),
            run: 3,
            stderr: true,
            unix_ns: 12,
            bytes: vec![0xff, b'\n'],
        };
        assert_eq!(LogChunk::from_frame(&chunk.to_frame()), Some(chunk));
    }

    proptest! {
        #[test]
        fn frames_survive_the_way_there_and_back(kind in 0u8..7, payload: Vec<u8>) {
            let kind = FrameKind::from_byte(kind).unwrap();
            let frame = Frame { kind, payload };
            prop_assert_eq!(decode(&frame.encode().unwrap()).unwrap().unwrap(), frame);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(Ok(frame)) = decode(&bytes) {
                let _ = frame.parse::<Open>();
                let _ = frame.parse::<GuestMessage>();
                let _ = frame.parse::<HostMessage>();
                let _ = LogChunk::from_frame(&frame);
            }
        }
    }
}
