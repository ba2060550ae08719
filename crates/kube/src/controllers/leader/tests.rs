//! Elections with processes that crash, stand still, and whose clocks tell anything.

use proptest::prelude::*;

use super::*;

/// A lease with a revision, as a store keeps it.
#[derive(Default)]
struct Store {
    lease: Option<Value>,
    rev: u64,
}

struct Process {
    election: Election,
    clock_skew_s: i64,
    /// A write that was decided and has not reached the store: revision read, lease, when decided.
    on_its_way: Option<(u64, Value, Instant)>,
    /// When it asked for the renewal that it lives on.
    renewed: Option<Instant>,
}

impl Process {
    fn new(number: usize, clock_skew_s: i64) -> Self {
        Self {
            election: Election::new(CONTROLLERS, format!("p{number}")),
            clock_skew_s,
            on_its_way: None,
            renewed: None,
        }
    }

    fn leads(&self, now: Instant) -> bool {
        let renewed = self.renewed;
        renewed.is_some_and(|renewed| now.duration_since(renewed) < RENEW_DEADLINE)
    }

    fn read(&mut self, store: &Store, now: Instant, second: u64) {
        let second = i64::try_from(second).unwrap() + 1_000_000 + self.clock_skew_s;
        let clock = Timestamp::from_second(second).unwrap();
        if !self.leads(now) {
            self.renewed = None;
        }
        self.on_its_way = match self.election.step(store.lease.as_ref(), now, clock) {
            Step::Write(lease) => Some((store.rev, lease, now)),
            Step::Wait => None,
        };
    }

    fn write(&mut self, store: &mut Store) {
        let Some((rev, lease, asked)) = self.on_its_way.take() else {
            return;
        };
        if store.rev == rev {
            store.rev += 1;
            store.lease = Some(lease);
            self.renewed = Some(asked);
        }
    }
}

proptest! {
    /// Whoever stands still, crashes or has a wrong clock: there is never more than one leader,
    /// and when all is quiet there is one.
    #[test]
    fn there_is_never_more_than_one_leader(
        skews in prop::collection::vec(-90_000..90_000i64, 3),
        steps in prop::collection::vec((0..8u8, 0..3usize), 1..200)
    ) {
        let mut store = Store::default();
        let mut all: Vec<_> = skews.iter().enumerate()
            .map(|(number, skew)| Process::new(number, *skew)).collect();
        let start = Instant::now();
        let mut second = 0;
        for (step, which) in steps {
            let now = start + Duration::from_secs(second);
            match step {
                0..3 => all[which].read(&store, now, second),
                3..6 => all[which].write(&mut store),
                6 => second += 1 + 3 * u64::try_from(which).unwrap(),
                _ => all[which] = Process::new(which + 10, skews[which]),
            }
            let leaders = all.iter().filter(|one| one.leads(now)).count();
            prop_assert!(leaders <= 1, "{leaders} leaders");
        }
        for _ in 0..40 {
            second += 1;
            let now = start + Duration::from_secs(second);
            for process in &mut all {
                process.read(&store, now, second);
                process.write(&mut store);
            }
        }
        let now = start + Duration::from_secs(second);
        prop_assert_eq!(all.iter().filter(|one| one.leads(now)).count(), 1);
    }
}

#[test]
fn a_released_lease_is_taken_at_once_and_counts_the_transition() {
    let (now, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let mut first = Election::new(CONTROLLERS, "a".into());
    let Step::Write(mut lease) = first.step(None, now, clock) else {
        panic!("nobody holds it");
    };
    let mut second = Election::new(CONTROLLERS, "b".into());
    assert_eq!(second.step(Some(&lease), now, clock), Step::Wait);
    assert!(matches!(
        first.step(Some(&lease), now, clock),
        Step::Write(_)
    ));
    lease["spec"]["holderIdentity"] = "".into();
    let Step::Write(taken) = second.step(Some(&lease), now, clock) else {
        panic!("nobody holds it any more");
    };
    assert_eq!(taken["spec"]["leaseTransitions"], 1);
}

async fn open() -> (Api, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = store::Store::open(&store::Config::new(folder.path().join("k.db"))).unwrap();
    let api = Api::new(store);
    api.bootstrap().await.unwrap();
    (api, folder)
}

#[tokio::test]
async fn one_leads_and_the_next_takes_over_when_it_ends() {
    let (api, _folder) = open().await;
    let (told, mut leaders) = tokio::sync::mpsc::channel(8);
    let start = |name: &'static str| {
        let (api, told, stop) = (api.clone(), told.clone(), CancellationToken::new());
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let elected = Leadership::Elected {
                identity: name.into(),
            };
            let run = || async {
                told.send(name).await.unwrap();
                std::future::pending::<()>().await;
            };
            lead(api.clone(), elected, CONTROLLERS.into(), token, run).await;
        });
        (stop, task)
    };
    let (stop, first) = start("first");
    assert_eq!(leaders.recv().await, Some("first"));
    let (end, second) = start("second");
    stop.cancel();
    first.await.unwrap();
    assert_eq!(leaders.recv().await, Some("second"));
    end.cancel();
    second.await.unwrap();
}
