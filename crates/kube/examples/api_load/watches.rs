//! Many watches, a hundred to a connection, see the creates of one client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;

use crate::target::{Failure, Target, configmap, configmaps, percentile};

const PER_CONNECTION: usize = 100;
const NAMESPACE: &str = "default";
const EVENTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// Until everybody must have seen everything.
const SETTLE: Duration = Duration::from_secs(1);
const BYTES: usize = 1024;

type Seen = Arc<Mutex<Vec<(u64, Instant)>>>;

pub(crate) async fn run(target: Arc<Target>, watchers: usize) -> Result<(), Failure> {
    let resident = target.process.resident_mib()?;
    let seen = Seen::default();
    let mut connection = target.connect().await?;
    let path = configmaps(NAMESPACE);
    let one = format!("{path}?limit=1");
    let body = connection.write(Method::GET, &one, Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    let revision = list["metadata"]["resourceVersion"].as_str();
    let revision = revision.ok_or("a list without revision")?;
    let watch = format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
    let mut connections = Vec::new();
    for number in 0..watchers {
        if number % PER_CONNECTION == 0 {
            connections.push(target.connect().await?);
        }
        let last = connections.last_mut().ok_or("no connection")?;
        let response = last.send(Method::GET, &watch, Bytes::new()).await?;
        let seen = seen.clone();
        tokio::spawn(async move { follow(response.into_body(), &seen).await });
    }
    tokio::time::sleep(SETTLE).await;
    let each_kib =
        (target.process.resident_mib()? - resident) * 1024.0 / f64::from(u32::try_from(watchers)?);
    let cpu = target.process.cpu_s()?;
    let mut acknowledged = HashMap::new();
    for _ in 0..EVENTS {
        let (number, name) = target.name();
        let body = configmap(&name, BYTES, 'x');
        connection.write(Method::POST, &path, body).await?;
        acknowledged.insert(number, Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(SETTLE).await;
    let cpu = target.process.cpu_s()? - cpu;
    let seen = seen.lock().map_err(|_| "a watch panicked")?;
    let mut late: Vec<_> = seen
        .iter()
        .filter_map(|(number, at)| Some(at.saturating_duration_since(*acknowledged.get(number)?)))
        .collect();
    late.sort();
    println!(
        "missed={} p50_ms={:.3} p99_ms={:.3} cpu_us={:.2} kib_each={each_kib:.1}",
        EVENTS * watchers - late.len(),
        percentile(&late, 50),
        percentile(&late, 99),
        cpu * 1e6 / f64::from(u32::try_from(late.len())?),
    );
    Ok(())
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
            let name = text.split_once(NAME).map(|(_, rest)| rest);
            let name = name.and_then(|rest| rest.split('"').next());
            let number = name.and_then(|name| name.rsplit('-').next()?.parse().ok());
            if let (Some(number), Ok(mut seen)) = (number, seen.lock()) {
                seen.push((number, now));
            }
        }
    }
}
