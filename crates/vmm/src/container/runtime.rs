//! [`guest::Runtime`] with libcontainer: what supervision asks for, done through helpers.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest::environment::{Terminal, environment};
use guest::files::files;
use guest::mounts::{Sources, make_directories, mount_all, open_mounted};
use guest::root::Root;
use guest::stdio::{self, ChildIo};
use guest::{
    Alive, ExitStatus, Process, ProcessIo, Reaper, RunEnd, Runtime, RuntimeError, signal, user,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use tracing::warn;
use types::api::{ProcessStat, TerminalSize};
use types::guest::{ContainerSpec, ExecRequest, MachineSpec, Statistics};

use super::helper::{Channel, Go, Reply, Request, Waiting};
use super::{child_group, oci, statistics};
use crate::cgroup::Group;
use crate::mount::mount_volume;
use crate::paths::{BootDir, remove};
use crate::shim::through_dir;
use crate::sys;

/// libcontainer needs some 10 ms; a loaded host may need much longer.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
const CONSOLE_TIMEOUT_MS: u16 = 5_000;
const TERMINAL_SIZE: TerminalSize = TerminalSize {
    width: 80,
    height: 24,
};

/// The containers of one machine.
#[derive(Debug)]
pub(super) struct Libcontainer {
    /// Bundles, and what libcontainer keeps.
    dir: PathBuf,
    program: PathBuf,
    group: Group,
    netns: PathBuf,
    hostname: String,
    /// Mounted root of each container.
    roots: BTreeMap<String, PathBuf>,
    /// For the first start.
    waiting: Mutex<Option<Waiting>>,
    /// What is to be at /dev/shm in a container that does not get its own.
    shared_memory: Mutex<BTreeMap<String, PathBuf>>,
    /// Where each volume is mounted.
    volumes: Mutex<BTreeMap<String, PathBuf>>,
    /// Makes names of files that several calls may need at a time.
    calls: AtomicU64,
}

fn working_dir(container: &ContainerSpec) -> &str {
    match container.working_dir.as_str() {
        "" => "/",
        path => path,
    }
}

/// Something that did not work, before it is known what for.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Libcontainer {
    pub(super) fn new(
        dir: &BootDir,
        program: PathBuf,
        group: Group,
        netns: PathBuf,
        hostname: String,
        roots: BTreeMap<String, PathBuf>,
        waiting: Waiting,
    ) -> io::Result<Self> {
        let dir = dir.oci();
        fs::create_dir_all(dir.join("state"))?;
        Ok(Self {
            dir,
            program,
            group,
            netns,
            hostname,
            roots,
            waiting: Mutex::new(Some(waiting)),
            shared_memory: Mutex::default(),
            volumes: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn root_path(&self, container: &str) -> Result<&Path, Failure> {
        let root = self.roots.get(container);
        Ok(root.ok_or(format!("there is no container {container}"))?)
    }

    /// Mounts volumes and directories once, and then into the root of every container that wants
    /// them, where libcontainer finds them: it takes the root with all mounts below.
    fn mount_shared(&self, spec: &MachineSpec) -> Result<(), RuntimeError> {
        let shared = self.dir.join("shared");
        let mut sources = Sources::new();
        for (number, volume) in spec.volumes.iter().enumerate() {
            let path = shared.join("volumes").join(number.to_string());
            mount_volume(Path::new(&volume.file), &path).map_err(|error| {
                RuntimeError::new(format!("mount volume `{}`", volume.name), error)
            })?;
            let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
            volumes.insert(volume.name.clone(), path.clone());
            sources.insert(volume.name.clone(), path);
        }
        let first = spec
            .containers
            .first()
            .and_then(|one| self.roots.get(&one.name));
        if let Some(base) = first.and_then(|root| root.parent()) {
            let on_disk = base.join("upper/directories");
            let in_memory = shared.join("memory");
            sources.extend(make_directories(&spec.directories, &on_disk, &in_memory)?);
        }
        for container in &spec.containers {
            let root = self.root(container)?;
            let staging = shared.join("stage").join(&container.name);
            let mounted = mount_all(&root, &sources, &staging, &container.mounts)?;
            if let Some(path) = mounted.shared_memory {
                let mut all = self
                    .shared_memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                all.insert(container.name.clone(), path);
            }
        }
        Ok(())
    }

    /// Forgets a run: what libcontainer knows, and the group with its counters.
    fn clear(&self, container: &str) -> Result<(), Failure> {
        self.group.kill_child(&child_group(container))?;
        self.group.remove_child(&child_group(container))?;
        remove(&self.state().join(container))?;
        Ok(())
    }

    fn process<'a>(
        &self,
        container: &'a ContainerSpec,
        command: &'a [String],
        extra: &BTreeMap<String, String>,
        tty: Option<TerminalSize>,
    ) -> Result<oci::Process<'a>, Failure> {
        let root = Root::open(self.root_path(&container.name)?)?;
        let user = user::find(&root, &container.user)?;
        let terminal = match tty {
            Some(_) => Terminal::Yes,
            None => Terminal::No,
        };
        let hostname = &self.hostname;
        let env = environment(&container.env, extra, &user.home, hostname, terminal);
        Ok(oci::Process {
            command,
            env: env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            working_dir: working_dir(container),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            tty: tty.is_some(),
            size: tty,
        })
    }

    /// Writes what the container is to find when it starts.
    fn furnish(&self, machine: &MachineSpec, container: &ContainerSpec) -> Result<(), Failure> {
        let root = Root::open(self.root_path(&container.name)?)?;
        for file in files(machine, &container.files)? {
            root.write(&file.path, &file.content, file.mode)?;
        }
        root.make_directory(working_dir(container))?;
        Ok(())
    }

    fn try_start(
        &self,
        reaper: &Reaper,
        machine: &MachineSpec,
        container: &ContainerSpec,
    ) -> Result<Process, Failure> {
        let name = &container.name;
        self.clear(name)?;
        let root = self.root_path(name)?;
        self.furnish(machine, container)?;
        let tty = container.tty.then_some(TERMINAL_SIZE);
        let process = self.process(container, &container.command, &BTreeMap::new(), tty)?;
        let child = child_group(name);
        let tasks = self.group.create_child(&child)?;
        let shared_memory = {
            let all = self
                .shared_memory
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.get(name).cloned()
        };
        let config = oci::Container {
            root,
            hostname: &machine.hostname,
            netns: &self.netns,
            group: &self.group.relative().join(child),
            shared_memory: shared_memory.as_deref(),
            is_limited: !tasks.is_empty(),
        };
        let bundle = self.dir.join("bundle").join(name);
        fs::create_dir_all(&bundle)?;
        let config = serde_json::to_vec(&config.to_json(&process))?;
        fs::write(bundle.join("config.json"), config)?;
        let request = |console| Request::Create {
            id: name.clone(),
            state: self.state(),
            bundle,
            tasks: tasks.clone(),
            console,
        };
        self.run(reaper, container.stdin, tty.is_some(), request)
    }

    fn try_exec(
        &self,
        reaper: &Reaper,
        container: &ContainerSpec,
        request: &ExecRequest,
    ) -> Result<Process, Failure> {
        let tty = request.tty.then(|| request.size.unwrap_or(TERMINAL_SIZE));
        let process = self.process(container, &request.command, &request.env, tty)?;
        let tasks = self.group.tasks(&child_group(&container.name));
        let path = self.unique("process.json");
        fs::write(&path, serde_json::to_vec(&process.to_json())?)?;
        let run = self.run(reaper, request.stdin, request.tty, |console| {
            Request::Exec {
                id: container.name.clone(),
                state: self.state(),
                process: path.clone(),
                tasks,
                console,
            }
        });
        remove(&path)?;
        run
    }

    fn unique(&self, name: &str) -> PathBuf {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{call}-{name}"))
    }

    /// Has a helper make a process, and watches it.
    fn run(
        &self,
        reaper: &Reaper,
        stdin: bool,
        tty: bool,
        request: impl FnOnce(Option<PathBuf>) -> Request,
    ) -> Result<Process, Failure> {
        let helper = self.helper(reaper)?;
        let (io, streams) = if tty {
            let null = || OpenOptions::new().read(true).write(true).open("/dev/null");
            let streams = [null()?, null()?, null()?].map(OwnedFd::from);
            let console = Console::listen(self.unique("tty.sock"))?;
            (Io::Terminal(console), streams)
        } else {
            let (io, child): (ProcessIo, ChildIo) = stdio::pipes(stdin)?;
            (Io::Pipes(io), child.streams()?)
        };
        helper.stream.set_read_timeout(Some(HELPER_TIMEOUT))?;
        let mut channel = Channel::new(helper.stream);
        let console = match &io {
            Io::Terminal(console) => Some(console.path.clone()),
            Io::Pipes(_) => None,
        };
        let talk = || {
            channel.give_streams(streams)?;
            talk(&mut channel, &request(console), reaper, io)
        };
        talk().inspect_err(|_| {
            // It may hang. If it has ended, nobody else can have its number: it is our child
            // until it is reaped, and then the call does nothing or hits a group member at worst.
            let pid = helper.pid.as_raw();
            if Path::new(&format!("/proc/{pid}")).exists() {
                let _ = signal::send(pid, libc::SIGKILL);
            }
        })
    }

    /// The one that waits, or a new one.
    fn helper(&self, reaper: &Reaper) -> Result<Waiting, Failure> {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            return Ok(waiting);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(["container", "--fd", &theirs.as_raw_fd().to_string()]);
        for set in [Command::stdin, Command::stdout, Command::stderr] {
            set(&mut command, Stdio::null());
        }
        sys::keep_fds(&mut command, vec![theirs.as_raw_fd()]);
        let (helper, _) = reaper.spawn(&mut command)?;
        Ok(Waiting {
            pid: Pid::from_raw(i32::try_from(helper.id())?),
            stream: ours,
        })
    }
}

/// Where the streams of a process come from.
enum Io {
    Pipes(ProcessIo),
    Terminal(Console),
}

fn talk(
    channel: &mut Channel,
    request: &Request,
    reaper: &Reaper,
    io: Io,
) -> Result<Process, Failure> {
    channel.send(request)?;
    let pid = match channel.receive()? {
        Reply::Pid { pid } => pid,
        Reply::Started => return Err("the helper is out of order".into()),
        Reply::Failed { reason } => return Err(reason.into()),
    };
    let exit = reaper.watch(pid);
    let io = match io {
        Io::Pipes(io) => io,
        Io::Terminal(console) => console.receive()?,
    };
    channel.send(&Go)?;
    match channel.receive()? {
        Reply::Started => Ok(Process { pid, exit, io }),
        Reply::Pid { .. } => Err("the helper is out of order".into()),
        Reply::Failed { reason } => Err(reason.into()),
    }
}

/// The socket through which libcontainer hands over a terminal that it made in the container.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn listen(path: PathBuf) -> io::Result<Self> {
        let listener = through_dir(&path, UnixListener::bind)?;
        Ok(Self { path, listener })
    }

    fn receive(self) -> io::Result<ProcessIo> {
        wait(&self.listener)?;
        let (stream, _) = self.listener.accept()?;
        wait(&stream)?;
        let [controller] = sys::receive_fds(&stream)?;
        Ok(ProcessIo::Pty { controller })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Until there is something to read.
fn wait(fd: &impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(CONSOLE_TIMEOUT_MS))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

impl Runtime for Libcontainer {
    /// The network is there before the boot, roots were mounted with the body, and the clock is
    /// the host's.
    fn prepare(&self, spec: &MachineSpec) -> Result<(), RuntimeError> {
        self.mount_shared(spec)
    }

    fn volume(&self, name: &str) -> Result<OwnedFd, RuntimeError> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        open_mounted(volumes.get(name))
    }

    fn start(
        &self,
        reaper: &Reaper,
        machine: &MachineSpec,
        container: &ContainerSpec,
        _run: u32,
    ) -> Result<Process, RuntimeError> {
        self.try_start(reaper, machine, container).map_err(|error| {
            if let Err(error) = self.clear(&container.name) {
                warn!(
                    error,
                    container = container.name,
                    "something of a container is left"
                );
            }
            RuntimeError::new(format!("start container {}", container.name), error)
        })
    }

    fn exec(
        &self,
        reaper: &Reaper,
        container: &ContainerSpec,
        _main: i32,
        request: &ExecRequest,
    ) -> Result<Process, RuntimeError> {
        self.try_exec(reaper, container, request)
            .map_err(|error| RuntimeError::new(format!("exec in {}", container.name), error))
    }

    fn exec_beside(&self, _: &Reaper, _: &ExecRequest) -> Result<Process, RuntimeError> {
        let why = "a machine of class container has no file system beside its containers'";
        Err(RuntimeError::new(
            "run a process beside the containers",
            why,
        ))
    }

    fn resume(&self, _unix_ms: i64, _entropy: &[u8]) -> Result<(), RuntimeError> {
        let why = "a machine of class container cannot be suspended";
        Err(RuntimeError::new("go on after a suspension", why))
    }

    fn processes(&self, alive: &[Alive]) -> Result<Vec<ProcessStat>, RuntimeError> {
        statistics::processes(&self.group, alive)
            .map_err(|error| RuntimeError::new("list processes", error))
    }

    fn statistics(&self, alive: &[Alive]) -> Result<Statistics, RuntimeError> {
        statistics::statistics(&self.group, &self.roots, alive)
            .map_err(|error| RuntimeError::new("read statistics", error))
    }

    /// A socket belongs to the network of the thread that makes it, so that takes one of its own.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let netns = fs::File::open(&self.netns)?;
        let connecting = std::thread::Builder::new()
            .name("check".into())
            .spawn(move || {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                TcpStream::connect_timeout(&address, timeout)
            })?;
        let panicked = |_| io::Error::other("the thread panicked");
        connecting.join().map_err(panicked)?
    }

    fn root(&self, container: &ContainerSpec) -> Result<Root, RuntimeError> {
        let open = || Ok::<_, Failure>(Root::open(self.root_path(&container.name)?)?);
        open().map_err(|error| RuntimeError::new("open the container's root", error))
    }

    fn signal(
        &self,
        _container: &ContainerSpec,
        main: i32,
        number: i32,
    ) -> Result<(), RuntimeError> {
        signal::send(main, number)
            .map_err(|error| RuntimeError::new(format!("send signal {number}"), error))
    }

    fn kill(&self, container: &ContainerSpec, _main: i32) -> Result<(), RuntimeError> {
        self.group
            .kill_child(&child_group(&container.name))
            .map_err(|error| RuntimeError::new(format!("kill container {}", container.name), error))
    }

    fn ended(&self, container: &ContainerSpec, _run: u32, status: ExitStatus) -> RunEnd {
        let kills = self.group.oom_kills(&child_group(&container.name));
        let oom_killed = kills > 0 && status != ExitStatus::Code(0);
        if let Err(error) = self.clear(&container.name) {
            warn!(
                error,
                container = container.name,
                "something of a container is left"
            );
        }
        RunEnd { oom_killed }
    }
}
