//! Credential helpers: programs called `docker-credential-<name>` that keep the secrets.
//!
//! The protocol is that of docker-credential-helpers: `get`, with the registry on standard input
//! and JSON on standard output. A helper's words are never repeated, since they may be a secret.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{CredentialsError, DOCKER_HUB, DOCKER_HUB_KEY, password_of};
use crate::registry::Credentials;

/// One that asks its user something on a screen would never answer here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// The words by which every helper says that it knows nothing of a registry.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper of this name. `None` when it has nothing for this registry.
pub(super) async fn get(
    helper: &str,
    registry: &str,
    path: &Path,
) -> Result<Option<Credentials>, CredentialsError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let answer = match helper.chars().all(is_name) {
        true => consult(&format!("docker-credential-{helper}"), registry).await,
        false => Err("is no name of a program".to_owned()),
    };
    answer.map_err(|why| CredentialsError::Helper {
        path: path.to_owned(),
        registry: registry.to_owned(),
        helper: crate::error::printable(helper.as_bytes()),
        why,
    })
}

/// Asks a program. An error goes on from the program's name.
pub(super) async fn consult(program: &str, registry: &str) -> Result<Option<Credentials>, String> {
    let key = match registry {
        DOCKER_HUB => DOCKER_HUB_KEY,
        other => other,
    };
    let try_it = format!("try `echo {key} | {program} get`");
    let (success, answer) = match tokio::time::timeout(ANSWER_TIMEOUT, ask(program, key)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err("is not installed; install it, or keep the login in the file".to_owned());
        }
        Ok(Err(error)) => return Err(format!("cannot be asked ({error}); {try_it}")),
        Err(_) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            return Err(format!("did not answer for {seconds} seconds; {try_it}"));
        }
    };
    if !success {
        return match answer.trim_ascii() == NOT_FOUND {
            true => Ok(None),
            false => Err(format!("failed; {try_it}")),
        };
    }
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| format!("answered no credentials; {try_it}"))?;
    password_of(&answer.username, &answer.secret)
        .map(Some)
        .map_err(|why| format!("answered what cannot be used: {why}"))
}

/// Whether it succeeded, and what it wrote. It is killed when nobody waits any more.
async fn ask(program: &str, key: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    match stdin.write_all(key.as_bytes()).await {
        // It answers without having listened.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    drop(stdin);
    let mut answer = Vec::new();
    let stdout = child.stdout.take().expect("piped");
    stdout
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    let status = child.wait().await?;
    Ok((status.success(), answer))
}
