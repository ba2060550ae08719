//! Clients, watchers and faults around one or more child processes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::bugs::Bug;
use super::child::{Database, ORDERS, Orders};
use super::record::{Answer, Ask, Operation, Record, Stream, Told};

const CLIENTS: usize = 8;
const KEYS: u64 = 12;
const COMPACT_EVERY: Duration = Duration::from_millis(200);
/// Revisions that compaction leaves.
const KEEP: u64 = 500;
const PAUSE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(20);
/// A write after everything else; a watch that is not told of it is starved.
const END: &str = "end";

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// kill -9 and a new process.
    Kill(usize),
    /// SIGSTOP for a moment.
    Pause(usize),
    /// SIGSTOP for a moment, of a process that is not one of the servers.
    PauseOther(u32),
    /// No space in this directory for a moment.
    FullDisk(PathBuf),
    /// No space within the quota of this etcd for a moment.
    FullEtcd(String),
}

pub(crate) struct Scenario {
    pub(crate) dir: PathBuf,
    pub(crate) databases: Vec<Database>,
    pub(crate) bug: Bug,
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: u64,
    pub(crate) lasts: Duration,
    /// It is over earlier once so many operations are recorded and every fault has been.
    pub(crate) enough: usize,
}

/// What clients, watchers and faults share.
struct World {
    begin: Instant,
    record: Mutex<Record>,
    is_over: AtomicBool,
    sockets: Vec<PathBuf>,
}

impl World {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a short test")
    }

    fn has(&self, operations: usize) -> bool {
        let record = self.record.lock().expect("held briefly");
        record.operations.len() >= operations
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Children that do not outlive the test.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Scenario {
    fn spawn(&self, server: usize, is_restart: bool) -> Child {
        let orders = Orders {
            socket: self.socket(server),
            database: self.databases[server].clone(),
            bug: self.bug,
            is_restart,
        };
        Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--exact",
                "child_that_serves_until_it_is_killed",
                "--nocapture",
            ])
            .env(ORDERS, serde_json::to_string(&orders).expect("is encoded"))
            .stdout(Stdio::null())
            .spawn()
            .expect("starts a child")
    }

    fn socket(&self, server: usize) -> PathBuf {
        self.dir.join(format!("socket{server}"))
    }

    /// Runs it, and returns what was seen.
    pub(crate) async fn run(self) -> Record {
        let servers = self.databases.len();
        let mut children = Servers(
            (0..servers)
                .map(|server| self.spawn(server, false))
                .collect(),
        );
        let world = Arc::new(World {
            begin: Instant::now(),
            record: Mutex::default(),
            is_over: AtomicBool::new(false),
            sockets: (0..servers).map(|server| self.socket(server)).collect(),
        });
        // The clock begins when they answer.
        for server in 0..servers {
            Connection::open(&world, server).await.expect("starts");
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(client_loop(world.clone(), client, self.seed)))
            .collect();
        let watchers: Vec<_> = ["/", "/registry/pods/1", "/pair/", "/registry/pods/"]
            .iter()
            .enumerate()
            .map(|(number, prefix)| tokio::spawn(watch_loop(world.clone(), number, prefix)))
            .collect();
        let compactor = tokio::spawn(compact_loop(world.clone()));
        self.faults(&mut children, &world).await;
        world.is_over.store(true, Ordering::Relaxed);
        for task in clients {
            task.await.expect("a client ends");
        }
        compactor.await.expect("the compactor ends");
        finish(&world).await;
        for task in watchers {
            task.await.expect("a watcher ends");
        }
        drop(children);
        std::mem::take(&mut *world.record.lock().expect("held briefly"))
    }

    async fn faults(&self, children: &mut Servers, world: &World) {
        let end = Instant::now() + self.lasts;
        let mut faults = self.faults.iter().cycle();
        let mut done = 0;
        while Instant::now() < end && (done < self.faults.len() || !world.has(self.enough)) {
            done += 1;
            tokio::time::sleep(PAUSE).await;
            let Some(fault) = faults.next() else { continue };
            match fault {
                Fault::Kill(server) => {
                    let child = &mut children.0[*server];
                    child.kill().expect("kill -9");
                    child.wait().expect("reaped");
                    *child = self.spawn(*server, true);
                    tokio::time::sleep(PAUSE).await;
                }
                Fault::Pause(server) => pause(children.0[*server].id()).await,
                Fault::PauseOther(pid) => pause(*pid).await,
                Fault::FullDisk(dir) => {
                    fill(&dir.join("filler"));
                    tokio::time::sleep(PAUSE).await;
                    std::fs::remove_file(dir.join("filler")).expect("makes space");
                }
                Fault::FullEtcd(endpoint) => {
                    fill_etcd(endpoint).await;
                    tokio::time::sleep(PAUSE).await;
                    let rev = empty_etcd(endpoint).await;
                    let mut record = world.record.lock().expect("held briefly");
                    record.compacted = record.compacted.max(rev);
                }
            }
        }
    }
}

async fn etcdctl(endpoint: &str, arguments: &[&str]) -> (bool, String) {
    let output = tokio::process::Command::new("etcdctl")
        .args(["--endpoints", endpoint])
        .args(arguments)
        .env("ETCDCTL_API", "3")
        .output()
        .await
        .expect("runs etcdctl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

async fn fill_etcd(endpoint: &str) {
    let value = "x".repeat(100_000);
    for number in 0..200 {
        let key = format!("/filler/{number}");
        if !etcdctl(endpoint, &["put", &key, &value]).await.0 {
            return;
        }
    }
    panic!("the quota of etcd is not reached");
}

/// What an operator does. Returns the revision up to which history is gone.
async fn empty_etcd(endpoint: &str) -> u64 {
    etcdctl(endpoint, &["del", "--prefix", "/filler/"]).await;
    let (_, status) = etcdctl(endpoint, &["endpoint", "status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let rev = status[0]["Status"]["header"]["revision"].as_u64();
    let rev = rev.expect("a revision");
    etcdctl(endpoint, &["compact", &rev.to_string()]).await;
    etcdctl(endpoint, &["defrag"]).await;
    assert!(etcdctl(endpoint, &["alarm", "disarm"]).await.0, "disarms");
    rev
}

async fn pause(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stops");
    tokio::time::sleep(PAUSE).await;
    kill(pid, Signal::SIGCONT).expect("goes on");
}

/// Takes all the space that is left.
pub(crate) fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("creates");
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0; 1]).is_ok() {}
}

struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Connection {
    /// `None`: nobody answers for a long time.
    async fn open(world: &World, server: usize) -> Option<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = UnixStream::connect(&world.sockets[server]).await {
                let (reader, writer) = stream.into_split();
                let lines = BufReader::new(reader).lines();
                return Some(Self { lines, writer });
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    async fn say(&mut self, ask: &Ask) -> Option<()> {
        let mut line = serde_json::to_vec(ask).expect("is encoded");
        line.push(b'\n');
        self.writer.write_all(&line).await.ok()
    }

    /// Asks and records. `None`: the connection is gone.
    async fn ask(&mut self, world: &World, ask: Ask) -> Option<Answer> {
        let called_ns = world.now_ns();
        let answer = match self.say(&ask).await {
            Some(()) => self.hear().await,
            None => None,
        };
        let returned_ns = world.now_ns();
        let known = answer.clone().unwrap_or(Answer::Unknown {
            why: "the connection ended".into(),
        });
        world
            .record
            .lock()
            .expect("held briefly")
            .operations
            .push(Operation {
                ask,
                answer: known,
                called_ns,
                returned_ns,
            });
        answer
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

async fn client_loop(world: Arc<World>, client: usize, seed: u64) {
    let server = client % world.sockets.len();
    let mut dice = Dice((seed + 1) * 0x9e37_79b9 + client as u64 * 0x1234_5678_9abc + 1);
    let mut number = 0;
    while !world.is_over() {
        let Some(mut connection) = Connection::open(&world, server).await else {
            return;
        };
        while !world.is_over() {
            number += 1;
            let value = format!("{client}-{number}");
            if act(&world, &mut connection, &mut dice, value)
                .await
                .is_none()
            {
                break;
            }
        }
    }
}

/// What controllers do: much reading, then writing what was read; sometimes by an old revision.
async fn act(
    world: &World,
    connection: &mut Connection,
    dice: &mut Dice,
    value: String,
) -> Option<()> {
    let key = format!("/registry/pods/{}", dice.roll(KEYS));
    match dice.roll(20) {
        0..8 => drop(connection.ask(world, Ask::Get { key }).await?),
        8..10 => {
            let prefix = match dice.roll(3) {
                0 => "/",
                1 => "/registry/pods/",
                _ => "/pair/",
            };
            let prefix = prefix.into();
            drop(connection.ask(world, Ask::List { prefix }).await?);
        }
        10 => drop(connection.ask(world, Ask::Pair { value }).await?),
        11.. => {
            let get = Ask::Get { key: key.clone() };
            let found = match connection.ask(world, get).await? {
                Answer::Got(found) => found,
                _ => return Some(()),
            };
            let ask = match found {
                None => Ask::Create { key, value },
                Some(seen) => {
                    let expect = seen.rev - u64::from(dice.roll(10) == 0);
                    match dice.roll(10) {
                        0 => Ask::Delete { key, expect },
                        1 => Ask::Create { key, value },
                        _ => Ask::Update { key, expect, value },
                    }
                }
            };
            drop(connection.ask(world, ask).await?);
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    Some(())
}

async fn compact_loop(world: Arc<World>) {
    while !world.is_over() {
        let Some(mut connection) = Connection::open(&world, 0).await else {
            return;
        };
        while !world.is_over() {
            tokio::time::sleep(COMPACT_EVERY).await;
            match connection.ask(&world, Ask::Compact { keep: KEEP }).await {
                Some(Answer::Done { rev }) => {
                    let mut record = world.record.lock().expect("held briefly");
                    record.compacted = record.compacted.max(rev);
                }
                Some(_) => {}
                None => break,
            }
        }
    }
}

/// Writes what every watcher must come to see.
async fn finish(world: &World) {
    let deadline = Instant::now() + PATIENCE;
    let mut value = 0;
    while Instant::now() < deadline {
        let Some(mut connection) = Connection::open(world, 0).await else {
            return;
        };
        value += 1;
        let pair = Ask::Pair {
            value: format!("{END}-pair-{value}"),
        };
        let create = Ask::Create {
            key: format!("/registry/pods/1-{END}-{value}"),
            value: format!("{END}-create-{value}"),
        };
        let pair = connection.ask(world, pair).await;
        let create = connection.ask(world, create).await;
        if let (Some(Answer::Done { .. }), Some(Answer::Done { .. })) = (pair, create) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lists, watches from there, goes on where it was when the connection ends, and lists again when
/// it is told to.
async fn watch_loop(world: Arc<World>, number: usize, prefix: &'static str) {
    let server = number % world.sockets.len();
    let mut from = None;
    let mut ended_at: Option<Instant> = None;
    loop {
        let Some(mut connection) = Connection::open(&world, server).await else {
            break;
        };
        if from.is_none() {
            let list = Ask::List {
                prefix: prefix.into(),
            };
            let Some(Answer::Listed { rev, all }) = connection.ask(&world, list).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            if all.iter().any(|seen| seen.value.starts_with(END)) {
                return;
            }
            from = Some(rev);
        }
        let start = from.unwrap_or(0);
        let mut stream = Stream {
            prefix: prefix.into(),
            from: start,
            batches: Vec::new(),
            refused_below: None,
        };
        let watch = Ask::Watch {
            prefix: prefix.into(),
            from: start,
        };
        let heard = match connection.say(&watch).await {
            Some(()) => listen(&world, &mut connection, &mut stream, &mut ended_at).await,
            None => Heard::Enough,
        };
        from = match (stream.refused_below, stream.batches.last()) {
            (Some(_), _) => None,
            (None, Some((_, position))) => Some(*position),
            (None, None) => from,
        };
        let mut record = world.record.lock().expect("held briefly");
        record.streams.push(stream);
        if heard == Heard::TooLittle {
            record.starved.push(format!("watcher {number} of {prefix}"));
        }
        if heard != Heard::Enough {
            return;
        }
    }
    let mut record = world.record.lock().expect("held briefly");
    record.starved.push(format!("watcher {number} of {prefix}"));
}

#[derive(PartialEq)]
enum Heard {
    /// The watch ended; another one may go on.
    Enough,
    Everything,
    /// The end does not come.
    TooLittle,
}

/// Records what a watch tells until it ends, or tells of the end of everything.
async fn listen(
    world: &World,
    connection: &mut Connection,
    stream: &mut Stream,
    ended_at: &mut Option<Instant>,
) -> Heard {
    loop {
        let told = tokio::time::timeout(PAUSE, connection.hear::<Told>()).await;
        if world.is_over() {
            let since = *ended_at.get_or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE / 2 {
                return Heard::TooLittle;
            }
        }
        match told {
            Ok(Some(Told::Events { events, position })) => {
                let mut values = events.iter().filter_map(|event| event.after.as_ref());
                let is_end = values.any(|after| after.value.starts_with(END));
                stream.batches.push((events, position));
                if is_end {
                    return Heard::Everything;
                }
            }
            Ok(Some(Told::Compacted { floor })) => {
                stream.refused_below = Some(floor);
                return Heard::Enough;
            }
            Ok(Some(Told::Ended) | None) => return Heard::Enough,
            Err(_) => {}
        }
    }
}
