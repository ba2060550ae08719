//! This host's own rows and word, to one other host.

use std::time::Duration;

use tracing::debug;
use types::HostId;
use types::fleet::HostStatus;

use super::Replication;
use super::transport::PUSH;
use crate::catalog::Position;
use crate::catalog::codec::{Page, decode_position, encode_push};

/// A push that takes longer is as good as lost: the next word follows anyway.
const DEADLINE: Duration = Duration::from_secs(5);

/// Pushes to `peer` for ever. What is not needed any more when there is time for it is not sent.
pub(super) async fn run(replication: Replication, peer: HostId) {
    let shared = &replication.shared;
    let mut word = shared.word.subscribe();
    // Where the other host is; `None`: to be found out.
    let mut theirs: Option<Position> = None;
    loop {
        let said = word.borrow_and_update().clone();
        let there = shared.catalog.host_status(peer) != HostStatus::Unreachable;
        if there && !said.is_empty() {
            let page = next_page(&replication, theirs);
            let (sent, more) = (!page.statements.is_empty(), page.more);
            let body = encode_push(&said, &page).into();
            let asked = shared.transport.ask(peer, PUSH, body, DEADLINE).await;
            let answer =
                asked.and_then(|body| decode_position(body).map_err(std::io::Error::other));
            let before = theirs;
            theirs = match answer {
                Ok(position) => Some(position),
                Err(error) => {
                    debug!(host = %peer, %error, "a push is lost");
                    None
                }
            };
            let own = shared.catalog.position(shared.host).unwrap_or_default();
            if theirs.is_some_and(|theirs| theirs > own) {
                // It knows more of this host than this host does.
                replication.want(peer);
            }
            // As long as it helps. What does not is left to the next word and to anti-entropy.
            let helped = theirs.is_some() && theirs != before;
            let first = before.is_none() && !sent;
            if helped && (more || first) {
                continue;
            }
        }
        if word.changed().await.is_err() {
            return;
        }
    }
}

/// Own rows behind `theirs`; none if it is not known where that is, or if ends of machines behind
/// it are forgotten: the other host notices and asks for all.
fn next_page(replication: &Replication, theirs: Option<Position>) -> Page {
    let shared = &replication.shared;
    let page = theirs.and_then(|theirs| {
        let page = replication.page(shared.host, theirs, false)?;
        let goes_on = theirs.epoch == page.epoch
            && theirs.version == page.after
            && theirs.version >= page.floor;
        goes_on.then_some(page)
    });
    page.unwrap_or_else(|| {
        let own = shared.catalog.position(shared.host).unwrap_or_default();
        Page {
            origin: shared.host,
            epoch: own.epoch,
            after: own.version,
            floor: 0,
            head: own.version,
            more: false,
            statements: Vec::new(),
        }
    })
}
