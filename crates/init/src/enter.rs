//! `init enter`: a fresh process with one thread that becomes a process of a container.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, execve, setgid, setgroups, setsid, setuid};

use crate::plan::{Place, Plan, receive_plan};
use crate::sys::{Forked, default_sigpipe, fork_alone, inherited, take_terminal};
use crate::{console, mounts};

/// The argument that makes `init` this.
pub(crate) const VERB: &str = "enter";

/// Open files of a process: the kernel gives PID 1 a hard limit of 4096, too few for servers; more
/// than this as the soft limit slows programs that close every descriptor there may be.
const FILES_SOFT: u64 = 65_536;
const FILES_HARD: u64 = 1_048_576;

/// Which step on the way into the container failed.
#[derive(Debug, thiserror::Error)]
enum EnterError {
    #[error("cannot {doing}")]
    Step {
        doing: &'static str,
        source: io::Error,
    },
    #[error("cannot enter working directory {path}")]
    Directory { path: String, source: io::Error },
    #[error("there is no program `{program}` in the container's PATH")]
    NoProgram { program: String },
    #[error("cannot run {program}")]
    Run { program: String, source: Errno },
    #[error("a NUL byte in the command or environment")]
    Nul,
}

fn step<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> EnterError {
    move |source| EnterError::Step {
        doing,
        source: source.into(),
    }
}

/// Returns only if the process did not come into being, or in its parent.
pub(crate) fn main(descriptor: &str) -> ExitCode {
    let mut stream = match connect(descriptor) {
        Ok(stream) => stream,
        Err(error) => {
            console::say(&format!("cannot take orders: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match prepare(&mut stream) {
        Ok((plan, Forked::Child)) => {
            let error = match become_process(&mut stream, &plan) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // PID 1 may have given up listening.
            let _ = stream.write_all(types::chain(&error).as_bytes());
            ExitCode::FAILURE
        }
        Ok((_, Forked::Parent { child })) => {
            let _ = stream.write_all(&child.to_le_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = stream.write_all(&0i32.to_le_bytes());
            let _ = stream.write_all(types::chain(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn connect(descriptor: &str) -> io::Result<UnixStream> {
    let number = descriptor.parse().map_err(io::Error::other)?;
    let stream = UnixStream::from(inherited(number)?);
    fcntl(&stream, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(stream)
}

fn prepare(stream: &mut UnixStream) -> Result<(Plan, Forked), EnterError> {
    let plan = receive_plan(stream).map_err(step("read orders"))?;
    match plan.place {
        Place::New { .. } => unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
            .map_err(step("make namespaces"))?,
        Place::Existing { main } => join(main)?,
        Place::Beside => {}
    }
    let forked = fork_alone().map_err(step("fork"))?;
    Ok((plan, forked))
}

fn join(main: i32) -> Result<(), EnterError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let namespace = |kind: &str| {
        let path = format!("/proc/{main}/ns/{kind}");
        open(path.as_str(), flags, Mode::empty()).map_err(step("find the container's namespaces"))
    };
    // Both before the first is entered: /proc is another one there.
    let (pids, mounts) = (namespace("pid")?, namespace("mnt")?);
    setns(pids, CloneFlags::CLONE_NEWPID).map_err(step("enter the container's PID namespace"))?;
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(step("enter the container's mounts"))
}

fn become_process(stream: &mut UnixStream, plan: &Plan) -> Result<Infallible, EnterError> {
    // Not before PID 1 watches this process.
    stream
        .read_exact(&mut [0])
        .map_err(step("wait for the word"))?;
    match &plan.place {
        Place::New {
            root,
            shared_memory,
        } => {
            let shared_memory = shared_memory.as_deref().map(Path::new);
            mounts::enter_root(Path::new(root), shared_memory)
                .map_err(step("mount the container's root"))?;
        }
        Place::Existing { .. } | Place::Beside => {}
    }
    setsid().map_err(step("begin a session"))?;
    if plan.tty {
        take_terminal().map_err(step("take the terminal"))?;
    }
    let directory = |source| EnterError::Directory {
        path: plan.directory.clone(),
        source,
    };
    // Images name working directories that their layers do not have.
    std::fs::create_dir_all(&plan.directory).map_err(directory)?;
    setrlimit(Resource::RLIMIT_NOFILE, FILES_SOFT, FILES_HARD)
        .map_err(step("raise the limit of open files"))?;
    let groups: Vec<_> = plan.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(step("set groups"))?;
    setgid(Gid::from_raw(plan.gid)).map_err(step("set group"))?;
    setuid(Uid::from_raw(plan.uid)).map_err(step("set user"))?;
    chdir(plan.directory.as_str()).map_err(|errno| directory(errno.into()))?;
    umask(Mode::from_bits_retain(0o022));
    default_sigpipe().map_err(step("restore SIGPIPE"))?;
    let nothing = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&nothing), None).map_err(step("unblock signals"))?;
    run(plan)
}

fn run(plan: &Plan) -> Result<Infallible, EnterError> {
    let c_string = |text: String| CString::new(text).map_err(|_| EnterError::Nul);
    let arguments = plan.arguments.iter().cloned().map(c_string);
    let arguments: Vec<_> = arguments.collect::<Result<_, _>>()?;
    let variables = plan.environment.iter();
    let variables = variables.map(|(name, value)| c_string(format!("{name}={value}")));
    let variables: Vec<_> = variables.collect::<Result<_, _>>()?;
    let mut error = EnterError::NoProgram {
        program: plan.arguments.first().cloned().unwrap_or_default(),
    };
    for candidate in &plan.candidates {
        let path = c_string(candidate.clone())?;
        let Err(errno) = execve(&path, &arguments, &variables);
        match errno {
            // A lone candidate says which of the two it was.
            Errno::ENOENT | Errno::ENOTDIR if plan.candidates.len() > 1 => {}
            // As shells do: go on, but remember.
            Errno::EACCES => {
                error = EnterError::Run {
                    program: candidate.clone(),
                    source: errno,
                };
            }
            source => {
                let program = candidate.clone();
                return Err(EnterError::Run { program, source });
            }
        }
    }
    Err(error)
}
