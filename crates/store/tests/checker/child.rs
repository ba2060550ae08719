//! The process that holds a store and answers on a socket, with a planted bug or without.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{Config, Entry, EtcdConfig, Event, Set, Store, WatchError, WriteError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::bugs::Bug;
use super::record::{Answer, Ask, Happened, PAIR, Seen, Told};

/// What the child is told by its environment.
pub(crate) const ORDERS: &str = "STORE_CHECKER_ORDERS";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) socket: PathBuf,
    pub(crate) database: Database,
    pub(crate) bug: Bug,
    /// Not the first process on this database.
    pub(crate) is_restart: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Database {
    Sqlite(PathBuf),
    Etcd(String),
}

/// Serves until it is killed.
pub(crate) async fn serve(orders: Orders) {
    let store = match &orders.database {
        Database::Sqlite(path) => {
            if orders.is_restart {
                damage(path, orders.bug);
            }
            Store::open(&Config::new(path)).expect("opens")
        }
        Database::Etcd(endpoint) => {
            let config = EtcdConfig {
                compact_every: None,
                ..EtcdConfig::new(vec![endpoint.clone()])
            };
            Store::open_etcd(&config).await.expect("opens")
        }
    };
    let _ = std::fs::remove_file(&orders.socket);
    let listener = UnixListener::bind(&orders.socket).expect("binds");
    let server = Arc::new(Server {
        store,
        bug: orders.bug,
        count: AtomicU64::new(0),
        compactions: AtomicU64::new(0),
        old: Mutex::default(),
    });
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        tokio::spawn(server.clone().converse(stream));
    }
}

/// What a store that does not wait for its disk, or forgets removals, would find after a crash.
fn damage(path: &Path, bug: Bug) {
    let change = match bug {
        Bug::LostOnCrash => "DELETE FROM log WHERE rev = (SELECT max(rev) FROM log)",
        Bug::ResurrectedOnCrash => "DELETE FROM log WHERE value IS NULL",
        _ => return,
    };
    let database = rusqlite::Connection::open(path).expect("opens");
    database.execute_batch(change).expect("damages");
}

struct Server {
    store: Store,
    bug: Bug,
    count: AtomicU64,
    compactions: AtomicU64,
    /// What keys held before, for stale reads.
    old: Mutex<BTreeMap<String, VecDeque<Option<Seen>>>>,
}

fn seen(key: &str, entry: &Entry) -> Seen {
    Seen {
        key: key.to_owned(),
        rev: entry.rev,
        create_rev: entry.create_rev,
        value: String::from_utf8_lossy(&entry.value).into_owned(),
    }
}

fn happened(event: &Event) -> Happened {
    let side = |entry: &Option<Entry>| entry.as_ref().map(|entry| seen(&event.key, entry));
    Happened {
        rev: event.rev,
        key: event.key.to_string(),
        before: side(&event.before),
        after: side(&event.after),
    }
}

fn written(result: Result<u64, WriteError>) -> Answer {
    match result {
        Ok(rev) => Answer::Done { rev },
        Err(WriteError::Exists { .. }) => Answer::Exists,
        Err(WriteError::NotFound { .. }) => Answer::NotFound,
        Err(WriteError::Conflict { actual_rev, .. }) => Answer::Conflict { actual: actual_rev },
        Err(WriteError::Disk { source }) => Answer::Refused {
            why: source.to_string(),
        },
        Err(error) => Answer::Unknown {
            why: error.to_string(),
        },
    }
}

impl Server {
    /// True once in a while, if it is this bug that is planted.
    fn strikes(&self, bug: Bug, every: u64) -> bool {
        self.bug == bug && self.count.fetch_add(1, Ordering::Relaxed) % every == every - 1
    }

    async fn converse(self: Arc<Self>, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let ask: Ask = serde_json::from_str(&line).expect("a question");
            if let Ask::Watch { prefix, from } = ask {
                return self.tell(&prefix, from, lines, writer).await;
            }
            let answer = self.answer(ask).await;
            if say(&mut writer, &answer).await.is_none() {
                return;
            }
        }
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Create { key, value } => {
                let result = self.store.create(&key, value.into(), None).await;
                match result {
                    Ok(_) if self.strikes(Bug::DoneButRefused, 3) => Answer::Exists,
                    result => written(result),
                }
            }
            Ask::Update { key, expect, value } => self.update(&key, expect, value.into()).await,
            Ask::Delete { key, expect } => written(self.store.delete(&key, expect).await),
            Ask::Pair { value } => self.pair(value.into()).await,
            Ask::Get { key } => self.get(key).await,
            Ask::List { prefix } => self.list(&prefix).await,
            Ask::Compact { keep } => {
                let rev = self.store.current_rev().saturating_sub(keep);
                self.compactions.fetch_add(1, Ordering::Relaxed);
                match self.store.compact(rev).await {
                    Ok(()) => Answer::Done { rev },
                    Err(error) => Answer::Unknown {
                        why: error.to_string(),
                    },
                }
            }
            Ask::Watch { .. } => panic!("answered elsewhere"),
        }
    }

    async fn update(&self, key: &str, expect: u64, value: Bytes) -> Answer {
        if self.strikes(Bug::FalseConflict, 20) {
            return Answer::Conflict { actual: expect };
        }
        let mut expect = expect;
        if self.bug == Bug::BlindUpdate {
            expect = self.store.get(key).map_or(expect, |entry| entry.rev);
        }
        if self.bug == Bug::StaleGet {
            let entry = self.store.get(key).map(|entry| seen(key, &entry));
            let mut old = self.old.lock().expect("held briefly");
            let values = old.entry(key.to_owned()).or_default();
            values.push_back(entry);
            values.truncate(4);
        }
        written(self.store.update(key, expect, value, None).await)
    }

    async fn pair(&self, value: Bytes) -> Answer {
        let [first, second] = PAIR.map(|key| Set::put(key, value.clone()));
        if self.bug == Bug::HalfTransaction {
            let _ = self.store.transact(vec![first]).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
            return written(self.store.transact(vec![second]).await);
        }
        written(self.store.transact(vec![first, second]).await)
    }

    async fn sync(&self) -> Option<Answer> {
        if self.bug == Bug::ReadWithoutSync {
            return None;
        }
        let error = self.store.sync().await.err()?;
        Some(Answer::Unknown {
            why: error.to_string(),
        })
    }

    async fn get(&self, key: String) -> Answer {
        if let Some(failure) = self.sync().await {
            return failure;
        }
        if self.strikes(Bug::StaleGet, 10) {
            let mut old = self.old.lock().expect("held briefly");
            if let Some(stale) = old.get_mut(&key).and_then(VecDeque::pop_front) {
                return Answer::Got(stale);
            }
        }
        Answer::Got(self.store.get(&key).map(|entry| seen(&key, &entry)))
    }

    async fn list(&self, prefix: &str) -> Answer {
        if let Some(failure) = self.sync().await {
            return failure;
        }
        let range = self.store.range(prefix, None, 9999, None);
        if self.strikes(Bug::ListOfAnotherRevision, 10) {
            // Until something has been written that the list does not show.
            let rev = range.as_ref().map_or(0, |range| range.rev);
            while self.store.current_rev() == rev {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        match range {
            Ok(range) => Answer::Listed {
                rev: match self.bug {
                    Bug::ListOfAnotherRevision => self.store.current_rev(),
                    _ => range.rev,
                },
                all: range
                    .entries
                    .iter()
                    .map(|(key, entry)| seen(key, entry))
                    .collect(),
            },
            Err(error) => Answer::Unknown {
                why: error.to_string(),
            },
        }
    }

    async fn tell(
        &self,
        prefix: &str,
        from: u64,
        mut lines: Lines<BufReader<OwnedReadHalf>>,
        mut writer: OwnedWriteHalf,
    ) {
        let _ = self.sync().await;
        if self.strikes(Bug::NeedlessCompaction, 4) {
            let floor = self.store.current_rev();
            let _ = say(&mut writer, &Told::Compacted { floor }).await;
            return;
        }
        let wanted = match self.bug {
            Bug::WatchIgnoresPrefix => "/",
            _ => prefix,
        };
        let mut watch = match self.store.watch(wanted, from) {
            Ok(watch) => watch,
            Err(error) => {
                let _ = say(&mut writer, &ended(&error)).await;
                return;
            }
        };
        let mut faults = Faults::default();
        let told = async {
            loop {
                let told = match watch.next().await {
                    Ok(events) => {
                        let events = events.iter().map(happened).collect();
                        let position = watch.position();
                        match self.spoil(&mut faults, events, position, from).await {
                            Some(told) => told,
                            None => continue,
                        }
                    }
                    Err(error) => ended(&error),
                };
                let is_end = !matches!(told, Told::Events { .. });
                if say(&mut writer, &told).await.is_none() || is_end {
                    return;
                }
            }
        };
        // A watcher that goes away says so by closing.
        tokio::select! {
            () = told => {}
            _ = lines.next_line() => {}
        }
    }

    /// What a watch with the planted bug makes of a batch; `None`: nothing is told.
    async fn spoil(
        &self,
        faults: &mut Faults,
        mut events: Vec<Happened>,
        position: u64,
        from: u64,
    ) -> Option<Told> {
        faults.batches += 1;
        let mut claimed = position;
        match self.bug {
            Bug::WatchDropsEvent if self.strikes(self.bug, 40) => drop(events.pop()),
            Bug::WatchDropsRemovalAtCompaction => {
                let now = self.compactions.load(Ordering::Relaxed);
                if now != faults.compactions
                    && let Some(at) = events.iter().position(|event| event.after.is_none())
                {
                    events.remove(at);
                    faults.compactions = now;
                }
            }
            Bug::WatchRepeats if self.strikes(self.bug, 40) => events.push(events[0].clone()),
            Bug::WatchOutOfOrder => {
                if faults.held.is_none() && self.strikes(self.bug, 20) {
                    faults.held = events.pop();
                } else if let Some(held) = faults.held.take() {
                    events.push(held);
                }
            }
            Bug::ResumeSkips if faults.batches == 1 && from > 1 => drop(events.remove(0)),
            Bug::BookmarkTooEarly => claimed = position + 1,
            Bug::WrongFormerValue if self.strikes(self.bug, 20) => events[0].before = None,
            Bug::UpdateLooksCreated if self.strikes(self.bug, 20) => {
                for event in &mut events {
                    let rev = event.rev;
                    event
                        .after
                        .iter_mut()
                        .for_each(|after| after.create_rev = rev);
                }
            }
            Bug::StarvedWatch if faults.batches > 20 => return None,
            _ => {}
        }
        Some(Told::Events {
            events,
            position: claimed,
        })
    }
}

#[derive(Default)]
struct Faults {
    batches: u64,
    compactions: u64,
    held: Option<Happened>,
}

fn ended(error: &WatchError) -> Told {
    match error {
        WatchError::Compacted { floor, .. } => Told::Compacted { floor: *floor },
        WatchError::Future { .. } | WatchError::Closed => Told::Ended,
    }
}

async fn say(writer: &mut OwnedWriteHalf, what: &impl Serialize) -> Option<()> {
    let mut line = serde_json::to_vec(what).expect("is encoded");
    line.push(b'\n');
    writer.write_all(&line).await.ok()
}
