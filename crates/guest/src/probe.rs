//! Makes health checks: connects, asks, runs. Every probe ends within its time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use types::guest::{CheckSpec, ExecRequest, MachineSpec, Probe, ProbeTls};

use crate::driver::Running;
use crate::output::pump;
use crate::reaper::{ExitStatus, Reaper};
use crate::runtime::Runtime;
use crate::session::{self, Started};
use crate::supervisor::Outcome;

#[cfg(feature = "tls")]
mod tls;

/// Of an answer that is read: the status line and what fits into the report.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Of what a command writes that is kept.
const OUTPUT_BYTES_MAX: usize = 1 << 10;
/// For output that a command has written and nobody has read yet.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Of a check that has none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// Makes one probe.
pub(crate) async fn run<R: Runtime>(
    running: &Arc<Running>,
    runtime: &Arc<R>,
    reaper: &Reaper,
    check: &CheckSpec,
) -> Outcome {
    let limit = match check.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        ms => Duration::from_millis(ms),
    };
    let result = match &check.probe {
        Probe::Exec { command } => {
            let first = running.spec.containers.first().map(|one| one.name.clone());
            let request = ExecRequest {
                container: check.container.clone().or(first).unwrap_or_default(),
                command: command.clone(),
                env: std::collections::BTreeMap::new(),
                tty: false,
                stdin: false,
                size: None,
                machine: false,
            };
            let started = session::start(Some(running), runtime, reaper, request).await;
            match started {
                Ok(started) => watch(started, limit).await,
                Err(reason) => Err(reason),
            }
        }
        Probe::Tcp { .. } | Probe::Http { .. } => {
            let (running, runtime) = (running.clone(), runtime.clone());
            let check = check.clone();
            let asked = spawn_blocking(move || {
                let deadline = Instant::now() + limit;
                ask(&*runtime, &running.spec, &check, deadline)
            });
            // Connecting may need a thread of its own, which may be late.
            match timeout(limit + DRAIN_TIMEOUT, asked).await {
                Ok(Ok(result)) => result.map_err(|error| describe(&error, limit)),
                Ok(Err(panic)) => Err(panic.to_string()),
                Err(_) => Err(late(limit)),
            }
        }
    };
    let passed = result.is_ok();
    let output = result.unwrap_or_else(|reason| reason);
    Outcome { passed, output }
}

fn late(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

fn describe(error: &io::Error, limit: Duration) -> String {
    match error.kind() {
        // What a socket's own time-outs are.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late(limit),
        _ => error.to_string(),
    }
}

fn ask<R: Runtime>(
    runtime: &R,
    spec: &MachineSpec,
    check: &CheckSpec,
    deadline: Instant,
) -> io::Result<String> {
    match &check.probe {
        Probe::Tcp { port } => {
            let (_, address) = connect(runtime, spec, *port, deadline)?;
            Ok(format!("connected to {address}"))
        }
        Probe::Http {
            port,
            method,
            path,
            headers,
            tls,
        } => {
            let (stream, address) = connect(runtime, spec, *port, deadline)?;
            let request = request(address, method, path, headers);
            let mut stream = Timed { stream, deadline };
            let Some(tls) = tls else {
                return converse(&mut stream, &request);
            };
            converse_over_tls(runtime, spec, (check, tls), (stream, address), &request)
        }
        Probe::Exec { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(feature = "tls")]
fn converse_over_tls<R: Runtime>(
    runtime: &R,
    spec: &MachineSpec,
    (check, tls): (&CheckSpec, &ProbeTls),
    (stream, address): (Timed, SocketAddr),
    request: &str,
) -> io::Result<String> {
    let trust = match tls.verify {
        true => trusted(runtime, spec, check.container.as_deref())?,
        false => tls::Trust::Anyone,
    };
    let name = tls::server_name(&tls.server_name, address.ip())?;
    converse(&mut tls::connect(stream, name, trust)?, request)
}

/// Whom the container of a check trusts; the machine's first one for the machine's own checks.
#[cfg(feature = "tls")]
fn trusted<R: Runtime>(
    runtime: &R,
    spec: &MachineSpec,
    container: Option<&str>,
) -> io::Result<tls::Trust> {
    let mut all = spec.containers.iter();
    let found = all.find(|one| container.is_none_or(|name| one.name == name));
    let found = found.ok_or(io::ErrorKind::NotFound)?;
    let root = runtime.root(found);
    tls::Trust::of(&root.map_err(|error| io::Error::other(error.reason()))?)
}

/// Where `init` would be twice as large with TLS.
#[cfg(not(feature = "tls"))]
fn converse_over_tls<R: Runtime>(
    _: &R,
    _: &MachineSpec,
    _: (&CheckSpec, &ProbeTls),
    _: (Timed, SocketAddr),
    _: &str,
) -> io::Result<String> {
    Err(io::Error::other("this guest was built without TLS"))
}

/// A connection whose every wait ends at the deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn converse(stream: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    judge(&read_answer(stream)?)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// The first of the machine's addresses that answers.
fn connect<R: Runtime>(
    runtime: &R,
    spec: &MachineSpec,
    port: u16,
    deadline: Instant,
) -> io::Result<(TcpStream, SocketAddr)> {
    let own = [
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(spec.network.ipv6),
        IpAddr::V4(spec.network.ipv4),
    ];
    let mut refused = None;
    for address in own.map(|address| SocketAddr::new(address, port)) {
        match runtime.connect(address, left(deadline)?) {
            Ok(stream) => return Ok((stream, address)),
            // That of a service that listens elsewhere says more than what follows.
            Err(error) => drop(refused.get_or_insert(error)),
        }
    }
    let error = refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(io::Error::new(
        error.kind(),
        format!("port {port}: {error}"),
    ))
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &[(String, String)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
    {
        text.push_str("User-Agent: aerostat-check\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

/// The beginning of an answer. A connection that breaks after the status is as good as an end.
fn read_answer(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < ANSWER_BYTES_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if status(&answer).is_some() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The status code, once its line is there.
fn status(answer: &[u8]) -> Option<u16> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&answer[..end]).ok()?;
    let mut words = line.trim_end().splitn(3, ' ');
    let is_http = words.next()?.starts_with("HTTP/1.");
    let code = words.next()?;
    let code = code.parse().ok().filter(|_| code.len() == 3 && is_http)?;
    (100..=599).contains(&code).then_some(code)
}

/// What the beginning of an answer means.
pub(crate) fn judge(answer: &[u8]) -> io::Result<String> {
    let Some(status) = status(answer) else {
        return Err(io::Error::other("the answer is not HTTP/1.1"));
    };
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let said = format!("HTTP {status} {}", body.trim());
    let said = said.trim_end().to_owned();
    match status {
        200..=399 => Ok(said),
        _ => Err(io::Error::other(said)),
    }
}

/// Waits for a command, and kills it when its time is over.
async fn watch(started: Started, limit: Duration) -> Result<String, String> {
    let Started {
        mut exit, outputs, ..
    } = started;
    let deadline = tokio::time::Instant::now() + limit;
    let over = CancellationToken::new();
    let (sender, mut pieces) = mpsc::channel(4);
    for (_, fd) in outputs {
        let sender = sender.clone();
        tokio::spawn(pump(fd, over.clone(), move |bytes| {
            let sender = sender.clone();
            async move { sender.send(bytes).await.is_ok() }
        }));
    }
    drop(sender);
    let mut output = Vec::new();
    let mut keep = |bytes: &[u8]| {
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let mut is_open = true;
    let ended = loop {
        let next = async {
            tokio::select! {
                status = exit.wait() => Next::Ended(status),
                piece = pieces.recv(), if is_open => Next::Piece(piece),
            }
        };
        match timeout_at(deadline, next).await {
            Ok(Next::Piece(Some(bytes))) => keep(&bytes),
            Ok(Next::Piece(None)) => is_open = false,
            Ok(Next::Ended(status)) => break Some(status),
            Err(_) => break None,
        }
    };
    let Some(status) = ended else {
        session::kill_session(exit.pid());
        over.cancel();
        return Err(late(limit));
    };
    let drain = async {
        while let Some(bytes) = pieces.recv().await {
            keep(&bytes);
        }
    };
    let _ = timeout(DRAIN_TIMEOUT, drain).await;
    over.cancel();
    let output = String::from_utf8_lossy(&output).trim_end().to_owned();
    match status {
        ExitStatus::Code(0) => Ok(output),
        ExitStatus::Code(_) | ExitStatus::Signal(_) => {
            let code = status.shell_code();
            Err(format!("exit code {code}: {output}"))
        }
    }
}

enum Next {
    Ended(ExitStatus),
    Piece(Option<bytes::Bytes>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_status() {
        let judge = |text: &str| judge(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(
            judge("HTTP/1.1 204 No Content\r\n\r\n"),
            Ok("HTTP 204".into())
        );
        assert_eq!(
            judge("HTTP/1.0 302\r\nA: b\r\n\r\nmoved\n"),
            Ok("HTTP 302 moved".into())
        );
        let error = "HTTP 503 warming up".to_owned();
        assert_eq!(judge("HTTP/1.1 503 No\r\n\r\nwarming up"), Err(error));
        for text in [
            "",
            "HTTP/1.1 200",
            "HTTP/2 200 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1 999 OK\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/1.1  200\n",
            "HTTP/1.1 +20 OK\r\n",
        ] {
            let judged = judge(text);
            assert_eq!(judged, Err("the answer is not HTTP/1.1".into()), "{text}");
        }
    }

    #[test]
    fn a_request_names_its_host_unless_told() {
        let address = "[::1]:80".parse().unwrap();
        let text = request(address, "GET", "/x", &[("A".into(), "b".into())]);
        assert_eq!(
            text,
            "GET /x HTTP/1.1\r\nHost: [::1]:80\r\nUser-Agent: aerostat-check\r\nA: b\r\n\
             Connection: close\r\n\r\n"
        );
        let text = request(address, "GET", "/", &[("host".into(), "b".into())]);
        assert!(!text.contains("Host:") && text.contains("host: b\r\n"));
    }
}
