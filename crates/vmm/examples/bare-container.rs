//! Runs the bundle in the current directory with libcontainer and nothing around it: what
//! `bench/boot.sh` compares the start of a machine of class `container` with.
//!
//! Usage: bare-container ID

use std::error::Error;
use std::path::PathBuf;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

fn main() -> Result<(), Box<dyn Error>> {
    let id = std::env::args().nth(1).ok_or("usage: bare-container ID")?;
    let state = std::env::temp_dir().join(format!("bare-container-{id}"));
    std::fs::create_dir_all(&state)?;
    let builder = ContainerBuilder::new(id, SyscallType::default()).with_root_path(&state)?;
    let bundle: PathBuf = std::env::current_dir()?;
    let builder = builder.as_init(&bundle).with_systemd(false);
    let mut container = builder.build()?;
    container.start()?;
    if let Some(pid) = container.pid() {
        // It may have been reaped already.
        let _ = waitpid(Pid::from_raw(pid.as_raw()), None);
    }
    container.delete(true)?;
    std::fs::remove_dir_all(&state)?;
    Ok(())
}
