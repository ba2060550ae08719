//! Containers in a guest: an overlay as root, mounts and PIDs of their own, everything else shared.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use guest::environment::{Terminal, candidates, environment};
use guest::files::files;
use guest::mounts::{Sources, make_directories, mount_all};
use guest::root::Root;
use guest::runtime::RunEnd;
use guest::stdio::{self, ChildIo};
use guest::user::{self, User};
use guest::{Alive, ExitStatus, Process, ProcessIo, Reaper, Runtime, RuntimeError, signal};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::sethostname;
use types::api::ProcessStat;
use types::guest::{ContainerSpec, ExecRequest, MachineSpec, Statistics};

use crate::plan::{self, Place, Plan};
use crate::{disks, enter, groups, mounts, network, statistics, sys};

const CONTAINERS: &str = "/containers";
const VOLUMES: &str = "/volumes";
/// Those in memory; the others are on a container's disk.
const DIRECTORIES: &str = "/directories";

/// A guest's clock further off than this is set; hypervisors give most guests a good one.
const CLOCK_OFF_MS_MAX: i128 = 5_000;

const SIGKILL: i32 = 9;

/// The runtime of the VM classes.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    /// Held while a helper is started: its end of the conversation is not close-on-exec then.
    starting: Mutex<()>,
    /// The kernel's count of out-of-memory kills when each container's run began.
    oom_kills: Mutex<BTreeMap<String, u64>>,
    /// What is to be at /dev/shm in a container that does not get its own.
    shared_memory: Mutex<BTreeMap<String, PathBuf>>,
    /// Where each volume is mounted.
    volumes: Mutex<BTreeMap<String, PathBuf>>,
}

pub(crate) fn base(container: &str) -> PathBuf {
    Path::new(CONTAINERS).join(container)
}

impl Runtime for Containers {
    fn prepare(&self, spec: &MachineSpec) -> Result<(), RuntimeError> {
        if clock_is_off(spec.unix_ms) {
            set_clock(spec.unix_ms)?;
        }
        sethostname(&spec.hostname)
            .map_err(|errno| RuntimeError::new("set the host name", errno))?;
        network::bring_up(&spec.network)?;
        for container in &spec.containers {
            let name = &container.name;
            check_name(name)?;
            let disk = |serial: &str| {
                let doing = format!("find a disk of container `{name}`");
                disks::wait_for(serial).map_err(|source| RuntimeError::new(doing, source))
            };
            let (image, upper) = (disk(&container.image_disk)?, disk(&container.upper_disk)?);
            mounts::mount_container(&base(name), &image, &upper).map_err(|source| {
                RuntimeError::new(format!("mount the root of container `{name}`"), source)
            })?;
        }
        self.mount_shared(spec)
    }

    fn start(
        &self,
        reaper: &Reaper,
        machine: &MachineSpec,
        container: &ContainerSpec,
        _run: u32,
    ) -> Result<Process, RuntimeError> {
        let root = open_root(container)?;
        let files = files(machine, &container.files)
            .map_err(|source| RuntimeError::new("read the container's files", source))?;
        for file in files {
            root.write(&file.path, &file.content, file.mode)
                .map_err(|source| RuntimeError::new(format!("write {}", file.path), source))?;
        }
        let shared_memory = self.lock_shared_memory().get(&container.name).cloned();
        let place = Place::New {
            root: base(&container.name).join("root").to_string_lossy().into(),
            shared_memory: shared_memory.map(|path| path.to_string_lossy().into()),
        };
        let user = user::find(&root, &container.user)?;
        let plan = make_plan(user, Some(container), &container.command, place, None);
        let kills = groups::oom_kills(&container.name);
        self.lock_oom_kills().insert(container.name.clone(), kills);
        let io = make_io(container.tty, container.stdin, None)?;
        self.spawn(reaper, &plan, Some(&container.name), io)
    }

    fn exec(
        &self,
        reaper: &Reaper,
        container: &ContainerSpec,
        main: i32,
        request: &ExecRequest,
    ) -> Result<Process, RuntimeError> {
        let root = open_root(container)?;
        let place = Place::Existing { main };
        let user = user::find(&root, &container.user)?;
        let plan = make_plan(
            user,
            Some(container),
            &request.command,
            place,
            Some(request),
        );
        let io = make_io(request.tty, request.stdin, request.size)?;
        self.spawn(reaper, &plan, Some(&container.name), io)
    }

    /// In the initial RAM file system, which holds little; containers are below /containers.
    fn exec_beside(&self, reaper: &Reaper, request: &ExecRequest) -> Result<Process, RuntimeError> {
        let root = User {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
        };
        let plan = make_plan(root, None, &request.command, Place::Beside, Some(request));
        let io = make_io(request.tty, request.stdin, request.size)?;
        self.spawn(reaper, &plan, None, io)
    }

    fn resume(&self, unix_ms: i64, entropy: &[u8]) -> Result<(), RuntimeError> {
        set_clock(unix_ms)?;
        sys::reseed(entropy)
            .map_err(|source| RuntimeError::new("reseed the random number generator", source))
    }

    fn volume(&self, name: &str) -> Result<OwnedFd, RuntimeError> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        guest::mounts::open_mounted(volumes.get(name))
    }

    fn processes(&self, _: &[Alive]) -> Result<Vec<ProcessStat>, RuntimeError> {
        statistics::processes().map_err(|source| RuntimeError::new("list processes", source))
    }

    fn statistics(&self, _: &[Alive]) -> Result<Statistics, RuntimeError> {
        statistics::statistics(Path::new(CONTAINERS))
            .map_err(|source| RuntimeError::new("read statistics", source))
    }

    fn root(&self, container: &ContainerSpec) -> Result<Root, RuntimeError> {
        open_root(container)
    }

    fn signal(&self, _: &ContainerSpec, main: i32, number: i32) -> Result<(), RuntimeError> {
        let doing = || format!("send signal {number} to process {main}");
        signal::send(main, number).map_err(|source| RuntimeError::new(doing(), source))
    }

    /// The main process is process 1 of its namespace: the others end with it.
    fn kill(&self, container: &ContainerSpec, main: i32) -> Result<(), RuntimeError> {
        self.signal(container, main, SIGKILL)
    }

    fn ended(&self, container: &ContainerSpec, _run: u32, status: ExitStatus) -> RunEnd {
        let before = self.lock_oom_kills().remove(&container.name);
        let has_grown = before.is_some_and(|before| groups::oom_kills(&container.name) > before);
        RunEnd {
            oom_killed: has_grown && status != ExitStatus::Code(0),
        }
    }
}

impl Containers {
    /// Mounts volumes and directories once, and then into every container that wants them. Their
    /// processes see it when they leave with their own mounts.
    fn mount_shared(&self, spec: &MachineSpec) -> Result<(), RuntimeError> {
        let mut sources = Sources::new();
        for (number, volume) in spec.volumes.iter().enumerate() {
            let path = Path::new(VOLUMES).join(number.to_string());
            let mounted =
                disks::wait_for(&volume.disk).and_then(|disk| mounts::mount_volume(&disk, &path));
            mounted.map_err(|source| {
                RuntimeError::new(format!("mount volume `{}`", volume.name), source)
            })?;
            let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
            volumes.insert(volume.name.clone(), path.clone());
            sources.insert(volume.name.clone(), path);
        }
        if let Some(first) = spec.containers.first() {
            let on_disk = base(&first.name).join("layer/directories");
            let made = make_directories(&spec.directories, &on_disk, Path::new(DIRECTORIES))?;
            sources.extend(made);
        }
        for container in &spec.containers {
            let root = open_root(container)?;
            let staging = base(&container.name).join("mounts");
            let mounted = mount_all(&root, &sources, &staging, &container.mounts)?;
            let mut shared_memory = self.lock_shared_memory();
            shared_memory.extend(
                mounted
                    .shared_memory
                    .map(|path| (container.name.clone(), path)),
            );
        }
        Ok(())
    }

    fn lock_shared_memory(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PathBuf>> {
        // Every change is one call of the map.
        self.shared_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_oom_kills(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        // Every change is one call of the map.
        self.oom_kills
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a helper that becomes what the plan says, in the group of a container.
    fn spawn(
        &self,
        reaper: &Reaper,
        plan: &Plan,
        container: Option<&str>,
        (ours, theirs): (ProcessIo, ChildIo),
    ) -> Result<Process, RuntimeError> {
        let name = plan.arguments.first().map_or("", String::as_str);
        let failed = |source: io::Error| RuntimeError::new(format!("start `{name}`"), source);
        let (mut stream, helper_end) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(enter::VERB)
            .arg(helper_end.as_raw_fd().to_string());
        command.env_clear();
        theirs.give_to(&mut command).map_err(failed)?;
        {
            let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
            fcntl(&helper_end, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| failed(e.into()))?;
            let spawned = reaper.spawn(&mut command).map_err(failed);
            drop(helper_end);
            // Nobody needs to know how the helper ends.
            drop(spawned?);
        }
        // The terminal's or pipes' other ends are the process's alone.
        drop(command);
        plan::send_plan(&mut stream, plan).map_err(failed)?;
        let pid = plan::receive_pid(&mut stream).map_err(failed)?;
        let exit = reaper.watch(pid);
        if let Some(container) = container {
            groups::join(container, pid).map_err(failed)?;
        }
        plan::go(&mut stream).map_err(failed)?;
        Ok(Process {
            pid,
            exit,
            io: ours,
        })
    }
}

/// Names become directories.
fn check_name(name: &str) -> Result<(), RuntimeError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain) {
        return Ok(());
    }
    let doing = format!("make a directory for container `{name}`");
    Err(RuntimeError::new(doing, "this is no name of a container"))
}

fn open_root(container: &ContainerSpec) -> Result<Root, RuntimeError> {
    let path = base(&container.name).join("root");
    let doing = "open the container's root";
    Root::open(&path).map_err(|source| RuntimeError::new(doing, source))
}

fn make_io(
    tty: bool,
    stdin: bool,
    size: Option<types::api::TerminalSize>,
) -> Result<(ProcessIo, ChildIo), RuntimeError> {
    let io = if tty {
        stdio::pty(size)
    } else {
        stdio::pipes(stdin)
    };
    io.map_err(|source| RuntimeError::new("make standard streams", source))
}

/// `container` is `None` for what runs beside them.
fn make_plan(
    user: User,
    container: Option<&ContainerSpec>,
    command: &[String],
    place: Place,
    request: Option<&ExecRequest>,
) -> Plan {
    let tty = request.map_or_else(
        || container.is_some_and(|container| container.tty),
        |request| request.tty,
    );
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    let nothing = BTreeMap::new();
    let environment = environment(
        container.map_or(&nothing, |container| &container.env),
        request.map_or(&nothing, |request| &request.env),
        &user.home,
        &hostname.to_string_lossy(),
        if tty { Terminal::Yes } else { Terminal::No },
    );
    let program = command.first().map_or("", String::as_str);
    let directory = container.map_or("", |container| &container.working_dir);
    Plan {
        place,
        candidates: candidates(program, &environment),
        arguments: command.to_vec(),
        environment,
        directory: match directory {
            "" => "/".to_owned(),
            directory => directory.to_owned(),
        },
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        tty,
    }
}

fn clock_is_off(unix_ms: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| i128::try_from(now.as_millis()).unwrap_or(0));
    (now_ms - i128::from(unix_ms)).abs() > CLOCK_OFF_MS_MAX
}

fn set_clock(unix_ms: i64) -> Result<(), RuntimeError> {
    let seconds = unix_ms.div_euclid(1000);
    let nanoseconds = unix_ms.rem_euclid(1000) * 1_000_000;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, nanoseconds))
        .map_err(|errno| RuntimeError::new("set the clock", errno))
}

/// Takes all mounts apart. What fails is logged: the file systems are journalled.
pub(crate) fn unmount_all() {
    for path in [CONTAINERS, VOLUMES, DIRECTORIES] {
        mounts::unmount_below(Path::new(path));
    }
}
