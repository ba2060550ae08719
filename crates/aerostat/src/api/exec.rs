//! `POST …/machines/{id}/exec`: one command from its start to its end, with all that it wrote.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use types::api::{Exec, ExecAnswer};
use types::guest::{ExecEnd, ExecRequest};
use vmm::{Input, Io, Output};

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Target};

/// Of standard output and standard error together. What writes more wants a stream.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
const TIMEOUT_S_DEFAULT: u32 = 60;
pub(super) const TIMEOUT_S_MAX: u32 = 300;
/// An exit code above this tells of a signal, as a shell says it; 64 is the largest signal.
const SIGNAL_BASE: i32 = 128;

pub(super) async fn exec(
    State(api): State<Api>,
    target: Target,
    Body(body): Body<Exec>,
) -> Result<Json<ExecAnswer>, ApiError> {
    let timeout_s = body
        .timeout
        .filter(|seconds| *seconds > 0)
        .unwrap_or(TIMEOUT_S_DEFAULT);
    if timeout_s > TIMEOUT_S_MAX {
        return Err(ApiError::bad(format!(
            "timeout must be at most {TIMEOUT_S_MAX} seconds"
        )));
    }
    if body.machine {
        let feature = "commands outside of containers";
        return Err(ApiError::NotBuilt { feature });
    }
    let request = ExecRequest {
        container: body.container.unwrap_or_default(),
        command: command(body.command, &body.cmd)?,
        env: std::collections::BTreeMap::new(),
        tty: false,
        stdin: body.stdin.is_some(),
        size: None,
        machine: false,
    };
    let limit = Duration::from_secs(timeout_s.into());
    let io = api.deps.worker.exec(&target.id, request).await?;
    // Dropping it hangs the command up.
    let answer = tokio::time::timeout(limit, run(io, body.stdin.unwrap_or_default())).await;
    Ok(Json(answer.map_err(|_| ApiError::ExecTimeout { limit })??))
}

fn command(command: Vec<String>, line: &str) -> Result<Vec<String>, ApiError> {
    let command = if command.is_empty() {
        let words = shlex::split(line);
        words.ok_or_else(|| ApiError::bad("cmd has a quote without its other half".into()))?
    } else {
        command
    };
    match command.first() {
        Some(program) if !program.is_empty() => Ok(command),
        Some(_) | None => Err(ApiError::bad("command is missing".into())),
    }
}

async fn run(io: Io, stdin: String) -> Result<ExecAnswer, ApiError> {
    let Io { input, mut output } = io;
    let feed = async move {
        // The command may end without reading it; then this has no taker.
        let _ = input.send(Input::Stdin(Bytes::from(stdin))).await;
        let _ = input.send(Input::CloseStdin).await;
    };
    let collect = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let end = loop {
            match output.recv().await {
                Some(Output::Stdout(bytes)) => stdout.extend_from_slice(&bytes),
                Some(Output::Stderr(bytes)) => stderr.extend_from_slice(&bytes),
                Some(Output::End(end)) => break end,
                None => {
                    break ExecEnd::Failed {
                        reason: "the machine ended meanwhile".into(),
                    };
                }
            }
            if stdout.len() + stderr.len() > OUTPUT_BYTES_MAX {
                return Err(ApiError::ExecOutput {
                    bytes_max: OUTPUT_BYTES_MAX,
                });
            }
        };
        match end {
            ExecEnd::Failed { reason } => Err(ApiError::ExecFailed { reason }),
            ExecEnd::Exited { exit_code } => Ok(ExecAnswer {
                exit_code,
                exit_signal: signal(exit_code),
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }),
        }
    };
    // The feeding half must not end the call: a command may go on after its input.
    let ((), answer) = tokio::join!(feed, collect);
    answer
}

fn signal(exit_code: i32) -> i32 {
    let signal = exit_code - SIGNAL_BASE;
    if (1..=64).contains(&signal) {
        signal
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_or_a_line() {
        let words = |text: &str| command(Vec::new(), text);
        assert_eq!(words("echo 'a b' c").unwrap(), ["echo", "a b", "c"]);
        assert_eq!(command(vec!["ls".into()], "").unwrap(), ["ls"]);
        assert!(words("echo 'a").is_err());
        assert!(words("").is_err());
        assert!(command(vec![String::new()], "").is_err());
    }

    #[test]
    fn an_exit_code_above_128_tells_of_a_signal() {
        assert_eq!(
            [signal(0), signal(128), signal(137), signal(255)],
            [0, 0, 9, 0]
        );
    }

    #[tokio::test]
    async fn more_output_than_fits_an_answer_is_refused() {
        let (input, _inputs) = tokio::sync::mpsc::channel(1);
        let (outputs, output) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let chunk = Bytes::from(vec![b'x'; 1 << 20]);
            while outputs.send(Output::Stdout(chunk.clone())).await.is_ok() {}
        });
        drop(_inputs);
        let refused = run(Io { input, output }, String::new()).await.unwrap_err();
        assert!(matches!(refused, ApiError::ExecOutput { .. }));
    }
}
