//! Load for `bench/store.sh`: the same writes and watches on a store of this process and on an etcd.
//!
//! ```text
//! store_load sqlite:<file> write  <create|update> <clients> <seconds>
//! store_load sqlite:<file> watch  <watchers> <seconds>
//! store_load sqlite:<file> memory <objects> <bytes of each>
//! store_load etcd:<endpoint>,<pid of etcd> …
//! ```
//!
//! One line comes out: operations per second, CPU-µs per operation, median and 99th percentile of
//! the latency in µs. The CPU time is that of whoever does the store's work: for etcd its process
//! alone, for SQLite all of this one, clients included. With `watch` an operation is one event told
//! to one watcher. etcd is asked directly, not through the store, which would add a watch.

#[path = "../src/etcd/proto.rs"]
#[allow(dead_code, reason = "a part of the protocol is enough here")]
mod proto;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use proto::{Compare, Request};
use store::{Config, Store};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const VALUE_BYTES: usize = 1024;
/// Clients that share one connection to etcd.
const CLIENTS_PER_CONNECTION: usize = 8;

#[derive(Clone)]
enum Target {
    Sqlite(Store),
    Etcd(Vec<Channel>, u32),
}

/// A writer with its connection.
#[derive(Clone)]
enum Client {
    Sqlite(Store),
    Etcd(Channel),
}

impl Target {
    async fn open(text: &str) -> Self {
        match text.split_once(':').expect("sqlite:… or etcd:…") {
            ("sqlite", path) => Self::Sqlite(Store::open(&Config::new(path)).expect("opens")),
            (_, etcd) => {
                let (endpoint, pid) = etcd.rsplit_once(',').expect("endpoint and pid");
                let connect = |_| {
                    let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("an address");
                    endpoint.tcp_nodelay(true).connect_lazy()
                };
                let channels = (0..64 / CLIENTS_PER_CONNECTION).map(connect).collect();
                Self::Etcd(channels, pid.parse().expect("a pid"))
            }
        }
    }

    fn client(&self, number: usize) -> Client {
        match self {
            Self::Sqlite(store) => Client::Sqlite(store.clone()),
            Self::Etcd(channels, _) => {
                let connection = number / CLIENTS_PER_CONNECTION % channels.len();
                Client::Etcd(channels[connection].clone())
            }
        }
    }

    /// CPU time used so far by the process that is measured, all threads, in nanoseconds.
    fn cpu_ns(&self) -> u64 {
        let process = match self {
            Self::Sqlite(_) => "self".to_owned(),
            Self::Etcd(_, pid) => pid.to_string(),
        };
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("is there");
        let times = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        times.sum()
    }
}

impl Client {
    /// Writes a key that is at `revision` (0: not there); returns the new one.
    async fn write(&self, key: &str, revision: u64, value: &Bytes) -> u64 {
        match self {
            Self::Sqlite(store) if revision == 0 => store
                .create(key, value.clone(), None)
                .await
                .expect("writes"),
            Self::Sqlite(store) => {
                let result = store.update(key, revision, value.clone(), None).await;
                result.expect("writes")
            }
            Self::Etcd(channel) => {
                let key = key.as_bytes().to_vec();
                let revision = i64::try_from(revision).expect("small");
                let put = proto::PutRequest {
                    key: key.clone(),
                    value: value.to_vec(),
                    lease: 0,
                };
                let get = proto::RangeRequest {
                    key: key.clone(),
                    ..proto::RangeRequest::default()
                };
                let request = proto::TxnRequest {
                    compare: vec![Compare::mod_revision(key, revision)],
                    success: vec![Request::Put(put).into()],
                    failure: vec![Request::Range(get).into()],
                };
                let mut grpc = Grpc::new(channel.clone());
                grpc.ready().await.expect("connects");
                let codec = ProstCodec::<proto::TxnRequest, proto::TxnResponse>::default();
                let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
                let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
                let answer = answer.expect("answers").into_inner();
                assert!(answer.succeeded, "nobody else writes this key");
                let header = answer.header.expect("has a header");
                u64::try_from(header.revision).expect("positive")
            }
        }
    }

    /// Counts the events under a prefix until it is dropped.
    async fn watch(&self, prefix: &str, told: &AtomicU64) {
        match self {
            Self::Sqlite(store) => {
                let mut watch = store.watch(prefix, store.current_rev()).expect("starts");
                loop {
                    match watch.next().await {
                        Ok(events) => {
                            told.fetch_add(events.len() as u64, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Self::Etcd(channel) => {
                let create = proto::WatchRequest {
                    create: Some(proto::WatchCreateRequest {
                        key: prefix.as_bytes().to_vec(),
                        range_end: format!("{}0", prefix.trim_end_matches('/')).into_bytes(),
                        ..proto::WatchCreateRequest::default()
                    }),
                };
                let requests = futures::stream::iter([create]).chain(futures::stream::pending());
                let mut grpc = Grpc::new(channel.clone());
                grpc.ready().await.expect("connects");
                let codec = ProstCodec::<proto::WatchRequest, proto::WatchResponse>::default();
                let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
                let answers = grpc
                    .streaming(tonic::Request::new(requests), path, codec)
                    .await;
                let mut answers = answers.expect("watches").into_inner();
                while let Ok(Some(answer)) = answers.message().await {
                    told.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
                }
            }
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let (target, line) = match words[..] {
        [target, "write", kind, clients, seconds] => {
            let target = Target::open(target).await;
            let lasts = Duration::from_secs(number(seconds) as u64);
            let line = write(&target, kind == "update", number(clients), lasts).await;
            (target, line)
        }
        [target, "watch", watchers, seconds] => {
            let target = Target::open(target).await;
            let lasts = Duration::from_secs(number(seconds) as u64);
            let line = watch(&target, number(watchers), lasts).await;
            (target, line)
        }
        [target, "memory", objects, bytes] => {
            let target = Target::open(target).await;
            let line = memory(&target, number(objects), number(bytes)).await;
            (target, line)
        }
        _ => panic!("see the head of this program's source"),
    };
    eprintln!("{line}");
    if let Target::Sqlite(store) = target {
        store.close().await;
    }
}

/// Prints the resident bytes that each object costs beyond an empty store, and what opening takes.
async fn memory(target: &Target, objects: usize, bytes: usize) -> String {
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").expect("is there");
        let pages: usize = text
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("pages");
        pages * 4096
    };
    let client = target.client(0);
    client.write("/memory/first", 0, &Bytes::new()).await;
    let before = resident();
    let begin = Instant::now();
    let clients: Vec<_> = (0..32)
        .map(|part| {
            let client = target.client(part);
            tokio::spawn(async move {
                for number in (part..objects).step_by(32) {
                    // As a serialiser leaves it, with room that nobody needs.
                    let mut value = Vec::with_capacity(bytes * 2);
                    value.resize(bytes, b'x');
                    let key = format!("/registry/pods/default/some-deployment-7f9c-{number}");
                    client.write(&key, 0, &value.into()).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("writes");
    }
    let grown = resident().saturating_sub(before);
    format!(
        "{:.0} bytes resident per object of {bytes}; {objects} written in {:?}",
        grown as f64 / objects as f64,
        begin.elapsed()
    )
}

async fn write(target: &Target, is_update: bool, clients: usize, lasts: Duration) -> String {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let run = std::process::id();
    let mut loops = Vec::new();
    let begin = Instant::now();
    let cpu = target.cpu_ns();
    for client in 0..clients {
        let (handle, value) = (target.client(client), value.clone());
        loops.push(tokio::spawn(async move {
            let mut latencies_us = Vec::new();
            let mut revision = 0;
            while begin.elapsed() < lasts {
                let number = if is_update { 0 } else { latencies_us.len() };
                let key = format!("/bench/{run}/{client}/{number}");
                let asked = Instant::now();
                let expect = if is_update { revision } else { 0 };
                revision = handle.write(&key, expect, &value).await;
                latencies_us.push(asked.elapsed().as_micros());
            }
            latencies_us
        }));
    }
    let mut latencies_us = Vec::new();
    for task in loops {
        latencies_us.extend(task.await.expect("writes to the end"));
    }
    let took = begin.elapsed();
    let cpu_us = (target.cpu_ns() - cpu) as f64 / 1000.0;
    latencies_us.sort_unstable();
    let count = latencies_us.len();
    let at = |percent: usize| latencies_us[(count * percent / 100).min(count - 1)];
    format!(
        "{:.0} {:.1} {} {}",
        count as f64 / took.as_secs_f64(),
        cpu_us / count as f64,
        at(50),
        at(99)
    )
}

/// One writer, as fast as it can; everybody watches.
async fn watch(target: &Target, watchers: usize, lasts: Duration) -> String {
    let told = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..watchers)
        .map(|watcher| {
            let (handle, told) = (target.client(watcher), told.clone());
            tokio::spawn(async move { handle.watch("/watched/", &told).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let key = format!("/watched/{}", std::process::id());
    let (begin, cpu) = (Instant::now(), target.cpu_ns());
    let writer = target.client(0);
    let (mut revision, mut writes) = (0, 0);
    while begin.elapsed() < lasts {
        revision = writer.write(&key, revision, &value).await;
        writes += 1;
    }
    let expected = writes * watchers as u64;
    while told.load(Ordering::Relaxed) < expected && begin.elapsed() < lasts * 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begin.elapsed();
    let cpu_us = (target.cpu_ns() - cpu) as f64 / 1000.0;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let count = told.load(Ordering::Relaxed);
    assert_eq!(count, expected, "every watcher is told everything once");
    format!(
        "{:.0} {:.2} {writes} 0",
        count as f64 / took.as_secs_f64(),
        cpu_us / count as f64
    )
}
