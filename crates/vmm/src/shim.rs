//! The process that keeps one boot: `aerostat shim --run-dir <directory> --fd <inherited socket>`.
//!
//! ```text
//!  Local ── starts it ahead ──► stage 1 ── fork ──► stage 2: a session of its own, waits
//!    │                            ▼ ends               │
//!    ├── directory of a boot ─────────────────────────►│ lock held; group, namespaces, roots
//!    ├── "go": the network is there ──────────────────►│ reports open, socket bound
//!    │◄── "up" ────────────────────────────────────────┤
//!    ▼ waits no longer                                 ▼ boot: start body, follow the guest, end
//! ```
//!
//! A shim belongs to nobody: its parent is gone before it does anything, so workers may come and
//! go. One that hears nothing more before it is told to go leaves, and the boot has not begun. It
//! leaves when the boot is over; what it knew is then in its directory. The lock, held for as long
//! as there is work, tells whether it lives, so nobody guesses by process id.

mod boot;
mod namespaces;
mod server;
mod socket;
mod spare;
mod volumes;
mod watchdog;

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::ForkResult;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use types::HostId;

use crate::cgroup::{CpuKind, Limits};
use crate::paths::{BootDir, Paths};
use crate::report_log::ReportLog;
use crate::{BootSpec, FirecrackerPrograms, VmmError, container, sys};

use namespaces::{Namespaces, isolate};
pub(crate) use server::{Answer, REQUEST_BYTES_MAX, Request};
pub(crate) use socket::through_dir;
pub(crate) use spare::{Spares, Told};

/// Changes when the meaning of the file does; a shim refuses versions that it does not know.
pub(crate) const SPEC_VERSION: u16 = 1;
/// Others hold the lock for an instant, to see whether there is a shim.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// What a shim is told when its boot may begin, and what it answers then.
const GO: &str = "go";
const UP: &str = "up";
/// Processes of all containers of a machine, against fork bombs.
const PIDS_MAX: u32 = 4096;
/// What QEMU needs beyond the guest's memory; with TCG its translation cache is most of it.
const VM_OVERHEAD_BYTES: u64 = 512 << 20;

/// What a shim needs to know; written before anything is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShimSpec {
    pub(crate) version: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) guest_dir: PathBuf,
    /// What to boot in place of the kernel in `guest_dir`.
    #[serde(default)]
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) host: HostId,
    /// Program with the sub-command `container`.
    pub(crate) program: PathBuf,
    /// What runs class `microvm`; QEMU if there is none.
    #[serde(default)]
    pub(crate) firecracker: Option<FirecrackerPrograms>,
    pub(crate) boot: BootSpec,
}

impl ShimSpec {
    /// Writes the file so that it is there whole or not at all, and makes the boot's lock.
    pub(crate) fn write(&self, dir: &BootDir) -> Result<(), VmmError> {
        let path = dir.spec();
        let write = || {
            let mut lock = OpenOptions::new();
            lock.create(true)
                .append(true)
                .mode(0o600)
                .open(dir.lock())?;
            let new = path.with_extension("new");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            // Nobody needs it after the server has lost its power, so it need not be on a disk.
            fs::rename(&new, &path)
        };
        write().map_err(VmmError::file("write", &path))
    }

    pub(crate) fn read(dir: &BootDir) -> Result<Self, VmmError> {
        let path = dir.spec();
        let read = || -> io::Result<Self> {
            let spec: Self = serde_json::from_slice(&fs::read(&path)?)?;
            if spec.version != SPEC_VERSION {
                let version = spec.version;
                return Err(io::Error::other(format!("its version is {version}")));
            }
            Ok(spec)
        };
        read().map_err(VmmError::file("read", &path))
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths {
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let memory = u64::from(self.boot.guest.memory_mb) << 20;
        let overhead = match self.boot.isolation {
            types::IsolationClass::Microvm | types::IsolationClass::Emulated => VM_OVERHEAD_BYTES,
            types::IsolationClass::Container => 0,
        };
        Limits {
            memory_bytes: memory + overhead,
            cpus: self.boot.guest.cpus,
            kind: CpuKind::parse(&self.boot.guest.cpu_kind),
            pids: PIDS_MAX,
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

/// The lock of a boot, held.
pub(crate) type Lock = Flock<File>;

/// Takes the lock of a boot; `None` if its shim lives. The file was made by [`ShimSpec::write`],
/// and is gone when the boot was killed.
pub(crate) fn try_lock(dir: &BootDir) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new().write(true).open(dir.lock())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// The sub-command `shim`. Must be called before there are threads; `args` are those after the
/// sub-command's name. Returns in stage 1 at once, in stage 2 when the boot is over.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match stage_1(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", types::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn stage_1(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    let inherited = match args.as_slice() {
        [dir_flag, dir, fd_flag, fd] if dir_flag == "--run-dir" && fd_flag == "--fd" => {
            let fd = fd.to_str().and_then(|fd| fd.parse().ok());
            fd.map(|fd| (PathBuf::from(dir), fd))
        }
        _ => None,
    };
    let Some((run_dir, fd)) = inherited else {
        return Err("usage: shim --run-dir <directory> --fd <number of a socket>".into());
    };
    let worker = BufReader::new(sys::inherited_socket(fd)?);
    match sys::fork()? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => stage_2(&run_dir, worker),
    }
}

/// Leaves the session and the directory of whoever started it, and waits for a boot.
fn stage_2(run_dir: &Path, mut worker: BufReader<UnixStream>) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(step("begin a session"))?;
    nix::unistd::chdir("/").map_err(step("leave the working directory"))?;
    let Some(dir) = hear(&mut worker)? else {
        return Ok(());
    };
    let told = keep(run_dir, dir.into(), &mut worker);
    let Err(error) = told else { return Ok(()) };
    // Nobody reads it only if the worker was killed.
    let _ = worker
        .get_mut()
        .write_all(types::chain(error.as_ref()).as_bytes());
    Err(error)
}

/// The next line of the worker's; `None` if it is gone.
fn hear(worker: &mut BufReader<UnixStream>) -> io::Result<Option<OsString>> {
    let mut line = Vec::new();
    worker.read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then(|| OsString::from_vec(line)))
}

/// Keeps the boot in `dir`, to its end.
fn keep(run_dir: &Path, dir: PathBuf, worker: &mut BufReader<UnixStream>) -> Result<(), Failure> {
    if !dir.starts_with(run_dir) {
        return Err(format!("{} is no directory of a boot", dir.display()).into());
    }
    let dir = BootDir(dir);
    let Some(lock) = lock(&dir)? else {
        worker.get_mut().write_all(UP.as_bytes())?;
        return Ok(());
    };
    let mut spec = ShimSpec::read(&dir)?;
    redirect(&dir)?;
    let namespaces = Namespaces::open(&spec)?;
    isolate(&spec)?;
    let ahead = match spec.boot.isolation {
        types::IsolationClass::Container => Some(container::make_ahead(&dir, &spec)?),
        types::IsolationClass::Microvm | types::IsolationClass::Emulated => None,
    };
    listen_to_ourselves();
    if hear(worker)?.is_none_or(|word| word != GO) {
        return Ok(());
    }
    let machine = namespaces.machine(&mut spec)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (reports, listener) = runtime.block_on(async { begin(&dir, &spec) })?;
    // The worker may be gone; the boot has begun all the same.
    let _ = worker.get_mut().write_all(UP.as_bytes());
    let _ = worker.get_ref().shutdown(Shutdown::Both);
    let paths = spec.paths();
    runtime.block_on(boot::run(&dir, &paths, spec, ahead, reports, listener));
    // Threads may still be blocked in calls that the end of the process ends.
    runtime.shutdown_background();
    drop((lock, machine));
    Ok(())
}

/// The lock, if this boot has not begun yet.
fn lock(dir: &BootDir) -> Result<Option<Lock>, Failure> {
    let deadline = std::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        let lock = try_lock(dir)?;
        if is_begun(dir) {
            return Ok(None);
        }
        if lock.is_some() {
            return Ok(lock);
        }
        if std::time::Instant::now() > deadline {
            return Err("another process holds the lock of this boot".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets the standard streams end in the boot's log.
fn redirect(dir: &BootDir) -> Result<(), Failure> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.log())
        .map_err(VmmError::file("open", dir.log()))?;
    let null = File::open("/dev/null").map_err(VmmError::file("open", "/dev/null"))?;
    nix::unistd::dup2_stdin(null).map_err(step("close standard input"))?;
    nix::unistd::dup2_stdout(&log).map_err(step("redirect standard output"))?;
    nix::unistd::dup2_stderr(&log).map_err(step("redirect standard error"))?;
    Ok(())
}

/// After the fork of the helper, whose standard error becomes a container's.
fn listen_to_ourselves() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    // The kernel should not choose the one process that can tell what happened. Not possible
    // where root lacks CAP_SYS_RESOURCE.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-900") {
        tracing::info!(%error, "shim is not spared when memory is short");
    }
}

/// Names what failed.
fn step<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Failure {
    move |source| {
        let source = source.into();
        Step { doing, source }.into()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
struct Step {
    doing: &'static str,
    source: io::Error,
}

/// From here on the boot exists: it has reports, and somebody who answers.
fn begin(dir: &BootDir, spec: &ShimSpec) -> Result<(ReportLog, UnixListener), Failure> {
    let listener = through_dir(&dir.socket(), |path| {
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    let listener = listener.map_err(VmmError::file("listen on", dir.socket()))?;
    let logs = spec.paths().logs(&spec.boot.machine);
    for container in &spec.boot.spec.containers {
        let logs = logs.join(&container.name);
        fs::create_dir_all(&logs).map_err(VmmError::file("make directory", &logs))?;
    }
    Ok((ReportLog::open(&dir.reports())?, listener))
}

/// Whether there is a shim for the boot in `dir`.
pub(crate) fn is_alive(dir: &BootDir) -> bool {
    matches!(try_lock(dir), Ok(None))
}

/// Whether the boot in `dir` has begun. If its shim is only preparing it, waits until that is told
/// to go or leaves, as it does when its worker is gone.
pub(crate) fn has_begun(dir: &BootDir) -> io::Result<bool> {
    loop {
        let lock = match try_lock(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            lock => lock?,
        };
        if is_begun(dir) {
            return Ok(true);
        }
        if lock.is_some() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_begun(dir: &BootDir) -> bool {
    dir.reports().exists()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn spec() -> ShimSpec {
        let text = json!({
            "version": SPEC_VERSION,
            "data_dir": "/d", "run_dir": "/r", "guest_dir": "/g", "host": 0x0a7b_0002,
            "program": "/p",
            "boot": {
                "machine": "00000000000001", "boot": 3, "isolation": "container",
                "guest": { "cpus": 2, "memory_mb": 128 },
                "attachment": {
                    "ifname": "m1", "host_netns": "/n", "machine_netns": null,
                    "mac": [2, 0, 0, 0, 0, 1], "owner_uid": 7
                },
                "images": [{ "container": "main", "rootfs": "/i" }],
                "rootfs_size_bytes": 1, "boot_timeout": { "secs": 60, "nanos": 0 },
                "spec": {
                    "machine_id": "00000000000001", "hostname": "web", "unix_ms": 0,
                    "network": {
                        "ipv6": "fdaa::2", "gateway_v6": "fdaa::1", "ipv4": "172.19.0.2",
                        "gateway_v4": "172.19.0.1", "mtu": 1420, "nameservers": [], "searches": []
                    },
                    "containers": []
                }
            }
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_specification_is_read_as_it_was_written_and_an_unknown_version_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = BootDir(temporary.path().to_owned());
        let mut spec = spec();
        spec.write(&dir).unwrap();
        assert_eq!(ShimSpec::read(&dir).unwrap(), spec);
        spec.version = SPEC_VERSION + 1;
        spec.write(&dir).unwrap();
        assert!(ShimSpec::read(&dir).is_err());
    }

    #[test]
    fn the_lock_tells_whether_somebody_holds_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = BootDir(temporary.path().to_owned());
        assert!(!is_alive(&dir));
        spec().write(&dir).unwrap();
        let held = try_lock(&dir).unwrap();
        assert!(held.is_some() && is_alive(&dir));
        drop(held);
        assert!(!is_alive(&dir));
    }
}
