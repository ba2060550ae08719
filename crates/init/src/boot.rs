//! The life of PID 1: mounts, modules, one machine, the end.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use guest::{Ended, Guest, Reaper};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use crate::console::{Console, say};
use crate::containers::{Containers, unmount_all};
use crate::groups;
use crate::mounts::mount_guest;
use crate::vsock::{self, Transport};

/// Modules in the initial RAM file system, with the order in which to load them.
const MODULES: &str = "/modules";

/// Why the guest cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
struct BootError {
    doing: String,
    source: io::Error,
}

fn step<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> BootError {
    let doing = doing.into();
    move |source| BootError {
        doing,
        source: source.into(),
    }
}

/// Runs the machine and ends the guest. PID 1 must not return: the kernel would panic.
pub(crate) fn main() -> ExitCode {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        end_guest();
    }));
    if tracing::subscriber::set_global_default(Console).is_err() {
        say("log is not set up");
    }
    if let Err(error) = run() {
        say(&types::chain(&error));
    }
    end_guest();
    ExitCode::FAILURE
}

/// Restarts, which ends the VMM: guests run with `reboot=t` and VMMs leave at a triple fault,
/// while powering off needs ACPI.
fn end_guest() {
    sync();
    // It returns only if it failed.
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    say(&format!("cannot restart: {errno}"));
}

fn run() -> Result<(), BootError> {
    mount_guest().map_err(step("mount the kernel's file systems"))?;
    groups::prepare();
    groups::kill_early();
    load_modules()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(step("start the runtime"))?;
    let exit = runtime.block_on(serve());
    unmount_all();
    exit
}

fn load_modules() -> Result<(), BootError> {
    let order = match fs::read_to_string(Path::new(MODULES).join("order")) {
        // A kernel with everything built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        order => order.map_err(step("read the order of modules"))?,
    };
    let has_vsock = vsock::is_wanted();
    for name in order.lines() {
        if vsock::has_use_for(name) && !has_vsock {
            continue;
        }
        let doing = || format!("load module {name}");
        let file = File::open(Path::new(MODULES).join(name)).map_err(step(doing()))?;
        match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
            // There is no such hardware, or it is there already.
            Ok(()) | Err(Errno::ENODEV | Errno::EEXIST) => {}
            // A kernel that takes no modules: it has everything built in.
            Err(Errno::ENOSYS) => break,
            Err(errno) => return Err(step(doing())(errno)),
        }
    }
    // They stand in memory twice otherwise.
    fs::remove_dir_all(MODULES).map_err(step("remove loaded modules"))
}

async fn serve() -> Result<(), BootError> {
    let reaper = Reaper::start().map_err(step("listen for the end of processes"))?;
    let transport = Transport::open().map_err(step("open the way to the host"))?;
    let guest = Guest::new(Containers::default(), reaper);
    loop {
        let connection = transport.connected().await;
        let connection = connection.map_err(step("wait for the host"))?;
        match guest.serve(connection).await {
            Ended::Exited(_) => return Ok(()),
            Ended::Disconnected => {}
        }
    }
}
