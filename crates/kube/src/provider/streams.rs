//! Logs, exec and attach of pods, carried by the streams of their machines.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{Client, ExecParams, MachineFilter};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use types::api::{ExecStatus, LogLine, TerminalSize};
use types::machine::Machine;
use types::{AppName, MachineId};

use super::MACHINE_ID_ANNOTATION;
use super::pod::Pod;
use super::translate::POD_UID;
use crate::object;
use crate::resource::PODS;
use crate::status::Status;
use crate::streams::{
    EXEC_CHANNEL_MAX, ExecInput, ExecIo, ExecOutput, ExecRequest, LogQuery, LogStream, PodStreams,
};

/// Streams into and out of the machines that pods are.
#[derive(Debug, Clone)]
pub struct Streams {
    client: Client,
    app: AppName,
}

impl Streams {
    /// `app`: the one that the provider makes machines in.
    pub fn new(client: Client, app: AppName) -> Self {
        Self { client, app }
    }

    /// The machine that `pod` is: by its annotation, or asked for while the annotation is on its
    /// way.
    async fn machine(&self, pod: &Value) -> Result<MachineId, Status> {
        let annotated = object::at(pod, &["metadata", "annotations", MACHINE_ID_ANNOTATION]);
        let annotated = annotated
            .and_then(Value::as_str)
            .and_then(|id| id.parse().ok());
        let uid = object::uid(pod);
        if let Some(id) = annotated {
            // An annotation can be written by anybody; only the pod's own machine is meant.
            match self.client.machine(&self.app, &id).await {
                Ok(machine) if belongs(&machine, uid) => return Ok(id),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(unreachable(&error)),
            }
        }
        let filter = MachineFilter {
            metadata: BTreeMap::from([(POD_UID.to_owned(), uid.to_owned())]),
            ..MachineFilter::default()
        };
        let list = self.client.machines(&self.app, &filter).await;
        let list = list.map_err(|error| unreachable(&error))?;
        let mut machines = list.machines.into_iter();
        let machine = machines.find(|machine| belongs(machine, uid));
        machine.map(|machine| machine.id).ok_or_else(|| {
            let name = object::name(pod);
            Status::bad_request(format!("pod {name} has no machine yet"))
        })
    }
}

fn belongs(machine: &Machine, uid: &str) -> bool {
    machine
        .config
        .metadata
        .get(POD_UID)
        .is_some_and(|own| own == uid)
}

fn unreachable(error: &client::Error) -> Status {
    Status::unavailable(types::chain(error))
}

/// A refusal of the Machines API, in the words of the Kubernetes API.
fn refused(pod: &Value, error: &client::Error) -> Status {
    match error.status() {
        Some(404) => Status::not_found(&PODS, object::name(pod)),
        Some(400..=499) => Status::bad_request(error.to_string()),
        Some(_) | None => unreachable(error),
    }
}

impl PodStreams for Streams {
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Status>> {
        async move {
            let id = self.machine(pod).await?;
            let since_ms = query.since.map(Timestamp::as_millisecond);
            let wanted = types::api::LogQuery {
                container: Some(query.container),
                follow: query.follow,
                tail: query.tail_lines,
                since_ms,
                previous: query.previous,
            };
            let lines = self.client.logs(&self.app, &id, &wanted).await;
            let lines = lines.map_err(|error| refused(pod, &error))?;
            Ok(log_stream(lines, query.timestamps))
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecIo, Status>> {
        async move {
            let id = self.machine(pod).await?;
            let params = ExecParams {
                container: Some(request.container.clone()),
                command: request.command.clone(),
                stdin: request.stdin,
                tty: request.tty,
                size: None,
            };
            let io = if request.attach {
                self.client.attach(&self.app, &id, &params).await
            } else {
                self.client.exec_stream(&self.app, &id, &params).await
            };
            let io = io.map_err(|error| refused(pod, &error))?;
            let leave = Leave::of(pod, &request);
            Ok(relay(io, &request, leave))
        }
        .boxed()
    }
}

/// Whether what follows begins a line. Reads of a log may cut a line in pieces, and the time
/// stands only before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    InLine,
}

fn log_stream(lines: client::Logs, timestamps: bool) -> LogStream {
    // Standard output and error are cut into pieces independently of each other.
    let state = (lines, BTreeMap::<u8, Position>::new());
    futures::stream::unfold(state, move |(mut lines, mut positions)| async move {
        let chunk = match lines.recv().await? {
            Ok(line) => {
                let position = positions.entry(line.channel).or_insert(Position::LineStart);
                Ok(chunk(line, timestamps, position))
            }
            Err(error) => Err(unreachable(&error)),
        };
        Some((chunk, (lines, positions)))
    })
    .boxed()
}

fn chunk(line: LogLine, timestamps: bool, position: &mut Position) -> Bytes {
    if !timestamps {
        return line.bytes.into();
    }
    let at = Timestamp::from_nanosecond(i128::from(line.unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    let at = at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
    let mut chunk = Vec::with_capacity(line.bytes.len() + at.len());
    for piece in line.bytes.split_inclusive(|byte| *byte == b'\n') {
        if *position == Position::LineStart {
            chunk.extend_from_slice(at.as_bytes());
        }
        chunk.extend_from_slice(piece);
        *position = if piece.ends_with(b"\n") {
            Position::LineStart
        } else {
            Position::InLine
        };
    }
    chunk.into()
}

/// What the end of a client's connection means for the process's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Standard input stays open for the next attach.
    Open,
    /// It is closed: of an exec always, of a container with `stdinOnce` after its first attach.
    Close,
}

impl Leave {
    fn of(pod: &Value, request: &ExecRequest) -> Self {
        if !request.attach {
            return Self::Close;
        }
        let once = Pod::read(pod).is_ok_and(|pod| {
            let mut containers = pod.spec.containers.iter();
            containers.any(|container| container.name == request.container && container.stdin_once)
        });
        if once { Self::Close } else { Self::Open }
    }
}

fn relay(io: client::ExecIo, request: &ExecRequest, leave: Leave) -> ExecIo {
    let (input, mut from_client) = mpsc::channel(EXEC_CHANNEL_MAX);
    let (to_client, output) = mpsc::channel(EXEC_CHANNEL_MAX);
    let client::ExecIo {
        input: to_machine,
        output: mut from_machine,
    } = io;
    // Dropping the last sender would close standard input.
    let open = (leave == Leave::Open).then(|| to_machine.clone());
    tokio::spawn(async move {
        while let Some(message) = from_client.recv().await {
            let message = match message {
                ExecInput::Stdin(bytes) => client::ExecInput::Stdin(bytes),
                ExecInput::CloseStdin => match leave {
                    Leave::Close => client::ExecInput::CloseStdin,
                    Leave::Open => continue,
                },
                ExecInput::Resize { width, height } => {
                    client::ExecInput::Resize(TerminalSize { width, height })
                }
            };
            if to_machine.send(message).await.is_err() {
                return;
            }
        }
        if leave == Leave::Close {
            // The other side may be gone as well, which is what the message is about.
            let _ = to_machine.send(client::ExecInput::CloseStdin).await;
        }
    });
    let (stdout, stderr) = (request.stdout, request.stderr);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = from_machine.recv() => message,
                // Nobody listens any more; dropping the stream ends an exec.
                () = to_client.closed() => break,
            };
            let message = match message {
                Some(client::ExecOutput::Stdout(bytes)) if stdout => ExecOutput::Stdout(bytes),
                Some(client::ExecOutput::Stderr(bytes)) if stderr => ExecOutput::Stderr(bytes),
                Some(client::ExecOutput::Stdout(_) | client::ExecOutput::Stderr(_)) => continue,
                Some(client::ExecOutput::End(ExecStatus::Exited { exit_code })) => {
                    ExecOutput::Exit { code: exit_code }
                }
                Some(client::ExecOutput::End(ExecStatus::Failed { message })) => {
                    ExecOutput::Failed(message)
                }
                None => break,
            };
            if to_client.send(message).await.is_err() {
                break;
            }
        }
        // First the stream, then its input: the other way round would close standard input.
        drop(from_machine);
        if let Some(open) = open {
            open.closed().await;
        }
    });
    ExecIo { input, output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(text: &str) -> LogLine {
        LogLine {
            channel: 1,
            unix_ns: 1_800_000_000_000_000_001,
            bytes: text.into(),
        }
    }

    #[test]
    fn the_time_stands_before_each_line_and_only_there() {
        let at = "2027-01-15T08:00:00.000000001Z";
        let mut position = Position::LineStart;
        let mut text = |bytes: &str| {
            let chunk = chunk(line(bytes), true, &mut position);
            String::from_utf8(chunk.to_vec()).unwrap()
        };
        assert_eq!(text("one\ntwo\n"), format!("{at} one\n{at} two\n"));
        assert_eq!(text("thr"), format!("{at} thr"));
        assert_eq!(text("ee\nfour"), format!("ee\n{at} four"));
        let plain = chunk(line("x"), false, &mut Position::LineStart);
        assert_eq!(plain, "x");
    }

    #[test]
    fn only_an_exec_and_a_container_with_stdin_once_lose_their_input_with_the_client() {
        let pod = |once: bool| json!({"spec": {"containers": [{"name": "c", "image": "i", "stdinOnce": once}]}});
        let request = |attach: bool| ExecRequest {
            container: "c".into(),
            attach,
            ..ExecRequest::default()
        };
        assert_eq!(Leave::of(&pod(false), &request(false)), Leave::Close);
        assert_eq!(Leave::of(&pod(true), &request(true)), Leave::Close);
        assert_eq!(Leave::of(&pod(false), &request(true)), Leave::Open);
    }

    #[tokio::test]
    async fn output_comes_through_with_the_exit_code_last() {
        let (input, mut typed) = mpsc::channel(4);
        let (machine, output) = mpsc::channel(4);
        let request = ExecRequest {
            stdout: true,
            ..ExecRequest::default()
        };
        let mut io = relay(client::ExecIo { input, output }, &request, Leave::Close);
        io.input.send(ExecInput::Stdin("a".into())).await.unwrap();
        assert_eq!(
            typed.recv().await,
            Some(client::ExecInput::Stdin("a".into()))
        );
        for message in [
            client::ExecOutput::Stdout("out".into()),
            client::ExecOutput::Stderr("not asked for".into()),
            client::ExecOutput::End(ExecStatus::Exited { exit_code: 3 }),
        ] {
            machine.send(message).await.unwrap();
        }
        assert_eq!(
            io.output.recv().await,
            Some(ExecOutput::Stdout("out".into()))
        );
        assert_eq!(io.output.recv().await, Some(ExecOutput::Exit { code: 3 }));
        drop(io.input);
        assert_eq!(typed.recv().await, Some(client::ExecInput::CloseStdin));
    }
}
