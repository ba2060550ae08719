//! What a fuzzer calls: bytes of a hostile peer, which may cost an error and nothing else.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use types::api::ProcessStat;
use types::guest::{
    ContainerSpec, ExecRequest, FRAME_BYTES_MAX, HostMessage, MachineSpec, Open, Resume, Statistics,
};

use super::host::{Connection, FromGuest, FromProcess};
use super::read_frame;
use crate::root::Root;
use crate::{Alive, ExitStatus, Guest, Process, Reaper, RunEnd, Runtime, RuntimeError, probe};

/// Longer than any answer to bytes that are all there already.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads `bytes` in every way in which bytes of a peer are read: as frames, as the guest's end of a
/// connection, as the host's, and as a container's answer to a health check.
///
/// # Panics
/// If something waits for ever, or whatever a fuzzer is to find.
pub fn hostile_peer(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let all = async {
            as_frames(bytes).await;
            as_guest(bytes).await;
            as_host(bytes).await;
            let _ = probe::judge(bytes);
        };
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, all).await;
        outcome.expect("an end comes after the peer's end");
    });
}

async fn as_frames(mut bytes: &[u8]) {
    while let Ok(Some(frame)) = read_frame(&mut bytes, FRAME_BYTES_MAX).await {
        let _ = FromGuest::parse(&frame);
        let _ = frame.parse::<Open>();
        let _ = frame.parse::<HostMessage>();
        let _ = frame.parse::<types::api::TerminalSize>();
        let _ = frame.parse::<Result<Vec<ProcessStat>, String>>();
        let _ = frame.parse::<Result<Statistics, String>>();
        let _ = FromProcess::parse(frame);
    }
}

/// The bytes are what a guest sends.
async fn as_guest(bytes: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(bytes.len() + 1);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    writer.write_all(bytes).await.expect("there is room");
    writer.shutdown().await.expect("the other end is open");
    let sink =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let connection = Connection::new(ours);
    if let Ok((_, mut receiver)) = connection.control().await {
        while let Ok(Some(_)) = receiver.next().await {}
    }
    let request = ExecRequest {
        container: String::new(),
        command: Vec::new(),
        env: std::collections::BTreeMap::new(),
        tty: false,
        stdin: false,
        size: None,
        machine: false,
    };
    if let Ok((_, mut output)) = connection.exec(request).await {
        while let Ok(Some(_)) = output.next().await {}
    }
    let _ = connection.processes().await;
    let _ = connection.statistics().await;
    if let Ok((_, mut output)) = connection.get_files("", "/").await {
        while let Ok(Some(_)) = output.next().await {}
    }
    let resume = Resume {
        unix_ms: 0,
        entropy: String::new(),
    };
    let _ = connection.control_again(resume).await;
    connection.close().await;
    let _ = sink.await;
}

/// The bytes are what a host sends.
async fn as_host(bytes: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(bytes.len() + 1);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    writer.write_all(bytes).await.expect("there is room");
    writer.shutdown().await.expect("the other end is open");
    let sink =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    Guest::new(Nothing, Reaper::idle()).serve(ours).await;
    let _ = sink.await;
}

/// A runtime that can prepare every machine and do nothing else.
struct Nothing;

fn nothing<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::new("do that", "there is nothing here"))
}

impl Runtime for Nothing {
    fn prepare(&self, _: &MachineSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn start(
        &self,
        _: &Reaper,
        _: &MachineSpec,
        _: &ContainerSpec,
        _: u32,
    ) -> Result<Process, RuntimeError> {
        nothing()
    }

    fn exec(
        &self,
        _: &Reaper,
        _: &ContainerSpec,
        _: i32,
        _: &ExecRequest,
    ) -> Result<Process, RuntimeError> {
        nothing()
    }

    fn exec_beside(&self, _: &Reaper, _: &ExecRequest) -> Result<Process, RuntimeError> {
        nothing()
    }

    fn resume(&self, _: i64, _: &[u8]) -> Result<(), RuntimeError> {
        nothing()
    }

    fn volume(&self, _: &str) -> Result<std::os::fd::OwnedFd, RuntimeError> {
        nothing()
    }

    fn processes(&self, _: &[Alive]) -> Result<Vec<ProcessStat>, RuntimeError> {
        nothing()
    }

    fn statistics(&self, _: &[Alive]) -> Result<Statistics, RuntimeError> {
        nothing()
    }

    fn connect(
        &self,
        _: std::net::SocketAddr,
        _: Duration,
    ) -> std::io::Result<std::net::TcpStream> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    fn root(&self, _: &ContainerSpec) -> Result<Root, RuntimeError> {
        nothing()
    }

    fn signal(&self, _: &ContainerSpec, _: i32, _: i32) -> Result<(), RuntimeError> {
        nothing()
    }

    fn kill(&self, _: &ContainerSpec, _: i32) -> Result<(), RuntimeError> {
        nothing()
    }

    fn ended(&self, _: &ContainerSpec, _: u32, _: ExitStatus) -> RunEnd {
        RunEnd::default()
    }
}
