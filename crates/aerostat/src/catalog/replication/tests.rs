//! Three catalogs over loopback: pushes, anti-entropy through a third host, forgeries, and hosts
//! that have forgotten.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use types::machine::MachineState::{Destroyed, Started};

use super::*;
use crate::catalog::tests::entry;
use crate::catalog::{Entry, Filter};
use crate::rpc::Caller;

type Keys = Arc<Mutex<BTreeMap<HostId, Arc<Ed25519KeyPair>>>>;

/// Who is where, and who cannot reach whom.
#[derive(Clone, Default)]
struct Net {
    at: Arc<Mutex<BTreeMap<HostId, SocketAddr>>>,
    cut: Arc<Mutex<BTreeSet<(HostId, HostId)>>>,
    keys: Keys,
}

impl Net {
    fn key(&self, host: HostId) -> Arc<Ed25519KeyPair> {
        let mut keys = self.keys.lock().unwrap();
        let made = || Arc::new(Ed25519KeyPair::generate().unwrap());
        Arc::clone(keys.entry(host).or_insert_with(made))
    }

    fn cut(&self, a: u16, b: u16, is_cut: bool) {
        let (a, b) = (HostId::new(a), HostId::new(b));
        let mut cut = self.cut.lock().unwrap();
        for pair in [(a, b), (b, a)] {
            if is_cut {
                cut.insert(pair);
            } else {
                cut.remove(&pair);
            }
        }
    }
}

struct Wire {
    from: HostId,
    net: Net,
}

#[async_trait]
impl Transport for Wire {
    async fn ask(
        &self,
        host: HostId,
        path: &'static str,
        body: Bytes,
        _deadline: Duration,
    ) -> std::io::Result<Bytes> {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        if self.net.cut.lock().unwrap().contains(&(self.from, host)) {
            return Err(refused());
        }
        let at = self.net.at.lock().unwrap().get(&host).copied();
        let stream = tokio::net::TcpStream::connect(at.ok_or_else(refused)?).await?;
        let other = std::io::Error::other::<hyper::Error>;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(other)?;
        tokio::spawn(connection);
        let request = hyper::Request::post(path)
            .header("host", "test")
            .header("caller", self.from.number().to_string())
            .body(Full::new(body))
            .unwrap();
        let response = sender.send_request(request).await.map_err(other)?;
        if response.status() != 200 {
            let text = format!("{path}: {}", response.status());
            return Err(std::io::Error::other(text));
        }
        Ok(response
            .into_body()
            .collect()
            .await
            .map_err(other)?
            .to_bytes())
    }
}

async fn name_caller(
    mut request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let caller = request.headers()["caller"].to_str().unwrap();
    let caller = HostId::new(caller.parse().unwrap());
    request.extensions_mut().insert(Caller(caller));
    next.run(request).await
}

struct Node {
    host: HostId,
    catalog: Catalog,
    replication: Replication,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn records(numbers: &[u16]) -> Arc<Vec<HostRecord>> {
    let record = |number: &u16| HostRecord {
        id: HostId::new(*number),
        name: String::new(),
        region: "local".into(),
        public_key: String::new(),
        endpoint: "[::1]:1".parse().unwrap(),
        gateway: None,
        certificate: String::new(),
        joined_at: Timestamp::UNIX_EPOCH,
    };
    Arc::new(numbers.iter().map(record).collect())
}

async fn start(net: &Net, number: u16, catalog: Catalog, all: &[u16]) -> Node {
    let host = HostId::new(number);
    let key = net.key(host);
    let known = net.clone();
    let (sender, hosts) = watch::channel(records(all));
    let stop = CancellationToken::new();
    let config = Config {
        host,
        region: "local".into(),
        sign: Arc::new(move |bytes| key.sign(bytes).as_ref().to_vec()),
        key_of: Arc::new(move |host| {
            let key = known.keys.lock().unwrap().get(&host).cloned()?;
            let key = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
            let verify: Verify = Arc::new(move |bytes: &[u8], signature: &[u8]| {
                key.verify(bytes, signature).is_ok()
            });
            Some(verify)
        }),
        capacity: Arc::new(|| Capacity {
            cpus: 4,
            ..Capacity::default()
        }),
        hosts,
        transport: Arc::new(Wire {
            from: host,
            net: net.clone(),
        }),
    };
    let replication = Replication::new(config, catalog.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    net.at.lock().unwrap().insert(host, at);
    let router = replication
        .router()
        .layer(axum::middleware::from_fn(name_caller));
    let served = stop.clone();
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(served.cancelled_owned());
        served.await.unwrap();
    });
    let (running, ended) = (replication.clone(), stop.clone());
    tokio::spawn(async move {
        running.run(ended).await;
        drop(sender);
    });
    Node {
        host,
        catalog,
        replication,
        stop,
    }
}

fn own_catalog(number: u16) -> Catalog {
    let catalog = Catalog::new();
    catalog.resume(HostId::new(number), 0, 0);
    catalog
}

impl Node {
    /// Machine `id` of this host, at `version`.
    fn publish(&self, id: u64, version: u64, state: types::machine::MachineState) {
        self.catalog.publish(Entry {
            host: self.host,
            ..entry("a", id, version, state)
        });
    }

    /// What is known here of each machine that is not destroyed.
    fn machines(&self) -> BTreeMap<String, (HostId, u64)> {
        let entries = self.catalog.list(&Filter::All).entries.into_iter();
        let row = |entry: Arc<Entry>| {
            let machine = &entry.machine;
            (machine.name.clone(), (entry.host, machine.revision))
        };
        entries.map(row).collect()
    }
}

async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_host_says_is_known_everywhere_at_once() {
    let net = Net::default();
    let mut nodes = Vec::new();
    for number in [2, 3, 4] {
        nodes.push(start(&net, number, own_catalog(number), &[2, 3, 4]).await);
    }
    for (node, id) in nodes.iter().zip(1..) {
        node.publish(id, 1, Started);
    }
    let all = || nodes.iter().all(|node| node.machines().len() == 3);
    eventually("three machines everywhere", all).await;
    let begun = Instant::now();
    nodes[0].publish(1, 2, Destroyed);
    let all = || nodes.iter().all(|node| node.machines().len() == 2);
    eventually("its end everywhere", all).await;
    eprintln!("an end was known everywhere after {:?}", begun.elapsed());
    for node in &nodes {
        assert_eq!(node.catalog.words().len(), 3);
        assert!(
            node.catalog
                .words()
                .iter()
                .all(|word| word.capacity.cpus == 4)
        );
        let age = node.catalog.word_age(HostId::new(3)).unwrap();
        assert!(age < Duration::from_secs(5), "{age:?}");
        assert_eq!(node.replication.dropped(), Dropped::default());
        // Nobody has looked whether they are there.
        let other = node.catalog.list(&Filter::All).entries;
        let other = other.iter().find(|entry| entry.host != node.host).unwrap();
        assert_eq!(other.machine.host_status, "unknown");
    }
}

#[tokio::test]
async fn a_word_travels_through_a_third_host() {
    let net = Net::default();
    net.cut(2, 4, true);
    let two = start(&net, 2, own_catalog(2), &[2, 3, 4]).await;
    let _three = start(&net, 3, own_catalog(3), &[2, 3, 4]).await;
    let four = start(&net, 4, own_catalog(4), &[2, 3, 4]).await;
    for id in 1..=300 {
        two.publish(id, id, Started);
    }
    eventually("all of them", || four.machines().len() == 300).await;
    assert_eq!(four.machines(), two.machines());
    assert!(four.catalog.word_age(two.host).is_some());
}

#[tokio::test]
async fn a_host_that_was_away_too_long_reads_everything() {
    let net = Net::default();
    let two = start(&net, 2, own_catalog(2), &[2, 3]).await;
    let three = start(&net, 3, own_catalog(3), &[2, 3]).await;
    two.publish(1, 1, Started);
    two.publish(2, 2, Started);
    eventually("both", || three.machines().len() == 2).await;
    net.cut(2, 3, true);
    two.publish(1, 3, Destroyed);
    // So many others end meanwhile that the end of the first is forgotten.
    let last = 4 + crate::catalog::DESTROYED_MAX as u64;
    for version in 4..=last {
        two.publish(1000 + version, version, Destroyed);
    }
    two.publish(3, last + 1, Started);
    net.cut(2, 3, false);
    eventually("the same", || three.machines() == two.machines()).await;
    let gone = three.catalog.get(&types::MachineId::from_bits(1)).unwrap();
    assert_eq!(gone.machine.state, Destroyed);
    // And it goes on.
    two.publish(4, last + 2, Started);
    eventually("the next", || three.machines() == two.machines()).await;
}

#[tokio::test]
async fn a_host_that_lost_its_ledger_is_believed_again() {
    let net = Net::default();
    let two = start(&net, 2, own_catalog(2), &[2, 3]).await;
    let three = start(&net, 3, own_catalog(3), &[2, 3]).await;
    two.publish(1, 1, Started);
    two.publish(2, 700, Started);
    eventually("both", || three.machines().len() == 2).await;
    drop(two);
    // The same host with nothing, and nothing that tells it so.
    let two = start(&net, 2, own_catalog(2), &[2, 3]).await;
    two.publish(3, 1, Started);
    let expected = BTreeMap::from([("m3".to_owned(), (two.host, 1))]);
    eventually("only the new one", || three.machines() == expected).await;
    assert!(two.catalog.position(two.host).unwrap().epoch > 0);
}

#[tokio::test]
async fn what_the_origin_has_not_signed_is_not_taken() {
    let net = Net::default();
    let two = start(&net, 2, own_catalog(2), &[2, 3]).await;
    two.publish(1, 1, Started);
    let stranger = Ed25519KeyPair::generate().unwrap();
    let forge = |origin: u16, version: u64| {
        let forged = Entry {
            host: HostId::new(origin),
            ..entry("a", version, version, Started)
        };
        let sign = |bytes: &[u8]| stranger.sign(bytes).as_ref().to_vec();
        Page {
            origin: forged.host,
            epoch: 0,
            after: version - 1,
            floor: 0,
            head: version,
            more: false,
            statements: vec![sign_entry(&forged, 0, &sign)],
        }
    };
    net.key(HostId::new(3));
    let from = HostId::new(3);
    two.replication.take_page(from, forge(3, 7), false).await;
    two.replication.take_page(from, forge(9, 7), false).await;
    // Not even of itself.
    two.replication.take_page(from, forge(2, 7), false).await;
    let expected = BTreeMap::from([("m1".to_owned(), (two.host, 1))]);
    assert_eq!(two.machines(), expected);
    let dropped = two.replication.dropped();
    assert_eq!((dropped.bad_signature, dropped.unknown_host), (2, 1));
}

#[tokio::test]
async fn who_passes_rows_on_cannot_leave_some_out() {
    let net = Net::default();
    // It pushes to nobody; and the liar cannot ask it.
    let two = start(&net, 2, own_catalog(2), &[2]).await;
    net.cut(2, 3, true);
    for id in 1..=3 {
        two.publish(id, id, Started);
    }
    let from_start = Position {
        epoch: two.catalog.position(two.host).unwrap().epoch,
        version: 0,
    };
    let shortened = || {
        let mut page = two.replication.page(two.host, from_start, false).unwrap();
        page.statements.drain(..2);
        page
    };
    let liar = start(&net, 3, own_catalog(3), &[2, 3]).await;
    liar.replication
        .take_page(liar.host, shortened(), false)
        .await;
    assert_eq!(liar.machines().len(), 1);
    assert_eq!(liar.catalog.position(two.host).unwrap().version, 3);

    let four = start(&net, 4, own_catalog(4), &[2, 3, 4]).await;
    exchange::exchange(&four.replication, liar.host)
        .await
        .unwrap();
    assert_eq!(four.machines(), two.machines());
    // And nobody pushes what is another's.
    let wire = Wire {
        from: liar.host,
        net: net.clone(),
    };
    let word = liar.replication.shared.word.borrow().clone();
    let push = super::super::codec::encode_push(&word, &shortened());
    let pushed = wire
        .ask(four.host, transport::PUSH, push.into(), Duration::ZERO)
        .await;
    assert!(pushed.unwrap_err().to_string().contains("403"));
}

#[tokio::test]
async fn a_host_that_leaves_the_fleet_takes_its_machines_with_it() {
    let net = Net::default();
    let two = start(&net, 2, own_catalog(2), &[2, 3]).await;
    let three = start(&net, 3, own_catalog(3), &[2, 3]).await;
    three.publish(1, 1, Started);
    eventually("its machine", || two.machines().len() == 1).await;
    net.cut(2, 3, true);
    net.keys.lock().unwrap().remove(&three.host);
    let known = [two.host].into();
    two.replication.forget_others(&known);
    assert!(two.machines().is_empty());
    assert_eq!(two.catalog.position(three.host), None);
}

#[tokio::test]
async fn a_host_that_has_left_the_fleet_is_not_heard_any_more() {
    let net = Net::default();
    // Its key is known for a little longer than its place in the fleet.
    let two = start(&net, 2, own_catalog(2), &[2]).await;
    let three = start(&net, 3, own_catalog(3), &[2, 3]).await;
    three.publish(1, 1, Started);
    let page = three
        .replication
        .page(three.host, Position::default(), false);
    let page = page.expect("it has rows");
    two.replication.take_page(three.host, page, false).await;
    let word = three.replication.shared.word.borrow().clone();
    two.replication.hear(word, Duration::ZERO);
    assert!(two.machines().is_empty());
    assert_eq!(two.catalog.position(three.host), None);
    assert!(two.catalog.word_age(three.host).is_none());
    assert_eq!(two.replication.dropped().unknown_host, 0);
}

#[tokio::test]
async fn other_hosts_are_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let net = Net::default();
    let three = start(&net, 3, own_catalog(3), &[2, 3]).await;
    three.publish(1, 1, Started);
    three.publish(2, 2, Started);
    let (catalog, disk) = Catalog::open(&path).unwrap();
    catalog.resume(HostId::new(2), 0, 0);
    let two = start(&net, 2, catalog, &[2, 3]).await;
    let stop = CancellationToken::new();
    let kept = tokio::spawn(disk.run(two.catalog.clone(), stop.clone()));
    eventually("both", || two.machines().len() == 2).await;
    three.publish(2, 3, Destroyed);
    eventually("one", || two.machines().len() == 1).await;
    let (seen, life) = (two.catalog.revision(), two.catalog.life());
    let position = two.catalog.position(three.host);
    stop.cancel();
    kept.await.unwrap();
    let machines = two.machines();
    drop(two);
    drop(three);
    let (again, _disk) = Catalog::open(&path).unwrap();
    again.resume(HostId::new(2), 0, 0);
    assert!(again.life() > life);
    assert_eq!(again.position(HostId::new(3)), position);
    let two = start(&net, 2, again, &[2, 3]).await;
    assert_eq!(two.machines(), machines);
    assert!(two.catalog.revision() > seen);
    assert!(two.catalog.subscribe(Filter::All, Some(seen)).is_err());
    assert!(two.catalog.word_age(HostId::new(3)).is_none());
}

#[test]
fn a_ledger_that_went_back_begins_another_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let host = HostId::new(2);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let epoch = |version| {
        let (catalog, disk) = Catalog::open(&path).unwrap();
        catalog.resume(host, version, 0);
        let stop = CancellationToken::new();
        stop.cancel();
        runtime.block_on(disk.run(catalog.clone(), stop));
        catalog.position(host).unwrap().epoch
    };
    let first = epoch(10);
    assert_eq!(epoch(12), first);
    let second = epoch(5);
    assert!(second > first);
    assert_eq!(epoch(5), second);
}
