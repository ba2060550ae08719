//! The database file over a long life: limits, full disks, damage, backups, moving house.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Etcd;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store::{
    Cause, Config, CopyError, EtcdConfig, Health, History, Location, OpenError, Set, Store,
    WatchError, WriteError,
};

fn short_history(path: &Path) -> Config {
    Config {
        history: History {
            events_min: 8,
            age_min: Duration::ZERO,
            ..History::default()
        },
        ..Config::new(path)
    }
}

fn rows(path: &Path) -> u64 {
    let connection = rusqlite::Connection::open(path).expect("opens");
    connection
        .query_row("SELECT count(*) FROM log", [], |row| row.get(0))
        .expect("counts")
}

async fn put(store: &Store, key: &str, value: &'static str) -> u64 {
    match store.get(key) {
        None => store.create(key, value.into(), None).await,
        Some(entry) => store.update(key, entry.rev, value.into(), None).await,
    }
    .expect("writes")
}

#[tokio::test]
async fn old_history_leaves_the_file_by_itself() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = short_history(&dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    for _ in 0..500 {
        let all = (0..40).map(|n| Set::put(format!("/k/{n}"), "value".into()));
        store.transact(all.collect()).await.expect("writes");
    }
    store.close().await;
    assert!(rows(&config.path) < 3000, "{}", rows(&config.path));
}

/// The rows of a removed key go in steps; a restart in between must not find the older ones alone.
#[tokio::test]
async fn what_was_removed_stays_removed_while_its_rows_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = short_history(&dir.path().join("store.db"));
    let mut store = Store::open(&config).expect("opens");
    let key = |n| format!("/k/{n}");
    let create = (0..4000).map(|n| Set::put(key(n), "x".into()));
    store.transact(create.collect()).await.expect("writes");
    let remove = (0..4000).map(|n| Set::remove(key(n)));
    store.transact(remove.collect()).await.expect("writes");
    for step in 0..6 {
        let rev = put(&store, "/other", "x").await;
        store.close().await;
        store = Store::open(&config).expect("opens again");
        let left = store.range("/", None, 10, None).expect("now");
        assert_eq!(
            left.entries.len(),
            1,
            "step {step}: {:?}",
            left.entries.first()
        );
        assert_eq!(store.current_rev(), rev);
    }
    store.close().await;
    assert!(rows(&config.path) < 100, "{}", rows(&config.path));
}

#[tokio::test]
async fn at_its_limit_a_database_takes_removals_and_then_writes_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config {
        size_mib_max: 1,
        ..Config::new(dir.path().join("store.db"))
    };
    let store = Store::open(&config).expect("opens");
    let value = Bytes::from(vec![7; 100_000]);
    let mut written = Vec::new();
    let refusal = loop {
        let key = format!("/k/{}", written.len());
        match store.create(&key, value.clone(), None).await {
            Ok(rev) => written.push((key, rev)),
            Err(WriteError::Disk { source }) => break source,
            Err(other) => panic!("{other}"),
        }
        assert!(written.len() < 20, "the limit holds");
    };
    assert!(matches!(*refusal, Cause::Limit { mib: 1 }), "{refusal}");
    assert_eq!(store.get(&format!("/k/{}", written.len())), None);
    assert_eq!(store.health(), Health::Refusing);
    assert!(store.trouble().expect("said").contains("limit of 1 MiB"));
    for (key, rev) in &written[..4] {
        store.delete(key, *rev).await.expect("removals make room");
    }
    store
        .create("/new", value, None)
        .await
        .expect("writes again");
    assert_eq!(store.health(), Health::Ok);
    store.close().await;
    let store = Store::open(&config).expect("opens again");
    let left = store.range("/k/", None, 99, None).expect("now");
    assert_eq!(left.entries.len(), written.len() - 4);
}

/// Runs with a file system of `size` that only this thread and those it starts can see.
fn on_a_small_disk(test: &str, size: &str, body: impl AsyncFnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::thread::scope(|scope| {
        let body = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
                eprintln!("SKIPPED: {test}: no mount namespace: {error}");
                return;
            }
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
            let size = format!("size={size}");
            let flags = MsFlags::empty();
            mount(
                Some("tmpfs"),
                dir.path(),
                Some("tmpfs"),
                flags,
                Some(&*size),
            )
            .expect("mounts");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(body(dir.path()));
        };
        scope.spawn(body).join().expect("passes");
    });
}

/// Takes all the space that is left.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("creates");
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0; 1]).is_ok() {}
}

#[test]
fn a_full_disk_makes_the_store_read_only_until_there_is_space() {
    let test = "a_full_disk_makes_the_store_read_only_until_there_is_space";
    on_a_small_disk(test, "8m", async |dir| {
        let config = Config::new(dir.join("store.db"));
        let store = Store::open(&config).expect("opens");
        let mut acknowledged = Vec::new();
        for round in 0..3 {
            for number in 0..20 {
                let key = format!("/k/{round}/{number}");
                put(&store, &key, "x").await;
                acknowledged.push(key);
            }
            fill(&dir.join("filler"));
            let value = Bytes::from(vec![1; 300_000]);
            let mut refusals = 0;
            for number in 0..40 {
                let key = format!("/big/{round}/{number}");
                match store.create(&key, value.clone(), None).await {
                    Ok(_) => acknowledged.push(key),
                    Err(WriteError::Disk { source }) => {
                        assert!(matches!(*source, Cause::NoSpace { .. }), "{source}");
                        assert!(store.get(&key).is_none(), "nothing is seen of it");
                        refusals += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(refusals > 20, "{refusals}");
            assert_eq!(store.health(), Health::Refusing);
            assert!(store.trouble().expect("said").contains("no space is left"));
            assert!(store.get("/k/0/7").is_some(), "reads go on");
            std::fs::remove_file(dir.join("filler")).expect("makes space");
            let key = format!("/after/{round}");
            put(&store, &key, "x").await;
            acknowledged.push(key);
            assert_eq!(store.health(), Health::Ok);
        }
        let rev = store.current_rev();
        fill(&dir.join("filler"));
        store.close().await;
        let store = Store::open(&config).expect("opens on a full disk");
        assert_eq!(store.current_rev(), rev);
        let found = store.range("/", None, 999, None).expect("now");
        assert_eq!(found.entries.len(), acknowledged.len());
        for key in acknowledged {
            assert!(store.get(&key).is_some(), "{key} is lost");
        }
    });
}

#[tokio::test]
async fn a_second_process_is_told_that_the_first_has_the_database() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config::new(dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    let error = Store::open(&config).expect_err("locked");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("locked by another process"));
    store.close().await;
    Store::open(&config).expect("opens when the other is gone");
}

#[tokio::test]
async fn damage_is_told_at_the_start_with_what_to_do() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config::new(dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    for number in 0..200 {
        store
            .create(&format!("/k/{number}"), Bytes::from(vec![1; 2000]), None)
            .await
            .expect("writes");
    }
    let backup = dir.path().join("backup.db");
    store.backup(&backup).await.expect("is written");
    store.close().await;
    let mut bytes = std::fs::read(&config.path).expect("reads");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64].fill(0xff);
    std::fs::write(&config.path, &bytes).expect("writes");
    let error = Store::open(&config).expect_err("damaged");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
    let (copied, aside) = store::restore(&backup, &Location::Sqlite(config.clone()))
        .await
        .expect("restores over damage");
    assert_eq!(copied.keys, 200);
    assert!(aside.expect("the damaged one is kept").exists());
    assert!(Store::open(&config).expect("opens").get("/k/199").is_some());
    std::fs::write(&config.path, b"this is no database at all, it is a text").expect("writes");
    let error = Store::open(&config).expect_err("no database");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_whole_while_the_store_goes_on_and_comes_back_above_all_revisions() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config::new(dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    let pair = |value: &'static str| {
        let both = ["/p/1", "/p/2"].map(|key| Set::put(key, value.into()));
        both.to_vec()
    };
    store.transact(pair("0")).await.expect("writes");
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for value in ["1", "2", "3", "4"].iter().cycle().take(2000) {
                store.transact(pair(value)).await.expect("writes");
            }
        })
    };
    for number in 0..5 {
        let path = dir.path().join(format!("backup{number}.db"));
        let copied = store.backup(&path).await.expect("is written");
        let copy = Store::open(&Config::new(&path)).expect("opens");
        assert_eq!(copy.current_rev(), copied.rev);
        let value = |key| copy.get(key).expect("is there").value;
        assert_eq!(value("/p/1"), value("/p/2"), "never half a transaction");
    }
    let again = store.backup(&dir.path().join("backup0.db")).await;
    assert!(matches!(again, Err(CopyError::Exists { .. })));
    writer.await.expect("finishes");
    let (newest, seen) = (store.current_rev(), store.get("/p/1").expect("is there"));
    let locked = store::restore(
        &dir.path().join("backup0.db"),
        &Location::Sqlite(config.clone()),
    )
    .await;
    assert!(
        matches!(locked, Err(CopyError::Open(OpenError::Locked { .. }))),
        "{locked:?}"
    );
    store.close().await;
    let (copied, aside) = store::restore(
        &dir.path().join("backup0.db"),
        &Location::Sqlite(config.clone()),
    )
    .await
    .expect("restores");
    assert!(copied.rev > newest && aside.is_some_and(|aside| aside.exists()));
    let store = Store::open(&config).expect("opens");
    let late = store.watch("/", newest);
    assert!(
        matches!(late, Err(WatchError::Compacted { .. })),
        "clients list again"
    );
    let stale = store.update("/p/1", seen.rev, "x".into(), None).await;
    assert!(
        matches!(stale, Err(WriteError::Conflict { .. })),
        "{stale:?}"
    );
    assert!(put(&store, "/p/1", "x").await > copied.rev);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_moves_to_etcd_and_back_and_revisions_go_on() {
    let Some(etcd) = Etcd::start("a_state_moves_to_etcd_and_back") else {
        return;
    };
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = Location::Sqlite(Config::new(dir.path().join("store.db")));
    let there = Location::Etcd(etcd.config());
    let store = Store::open_at(&file).await.expect("opens");
    for number in 0..300 {
        put(&store, &format!("/k/{number:03}"), "x").await;
    }
    for _ in 0..200 {
        put(&store, "/k/000", "again").await;
    }
    let expiry = Some(4_000_000_020);
    store
        .create("/e", "event".into(), expiry)
        .await
        .expect("writes");
    let old = store.current_rev();
    let locked = store::migrate(&file, &there).await;
    assert!(
        matches!(locked, Err(CopyError::Open(OpenError::Locked { .. }))),
        "{locked:?}"
    );
    store.close().await;

    let copied = store::migrate(&file, &there).await.expect("moves");
    assert_eq!(copied.keys, 301);
    let store = Store::open_at(&there).await.expect("opens");
    assert!(store.current_rev() > old);
    let all = store.range("/", None, 999, None).expect("now");
    assert_eq!(all.entries.len(), 301);
    assert!(all.entries.iter().all(|(_, entry)| entry.rev > old));
    assert_eq!(store.get("/k/000").expect("is there").value, "again");
    let expiry = store.get("/e").expect("is there").expires_unix_s;
    assert_eq!(expiry, Some(4_000_000_020));
    let late = store.watch("/", old);
    assert!(
        matches!(late, Err(WatchError::Compacted { .. })),
        "{late:?}"
    );
    let rev = put(&store, "/k/001", "y").await;
    let again = store::migrate(&file, &there).await;
    assert!(
        matches!(again, Err(CopyError::NotEmpty { .. })),
        "{again:?}"
    );

    store.close().await;
    moves_back(&etcd, dir.path(), rev).await;
}

async fn moves_back(etcd: &Etcd, dir: &Path, rev: u64) {
    let there = Location::Etcd(etcd.config());
    let store = Store::open_at(&there).await.expect("opens");
    let backup = dir.join("from-etcd.db");
    store.backup(&backup).await.expect("is written");
    store.close().await;
    let home = Location::Sqlite(Config::new(dir.join("home.db")));
    store::migrate(&there, &home).await.expect("moves back");
    let store = Store::open_at(&home).await.expect("opens");
    assert!(store.current_rev() >= rev);
    assert_eq!(store.get("/k/001").expect("is there").value, "y");
    assert_eq!(
        store
            .range("/", None, 999, None)
            .expect("now")
            .entries
            .len(),
        301
    );
    assert!(put(&store, "/k/002", "z").await > rev);

    let elsewhere = Location::Etcd(EtcdConfig {
        prefix: "/restored".into(),
        ..etcd.config()
    });
    let (copied, _) = store::restore(&backup, &elsewhere).await.expect("restores");
    assert!(copied.rev > rev + 1_000_000);
    let store = Store::open_at(&elsewhere).await.expect("opens");
    assert!(store.current_rev() >= copied.rev && store.get("/k/001").is_some());
}

#[tokio::test]
async fn a_database_of_five_thousand_objects_opens_in_a_blink() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = Config::new(dir.path().join("store.db"));
    let store = Store::open(&config).expect("opens");
    let objects = (0..5000).map(|n| Set::put(format!("/k/{n}"), Bytes::from(vec![b'x'; 2000])));
    store.transact(objects.collect()).await.expect("writes");
    store.close().await;
    let begin = Instant::now();
    let store = Store::open(&config).expect("opens");
    eprintln!("opened in {:?}", begin.elapsed());
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        store
            .range("/", None, 9999, None)
            .expect("now")
            .entries
            .len(),
        5000
    );
}
