//! Linearizability and the nine guarantees of watches, under faults; and whether the judge of them
//! would notice if they were broken.
//!
//! `STORE_HISTORIES` is how many histories each backend is put through (default 1).

mod checker;
mod common;

use std::path::Path;
use std::time::Duration;

use checker::bugs::Bug;
use checker::child::{self, Database, ORDERS};
use checker::driver::{Fault, Scenario};
use checker::judge::{Violations, Wrong, judge};
use checker::record::{Answer, Record};
use common::Etcd;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The child's part; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_serves_until_it_is_killed() {
    if let Ok(orders) = std::env::var(ORDERS) {
        child::serve(serde_json::from_str(&orders).expect("orders")).await;
    }
}

fn histories() -> u64 {
    let wanted = std::env::var("STORE_HISTORIES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

fn one_server(dir: &Path, bug: Bug, faults: Vec<Fault>, seed: u64) -> Scenario {
    Scenario {
        dir: dir.to_owned(),
        databases: vec![Database::Sqlite(dir.join("store.db"))],
        bug,
        faults,
        seed,
        lasts: Duration::from_millis(1500),
        enough: usize::MAX,
    }
}

#[test]
fn sqlite_is_linearizable_through_kills_pauses_and_compaction() {
    for seed in 0..histories() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let faults = vec![Fault::Kill(0), Fault::Pause(0)];
        let scenario = one_server(dir.path(), Bug::None, faults, seed);
        let record = runtime().block_on(scenario.run());
        assert!(record.operations.len() > 50, "{}", record.operations.len());
        let wrong = judge(&record);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

#[test]
fn sqlite_is_linearizable_on_a_disk_that_is_full_now_and_then() {
    let test = "sqlite_is_linearizable_on_a_disk_that_is_full_now_and_then";
    let dir = tempfile::tempdir().expect("temporary directory");
    let body = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("SKIPPED: {test}: no mount namespace: {error}");
            return;
        }
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        let (tmpfs, flags, size) = (Some("tmpfs"), MsFlags::empty(), Some("size=16m"));
        mount(tmpfs, dir.path(), tmpfs, flags, size).expect("mounts");
        let mut refused = 0;
        for seed in 0..histories() {
            let dir = dir.path().join(seed.to_string());
            std::fs::create_dir(&dir).expect("creates");
            let faults = vec![Fault::FullDisk(dir.clone()), Fault::Kill(0)];
            let record = runtime().block_on(one_server(&dir, Bug::None, faults, seed).run());
            let wrong = judge(&record);
            assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
            refused += refusals(&record);
            std::fs::remove_dir_all(&dir).expect("makes space");
        }
        assert!(refused > 0, "the disk was full");
    };
    std::thread::scope(|scope| scope.spawn(body).join()).expect("passes");
}

fn refusals(record: &Record) -> usize {
    let is_refused = |answer: &Answer| matches!(answer, Answer::Refused { .. });
    let operations = record.operations.iter();
    operations
        .filter(|operation| is_refused(&operation.answer))
        .count()
}

#[test]
fn two_servers_on_an_etcd_that_is_full_now_and_then_are_linearizable() {
    let test = "two_servers_on_an_etcd_that_is_full_now_and_then_are_linearizable";
    if std::process::Command::new("etcdctl")
        .arg("version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: {test}: no etcdctl is installed");
        return;
    }
    let mut refused = 0;
    for seed in 0..histories() {
        let Some(etcd) = Etcd::start_with(test, "http", &["--quota-backend-bytes", "6000000"])
        else {
            return;
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut scenario = two_servers(&etcd, dir.path(), Bug::None, seed);
        scenario.faults = vec![Fault::FullEtcd(etcd.endpoint.clone()), Fault::Kill(0)];
        let record = runtime().block_on(scenario.run());
        let wrong = judge(&record);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
        refused += refusals(&record);
    }
    assert!(refused > 0, "etcd was full");
}

fn two_servers(etcd: &Etcd, dir: &Path, bug: Bug, seed: u64) -> Scenario {
    Scenario {
        dir: dir.to_owned(),
        databases: vec![Database::Etcd(etcd.endpoint.clone()); 2],
        bug,
        faults: vec![
            Fault::Pause(1),
            Fault::Kill(0),
            Fault::PauseOther(etcd.pid()),
            Fault::Pause(0),
            Fault::Kill(1),
        ],
        seed,
        lasts: Duration::from_millis(2500),
        enough: usize::MAX,
    }
}

#[test]
fn two_servers_on_one_etcd_are_linearizable_through_kills_pauses_and_compaction() {
    for seed in 0..histories() {
        let Some(etcd) = Etcd::start("two_servers_on_one_etcd_are_linearizable") else {
            return;
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        let scenario = two_servers(&etcd, dir.path(), Bug::None, seed);
        let record = runtime().block_on(scenario.run());
        assert!(record.operations.len() > 50, "{}", record.operations.len());
        let wrong = judge(&record);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

/// What a planted bug must be blamed for, among other things.
fn blame(bug: Bug) -> &'static [Wrong] {
    use Wrong::{
        Bookmarkable, Compare, Contradiction, Filter, IsCreate, NotCompacted, NotLinearizable,
        NotWhole, Ordered, PrevValue, Reliable, Resumable, Starved, Unique,
    };
    match bug {
        Bug::None => &[],
        Bug::LostOnCrash | Bug::ResurrectedOnCrash => {
            &[Contradiction, NotLinearizable, Compare, PrevValue]
        }
        Bug::BlindUpdate => &[Compare],
        Bug::FalseConflict | Bug::StaleGet => &[NotLinearizable],
        Bug::ListOfAnotherRevision => &[NotLinearizable],
        Bug::ReadWithoutSync => &[NotLinearizable],
        Bug::DoneButRefused => &[Contradiction],
        Bug::HalfTransaction => &[NotWhole],
        Bug::WatchDropsEvent | Bug::WatchDropsRemovalAtCompaction => &[Reliable, Resumable],
        Bug::WatchRepeats => &[Unique],
        Bug::WatchOutOfOrder => &[Ordered, Bookmarkable],
        Bug::ResumeSkips => &[Resumable],
        Bug::BookmarkTooEarly => &[Bookmarkable],
        Bug::WatchIgnoresPrefix => &[Filter],
        Bug::WrongFormerValue => &[PrevValue],
        Bug::UpdateLooksCreated => &[IsCreate],
        Bug::StarvedWatch => &[Starved],
        Bug::NeedlessCompaction => &[NotCompacted],
    }
}

/// As many operations as a history of a bug begins with.
const SHORT_OPERATIONS: usize = 800;

/// Whether one of a few histories gives the bug away.
fn find(bug: Bug, mut history: impl FnMut(u64) -> Violations) {
    let mut found = Violations::new();
    for seed in 0..6 {
        found = history(seed);
        if blame(bug).iter().any(|wrong| found.contains_key(wrong)) {
            eprintln!("{bug:?} is found: {:?}", found.keys());
            return;
        }
    }
    panic!("{bug:?} is not found; only {found:#?}");
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::OF_ONE_SERVER {
        find(bug, |seed| {
            let dir = tempfile::tempdir().expect("temporary directory");
            let mut scenario = one_server(dir.path(), bug, vec![Fault::Kill(0)], seed);
            // Most bugs show at once. What a short history does not show the long ones have to.
            if seed == 0 {
                scenario.enough = SHORT_OPERATIONS;
            }
            judge(&runtime().block_on(scenario.run()))
        });
    }
}

#[test]
fn a_server_that_does_not_ask_etcd_before_it_reads_is_found() {
    find(Bug::ReadWithoutSync, |seed| {
        let test = "a_server_that_does_not_ask_etcd_before_it_reads_is_found";
        let Some(etcd) = Etcd::start(test) else {
            // Nothing to find, so it counts as found.
            return [(Wrong::NotLinearizable, Vec::new())].into();
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        judge(&runtime().block_on(two_servers(&etcd, dir.path(), Bug::ReadWithoutSync, seed).run()))
    });
}
