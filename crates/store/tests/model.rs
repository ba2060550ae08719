//! Random histories against a model that keeps every past state, with restarts in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use std::time::Duration;
use store::{Config, History, Set, Store, WatchError, WriteError};

type State = BTreeMap<String, (u64, Bytes)>;

#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8),
    /// The second number is how far the expected revision is off.
    Update(u8, u64, u8),
    Delete(u8, u64),
    Compact(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6u8;
    let off = prop_oneof![3 => Just(0u64), 1 => Just(1u64)];
    prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Create(key, value)),
        4 => (key.clone(), off.clone(), any::<u8>()).prop_map(|(k, o, v)| Step::Update(k, o, v)),
        2 => (key, off).prop_map(|(key, off)| Step::Delete(key, off)),
        1 => (0..8u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> String {
    format!("/{}/{number}", if number < 3 { "a" } else { "b" })
}

/// States by revision; the first index is revision 1, the empty store.
struct Model {
    states: Vec<State>,
    floor: u64,
}

impl Model {
    fn now(&self) -> &State {
        self.states.last().expect("never empty")
    }

    fn rev(&self) -> u64 {
        self.states.len() as u64
    }

    fn put(&mut self, key: &str, value: Bytes) {
        let (mut state, rev) = (self.now().clone(), self.rev() + 1);
        state.insert(key.to_owned(), (rev, value));
        self.states.push(state);
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config {
        history: History {
            events_min: 8,
            age_min: Duration::ZERO,
            ..History::default()
        },
        ..Config::new(dir.path().join("store.db"))
    };
    let mut store = Store::open(&config).expect("opens");
    let mut model = Model {
        states: vec![State::new()],
        floor: 1,
    };
    for step in steps {
        match step {
            Step::Create(number, value) => {
                let (key, value) = (key(number), Bytes::from(vec![value]));
                match store.create(&key, value.clone(), None).await {
                    Ok(rev) => {
                        assert!(!model.now().contains_key(&key), "created twice");
                        model.put(&key, value);
                        assert_eq!(rev, model.rev());
                    }
                    Err(WriteError::Exists { .. }) => assert!(model.now().contains_key(&key)),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Update(number, off, value) => {
                let (key, value) = (key(number), Bytes::from(vec![value]));
                let actual = model.now().get(&key).map(|(rev, _)| *rev);
                let expect_rev = actual.unwrap_or(1) + off;
                match store.update(&key, expect_rev, value.clone(), None).await {
                    Ok(_) => {
                        assert_eq!(actual, Some(expect_rev));
                        model.put(&key, value);
                    }
                    Err(WriteError::NotFound { .. }) => assert_eq!(actual, None),
                    Err(WriteError::Conflict { actual_rev, .. }) => {
                        assert_eq!((actual, off), (Some(actual_rev), 1));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Delete(number, off) => {
                let key = key(number);
                let actual = model.now().get(&key).map(|(rev, _)| *rev);
                let done = store.delete(&key, actual.unwrap_or(1) + off).await.is_ok();
                assert_eq!(done, actual.is_some() && off == 0);
                if done {
                    let mut state = model.now().clone();
                    state.remove(&key);
                    model.states.push(state);
                }
            }
            Step::Compact(back) => {
                let rev = model.rev().saturating_sub(back);
                store.compact(rev).await.expect("compacts");
                model.floor = model.floor.max(rev);
            }
            Step::Reopen => {
                store.close().await;
                store = Store::open(&config).expect("opens again");
            }
        }
        check(&store, &model).await;
    }
}

async fn check(store: &Store, model: &Model) {
    assert_eq!(store.current_rev(), model.rev());
    for rev in 1..=model.rev() {
        let expected: Vec<_> = model.states[usize::try_from(rev).expect("small") - 1]
            .iter()
            .filter(|(key, _)| key.starts_with("/a/"))
            .map(|(key, (rev, value))| (key.clone(), *rev, value.clone()))
            .collect();
        match store.range("/a/", None, 10, Some(rev)) {
            Ok(range) => {
                assert!(rev >= model.floor, "{rev} was compacted");
                let found: Vec<_> = range
                    .entries
                    .into_iter()
                    .map(|(key, entry)| (key.to_string(), entry.rev, entry.value))
                    .collect();
                assert_eq!(found, expected, "at revision {rev}");
            }
            // The ring keeps the last eight, whatever was compacted.
            Err(_) => assert!(rev < model.floor || rev + 8 < model.rev()),
        }
    }
    let from = model.floor.max(model.rev().saturating_sub(8));
    let mut watch = store.watch("/", from).expect("in history");
    let mut replayed = model.states[usize::try_from(from).expect("small") - 1].clone();
    while watch.position() < model.rev() {
        for event in watch.next().await.expect("kept") {
            match event.after {
                Some(entry) => replayed.insert(event.key.to_string(), (entry.rev, entry.value)),
                None => replayed.remove(&*event.key),
            };
        }
    }
    assert_eq!(
        &replayed,
        model.now(),
        "state at {from} plus the watch is the state now"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn a_watch_that_reads_too_slowly_is_told_to_list_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config {
        history: History {
            events_min: 4,
            age_min: Duration::ZERO,
            ..History::default()
        },
        ..Config::new(dir.path().join("store.db"))
    };
    let store = Store::open(&config).expect("opens");
    let mut watch = store.watch("/", 1).expect("starts");
    for number in 0..6 {
        store
            .create(&format!("/{number}"), Bytes::new(), None)
            .await
            .expect("writes");
    }
    let error = watch.next().await.expect_err("too slow");
    assert_eq!(error, WatchError::Compacted { rev: 1, floor: 3 });
}

#[tokio::test]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config::new(dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    let all = |value: &'static str| -> Vec<Set> {
        let key = |number| format!("/t/{number:02}");
        (0..40).map(|n| Set::put(key(n), value.into())).collect()
    };
    let rev = store.transact(all("a")).await.expect("writes");
    assert_eq!(rev, 41, "each write has its revision");
    let reader = store.clone();
    let read = tokio::task::spawn_blocking(move || {
        loop {
            let range = reader.range("/t/", None, 100, None).expect("now");
            let first = range.entries[0].1.value.clone();
            assert!(range.entries.iter().all(|(_, entry)| entry.value == first));
            if first == "last" {
                return;
            }
        }
    });
    for value in ["b", "c", "d", "e", "f", "last"] {
        store.transact(all(value)).await.expect("writes");
    }
    read.await.expect("never half");
    let created = store.get("/t/00").expect("is there").create_rev;
    assert_eq!(created, 2, "it was replaced, not made anew");
    let writes = vec![
        Set::remove("/t/00"),
        Set::remove("/none"),
        Set::remove("/t/01"),
    ];
    let rev = store.transact(writes).await.expect("writes");
    assert_eq!(rev, 7 * 40 + 3, "what is not there is not removed");
    assert_eq!(store.transact(Vec::new()).await.expect("nothing"), rev);
    store.close().await;
    let store = Store::open(&config).expect("opens");
    assert_eq!(
        store
            .range("/t/", None, 100, None)
            .expect("now")
            .entries
            .len(),
        38
    );
}

#[tokio::test]
async fn expired_keys_go_and_are_seen_to_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(&Config::new(dir.path().join("store.db"))).expect("opens");
    store
        .create("/e/1", Bytes::new(), Some(100))
        .await
        .expect("writes");
    store
        .create("/e/2", Bytes::new(), None)
        .await
        .expect("writes");
    let mut watch = store.watch("/e/", store.current_rev()).expect("starts");
    assert_eq!(store.expire(99).await.expect("sweeps"), 0);
    assert_eq!(store.expire(100).await.expect("sweeps"), 1);
    let events = watch.next().await.expect("kept");
    assert_eq!((&*events[0].key, events[0].after.is_none()), ("/e/1", true));
    assert!(store.get("/e/2").is_some());
}

#[tokio::test]
async fn only_the_owner_can_read_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(&Config::new(dir.path().join("store.db"))).expect("opens");
    store
        .create("/secret", Bytes::from_static(b"x"), None)
        .await
        .expect("writes");
    for file in std::fs::read_dir(dir.path()).expect("readable") {
        let file = file.expect("an entry");
        let mode = file.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}
