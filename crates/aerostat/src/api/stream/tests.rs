//! The streams between a client and a process that the test plays.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use client::{Client, ExecInput, ExecOutput, ExecParams};
use tokio::net::UnixListener;
use types::{AppName, MachineId};

use super::*;

#[test]
fn input_is_told_apart_by_its_first_byte() {
    let parse = |bytes: &'static [u8]| parse_input(Bytes::from_static(bytes));
    assert_eq!(
        parse(b"\x00hi"),
        Some(Input::Stdin(Bytes::from_static(b"hi")))
    );
    assert_eq!(parse(b"\xff"), Some(Input::CloseStdin));
    let size = TerminalSize {
        width: 80,
        height: 24,
    };
    assert_eq!(
        parse(b"\x04{\"width\":80,\"height\":24}"),
        Some(Input::Resize(size))
    );
    assert_eq!(
        parse(b"\x04{\"Width\":80,\"Height\":24}"),
        Some(Input::Resize(size))
    );
    for bad in [&b""[..], b"\x01hi", b"\x03{}", b"\x04{", b"\x09"] {
        assert_eq!(parse(bad), None);
    }
}

/// The machine's side of one stream.
struct Process {
    inputs: mpsc::Receiver<Input>,
    outputs: mpsc::Sender<Output>,
}

struct Fixture {
    client: Client,
    app: AppName,
    id: MachineId,
    process: Process,
    drain: CancellationToken,
    _files: tempfile::TempDir,
}

/// A server whose only exec is `Process`.
async fn fixture() -> Fixture {
    let files = tempfile::tempdir().unwrap();
    let socket = files.path().join("api.sock");
    let (input, inputs) = mpsc::channel(4);
    let (outputs, output) = mpsc::channel(4);
    let io = Arc::new(Mutex::new(Some(Io { input, output })));
    let drain = CancellationToken::new();
    let token = drain.clone();
    let handler = async move |upgrade: Upgrade| -> Result<Response, ApiError> {
        let io = io.lock().unwrap().take().ok_or(ApiError::MachineNotFound)?;
        Ok(bounded(upgrade)?.on_upgrade(move |socket| relay(socket, io, token, Ends::default())))
    };
    let path = "/v1/apps/{app}/machines/{id}/exec/stream";
    let router = Router::new().route(path, get(handler));
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Fixture {
        client: Client::unix(&socket),
        app: "web".parse().unwrap(),
        id: "0123456789abcd".parse().unwrap(),
        process: Process { inputs, outputs },
        drain,
        _files: files,
    }
}

impl Fixture {
    async fn exec(&self) -> client::ExecIo {
        let params = ExecParams {
            command: vec!["sh".into()],
            ..ExecParams::default()
        };
        self.client
            .exec_stream(&self.app, &self.id, &params)
            .await
            .unwrap()
    }
}

fn stdout(text: &'static str) -> Output {
    Output::Stdout(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn an_exec_carries_both_ways_and_ends_with_its_exit_code() {
    let mut fixture = fixture().await;
    let mut io = fixture.exec().await;
    let size = TerminalSize {
        width: 120,
        height: 40,
    };
    io.input.send(ExecInput::Resize(size)).await.unwrap();
    io.input
        .send(ExecInput::Stdin("ls\n".into()))
        .await
        .unwrap();
    io.input.send(ExecInput::CloseStdin).await.unwrap();
    let process = &mut fixture.process;
    assert_eq!(process.inputs.recv().await, Some(Input::Resize(size)));
    assert_eq!(
        process.inputs.recv().await,
        Some(Input::Stdin("ls\n".into()))
    );
    assert_eq!(process.inputs.recv().await, Some(Input::CloseStdin));
    // Standard input is closed; output goes on.
    process.outputs.send(stdout("a")).await.unwrap();
    process
        .outputs
        .send(Output::Stderr("b".into()))
        .await
        .unwrap();
    process
        .outputs
        .send(Output::End(ExecEnd::Exited { exit_code: 7 }))
        .await
        .unwrap();
    assert_eq!(io.output.recv().await, Some(ExecOutput::Stdout("a".into())));
    assert_eq!(io.output.recv().await, Some(ExecOutput::Stderr("b".into())));
    let exited = ExecOutput::End(ExecStatus::Exited { exit_code: 7 });
    assert_eq!(io.output.recv().await, Some(exited));
    assert_eq!(io.output.recv().await, None);
}

#[tokio::test]
async fn much_output_arrives_whole_although_nobody_reads_input() {
    const CHUNKS: usize = 200;
    let fixture = fixture().await;
    let mut io = fixture.exec().await;
    let Process { inputs, outputs } = fixture.process;
    let typing = tokio::spawn(async move {
        // More than every buffer on the way holds: the process does not read.
        while io
            .input
            .send(ExecInput::Stdin(vec![b'i'; 64 << 10].into()))
            .await
            .is_ok()
        {}
    });
    tokio::spawn(async move {
        for _ in 0..CHUNKS {
            outputs
                .send(Output::Stdout(vec![b'o'; 32 << 10].into()))
                .await
                .unwrap();
        }
        outputs
            .send(Output::End(ExecEnd::Exited { exit_code: 0 }))
            .await
            .unwrap();
    });
    let mut bytes = 0;
    let status = loop {
        match io.output.recv().await.unwrap() {
            ExecOutput::Stdout(chunk) => bytes += chunk.len(),
            ExecOutput::Stderr(_) => panic!("nothing was written there"),
            ExecOutput::End(status) => break status,
        }
    };
    assert_eq!(bytes, CHUNKS * (32 << 10));
    assert_eq!(status, ExecStatus::Exited { exit_code: 0 });
    typing.await.unwrap();
    drop(inputs);
}

#[tokio::test]
async fn a_client_that_goes_away_hangs_the_process_up() {
    let fixture = fixture().await;
    let io = fixture.exec().await;
    let Process { inputs, outputs } = fixture.process;
    drop(io);
    // The worker's end of the output is how the process learns of it.
    let hung_up = tokio::time::timeout(Duration::from_secs(10), outputs.closed()).await;
    assert!(hung_up.is_ok());
    drop(inputs);
}

#[tokio::test]
async fn dropping_the_input_closes_standard_input_only() {
    let mut fixture = fixture().await;
    let client::ExecIo { input, mut output } = fixture.exec().await;
    drop(input);
    assert_eq!(fixture.process.inputs.recv().await, Some(Input::CloseStdin));
    fixture
        .process
        .outputs
        .send(stdout("still here"))
        .await
        .unwrap();
    assert_eq!(
        output.recv().await,
        Some(ExecOutput::Stdout("still here".into()))
    );
}

#[tokio::test]
async fn a_stream_whose_end_is_not_known_says_so() {
    let drained = fixture().await;
    let mut io = drained.exec().await;
    drained.drain.cancel();
    let message = "the API is shutting down".to_owned();
    let end = ExecOutput::End(ExecStatus::Failed { message });
    assert_eq!(io.output.recv().await, Some(end));

    let lost = fixture().await;
    let mut io = lost.exec().await;
    drop(lost.process);
    let message = "the machine ended meanwhile".to_owned();
    let end = ExecOutput::End(ExecStatus::Failed { message });
    assert_eq!(io.output.recv().await, Some(end));
}

#[tokio::test]
async fn a_refusal_before_the_upgrade_is_an_ordinary_error() {
    let fixture = fixture().await;
    let _first = fixture.exec().await;
    let params = ExecParams::default();
    let refused = fixture
        .client
        .exec_stream(&fixture.app, &fixture.id, &params)
        .await;
    let error = refused.unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error.to_string().starts_with("machine not found"),
        "{error}"
    );
}
