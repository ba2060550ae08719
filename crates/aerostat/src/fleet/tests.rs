//! Identities on a real disk, and records that claim what they are not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use types::HostId;
use types::fleet::HostRecord;

use super::*;

fn found(folder: &Path, number: Option<u16>) -> Result<Identity, IdentityError> {
    let found = Found {
        number,
        name: "first".into(),
        region: "local".into(),
    };
    Identity::open(folder, &found)
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("data/fleet");
    (home, folder)
}

fn record(identity: &Identity) -> HostRecord {
    identity.record("192.0.2.1:51821".parse().unwrap(), None)
}

#[test]
fn a_fleet_is_founded_once_and_its_keys_are_private() {
    let (_home, folder) = home();
    let first = found(&folder, None).unwrap();
    assert!(first.is_authority());
    assert_eq!((first.host, first.fleet.len()), (HostId::new(2), 64));
    let again = found(&folder, Some(2)).unwrap();
    assert_eq!(again.fleet, first.fleet);
    assert_eq!(again.certificate, first.certificate);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().flatten().collect();
    assert_eq!(files.len(), 7);
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
}

#[test]
fn a_configured_number_that_is_another_s_is_named() {
    let (_home, folder) = home();
    found(&folder, Some(7)).unwrap();
    let error = found(&folder, Some(8)).unwrap_err();
    assert!(
        matches!(
            error,
            IdentityError::Number {
                configured: 8,
                number: 7,
                ..
            }
        ),
        "{error}"
    );
    assert!(found(&folder, None).is_ok());
}

#[test]
fn what_a_killed_process_left_is_no_identity() {
    let (_home, folder) = home();
    let draft = folder.with_extension("new");
    fs::create_dir_all(&draft).unwrap();
    fs::write(draft.join("fleet.json"), "{").unwrap();
    assert!(Identity::load(&folder).unwrap().is_none());
    found(&folder, None).unwrap();
    assert!(!draft.exists());
}

#[test]
fn an_identity_of_parts_that_do_not_belong_together_is_refused() {
    let (_one, folder) = home();
    let (_two, other) = home();
    found(&folder, None).unwrap();
    found(&other, None).unwrap();
    for file in ["mesh.key", "host.key", "host.crt", "ca.key", "ca.crt"] {
        let kept = fs::read(folder.join(file)).unwrap();
        fs::copy(other.join(file), folder.join(file)).unwrap();
        let error = Identity::load(&folder).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{file}");
        fs::write(folder.join(file), kept).unwrap();
    }
    assert!(Identity::load(&folder).unwrap().is_some());
    let text = fs::read_to_string(folder.join("fleet.json")).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 2");
    fs::write(folder.join("fleet.json"), newer).unwrap();
    let error = Identity::load(&folder).unwrap_err();
    assert!(matches!(error, IdentityError::Newer { version: 2, .. }));
}

#[test]
fn a_record_gives_the_key_that_its_host_signs_with() {
    let (_home, folder) = home();
    let identity = found(&folder, None).unwrap();
    let key = verify_record(
        &identity.ca_certificate,
        &record(&identity),
        Timestamp::now(),
    );
    let key = key.unwrap();
    assert_eq!(key, identity.verify_key());
    let signature = identity.sign(b"word");
    assert!(key.verify(b"word", &signature));
    assert!(!key.verify(b"world", &signature));
    assert!(!key.verify(b"word", &signature[1..]));
}

#[test]
fn a_record_that_claims_more_than_was_certified_is_refused() {
    let (_one, folder) = home();
    let (_two, other) = home();
    let (identity, stranger) = (found(&folder, None).unwrap(), found(&other, None).unwrap());
    let now = Timestamp::now();
    let verify = |record: &HostRecord, now| verify_record(&identity.ca_certificate, record, now);
    let good = record(&identity);

    let mut bad = good.clone();
    bad.id = HostId::new(3);
    let host = bad.id;
    assert_eq!(verify(&bad, now), Err(BadRecord::OtherHost { host }));

    let mut bad = good.clone();
    bad.public_key = stranger.wireguard_key.public().to_string();
    let host = bad.id;
    assert_eq!(verify(&bad, now), Err(BadRecord::OtherKey { host }));

    let theirs = record(&stranger);
    assert_eq!(verify(&theirs, now), Err(BadRecord::Stranger { host }));

    let mut bad = good.clone();
    bad.certificate.clone_from(&identity.ca_certificate);
    assert!(matches!(
        verify(&bad, now),
        Err(BadRecord::Certificate { .. })
    ));

    for years in [-3, 11] {
        let then = now + SignedDuration::from_hours(years * 366 * 24);
        assert!(matches!(verify(&good, then), Err(BadRecord::Time { .. })));
    }
    let twice = good.certificate.repeat(2);
    for text in ["", "certificate", &twice, &"A".repeat(1 << 20)] {
        let mut bad = good.clone();
        text.clone_into(&mut bad.certificate);
        let refused = verify(&bad, now);
        assert!(matches!(refused, Err(BadRecord::Certificate { .. })));
    }
    assert!(verify(&good, now).is_ok());
}
