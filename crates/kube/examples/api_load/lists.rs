//! Large lists: one after another, and many at once as informers begin.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;

use crate::target::{Failure, Target, configmaps, percentile};

/// What ends the state that a watch-list begins with.
const END: &[u8] = b"k8s.io/initial-events-end";

pub(crate) async fn run(target: Arc<Target>, namespace: &str, times: u32) -> Result<(), Failure> {
    let mut connection = target.connect().await?;
    let path = configmaps(namespace);
    let cpu = target.process.cpu_s()?;
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..times {
        let sent = Instant::now();
        let body = connection.write(Method::GET, &path, Bytes::new()).await?;
        took.push(sent.elapsed());
        bytes = body.len();
    }
    took.sort();
    println!(
        "p50_ms={:.1} cpu_ms={:.1} mib={:.1}",
        percentile(&took, 50),
        (target.process.cpu_s()? - cpu) * 1000.0 / f64::from(times),
        f64::from(u32::try_from(bytes)?) / 1024.0 / 1024.0,
    );
    Ok(())
}

pub(crate) async fn informers(
    target: Arc<Target>,
    namespace: &str,
    count: usize,
    is_watch_list: bool,
) -> Result<(), Failure> {
    let path = configmaps(namespace);
    let path = if is_watch_list {
        format!(
            "{path}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
             &allowWatchBookmarks=true"
        )
    } else {
        format!("{path}?resourceVersion=0")
    };
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(target.connect().await?);
    }
    target.process.forget_peak()?;
    let before = target.process.resident_mib()?;
    let (cpu, begin) = (target.process.cpu_s()?, Instant::now());
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let path = path.clone();
            tokio::spawn(async move {
                let response = connection.send(Method::GET, &path, Bytes::new()).await?;
                // Not every server can begin a watch with the state.
                if !response.status().is_success() {
                    return Ok(None);
                }
                drain(response.into_body()).await.map(Some)
            })
        })
        .collect();
    let mut bytes = 0;
    for task in tasks {
        let Some(drained) = task.await?? else {
            println!("refused=1");
            return Ok(());
        };
        bytes += drained;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = target.process.cpu_s()? - cpu;
    println!(
        "seconds={seconds:.2} cpu_s={cpu:.2} before_mib={before:.1} grown_mib={:.1} sent_mib={:.1}",
        target.process.peak_mib()? - before,
        f64::from(u32::try_from(bytes / 1024)?) / 1024.0,
    );
    Ok(())
}

/// Reads to the end of the list, or of the state that a watch begins with.
async fn drain(mut body: hyper::body::Incoming) -> Result<usize, Failure> {
    let (mut bytes, mut tail) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        bytes += data.len();
        // The mark may lie across two frames.
        let keep = data.len().min(4096);
        tail.extend_from_slice(&data[data.len() - keep..]);
        let is_over = tail.windows(END.len()).any(|window| window == END);
        if is_over {
            break;
        }
        tail.drain(..tail.len().saturating_sub(END.len()));
    }
    Ok(bytes)
}
