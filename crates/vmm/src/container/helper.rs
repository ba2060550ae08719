//! The sub-command `container`: calls libcontainer in a process with one thread, and ends.
//!
//! ```text
//!  shim                                helper
//!   │──── three standard streams ─────►│
//!   │──── Request ────────────────────►│ create or exec: the process exists
//!   │◄─── Reply::Pid ──────────────────│
//!   │ watches the pid                  │ (its parent, so that it cannot be reaped before)
//!   │──── "go" ───────────────────────►│ create only: start
//!   │◄─── Reply::Started ──────────────│ exits; the process becomes a child of the shim
//! ```
//!
//! One JSON message per line, over a socket that the shim made. The standard streams of the helper
//! become those of the process. The first helper of a boot is a fork of the shim from before it had
//! threads; others are this program, started anew.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seccomp::Filtered;
use crate::sys;

/// Where libcontainer looks for control groups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What a thread writes that moves itself.
const MYSELF: &[u8] = b"0";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(super) enum Request {
    /// Makes the container that the bundle describes.
    Create {
        id: String,
        /// Where libcontainer keeps what it knows.
        state: PathBuf,
        bundle: PathBuf,
        /// See [`Membership`]. A shim that is older than its helper does not tell.
        #[serde(default)]
        tasks: Vec<PathBuf>,
        /// Where to send the terminal, if the process has one.
        console: Option<PathBuf>,
    },
    /// Runs the process that the file describes in a running container.
    Exec {
        id: String,
        state: PathBuf,
        process: PathBuf,
        #[serde(default)]
        tasks: Vec<PathBuf>,
        console: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    Pid { pid: i32 },
    Started,
    Failed { reason: String },
}

/// One side of the conversation.
#[derive(Debug)]
pub(super) struct Channel {
    reader: BufReader<UnixStream>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Hands over what are to be the helper's standard streams, first of all.
    pub(super) fn give_streams(&self, streams: [OwnedFd; 3]) -> io::Result<()> {
        sys::send_fds(self.reader.get_ref(), &streams)
    }

    fn take_streams(&self) -> io::Result<()> {
        let [stdin, stdout, stderr] = sys::receive_fds(self.reader.get_ref())?;
        nix::unistd::dup2_stdin(stdin)?;
        nix::unistd::dup2_stdout(stdout)?;
        nix::unistd::dup2_stderr(stderr)?;
        Ok(())
    }

    pub(super) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line)
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// What the shim says when it watches the process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Go;

/// The sub-command `container`. Must be called before there are threads; `args` are those after
/// the sub-command's name.
pub fn container_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let fd = match args.as_slice() {
        [flag, fd] if flag == "--fd" => fd.to_str().and_then(|fd| fd.parse().ok()),
        _ => None,
    };
    let stream = fd.and_then(|fd| sys::inherited_socket(fd).ok());
    let Some(stream) = stream else {
        eprintln!("usage: container --fd <number of an inherited socket>");
        return ExitCode::from(2);
    };
    match converse(stream) {
        Ok(()) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    }
}

/// A helper that was not asked for anything yet. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pid: Pid,
    pub(super) stream: UnixStream,
}

impl Waiting {
    /// Becomes two processes, of which the other one is a helper and never returns: the first
    /// container's start is not to wait for a program to be loaded. Must be called before there
    /// are threads.
    ///
    /// # Errors
    /// If there is no room for another process.
    pub(super) fn fork() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                stream: ours,
            }),
            ForkResult::Child => {
                // The boot's lock, above all: it would outlive its shim.
                let done = sys::close_all_but(&theirs).map_err(drop);
                let done = done.and_then(|()| converse(theirs));
                std::process::exit(i32::from(done.is_err()))
            }
        }
    }
}

/// Serves one request. An error was told to whoever asked.
fn converse(stream: UnixStream) -> Result<(), ()> {
    let mut channel = Channel::new(stream);
    serve(&mut channel).map_err(|error| {
        let reason = types::chain(error.as_ref());
        let _ = channel.send(&Reply::Failed { reason });
    })
}

fn serve(channel: &mut Channel) -> Result<(), Box<dyn Error>> {
    // Rust programs ignore it, and an ignored signal stays ignored in what they start.
    sys::default_sigpipe()?;
    let executor = Filtered::new()?;
    channel.take_streams()?;
    match channel.receive()? {
        Request::Create {
            id,
            state,
            bundle,
            tasks,
            console,
        } => {
            let membership = Membership::enter(&tasks)?;
            let mut container = builder(id, state, console, executor)?
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()?;
            membership.leave()?;
            let pid = container.pid().ok_or("the container has no process")?;
            channel.send(&Reply::Pid { pid: pid.as_raw() })?;
            let Go = channel.receive()?;
            container.start()?;
            channel.send(&Reply::Started)?;
        }
        Request::Exec {
            id,
            state,
            process,
            tasks,
            console,
        } => {
            let membership = Membership::enter(&tasks)?;
            let pid = builder(id, state, console, executor)?
                .as_tenant()
                .with_detach(true)
                .with_process(Some(process))
                .build()?;
            membership.leave()?;
            channel.send(&Reply::Pid { pid: pid.as_raw() })?;
            let Go = channel.receive()?;
            channel.send(&Reply::Started)?;
        }
    }
    Ok(())
}

/// The helper in the control groups of a container, where what it forks begins.
///
/// libcontainer would write the process number instead, for which the kernel stops forks on the
/// whole host and waits until every CPU has been elsewhere: 13 ms, where a thread of version 1 moves
/// itself in a third of one. So it is not let see any groups.
struct Membership {
    /// Of the machine's groups.
    outside: Vec<File>,
}

impl Membership {
    /// `tasks`: as [`Group::create_child`](crate::cgroup::Group::create_child) tells.
    fn enter(tasks: &[PathBuf]) -> io::Result<Self> {
        let mut outside = Vec::new();
        for file in tasks {
            let group = file.parent().and_then(Path::parent);
            let group = group.ok_or(io::ErrorKind::InvalidInput)?;
            let machine = OpenOptions::new().write(true).open(group.join("tasks"))?;
            fs::write(file, MYSELF)?;
            outside.push(machine);
        }
        if !tasks.is_empty() {
            unshare(CloneFlags::CLONE_NEWNS)?;
            umount2(CGROUPS, MntFlags::MNT_DETACH)?;
            // What tells libcontainer that the groups are of version 1.
            let empty = Some("tmpfs");
            mount(empty, CGROUPS, empty, MsFlags::empty(), None::<&str>)?;
        }
        Ok(Self { outside })
    }

    /// So that nothing counts the helper as a process of the container.
    fn leave(self) -> io::Result<()> {
        let mut outside = self.outside.into_iter();
        outside.try_for_each(|mut tasks| tasks.write_all(MYSELF))
    }
}

fn builder(
    id: String,
    state: PathBuf,
    console: Option<PathBuf>,
    executor: Filtered,
) -> Result<ContainerBuilder, Box<dyn Error>> {
    let builder = ContainerBuilder::new(id, SyscallType::default())
        .validate_id()?
        .with_root_path(state)?;
    Ok(builder.with_console_socket(console).with_executor(executor))
}
