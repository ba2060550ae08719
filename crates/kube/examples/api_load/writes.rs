//! Creates and updates of ConfigMaps of 1 KiB, each client with a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use crate::target::{Connection, Failure, Target, configmap, configmaps, percentile};

const BYTES: usize = 1024;
const NAMESPACE: &str = "default";
/// Clients that fill a namespace.
const FILLERS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    /// Each client replaces an object of its own.
    Update,
}

pub(crate) async fn run(
    target: Arc<Target>,
    kind: Kind,
    clients: usize,
    time: Duration,
) -> Result<(), Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        let mut connection = target.connect().await?;
        let (_, name) = target.name();
        let body = configmap(&name, BYTES, 'x');
        let path = configmaps(NAMESPACE);
        connection.write(Method::POST, &path, body).await?;
        connections.push((connection, name));
    }
    let (cpu, begin) = (target.process.cpu_s()?, Instant::now());
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|(connection, name)| {
            let target = target.clone();
            tokio::spawn(async move {
                match kind {
                    Kind::Create => create(&target, connection, begin + time).await,
                    Kind::Update => update(connection, &name, begin + time).await,
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), target.process.cpu_s()? - cpu);
    took.sort();
    let count = f64::from(u32::try_from(took.len())?);
    println!(
        "rate={:.0} p50_ms={:.3} p99_ms={:.3} cpu_us={:.1}",
        count / elapsed,
        percentile(&took, 50),
        percentile(&took, 99),
        cpu * 1e6 / count,
    );
    Ok(())
}

async fn create(
    target: &Target,
    mut connection: Connection,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    let path = configmaps(NAMESPACE);
    let mut took = Vec::new();
    while Instant::now() < until {
        let (_, name) = target.name();
        let body = configmap(&name, BYTES, 'x');
        let sent = Instant::now();
        connection.write(Method::POST, &path, body).await?;
        took.push(sent.elapsed());
    }
    Ok(took)
}

async fn update(
    mut connection: Connection,
    name: &str,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    let path = format!("{}/{name}", configmaps(NAMESPACE));
    let mut took = Vec::new();
    while Instant::now() < until {
        // Another value each time, or there would be nothing to write.
        let letter = if took.len() % 2 == 0 { 'y' } else { 'z' };
        let body = configmap(name, BYTES, letter);
        let sent = Instant::now();
        connection.write(Method::PUT, &path, body).await?;
        took.push(sent.elapsed());
    }
    Ok(took)
}

/// Fills a namespace, and tells what an object costs the server in memory.
pub(crate) async fn fill(
    target: Arc<Target>,
    namespace: &str,
    objects: usize,
    bytes: usize,
) -> Result<(), Failure> {
    let mut first = target.connect().await?;
    let body = format!(r#"{{"metadata":{{"name":"{namespace}"}}}}"#);
    let path = "/api/v1/namespaces";
    let (status, answer) = first.ask(Method::POST, path, body.into()).await?;
    if !matches!(status, StatusCode::CREATED | StatusCode::CONFLICT) {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
    }
    let resident = target.process.resident_mib()?;
    let mut tasks = Vec::new();
    for part in 0..FILLERS {
        let (target, mut connection) = (target.clone(), target.connect().await?);
        let path = configmaps(namespace);
        tasks.push(tokio::spawn(async move {
            for _ in (part..objects).step_by(FILLERS) {
                let (_, name) = target.name();
                let body = configmap(&name, bytes, 'x');
                connection.write(Method::POST, &path, body).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let grown = (target.process.resident_mib()? - resident) * 1024.0 * 1024.0;
    println!(
        "bytes_per_object={:.0}",
        grown / f64::from(u32::try_from(objects)?)
    );
    Ok(())
}
