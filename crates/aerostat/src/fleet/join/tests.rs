//! Joining on loopback: how it goes, and how it does not.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use types::HostId;
use types::fleet::CreateJoinToken;

use super::message::{self, ANSWER_BYTES_MAX, Answer, Hello, Request};
use super::*;
use crate::directory;
use crate::drain::Drain;
use crate::fleet::identity::Keys;
use crate::fleet::{Found, Identity, Token, invite};

/// A fleet of one host that lets others in.
struct Fleet {
    home: tempfile::TempDir,
    identity: Identity,
    directory: directory::Handle,
    address: SocketAddr,
    drain: Drain,
}

impl Fleet {
    async fn found() -> Self {
        let home = tempfile::tempdir().unwrap();
        let found = Found {
            number: None,
            name: "first".into(),
            region: "local".into(),
        };
        let identity = Identity::open(&home.path().join("fleet"), &found).unwrap();
        let config = store::Config::new(home.path().join("directory.db"));
        let store = Store::open(&config).unwrap();
        let directory = directory::Handle::open(store).await.unwrap();
        let record = identity.record("127.0.0.1:51821".parse().unwrap(), None);
        directory.put_host(record).await.unwrap();
        let mut fleet = Self {
            home,
            identity: identity.clone(),
            directory,
            address: "127.0.0.1:0".parse().unwrap(),
            drain: Drain::new(),
        };
        fleet.address = fleet.open(identity).await;
        fleet
    }

    /// Lets hosts in as `identity` can; where.
    async fn open(&self, identity: Identity) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = identity.record("127.0.0.1:51821".parse().unwrap(), None);
        let door = Door::new(identity, record, self.directory.clone());
        door.open(listener, &self.drain).unwrap();
        address
    }

    async fn token(&self) -> Token {
        self.token_of(Timestamp::now()).await
    }

    /// A token for an hour from `then`.
    async fn token_of(&self, then: Timestamp) -> Token {
        let request = CreateJoinToken::default();
        let (identity, directory) = (&self.identity, &self.directory);
        let made = invite(identity, directory, Some(self.address), &request, then).await;
        made.unwrap().token.parse().unwrap()
    }

    fn numbers(&self) -> Vec<u16> {
        let hosts = self.directory.hosts();
        hosts.iter().map(|host| host.id.number()).collect()
    }
}

/// A host that wants to join.
struct Newcomer {
    home: tempfile::TempDir,
    application: Application,
}

impl Newcomer {
    fn new(name: &str, token: Token) -> Self {
        let application = Application {
            token,
            number: None,
            name: name.to_owned(),
            region: "local".into(),
            advertise: None,
            mesh_port: 51821,
            gateway_port: Some(51820),
        };
        let home = tempfile::tempdir().unwrap();
        Self { home, application }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("fleet")
    }

    async fn join(&self) -> Result<Identity, JoinError> {
        self.join_at(SignedDuration::ZERO).await
    }

    /// With a clock that is `ahead`.
    async fn join_at(&self, ahead: SignedDuration) -> Result<Identity, JoinError> {
        join(&self.folder(), &self.application, || {
            Timestamp::now() + ahead
        })
        .await
    }

    /// Joins, which has to fail and to leave nothing.
    async fn refused(&self) -> JoinError {
        let error = self.join().await.unwrap_err();
        self.assert_nothing();
        error
    }

    fn assert_nothing(&self) {
        let left = std::fs::read_dir(self.home.path()).unwrap();
        assert_eq!(left.count(), 0, "something was left");
    }
}

/// A request with these keys, after `edit`; the stream on which the answer comes.
async fn send(
    newcomer: &Newcomer,
    keys: &Keys,
    edit: impl FnOnce(&mut Request),
) -> impl tokio::io::AsyncRead + Unpin {
    let token = &newcomer.application.token;
    let mut stream = client::connect(token, &Timestamp::now).await.unwrap();
    let hello: Hello = message::read(&mut stream, ANSWER_BYTES_MAX).await.unwrap();
    let request = client::request(&newcomer.application, keys, &stream, hello.clock_ms);
    let mut request = request.unwrap();
    edit(&mut request);
    message::write(&mut stream, &request).await.unwrap();
    stream
}

async fn answer(newcomer: &Newcomer, keys: &Keys, edit: impl FnOnce(&mut Request)) -> Answer {
    let mut stream = send(newcomer, keys, edit).await;
    message::read(&mut stream, ANSWER_BYTES_MAX).await.unwrap()
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        Answer::Joined(joined) => panic!("it was let in: {joined:?}"),
    }
}

#[tokio::test]
async fn a_host_joins_with_a_token_that_then_is_used() {
    let fleet = Fleet::found().await;
    let second = Newcomer::new("second", fleet.token().await);
    let identity = second.join().await.unwrap();
    assert_eq!(identity.fleet, fleet.identity.fleet);
    assert_eq!(identity.host, HostId::new(3));
    assert_eq!(identity.authority, HostId::new(2));
    assert!(!identity.is_authority());
    assert_eq!(identity.seeds[0].id, HostId::new(2));
    let record = fleet.directory.host(identity.host).unwrap();
    assert_eq!(record.endpoint.to_string(), "127.0.0.1:51821");
    assert_eq!(record.certificate, identity.certificate);
    let loaded = Identity::load(&second.folder()).unwrap().unwrap();
    assert_eq!(loaded.verify_key(), identity.verify_key());
    assert!(!second.folder().join("ca.key").exists());

    let third = Newcomer::new("third", second.application.token.clone());
    let error = third.refused().await;
    assert!(matches!(error, JoinError::Refused(Refusal::TokenUsed)));
    assert_eq!(fleet.numbers(), [2, 3]);
}

#[tokio::test]
async fn an_advertised_address_and_a_number_are_what_was_asked_for() {
    let fleet = Fleet::found().await;
    let mut second = Newcomer::new("second", fleet.token().await);
    second.application.number = Some(9);
    second.application.advertise = Some("2001:db8::9".parse().unwrap());
    let identity = second.join().await.unwrap();
    assert_eq!(identity.host, HostId::new(9));
    let record = fleet.directory.host(identity.host).unwrap();
    assert_eq!(record.endpoint.to_string(), "[2001:db8::9]:51821");
    let gateway = record.gateway.unwrap();
    assert_eq!(gateway.endpoint.to_string(), "[2001:db8::9]:51820");
    assert_eq!(
        gateway.public_key,
        identity.gateway_key.public().to_string()
    );
}

#[tokio::test]
async fn a_token_that_is_expired_or_unknown_lets_nobody_in() {
    let fleet = Fleet::found().await;
    let hours_ago = Timestamp::now() - SignedDuration::from_hours(2);
    let expired = Newcomer::new("second", fleet.token_of(hours_ago).await);
    let error = expired.refused().await;
    assert!(matches!(
        error,
        JoinError::Refused(Refusal::TokenExpired { .. })
    ));
    let made_up = Token::generate(fleet.address, fleet.identity.fingerprint());
    let error = Newcomer::new("second", made_up).refused().await;
    assert!(matches!(error, JoinError::Refused(Refusal::TokenUnknown)));
    assert_eq!(fleet.numbers(), [2]);
}

#[tokio::test]
async fn another_fleet_in_the_way_is_not_told_the_secret() {
    let (ours, theirs) = (Fleet::found().await, Fleet::found().await);
    let mut newcomer = Newcomer::new("second", ours.token().await);
    newcomer.application.token.address = theirs.address;
    let error = newcomer.refused().await;
    assert!(matches!(error, JoinError::Stranger { .. }), "{error}");
    assert_eq!(theirs.numbers(), [2]);
}

#[tokio::test]
async fn a_member_cannot_pretend_to_be_the_authority() {
    let fleet = Fleet::found().await;
    let member = Newcomer::new("second", fleet.token().await);
    let address = fleet.open(member.join().await.unwrap()).await;
    let mut third = Newcomer::new("third", fleet.token().await);
    third.application.token.address = address;
    let error = third.refused().await;
    assert!(matches!(error, JoinError::Stranger { .. }), "{error}");
    assert_eq!(fleet.numbers(), [2, 3]);
}

#[tokio::test]
async fn a_number_or_a_name_that_is_taken_is_refused_and_the_token_still_good() {
    let fleet = Fleet::found().await;
    let mut newcomer = Newcomer::new("second", fleet.token().await);
    newcomer.application.number = Some(2);
    let error = newcomer.refused().await;
    assert!(error.to_string().contains("duplicate host id"), "{error}");
    newcomer.application.number = Some(3);
    newcomer.application.name = "first".into();
    let error = newcomer.refused().await;
    assert!(matches!(
        error,
        JoinError::Refused(Refusal::NameTaken { .. })
    ));
    newcomer.application.name = "not a name".into();
    let error = newcomer.refused().await;
    assert!(matches!(error, JoinError::Refused(Refusal::Invalid { .. })));
    assert_eq!(fleet.numbers(), [2]);
    newcomer.application.name = "second".into();
    newcomer.join().await.unwrap();
}

#[tokio::test]
async fn clocks_an_hour_apart_are_named_and_the_token_still_good() {
    let fleet = Fleet::found().await;
    let newcomer = Newcomer::new("second", fleet.token().await);
    for (hours, side) in [(1, "3600 s ahead of"), (-1, "s behind")] {
        let wrong = SignedDuration::from_hours(hours);
        let error = newcomer.join_at(wrong).await.unwrap_err().to_string();
        assert!(error.contains(side) && error.contains("clock"), "{error}");
        newcomer.assert_nothing();
    }
    // One that does not look itself.
    let keys = Keys::generate().unwrap();
    let told = answer(&newcomer, &keys, |request| request.clock_ms += 3_600_000).await;
    let refusal = refusal(told);
    assert!(matches!(refusal, Refusal::Clock { ahead: true, .. }));
    assert_eq!(fleet.numbers(), [2]);
    newcomer.join().await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_had_again_with_the_same_keys_only() {
    let fleet = Fleet::found().await;
    let newcomer = Newcomer::new("second", fleet.token().await);
    let keys = Keys::generate().unwrap();
    drop(send(&newcomer, &keys, |_| {}).await);
    let deadline = Timestamp::now() + Duration::from_secs(10);
    while fleet.numbers().len() == 1 {
        assert!(Timestamp::now() < deadline, "the request was forgotten");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let Answer::Joined(again) = answer(&newcomer, &keys, |_| {}).await else {
        panic!("the same host was not let in");
    };
    assert_eq!(again.record.id, HostId::new(3));
    assert_eq!(fleet.directory.host(again.record.id), Some(again.record));
    let other = Keys::generate().unwrap();
    let told = answer(&newcomer, &other, |request| request.name = "other".into()).await;
    assert_eq!(refusal(told), Refusal::TokenUsed);
    assert_eq!(fleet.numbers(), [2, 3]);
}

#[tokio::test]
async fn a_request_that_was_changed_or_is_of_another_version_is_refused() {
    let fleet = Fleet::found().await;
    let newcomer = Newcomer::new("second", fleet.token().await);
    let (keys, other) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let mesh = other.mesh.public().to_string();
    let told = answer(&newcomer, &keys, |request| request.public_key = mesh).await;
    assert_eq!(refusal(told), Refusal::Proof);
    let told = answer(&newcomer, &keys, |request| request.version = 2).await;
    assert_eq!(refusal(told), Refusal::Version { supported: 1 });
    let told = answer(&newcomer, &keys, |request| request.mesh_port = 0).await;
    assert!(matches!(refusal(told), Refusal::Invalid { .. }));
    assert_eq!(fleet.numbers(), [2]);
}

#[tokio::test]
async fn garbage_and_endless_messages_are_hung_up_on() {
    let fleet = Fleet::found().await;
    let newcomer = Newcomer::new("second", fleet.token().await);
    let mut plain = TcpStream::connect(fleet.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // An alert, or nothing.
    let _ = plain.read_to_end(&mut rest).await;
    assert!(rest.len() < 64, "{rest:?}");
    let token = &newcomer.application.token;
    for bytes in [&b"\xff\xff\xff\xff{"[..], b"\0\0\0\x04nope"] {
        let mut stream = client::connect(token, &Timestamp::now).await.unwrap();
        let _: Hello = message::read(&mut stream, ANSWER_BYTES_MAX).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert_eq!(fleet.numbers(), [2]);
    newcomer.join().await.unwrap();
}

#[tokio::test]
async fn strangers_that_say_nothing_do_not_keep_others_out_for_ever() {
    let fleet = Fleet::found().await;
    let newcomer = Newcomer::new("second", fleet.token().await);
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(fleet.address).await.unwrap());
    }
    // Hung up on before anything is said.
    newcomer.refused().await;
    assert_eq!(fleet.numbers(), [2]);
    drop(silent);
    let deadline = Timestamp::now() + Duration::from_secs(10);
    while newcomer.join().await.is_err() {
        assert!(Timestamp::now() < deadline, "the door stays closed");
    }
}

#[tokio::test]
async fn what_is_no_fleet_is_named() {
    let fleet = Fleet::found().await;
    let mut newcomer = Newcomer::new("second", fleet.token().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    newcomer.application.token.address = listener.local_addr().unwrap();
    let garbage = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    });
    let error = newcomer.refused().await;
    assert!(matches!(error, JoinError::NoFleet { .. }), "{error}");
    garbage.await.unwrap();
    // Its listener is gone, too.
    let error = newcomer.refused().await;
    assert!(matches!(error, JoinError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let fleet = Fleet::found().await;
    let error = bind(fleet.address).await.unwrap_err().to_string();
    assert!(error.contains(&fleet.address.port().to_string()), "{error}");
    assert!(fleet.home.path().join("fleet").exists());
}
