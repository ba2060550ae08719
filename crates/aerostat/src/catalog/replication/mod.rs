//! Every host's statements on every host.
//!
//! ```text
//!  own row or word ──push──► every host that is there          (at once, and every 2 s)
//!  digest {origin → position} ◄──► one host, by lot            (every 5 s, or when a push has
//!        │                                                      shown that something is missing)
//!        └── behind? ── ask for rows ──► pages, oldest first
//! ```
//!
//! Each host signs what it says of its own machines, so it does not matter through whom that
//! comes. Pages instead of one long stream: each is there or not, says itself how far it goes, and
//! the asker sets the pace. A push is a page as well, from where the other host says that it is, so
//! there is no queue that a slow host could fill: it gets fewer and longer pages, and anti-entropy
//! does the rest.
//!
//! Everybody pushes to everybody. That is right for tens of hosts; for hundreds a tree (Plumtree)
//! would take the place of `push`, with the same pages, and digests stay as they are.

mod exchange;
mod push;
#[cfg(test)]
mod tests;
mod transport;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use types::HostId;
use types::fleet::{HostRecord, HostStatus};

use super::codec::{
    DIGEST_MAX, DIGEST_WORDS_MAX, Digest, Malformed, PAGE_BYTES_MAX, Page, sign_entry, sign_word,
};
use super::origins::{Item, Merged};
use super::rows::Rows;
use super::{Capacity, Catalog, Position, Word};
pub use transport::Transport;
use verify::Verifier;
pub use verify::{Dropped, KeyOf, Verify};

/// How often a host says its word.
const WORD_INTERVAL: Duration = Duration::from_secs(2);
/// Words older than this are not passed on: their hosts have said nothing since.
const WORD_AGE_MAX: Duration = Duration::from_secs(10);
/// Pages that are taken in at a time: each may hold [`super::codec::BODY_BYTES_MAX`].
const BUSY_MAX: usize = 8;
/// Hosts that are to be asked soon. More than that waits for the lot.
const WANTED_MAX: usize = 16;

/// Signs a message with this host's key.
pub type Sign = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// What replication needs.
pub struct Config {
    pub host: HostId,
    pub region: String,
    pub sign: Sign,
    pub key_of: KeyOf,
    /// What this host has and what of it is free.
    pub capacity: Arc<dyn Fn() -> Capacity + Send + Sync>,
    /// The directory's hosts.
    pub hosts: watch::Receiver<Arc<Vec<HostRecord>>>,
    pub transport: Arc<dyn Transport>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.host)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// The replication of one catalog. Clones share it.
#[derive(Debug, Clone)]
pub struct Replication {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    host: HostId,
    region: String,
    sign: Sign,
    verifier: Verifier,
    capacity: Arc<dyn Fn() -> Capacity + Send + Sync>,
    hosts: watch::Receiver<Arc<Vec<HostRecord>>>,
    transport: Arc<dyn Transport>,
    /// This host's last word, signed.
    word: watch::Sender<Bytes>,
    /// Words said in this life.
    said: AtomicU64,
    busy: Semaphore,
    /// One exchange at a time: two that read the same rows would each take the other's progress
    /// for rows that were replaced.
    turn: tokio::sync::Mutex<()>,
    wanted: mpsc::Sender<HostId>,
    wanted_by: std::sync::Mutex<Option<mpsc::Receiver<HostId>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication")
            .field("host", &self.host)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

impl Replication {
    pub fn new(config: Config, catalog: Catalog) -> Self {
        let (wanted, wanted_by) = mpsc::channel(WANTED_MAX);
        let shared = Shared {
            catalog,
            host: config.host,
            region: config.region,
            sign: config.sign,
            verifier: Verifier::new(config.key_of),
            capacity: config.capacity,
            hosts: config.hosts,
            transport: config.transport,
            word: watch::Sender::default(),
            said: AtomicU64::new(0),
            busy: Semaphore::new(BUSY_MAX),
            turn: tokio::sync::Mutex::default(),
            wanted,
            wanted_by: Some(wanted_by).into(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What other hosts ask, for the server behind [`crate::rpc`].
    pub fn router(&self) -> Router {
        transport::router(self.clone())
    }

    /// What was dropped since the start.
    pub fn dropped(&self) -> Dropped {
        self.shared.verifier.dropped()
    }

    /// Says what this host has to say and listens to the others until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let wanted = self.shared.wanted_by.lock();
        let wanted = wanted.map(|mut taken| taken.take()).ok().flatten();
        let Some(wanted) = wanted else {
            tracing::error!("replication runs already");
            return;
        };
        self.say();
        let work = async {
            tokio::join!(
                self.keep_saying(),
                self.keep_pushing(),
                exchange::run(&self, wanted)
            );
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// A new word every [`WORD_INTERVAL`], and when this host's rows have changed.
    async fn keep_saying(&self) {
        let catalog = &self.shared.catalog;
        let mut changed = catalog.shared.revision.subscribe();
        let mut said = catalog.position(self.shared.host);
        let mut tick = tokio::time::interval(WORD_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                _ = tick.tick() => true,
                changed = changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
            };
            let position = catalog.position(self.shared.host);
            if due || position != said {
                said = position;
                self.say();
            }
        }
    }

    /// Says this host's word.
    fn say(&self) {
        let shared = &self.shared;
        let word = Word {
            origin: shared.host,
            region: shared.region.clone(),
            at: Timestamp::now(),
            position: shared.catalog.position(shared.host).unwrap_or_default(),
            said: shared.said(),
            capacity: (shared.capacity)(),
        };
        let bytes = sign_word(&word, &*shared.sign);
        let now = Instant::now();
        shared
            .catalog
            .heard()
            .hear(word, bytes.clone(), Duration::ZERO, now);
        shared.word.send_replace(bytes);
    }

    /// One task for each other host of the fleet.
    async fn keep_pushing(&self) {
        let mut hosts = self.shared.hosts.clone();
        let mut pushing: BTreeMap<HostId, AbortOnDropHandle<()>> = BTreeMap::new();
        loop {
            let known: BTreeSet<HostId> = hosts.borrow_and_update().iter().map(|r| r.id).collect();
            self.forget_others(&known);
            pushing.retain(|host, _| known.contains(host));
            for host in known.into_iter().filter(|host| *host != self.shared.host) {
                pushing.entry(host).or_insert_with(|| {
                    let push = push::run(self.clone(), host);
                    AbortOnDropHandle::new(tokio::spawn(push))
                });
            }
            if hosts.changed().await.is_err() {
                // Without a directory it goes on with the hosts that it knows.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Forgets hosts that have left the fleet. A list without this host is none.
    fn forget_others(&self, known: &BTreeSet<HostId>) {
        if !known.contains(&self.shared.host) {
            return;
        }
        let catalog = &self.shared.catalog;
        let left: Vec<HostId> = {
            let rows = catalog.rows();
            let hosts = rows.origins.keys().copied();
            hosts.filter(|host| !known.contains(host)).collect()
        };
        for host in left {
            tracing::info!(%host, "host has left the fleet");
            catalog.change(|rows| rows.forget_host(host));
            catalog.heard().forget(host);
        }
    }

    /// Whether `host` has not left the fleet. Asked while the rows are held: what is taken in
    /// before it leaves is forgotten with it, and later nothing more is.
    fn is_of_fleet(&self, host: HostId) -> bool {
        let hosts = self.shared.hosts.borrow();
        let is_there = |host| hosts.iter().any(|record| record.id == host);
        is_there(host) || !is_there(self.shared.host)
    }

    /// Rows of `origin` behind `after`, signed.
    fn page(&self, origin: HostId, after: Position, whole: bool) -> Option<Page> {
        let catalog = &self.shared.catalog;
        let draft = catalog.rows().page(origin, after, whole, PAGE_BYTES_MAX)?;
        let mut page = Page {
            origin,
            epoch: draft.epoch,
            after: draft.after,
            floor: draft.floor,
            head: draft.head,
            more: draft.more,
            statements: Vec::with_capacity(draft.items.len()),
        };
        for item in draft.items {
            page.statements.push(match item {
                Item::Signed(bytes) => bytes,
                Item::Unsigned(entry) => {
                    let bytes = sign_entry(&entry, draft.epoch, &*self.shared.sign);
                    let position = Position {
                        epoch: draft.epoch,
                        version: entry.machine.revision,
                    };
                    let id = &entry.machine.id;
                    catalog.rows().keep_signed(id, position, bytes.clone());
                    bytes
                }
            });
        }
        Some(page)
    }

    /// Verifies a page and takes it in.
    async fn take_page(&self, from: HostId, page: Page, whole: bool) -> Merged {
        let taken = self.clone();
        let origin = page.origin;
        // Verifying takes about 60 µs for each statement.
        let merged = tokio::task::spawn_blocking(move || {
            let arrived = taken.shared.verifier.page(from, page, whole);
            taken.change_of(origin, |rows| rows.merge(arrived))
        });
        let merged = merged.await.ok().flatten().unwrap_or_default();
        self.shared.verifier.count_foreign(origin, merged.foreign);
        merged
    }

    /// Changes what is known of `origin`, unless it has left the fleet.
    fn change_of<T>(&self, origin: HostId, change: impl FnOnce(&mut Rows) -> T) -> Option<T> {
        let catalog = &self.shared.catalog;
        catalog.change(|rows| self.is_of_fleet(origin).then(|| change(rows)))
    }

    /// Listens to a word that was said `age` ago.
    fn hear(&self, bytes: Bytes, age: Duration) {
        let shared = &self.shared;
        let Some((word, bytes)) = shared.verifier.word(bytes) else {
            return;
        };
        if word.origin == shared.host {
            // Said in a life that this host has forgotten: others would not listen to it.
            let own = shared.catalog.position(shared.host).unwrap_or_default();
            if (word.position.epoch, word.said) > (own.epoch, shared.said_last()) {
                self.renew(word.position.epoch);
            }
            return;
        }
        let (origin, position) = (word.origin, word.position);
        let now = Instant::now();
        if !shared.catalog.heard().hear(word, bytes, age, now) {
            return;
        }
        let heard = self.change_of(origin, |rows| rows.hear_head(origin, position));
        if heard.is_none() {
            shared.catalog.heard().forget(origin);
        }
    }

    fn hear_all(&self, words: Vec<(Duration, Bytes)>) {
        for (age, word) in words {
            self.hear(word, age);
        }
    }

    /// Speaks above what others know from a forgotten life, up to `epoch`.
    fn renew(&self, epoch: u64) {
        tracing::warn!(
            epoch,
            "other hosts know a later life of this host; going above it"
        );
        self.shared.catalog.change(|rows| rows.renew_epoch(epoch));
        self.say();
    }

    fn digest(&self) -> Digest {
        let catalog = &self.shared.catalog;
        let positions = {
            let rows = catalog.rows();
            let origins = rows.origins.iter();
            let positions = origins.map(|(host, origin)| (*host, origin.position));
            positions.take(DIGEST_MAX).collect()
        };
        let now = Instant::now();
        let heard = catalog.heard();
        let words = heard
            .all()
            .map(|heard| (now.saturating_duration_since(heard.at), heard.bytes.clone()))
            .filter(|(age, _)| *age < WORD_AGE_MAX)
            .take(DIGEST_WORDS_MAX)
            .collect();
        Digest { positions, words }
    }

    /// Whether the other side of a digest knows something that this one does not.
    fn is_behind(&self, theirs: &Digest) -> bool {
        theirs.positions.iter().any(|(origin, position)| {
            let ours = self.shared.catalog.position(*origin).unwrap_or_default();
            *position > ours && *origin != self.shared.host
        })
    }

    /// Has `host` asked soon. If too many are waiting already, the lot decides.
    fn want(&self, host: HostId) {
        let _ = self.shared.wanted.try_send(host);
    }

    fn count_malformed(&self, from: HostId, malformed: &Malformed) {
        self.shared.verifier.count_malformed(from, malformed);
    }

    /// Hosts that may answer.
    fn there(&self) -> Vec<HostId> {
        let hosts = self.shared.hosts.borrow();
        let others = hosts.iter().map(|record| record.id);
        let others = others.filter(|host| *host != self.shared.host);
        let status = |host: &HostId| self.shared.catalog.host_status(*host);
        others
            .filter(|host| status(host) != HostStatus::Unreachable)
            .collect()
    }
}

impl Shared {
    /// The number of the next word: above those of earlier lives.
    fn said(&self) -> u64 {
        let number = self.said.fetch_add(1, Ordering::Relaxed) + 1;
        (self.catalog.life() << 32) | (number & u64::from(u32::MAX))
    }

    fn said_last(&self) -> u64 {
        (self.catalog.life() << 32) | self.said.load(Ordering::Relaxed)
    }
}
