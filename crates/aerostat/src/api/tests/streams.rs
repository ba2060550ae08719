//! Streams from the client through the API and the worker to a machine's body.

use client::{ExecInput, ExecOutput, ExecParams};
use types::api::{ExecStatus, LogLine, LogQuery, StopMachine, channel};
use types::machine::MachineState;

use super::fixture::server;

#[tokio::test]
async fn exec_and_attach_reach_the_machine() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server.started(&app, "one").await.id;
    let params = ExecParams {
        command: vec!["cat".into(), "a b".into()],
        stdin: true,
        ..ExecParams::default()
    };
    let exec = server.client.exec_stream(&app, &id, &params).await.unwrap();
    let attach = server.client.attach(&app, &id, &params).await.unwrap();
    for mut io in [exec, attach] {
        io.input
            .send(ExecInput::Stdin("hello".into()))
            .await
            .unwrap();
        assert_eq!(
            io.output.recv().await,
            Some(ExecOutput::Stdout("hello".into()))
        );
        io.input.send(ExecInput::CloseStdin).await.unwrap();
        let exited = ExecOutput::End(ExecStatus::Exited { exit_code: 0 });
        assert_eq!(io.output.recv().await, Some(exited));
    }
}

#[tokio::test]
async fn a_stream_into_a_machine_that_does_not_run_is_refused() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server.started(&app, "one").await.id;
    server
        .client
        .stop_machine(&app, &id, &StopMachine::default())
        .await
        .unwrap();
    let stopped = client::WaitQuery::state(MachineState::Stopped);
    server
        .client
        .wait_machine(&app, &id, &stopped)
        .await
        .unwrap();
    let params = ExecParams {
        command: vec!["ls".into()],
        ..ExecParams::default()
    };
    let refused = server
        .client
        .exec_stream(&app, &id, &params)
        .await
        .unwrap_err();
    assert_eq!(refused.status(), Some(409), "{refused}");
    let path = format!("/v1/apps/web/machines/{id}/exec/stream?command=ls");
    assert_eq!(server.ask("GET", &path, "").await.0, 426);
}

#[tokio::test]
async fn logs_arrive_with_their_time_and_channel() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server.started(&app, "one").await.id;
    let lines =
        [(channel::STDOUT, "one\n"), (channel::STDERR, "two")].map(|(channel, text)| LogLine {
            channel,
            unix_ns: 1_700_000_000_000_000_000,
            bytes: text.into(),
        });
    for line in &lines {
        server.vmm.log(&id, line.clone());
    }
    let mut logs = server
        .client
        .logs(&app, &id, &LogQuery::default())
        .await
        .unwrap();
    for line in lines {
        assert_eq!(logs.recv().await.unwrap().unwrap(), line);
    }
    assert!(logs.recv().await.is_none());
}
