//! Load for a Kubernetes API server, over TLS as its administrator:
//!
//! ```text
//! api_load <address> <ca.crt> <client.crt> <client.key> <pid of the server> <seconds> [watchers]
//! ```
//!
//! Creates ConfigMaps of 1 KiB with 1, 16 and 64 clients, one connection each; then has many
//! watches (a hundred to a connection) see the creates of one client. Prints rates, percentiles
//! and the server's CPU time for each operation.
#![allow(clippy::print_stdout, reason = "what it measured is what it is for")]

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;
type Connection = SendRequest<Full<Bytes>>;

const WATCHES_PER_CONNECTION: usize = 100;
const PATH: &str = "/api/v1/namespaces/default/configmaps";

struct Target {
    address: String,
    tls: TlsConnector,
    pid: u32,
    next: AtomicU64,
}

impl Target {
    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self
            .tls
            .connect(ServerName::try_from("localhost")?, stream)
            .await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn create(&self, number: u64) -> Result<Request<Full<Bytes>>, Failure> {
        let data = "x".repeat(1024);
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"load-{number}"}},"data":{{"k":"{data}"}}}}"#
        );
        Ok(Request::post(format!("https://{}{PATH}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?)
    }

    /// Seconds of CPU time that the server has had.
    fn cpu_s(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let ticks: u32 = fields[12].parse::<u32>()? + fields[13].parse::<u32>()?;
        Ok(f64::from(ticks) / 100.0)
    }

    fn resident_mib(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(f64::from(kib.ok_or("no VmRSS")?.parse::<u32>()?) / 1024.0)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [address, ca, certificate, key, pid, seconds, rest @ ..] = args.as_slice() else {
        return Err("usage: api_load <address> <ca.crt> <client.crt> <client.key> <pid> <seconds> [watchers]".into());
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let target = Arc::new(Target {
        address: address.clone(),
        tls: TlsConnector::from(Arc::new(tls)),
        pid: pid.parse()?,
        next: AtomicU64::new(0),
    });
    println!("resident before: {:.1} MiB", target.resident_mib()?);
    let time = Duration::from_secs(seconds.parse()?);
    for clients in [1, 16, 64] {
        creates(&target, clients, time).await?;
    }
    let watchers: usize = rest.first().map_or(Ok(1000), |count| count.parse())?;
    watches(&target, watchers).await?;
    println!(
        "resident after {} objects: {:.1} MiB",
        target.next.load(Ordering::Relaxed),
        target.resident_mib()?
    );
    Ok(())
}

async fn creates(target: &Arc<Target>, clients: usize, time: Duration) -> Result<(), Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.connect().await?);
    }
    let (cpu, begin) = (target.cpu_s()?, Instant::now());
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let target = target.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while begin.elapsed() < time {
                    let number = target.next.fetch_add(1, Ordering::Relaxed);
                    let sent = Instant::now();
                    create(&mut connection, target.create(number)?).await?;
                    took.push(sent.elapsed());
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), target.cpu_s()? - cpu);
    took.sort();
    let count = f64::from(u32::try_from(took.len())?);
    println!(
        "create, {clients:2} clients: {:7.0}/s  p50 {:6.2} ms  p99 {:6.2} ms  {:5.0} CPU-us each",
        count / elapsed,
        percentile(&took, 50),
        percentile(&took, 99),
        cpu * 1e6 / count,
    );
    Ok(())
}

async fn create(connection: &mut Connection, request: Request<Full<Bytes>>) -> Result<(), Failure> {
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status == StatusCode::CREATED {
        return Ok(());
    }
    Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
}

/// Milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// How long after its acknowledgement a create is seen by each of many watches.
async fn watches(target: &Arc<Target>, watchers: usize) -> Result<(), Failure> {
    const EVENTS: usize = 200;
    const PAUSE: Duration = Duration::from_millis(20);
    let resident = target.resident_mib()?;
    let seen: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
    let revision = revision(target).await?;
    let mut left = watchers;
    while left > 0 {
        let mut connection = target.connect().await?;
        for _ in 0..left.min(WATCHES_PER_CONNECTION) {
            let request = Request::get(format!(
                "https://{}{PATH}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}",
                target.address
            ));
            connection.ready().await?;
            let response = connection
                .send_request(request.body(Full::default())?)
                .await?;
            let seen = seen.clone();
            tokio::spawn(async move { follow(response.into_body(), &seen).await });
        }
        left -= left.min(WATCHES_PER_CONNECTION);
    }
    let each_kib =
        (target.resident_mib()? - resident) * 1024.0 / f64::from(u32::try_from(watchers)?);
    let mut connection = target.connect().await?;
    let cpu = target.cpu_s()?;
    let mut acknowledged = std::collections::HashMap::new();
    for _ in 0..EVENTS {
        let number = target.next.fetch_add(1, Ordering::Relaxed);
        create(&mut connection, target.create(number)?).await?;
        acknowledged.insert(number, Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = target.cpu_s()? - cpu;
    let seen = seen.lock().map_err(|_| "a watch panicked")?;
    let mut late: Vec<_> = seen
        .iter()
        .filter_map(|(number, at)| Some(at.saturating_duration_since(*acknowledged.get(number)?)))
        .collect();
    late.sort();
    let deliveries = f64::from(u32::try_from(late.len())?);
    println!(
        "watch, {watchers} watchers: {} of {} events seen, p50 {:.2} ms and p99 {:.2} ms after the \
         acknowledgement, {:.1} CPU-us for each, {each_kib:.1} KiB each",
        late.len(),
        EVENTS * watchers,
        percentile(&late, 50),
        percentile(&late, 99),
        cpu * 1e6 / deliveries,
    );
    Ok(())
}

async fn revision(target: &Target) -> Result<String, Failure> {
    let mut connection = target.connect().await?;
    let request = Request::get(format!("https://{}{PATH}?limit=1", target.address));
    let response = connection
        .send_request(request.body(Full::default())?)
        .await?;
    let body = response.into_body().collect().await?.to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    let revision = list["metadata"]["resourceVersion"].as_str();
    Ok(revision.ok_or("a list without revision")?.to_owned())
}

/// Notes when each object is seen first.
async fn follow(mut body: hyper::body::Incoming, seen: &Mutex<Vec<(u64, Instant)>>) {
    const NAME: &str = "\"name\":\"load-";
    let mut line = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let now = Instant::now();
        let Ok(data) = frame.into_data() else {
            continue;
        };
        line.extend_from_slice(&data);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let event: Vec<_> = line.drain(..=end).collect();
            let text = String::from_utf8_lossy(&event);
            let number = text
                .split(NAME)
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            if let (Some(number), Ok(mut seen)) = (number.and_then(|n| n.parse().ok()), seen.lock())
            {
                seen.push((number, now));
            }
        }
    }
}
