//! Fairness: limits that protect the server from too many requests, and users from each other.
//!
//! ```text
//! request ── FlowSchemas: which flow ── PriorityLevel: a seat ── its verb
//!                                          │ none free: in line, flows take turns
//!                                          └ the line is full, or takes too long: 429
//! ```
//!
//! The objects are those of `flowcontrol.apiserver.k8s.io`, and a change of one counts from the
//! next request on. A level has its share of the seats for itself; they are not lent, because a
//! server of this size has few. A request holds its seat until its answer begins, so watches and
//! other long ones cost a seat only while they start.

mod flows;
mod level;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use store::Store;
use tokio::sync::oneshot;

use super::body::Body;
use crate::fresh::Fresh;
use crate::identity::User;
use crate::rbac::Request;
use crate::status::Status;

use flows::{Flow, Flows, Limit};
use level::{Entry, Level};

/// Requests that are worked on at a time. Each may hold a body and an object of a few megabytes.
const SEATS: u32 = 200;
/// As long as upstream lets a request wait: a quarter of its time.
const WAIT_MAX: Duration = Duration::from_secs(15);
const TOO_MANY: &str = "Too many requests, please try again later.";
const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

type Waiter = oneshot::Sender<()>;
type Levels = HashMap<String, Level<Waiter>>;

/// Gives seats to requests.
#[derive(Debug)]
pub(super) struct Fairness {
    flows: Mutex<Fresh<Flows>>,
    levels: Arc<Mutex<Levels>>,
    seats: u32,
}

/// A request that may go on. Dropped, its seat is free.
#[derive(Debug)]
pub(super) struct Pass {
    _seat: Option<Seat>,
}

/// What the answer tells of the flow.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    schema_uid: String,
    level_uid: String,
}

#[derive(Debug)]
struct Seat {
    levels: Arc<Mutex<Levels>>,
    level: String,
}

/// A place in the line. Dropped, it is given up.
struct Place<'a> {
    fairness: &'a Fairness,
    level: &'a str,
    flow: &'a str,
    id: u64,
}

impl Fairness {
    pub(super) fn new(store: Store) -> Self {
        Self::with_seats(store, SEATS)
    }

    fn with_seats(store: Store, seats: u32) -> Self {
        Self {
            flows: Mutex::new(Fresh::new(store)),
            levels: Arc::default(),
            seats,
        }
    }

    /// What the answer to a request of this user will tell, whether or not it is let in; and the
    /// right to go on, or 429.
    pub(super) async fn enter(
        &self,
        user: &User,
        request: &Request,
    ) -> (Marks, Result<Pass, Status>) {
        let (flow, seats) = {
            let mut fresh = self
                .flows
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let flows = fresh.now();
            let flow = flows.classify(user, request);
            let seats = match flow.as_ref().map(|flow| flow.level.limit) {
                Some(Limit::Limited { shares, .. }) => flows.seats(shares, self.seats),
                Some(Limit::Exempt) | None => 0,
            };
            (flow, seats)
        };
        // Without any objects there is nothing to go by; the connections are limited anyhow.
        let Some(flow) = flow else {
            let marks = Marks::default();
            return (marks.clone(), Ok(Pass { _seat: None }));
        };
        let marks = Marks {
            schema_uid: flow.schema.uid.clone(),
            level_uid: flow.level.uid.clone(),
        };
        let seat = match flow.level.limit {
            Limit::Exempt => Ok(None),
            Limit::Limited { queue_max, .. } => self.seat(&flow, seats, queue_max).await.map(Some),
        };
        let pass = seat.map(|seat| Pass { _seat: seat });
        (marks, pass)
    }

    async fn seat(&self, flow: &Flow, seats: usize, queue_max: usize) -> Result<Seat, Status> {
        let name = &flow.level.name;
        let seat = || Seat {
            levels: self.levels.clone(),
            level: name.clone(),
        };
        let (waiter, mut called) = oneshot::channel();
        let entry = {
            let mut levels = lock(&self.levels);
            let level = levels
                .entry(name.clone())
                .or_insert_with(|| Level::new(seats, queue_max));
            for waiter in level.limit(seats, queue_max) {
                call(level, waiter);
            }
            level.enter(&flow.key, waiter)
        };
        match entry {
            Entry::Seated => return Ok(seat()),
            Entry::Refused => return Err(Status::too_many_requests(TOO_MANY)),
            Entry::Waits(id) => {
                let place = Place {
                    fairness: self,
                    level: name,
                    flow: &flow.key,
                    id,
                };
                if let Ok(Ok(())) = tokio::time::timeout(WAIT_MAX, &mut called).await {
                    std::mem::forget(place);
                    return Ok(seat());
                }
            }
        }
        Err(Status::too_many_requests(TOO_MANY))
    }
}

/// Gives a seat that is accounted for already to a waiter, or to the next one if it has gone.
fn call(level: &mut Level<Waiter>, waiter: Waiter) {
    let mut next = Some(waiter);
    while let Some(waiter) = next {
        if waiter.send(()).is_ok() {
            return;
        }
        next = level.leave();
    }
}

fn lock(levels: &Mutex<Levels>) -> MutexGuard<'_, Levels> {
    levels
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut levels = lock(&self.levels);
        if let Some(level) = levels.get_mut(&self.level)
            && let Some(waiter) = level.leave()
        {
            call(level, waiter);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut levels = lock(&self.fairness.levels);
        let Some(level) = levels.get_mut(self.level) else {
            return;
        };
        // It was called in the same moment: the seat goes on to the next one.
        if !level.give_up(self.flow, self.id)
            && let Some(waiter) = level.leave()
        {
            call(level, waiter);
        }
    }
}

impl Marks {
    pub(super) fn mark(&self, mut response: Response<Body>) -> Response<Body> {
        set(response.headers_mut(), FLOW_SCHEMA_UID, &self.schema_uid);
        set(response.headers_mut(), LEVEL_UID, &self.level_uid);
        response
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, uid: &str) {
    if let (Ok(uid), false) = (HeaderValue::from_str(uid), uid.is_empty()) {
        headers.insert(name, uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;

    async fn fairness(seats: u32) -> (Fairness, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = store::Config::new(dir.path().join("kube.db"));
        let store = Store::open(&config).expect("opens");
        let api = Api::new(store.clone());
        api.bootstrap().await.expect("bootstrapped");
        (Fairness::with_seats(store, seats), dir)
    }

    fn user(name: &str) -> User {
        User::authenticated(name.to_owned(), Vec::new())
    }

    #[tokio::test]
    async fn a_flood_of_one_user_does_not_stop_another() {
        // A seat for each level.
        let (fairness, _dir) = fairness(1).await;
        let fairness = Arc::new(fairness);
        let list = Request::resource("list", "", "pods").in_namespace("default");
        let (_, first) = fairness.enter(&user("loud"), &list).await;
        let first = first.expect("a free seat");
        let mut flood = Vec::new();
        for _ in 0..200 {
            let (fairness, list) = (fairness.clone(), list.clone());
            flood.push(tokio::spawn(async move {
                fairness.enter(&user("loud"), &list).await.1.map(drop)
            }));
        }
        // The line of the loud one is full when somebody of it is refused.
        let refused = futures::future::select_all(flood);
        let (refused, _, others) = refused.await;
        // On the one thread of this test, everybody else gets as far as they can.
        for _ in 0..300 {
            tokio::task::yield_now().await;
        }
        let status = refused.expect("no panic").expect_err("the line is full");
        assert_eq!(status.code, 429);
        let (quiet_fairness, quiet_list) = (fairness.clone(), list.clone());
        let quiet = tokio::spawn(async move {
            let (marks, pass) = quiet_fairness.enter(&user("quiet"), &quiet_list).await;
            assert!(!marks.schema_uid.is_empty() && !marks.level_uid.is_empty());
            pass.map(drop)
        });
        tokio::task::yield_now().await;
        let health = Request::path("get", "/readyz");
        fairness
            .enter(&User::anonymous(), &health)
            .await
            .1
            .expect("exempt");
        let master = User::server();
        fairness.enter(&master, &list).await.1.expect("exempt");
        drop(first);
        quiet.await.expect("no panic").expect("its turn comes");
        let mut served = 0;
        for other in others {
            served += usize::from(other.await.expect("no panic").is_ok());
        }
        assert_eq!(served, 50, "as many as may wait");
        assert!(fairness.enter(&user("late"), &list).await.1.is_ok());
    }
}
