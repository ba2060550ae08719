//! What every backend promises, tried on each.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Etcd, Place};
use store::{
    EtcdConfig, EtcdTls, Event, Health, History, OpenError, RangeError, Set, Store, Watch,
    WatchError, WriteError,
};

async fn put(store: &Store, key: &str, value: &'static str) -> u64 {
    match store.get(key) {
        None => store.create(key, value.into(), None).await,
        Some(entry) => store.update(key, entry.rev, value.into(), None).await,
    }
    .expect("writes")
}

async fn next(watch: &mut Watch) -> Vec<Event> {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect("in time")
        .expect("kept")
}

fn told(events: &[Event]) -> Vec<(&str, Option<&[u8]>)> {
    let mut told = Vec::new();
    for event in events {
        told.push((
            &*event.key,
            event.after.as_ref().map(|after| &after.value[..]),
        ));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_decided_by_revision() {
    for place in Place::both("writes_are_decided_by_revision", &History::default()) {
        let store = place.open().await;
        let first = put(&store, "/a/1", "one").await;
        let entry = store.get("/a/1").expect("is there");
        assert_eq!(
            (entry.rev, entry.create_rev, &entry.value[..]),
            (first, first, &b"one"[..])
        );
        let again = store.create("/a/1", Bytes::new(), None).await;
        assert!(matches!(again, Err(WriteError::Exists { .. })), "{again:?}");
        let second = store
            .update("/a/1", first, "two".into(), None)
            .await
            .expect("writes");
        assert!(second > first);
        let stale = store.update("/a/1", first, "three".into(), None).await;
        assert!(
            matches!(stale, Err(WriteError::Conflict { actual_rev, .. }) if actual_rev == second),
            "{stale:?}"
        );
        let stale = store.delete("/a/1", first).await;
        assert!(
            matches!(stale, Err(WriteError::Conflict { .. })),
            "{stale:?}"
        );
        let never = store.update("/a/2", 1_000_000, Bytes::new(), None).await;
        assert!(
            matches!(never, Err(WriteError::NotFound { .. })),
            "{never:?}"
        );
        let third = store.delete("/a/1", second).await.expect("removes");
        assert!(third > second && store.get("/a/1").is_none());
        let gone = store.delete("/a/1", second).await;
        assert!(matches!(gone, Err(WriteError::NotFound { .. })), "{gone:?}");
        assert!(store.current_rev() >= third);
        assert_eq!(store.health(), Health::Ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_of_one_revision_and_comes_in_pages() {
    for place in Place::both("a_list_is_of_one_revision", &History::default()) {
        let store = place.open().await;
        for key in ["/a/1", "/a/2", "/a/3", "/b/1"] {
            put(&store, key, "old").await;
        }
        let page = store.range("/a/", None, 2, None).expect("now");
        assert_eq!((page.entries.len(), page.remaining), (2, 1));
        put(&store, "/a/3", "new").await;
        put(&store, "/a/4", "new").await;
        let rest = store
            .range("/a/", Some("/a/2\0"), 9, Some(page.rev))
            .expect("kept");
        let values: Vec<_> = rest
            .entries
            .iter()
            .map(|(_, entry)| &entry.value[..])
            .collect();
        assert_eq!(values, [b"old"]);
        let future = store.range("/a/", None, 1, Some(store.current_rev() + 1));
        assert!(matches!(future, Err(RangeError::Future { .. })));
        store.compact(store.current_rev()).await.expect("compacts");
        let late = store.range("/a/", Some("/a/2\0"), 9, Some(page.rev));
        assert!(
            matches!(late, Err(RangeError::Compacted { .. })),
            "{late:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_every_write_once_and_in_order() {
    for place in Place::both("a_watch_tells_every_write_once", &History::default()) {
        let store = place.open().await;
        let from = put(&store, "/a/1", "1").await;
        put(&store, "/b/1", "1").await;
        put(&store, "/a/1", "2").await;
        let entry = store.get("/a/1").expect("is there");
        store.delete("/a/1", entry.rev).await.expect("removes");
        let mut watch = store.watch("/a/", from).expect("kept");
        let mut events = Vec::new();
        while events.len() < 2 {
            events.extend(next(&mut watch).await);
        }
        assert_eq!(told(&events), [("/a/1", Some(&b"2"[..])), ("/a/1", None)]);
        assert_eq!(
            events[0].before.as_ref().map(|entry| &entry.value[..]),
            Some(&b"1"[..])
        );
        assert!(events[0].rev < events[1].rev && watch.position() == events[1].rev);
        put(&store, "/a/2", "x").await;
        assert_eq!(told(&next(&mut watch).await), [("/a/2", Some(&b"x"[..]))]);
        store.compact(store.current_rev()).await.expect("compacts");
        let late = store.watch("/a/", from);
        assert!(
            matches!(late, Err(WatchError::Compacted { .. })),
            "{late:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_done_whole() {
    for place in Place::both("a_transaction_is_done_whole", &History::default()) {
        let store = place.open().await;
        let created = put(&store, "/t/1", "old").await;
        let mut watch = store.watch("/t/", created).expect("kept");
        let writes = vec![
            Set::put("/t/1", "new".into()),
            Set::put("/t/2", "x".into()),
            Set::remove("/t/none"),
            Set::put("/t/2", "y".into()),
        ];
        let rev = store.transact(writes).await.expect("writes");
        assert!(store.current_rev() >= rev);
        assert_eq!(store.get("/t/1").expect("is there").create_rev, created);
        assert_eq!(store.get("/t/2").expect("is there").value, "y");
        assert!(!next(&mut watch).await.is_empty());
        let nothing = store.transact(vec![Set::remove("/t/none")]).await;
        assert_eq!(nothing.expect("nothing"), rev);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_opened_again_has_all_and_goes_on_above() {
    for place in Place::both("a_store_that_is_opened_again", &History::default()) {
        let store = place.open().await;
        let from = put(&store, "/a/1", "1").await;
        let at = Some(4_000_000_000);
        store.create("/a/2", "2".into(), at).await.expect("writes");
        let gone = put(&store, "/a/3", "3").await;
        store.delete("/a/3", gone).await.expect("removes");
        let (rev, all) = (
            store.current_rev(),
            store.range("/", None, 9, None).expect("now"),
        );
        store.close().await;
        let store = place.open().await;
        assert!(store.current_rev() >= rev);
        let found = store.range("/", None, 9, None).expect("now");
        assert_eq!(found.entries, all.entries);
        let expiry = store.get("/a/2").expect("is there").expires_unix_s;
        assert!(expiry.is_some_and(|expiry| (4_000_000_000..=4_000_000_060).contains(&expiry)));
        let mut watch = store
            .watch("/a/", from)
            .expect("history outlives the process");
        assert_eq!(next(&mut watch).await.len(), 3);
        assert!(put(&store, "/a/4", "4").await > rev);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_says_so() {
    for place in Place::both("a_closed_store_says_so", &History::default()) {
        let store = place.open().await;
        let mut watch = store.watch("/", store.current_rev()).expect("starts");
        let other = store.clone();
        store.close().await;
        let refused = other.create("/x", Bytes::new(), None).await;
        assert!(matches!(refused, Err(WriteError::Closed)), "{refused:?}");
        assert_eq!(watch.next().await, Err(WatchError::Closed));
        assert_eq!(other.health(), Health::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_one_wins_each_revision() {
    for place in Place::both("of_many_writers_one_wins", &History::default()) {
        let store = place.open().await;
        put(&store, "/n", "").await;
        let writers = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut won = 0;
                while won < 10 {
                    let entry = store.get("/n").expect("is there");
                    let mut value = entry.value.to_vec();
                    value.push(b'+');
                    match store.update("/n", entry.rev, value.into(), None).await {
                        Ok(_) => won += 1,
                        Err(WriteError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("finishes");
        }
        assert_eq!(store.get("/n").expect("is there").value.len(), 80);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_on_one_etcd_see_each_other() {
    let Some(etcd) = Etcd::start("stores_on_one_etcd_see_each_other") else {
        return;
    };
    let one = Store::open_etcd(&etcd.config()).await.expect("opens");
    let two = Store::open_etcd(&etcd.config()).await.expect("opens");
    let mut elsewhere = etcd.config();
    elsewhere.prefix = "/elsewhere".into();
    let foreign = Store::open_etcd(&elsewhere).await.expect("opens");
    let mut watch = two.watch("/", two.current_rev()).expect("starts");
    for number in 0..50 {
        let rev = put(&one, &format!("/k/{number}"), "x").await;
        put(&foreign, &format!("/k/{number}"), "not theirs").await;
        assert!(two.sync().await.expect("current") >= rev);
        assert!(two.get(&format!("/k/{number}")).is_some(), "{number}");
    }
    let mut seen = 0;
    while seen < 50 {
        seen += next(&mut watch).await.len();
    }
    let stale = one.get("/k/7").expect("is there").rev;
    two.delete("/k/7", stale).await.expect("removes");
    let late = one.update("/k/7", stale, Bytes::new(), None).await;
    assert!(matches!(late, Err(WriteError::NotFound { .. })), "{late:?}");
    assert!(one.get("/k/7").is_none(), "a refusal shows in local reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_outlives_a_crash_of_its_etcd() {
    let Some(mut etcd) = Etcd::start("a_store_outlives_a_crash_of_its_etcd") else {
        return;
    };
    let store = Store::open_etcd(&etcd.config()).await.expect("opens");
    let rev = put(&store, "/k", "before").await;
    let mut watch = store.watch("/", rev).expect("starts");
    etcd.crash();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.update("/k", rev, "after".into(), None).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told(&next(&mut watch).await), [("/k", Some(&b"after"[..]))]);
    assert_eq!(store.health(), Health::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_expire_goes_from_etcd_by_itself() {
    let Some(etcd) = Etcd::start("what_is_to_expire_goes_from_etcd_by_itself") else {
        return;
    };
    let store = Store::open_etcd(&etcd.config()).await.expect("opens");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    // The past has no lease that could be shared, so it ends as soon as etcd allows.
    store
        .create("/e/1", "x".into(), Some(now - 120))
        .await
        .expect("writes");
    store
        .create("/e/2", "x".into(), Some(now + 600))
        .await
        .expect("writes");
    let mut watch = store.watch("/e/1", store.current_rev()).expect("starts");
    assert_eq!(told(&next(&mut watch).await), [("/e/1", None)]);
    assert!(store.get("/e/2").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_on_one_etcd_take_turns_to_compact() {
    let Some(etcd) = Etcd::start("processes_on_one_etcd_take_turns_to_compact") else {
        return;
    };
    let mut config = etcd.config();
    config.compact_every = Some(Duration::from_millis(200));
    config.history.events_min = 1;
    config.history.age_min = Duration::ZERO;
    let one = Store::open_etcd(&config).await.expect("opens");
    let two = Store::open_etcd(&config).await.expect("opens");
    for number in 0..40 {
        put(&one, &format!("/k/{number}"), "x").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    two.sync().await.expect("follows");
    assert_eq!(
        two.range("/k/", None, 99, None).expect("now").entries.len(),
        40
    );
    let three = Store::open_etcd(&config)
        .await
        .expect("opens after compactions");
    assert_eq!(
        three
            .range("/k/", None, 99, None)
            .expect("now")
            .entries
            .len(),
        40
    );
    let early = three.watch("/k/", 2);
    assert!(
        matches!(early, Err(WatchError::Compacted { .. })),
        "{early:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_etcd_compact_it_together_and_an_idle_one_loses_no_watch() {
    let test = "clusters_on_one_etcd_compact_it_together_and_an_idle_one_loses_no_watch";
    let Some(etcd) = Etcd::start(test) else {
        return;
    };
    let interval = Duration::from_millis(200);
    let open = async |prefix: &str| {
        let config = EtcdConfig {
            prefix: prefix.into(),
            compact_every: Some(interval),
            ..etcd.config()
        };
        Store::open_etcd(&config).await.expect("opens")
    };
    let begin = Instant::now();
    let (busy, idle) = (open("/busy").await, open("/idle").await);
    put(&idle, "/k", "before").await;
    let mut watch = idle.watch("/", idle.current_rev()).expect("starts");
    for number in 0..40 {
        put(&busy, &format!("/k/{number}"), "x").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&idle, "/k", "after").await;
    assert_eq!(told(&next(&mut watch).await), [("/k", Some(&b"after"[..]))]);
    let output = std::process::Command::new("etcdctl")
        .args(["--endpoints", &etcd.endpoint])
        .args(["get", "compact_rev_key", "-w", "json"])
        .env("ETCDCTL_API", "3")
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: {test}: turns are not counted: no etcdctl is installed");
        return;
    };
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let turns = found["kvs"][0]["version"].as_u64().expect("there");
    // Each of both by itself would make twice as many.
    let intervals = begin.elapsed().as_millis() / interval.as_millis() + 1;
    assert!(u128::from(turns) <= intervals, "{turns} in {intervals}");
}

/// A certificate authority, and a certificate for this machine, in files.
fn certificates(dir: &Path) -> EtcdTls {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
    let write = |name: &str, text: String| {
        std::fs::write(dir.join(name), text).expect("writes");
        dir.join(name)
    };
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).expect("signs");
    let ca = write("ca.pem", certificate.pem());
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("a name");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, &issuer).expect("signs");
    let identity = (
        write("certificate.pem", certificate.pem()),
        write("key.pem", key.serialize_pem()),
    );
    EtcdTls {
        ca,
        identity: Some(identity),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_asks_for_certificates_gets_ours() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tls = certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("certificate.pem"), file("key.pem"));
    let arguments = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &ca,
        "--cert-file",
        &certificate,
        "--key-file",
        &key,
    ];
    let test = "an_etcd_that_asks_for_certificates_gets_ours";
    let Some(etcd) = Etcd::start_with(test, "https", &arguments) else {
        return;
    };
    let mut config = etcd.config();
    config.tls = Some(tls.clone());
    let store = Store::open_etcd(&config).await.expect("opens");
    put(&store, "/k", "x").await;
    config.tls = Some(EtcdTls {
        identity: None,
        ..tls
    });
    let error = Store::open_etcd(&config)
        .await
        .expect_err("nobody knows us");
    assert!(matches!(error, OpenError::Etcd { .. }), "{error}");
}
