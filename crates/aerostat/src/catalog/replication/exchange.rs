//! Anti-entropy: comparing with one host at a time what is known of all, and reading what it has
//! more.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::debug;
use types::HostId;

use super::Replication;
use super::transport::{DIGEST, ROWS};
use crate::catalog::Position;
use crate::catalog::codec::{Ask, Digest, Malformed, Page};
use crate::catalog::rows::Rows;

const INTERVAL: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(10);
/// Pages of one host's rows in one go: a gigabyte. The rest is for the next time.
const PAGES_MAX: usize = 1000;

/// Exchanges with hosts by lot and with those that are `wanted`.
pub(super) async fn run(replication: &Replication, mut wanted: mpsc::Receiver<HostId>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let host = tokio::select! {
            host = wanted.recv() => host,
            _ = tick.tick() => {
                let there = replication.there();
                (!there.is_empty()).then(|| there[rand::random_range(0..there.len())])
            }
        };
        let Some(host) = host else {
            continue;
        };
        if let Err(error) = exchange(replication, host).await {
            debug!(%host, %error, "an exchange with another host was broken off");
        }
    }
}

/// Compares with `host`, and reads what it has more. What this host has more, the other one reads
/// when it sees the digest.
pub(super) async fn exchange(replication: &Replication, host: HostId) -> io::Result<()> {
    let shared = &replication.shared;
    let _turn = shared.turn.lock().await;
    let ours = replication.digest();
    let body = ours.encode().into();
    let answer = shared.transport.ask(host, DIGEST, body, DEADLINE).await?;
    let theirs = read(replication, host, Digest::decode(answer))?;
    replication.hear_all(theirs.words);
    for (origin, position) in theirs.positions {
        let known = shared.catalog.position(origin).unwrap_or_default();
        if position <= known {
            continue;
        }
        if origin == shared.host {
            reclaim(replication, host, position).await?;
        } else {
            pull_near(replication, host, origin).await?;
        }
    }
    Ok(())
}

/// Reads rows of `origin` that `host` says it has. From the origin itself if that can be asked:
/// statements are signed one by one, so whoever passes them on could leave some out, and make
/// machines of others seem gone.
async fn pull_near(replication: &Replication, host: HostId, origin: HostId) -> io::Result<()> {
    if host != origin && replication.there().contains(&origin) {
        match pull(replication, origin, origin).await {
            Ok(()) => return Ok(()),
            Err(error) => debug!(%origin, %error, "a host cannot be asked for its own rows"),
        }
    }
    pull(replication, host, origin).await
}

fn read<T>(
    replication: &Replication,
    host: HostId,
    decoded: Result<T, Malformed>,
) -> io::Result<T> {
    decoded.map_err(|malformed| {
        replication.count_malformed(host, &malformed);
        io::Error::other(malformed)
    })
}

async fn ask(replication: &Replication, host: HostId, ask: Ask) -> io::Result<Page> {
    let body = ask.encode().into();
    let asked = replication
        .shared
        .transport
        .ask(host, ROWS, body, DEADLINE)
        .await?;
    let page = read(replication, host, Page::decode(asked))?;
    if page.origin != ask.origin {
        return Err(io::Error::other("another host's rows than were asked for"));
    }
    Ok(page)
}

/// Reads rows of `origin` from `host`.
async fn pull(replication: &Replication, host: HostId, origin: HostId) -> io::Result<()> {
    let catalog = &replication.shared.catalog;
    let mut next = Ask {
        origin,
        after: catalog.position(origin).unwrap_or_default(),
        whole: false,
    };
    // Reading everything: which machines there are, and how far that goes for certain.
    let mut whole: Option<(BTreeSet<_>, u64)> = None;
    for _ in 0..PAGES_MAX {
        let page = ask(replication, host, next).await?;
        let after = Position {
            epoch: page.epoch,
            version: page.after,
        };
        if after.epoch < next.after.epoch || (next.whole && after != next.after) {
            return Err(io::Error::other("the rows were replaced meanwhile"));
        }
        if after != next.after || (after.version == 0 && !next.whole) {
            whole = Some((BTreeSet::new(), page.head));
        }
        let more = page.more;
        let verifier = replication.clone();
        let is_whole = whole.is_some();
        let arrived = tokio::task::spawn_blocking(move || {
            verifier.shared.verifier.page(host, page, is_whole)
        });
        let arrived = arrived.await.map_err(io::Error::other)?;
        let ids = arrived.statements.iter();
        let ids: Vec<_> = ids.map(|(entry, _)| entry.machine.id.clone()).collect();
        let last = arrived.last.unwrap_or(after.version);
        let complete = arrived.complete;
        let merged = replication.change_of(origin, |rows| rows.merge(arrived));
        let left = || io::Error::other("the host of these rows has left the fleet");
        let merged = merged.ok_or_else(left)?;
        let verifier = &replication.shared.verifier;
        verifier.count_foreign(origin, merged.foreign);
        if let Some((named, goal)) = &mut whole {
            named.extend(ids);
            if complete && !more {
                let last = Position {
                    epoch: after.epoch,
                    version: last,
                };
                let goal = *goal;
                let finish = |rows: &mut Rows| rows.finish_whole(origin, last, goal, named);
                replication.change_of(origin, finish).ok_or_else(left)?;
            }
        }
        if !more || !complete || last <= after.version {
            return Ok(());
        }
        next = Ask {
            origin,
            after: Position {
                epoch: after.epoch,
                version: last,
            },
            whole: is_whole,
        };
    }
    Ok(())
}

/// Another host knows rows of this one that this one does not: it has lost its ledger or gone back
/// in time. If they are genuine, it goes on above them.
async fn reclaim(replication: &Replication, host: HostId, theirs: Position) -> io::Result<()> {
    let shared = &replication.shared;
    let own = shared.catalog.position(shared.host).unwrap_or_default();
    let question = Ask {
        origin: shared.host,
        after: Position {
            epoch: theirs.epoch,
            // Of an older epoch any row will do.
            version: if theirs.epoch > own.epoch {
                0
            } else {
                own.version
            },
        },
        whole: true,
    };
    let page = ask(replication, host, question).await?;
    let arrived = shared.verifier.page(host, page, true);
    let proven = arrived.last.is_some_and(|version| {
        let epoch = arrived.after.epoch;
        Position { epoch, version } > own
    });
    if proven {
        replication.renew(arrived.after.epoch);
    }
    Ok(())
}
