//! The seats of one priority level, and who waits for them. Pure.
//!
//! Each flow has a queue of its own, and the flows take turns: a user who sends a thousand
//! requests waits for their own, and not others for them.

use std::collections::{HashMap, VecDeque};

/// Requests of all flows that may wait in one level. Each holds a connection and its headers.
const WAITING_MAX: usize = 1024;

/// Seats, and the queues before them. `T` is how a waiting request is told to go on.
#[derive(Debug)]
pub(super) struct Level<T> {
    seats: usize,
    used: usize,
    /// Of one flow.
    queue_max: usize,
    waiting: usize,
    queues: HashMap<String, VecDeque<(u64, T)>>,
    /// Flows with somebody waiting, the next one first.
    turns: VecDeque<String>,
    next_id: u64,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Seated,
    /// It waits, under this number.
    Waits(u64),
    Refused,
}

impl<T> Level<T> {
    pub(super) fn new(seats: usize, queue_max: usize) -> Self {
        Self {
            seats,
            used: 0,
            queue_max,
            waiting: 0,
            queues: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Changes the limits. Returns who takes the seats that are new.
    pub(super) fn limit(&mut self, seats: usize, queue_max: usize) -> Vec<T> {
        (self.seats, self.queue_max) = (seats, queue_max);
        let mut seated = Vec::new();
        while self.used < self.seats {
            let Some(next) = self.next() else { break };
            self.used += 1;
            seated.push(next);
        }
        seated
    }

    /// Somebody of `flow` arrives; `waiter` is kept only if they wait.
    pub(super) fn enter(&mut self, flow: &str, waiter: T) -> Entry {
        if self.used < self.seats && self.waiting == 0 {
            self.used += 1;
            return Entry::Seated;
        }
        let length = self.queues.get(flow).map_or(0, VecDeque::len);
        if length >= self.queue_max || self.waiting >= WAITING_MAX {
            return Entry::Refused;
        }
        self.next_id += 1;
        let queue = self.queues.entry(flow.to_owned()).or_default();
        queue.push_back((self.next_id, waiter));
        if length == 0 {
            self.turns.push_back(flow.to_owned());
        }
        self.waiting += 1;
        Entry::Waits(self.next_id)
    }

    /// Somebody leaves their seat. Returns who takes it.
    pub(super) fn leave(&mut self) -> Option<T> {
        self.used -= 1;
        if self.used >= self.seats {
            return None;
        }
        let next = self.next()?;
        self.used += 1;
        Some(next)
    }

    /// Somebody no longer waits. False if they have been given a seat already.
    pub(super) fn give_up(&mut self, flow: &str, id: u64) -> bool {
        let Some(queue) = self.queues.get_mut(flow) else {
            return false;
        };
        let before = queue.len();
        queue.retain(|(one, _)| *one != id);
        if queue.len() == before {
            return false;
        }
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(flow);
            self.turns.retain(|one| one != flow);
        }
        true
    }

    fn next(&mut self) -> Option<T> {
        let flow = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&flow)?;
        let (_, next) = queue.pop_front()?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(&flow);
        } else {
            self.turns.push_back(flow);
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_turns_and_a_flood_is_refused_at_its_own_limit() {
        let mut level = Level::new(1, 3);
        assert_eq!(level.enter("loud", "first"), Entry::Seated);
        for _ in 0..3 {
            assert!(matches!(level.enter("loud", "loud"), Entry::Waits(_)));
        }
        assert_eq!(level.enter("loud", "loud"), Entry::Refused);
        assert!(matches!(level.enter("quiet", "quiet"), Entry::Waits(_)));
        let order: Vec<_> = (0..5).map(|_| level.leave()).collect();
        let expected = [
            Some("loud"),
            Some("quiet"),
            Some("loud"),
            Some("loud"),
            None,
        ];
        assert_eq!(order, expected);
        assert_eq!((level.used, level.waiting, level.turns.len()), (0, 0, 0));
    }

    #[test]
    fn who_gives_up_is_not_seated_later() {
        let mut level = Level::new(1, 3);
        assert_eq!(level.enter("a", 0), Entry::Seated);
        let Entry::Waits(id) = level.enter("a", 1) else {
            panic!("the seat is taken")
        };
        assert!(matches!(level.enter("b", 2), Entry::Waits(_)));
        assert!(level.give_up("a", id));
        assert!(!level.give_up("a", id));
        assert_eq!(level.leave(), Some(2));
        assert_eq!(level.leave(), None);
    }

    #[test]
    fn new_seats_are_taken_at_once_and_fewer_are_waited_for() {
        let mut level = Level::new(1, 9);
        assert_eq!(level.enter("a", 0), Entry::Seated);
        for number in 1..5 {
            level.enter("a", number);
        }
        assert_eq!(level.limit(3, 9), [1, 2]);
        assert!(level.limit(1, 9).is_empty());
        assert_eq!((level.leave(), level.leave()), (None, None));
        assert_eq!(level.leave(), Some(3));
    }
}
