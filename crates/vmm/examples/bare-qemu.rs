//! Starts QEMU with a command line that was written down, and nothing around it: what
//! `bench/boot.sh` compares the start of a machine of class `emulated` with. Prints the milliseconds
//! until QEMU runs, until the guest's first process speaks, and until the machine's process runs.
//!
//! Usage: bare-qemu FILE, a JSON object with `argv`, `control` (the path of the control socket that
//! `argv` names) and `spec` (what the guest is told).

#![allow(clippy::print_stdout, reason = "what it measures is its output")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::wire::host::{Connection, FromGuest};
use serde::Deserialize;
use tokio::net::UnixStream;
use types::guest::{ContainerReportState, GuestMessage, HostMessage, MachineSpec};

const POLL: Duration = Duration::from_micros(500);

#[derive(Deserialize)]
struct Bare {
    argv: Vec<String>,
    control: PathBuf,
    spec: MachineSpec,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: bare-qemu FILE")?;
    let bare: Bare = serde_json::from_slice(&std::fs::read(path)?)?;
    let begun = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(&bare.argv)
        .stdin(Stdio::null())
        .spawn()?;
    let measured = follow(&bare.control, bare.spec, begun).await;
    qemu.kill()?;
    qemu.wait()?;
    let [vmm, init, process] = measured?.map(|took| took.as_secs_f64() * 1000.0);
    println!("{vmm:.1} {init:.1} {process:.1}");
    Ok(())
}

async fn follow(
    control: &Path,
    spec: MachineSpec,
    begun: Instant,
) -> Result<[Duration; 3], Box<dyn Error>> {
    let stream = loop {
        match UnixStream::connect(control).await {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < Duration::from_secs(30) => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    };
    let vmm = begun.elapsed();
    let connection = Connection::new(stream);
    let (mut sender, mut receiver) = connection.control().await?;
    let init = begun.elapsed();
    sender.send(&HostMessage::Start(Box::new(spec))).await?;
    while let Some(said) = receiver.next().await? {
        let FromGuest::Message(message) = said else {
            continue;
        };
        match message {
            GuestMessage::Container(report) => match report.state {
                ContainerReportState::Started { .. } => return Ok([vmm, init, begun.elapsed()]),
                state => return Err(format!("the container is not started: {state:?}").into()),
            },
            GuestMessage::Refused { reason } => return Err(reason.into()),
            GuestMessage::Hello { .. } | GuestMessage::Ready | GuestMessage::Health(_) => {}
            GuestMessage::Exited { .. } => break,
        }
    }
    Err("the guest ended".into())
}
