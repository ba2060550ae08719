//! Questions for single rows, each asked once for however many wait for the answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use super::link::Link;
use crate::rpc::Unreachable;

/// Questions under way. Strangers cause them (a gateway asks for each unknown key), so there is a
/// bound; it is far above what one round trip meets when nobody plays games.
const FLIGHTS_MAX: usize = 64;
/// "There is none" is believed for this long: a client that comes again and again with a key that
/// nobody knows costs one question each time it is over. What is made meanwhile comes with the
/// watch.
const ABSENT_FOR: Duration = Duration::from_secs(2);
const ABSENT_MAX: usize = 1024;

type Answer = Result<Option<String>, Arc<Unreachable>>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    Busy,
    Unreachable(Arc<Unreachable>),
}

#[derive(Default)]
pub(super) struct Flights {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    under_way: HashMap<String, Flight>,
    absent: BTreeMap<String, Instant>,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let under_way = self.state().under_way.len();
        f.debug_struct("Flights")
            .field("under_way", &under_way)
            .finish_non_exhaustive()
    }
}

impl Flights {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The row of `key` at the other end of `link`.
    pub(super) async fn ask(
        &self,
        link: &Arc<dyn Link>,
        key: &str,
    ) -> Result<Option<String>, NoAnswer> {
        let flight = {
            let mut state = self.state();
            if state.is_absent(key) {
                return Ok(None);
            }
            match state.under_way.get(key) {
                Some(flight) => flight.clone(),
                None if state.under_way.len() >= FLIGHTS_MAX => return Err(NoAnswer::Busy),
                None => {
                    let flight = self.start(Arc::clone(link), key.to_owned());
                    state.under_way.insert(key.to_owned(), flight.clone());
                    flight
                }
            }
        };
        flight.await.map_err(NoAnswer::Unreachable)
    }

    /// The flight is a task, so that it lands, and makes room, even if everybody who waits for it
    /// goes away. The link's deadline ends it.
    fn start(&self, link: Arc<dyn Link>, key: String) -> Flight {
        let state = Arc::clone(&self.state);
        let asking = tokio::spawn(async move {
            let answer = link.look_up(&key).await.map_err(Arc::new);
            let mut state = lock(&state);
            state.under_way.remove(&key);
            if let Ok(None) = answer {
                state.note_absent(key);
            }
            answer
        });
        async { asking.await.unwrap_or(Ok(None)) }.boxed().shared()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_absent(&mut self, key: &str) -> bool {
        self.absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
        self.absent.contains_key(key)
    }

    fn note_absent(&mut self, key: String) {
        if self.absent.len() < ABSENT_MAX {
            self.absent.insert(key, Instant::now());
        }
    }
}
