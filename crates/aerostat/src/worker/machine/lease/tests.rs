//! Who may change a leased machine, and until when.

use serde_json::json;

use super::*;
use crate::worker::machine::Event;
use crate::worker::machine::tests::{at, machine};

fn asked(ttl_s: u64) -> LeaseRequest {
    LeaseRequest {
        owner: "personal".into(),
        description: "a deployment".into(),
        ttl: Duration::from_secs(ttl_s),
    }
}

fn nonce(text: &str) -> Nonce {
    Nonce::given(text)
}

fn leased(ttl_s: u64) -> Machine {
    let mut machine = machine(json!({"image": "x"}));
    let acquire = LeaseChange::Acquire(asked(ttl_s), nonce("a"));
    assert_eq!(machine.apply(at(0), Event::Lease(acquire)).unwrap(), []);
    machine
}

#[test]
fn while_it_is_leased_only_its_holder_may_ask() {
    let machine = leased(30);
    assert!(machine.admit(at(29), &Permit::Holder(nonce("a"))).is_ok());
    assert!(machine.admit(at(29), &Permit::Override).is_ok());
    for stranger in [Permit::None, Permit::Holder(nonce("b"))] {
        let refused = machine.admit(at(29), &stranger).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "machine ID 00000000000001 lease currently held by personal, expires at \
             2023-11-14T22:13:50Z"
        );
        assert!(
            machine.admit(at(30), &stranger).is_ok(),
            "it is over by itself"
        );
    }
}

#[test]
fn a_refresh_counts_from_now_and_not_after_the_end() {
    let mut machine = leased(30);
    let refresh = |seconds| Event::Lease(LeaseChange::Refresh(Duration::from_secs(seconds)));
    machine.apply(at(20), refresh(30)).unwrap();
    let lease = machine.lease(at(49)).unwrap();
    assert_eq!((&lease.nonce, lease.expires_at), (&nonce("a"), at(50)));
    let late = machine.apply(at(50), refresh(30));
    assert!(matches!(late, Err(Refused::LeaseNotFound)));
    assert!(machine.lease(at(51)).is_none());
}

#[test]
fn a_lease_that_is_given_back_or_over_can_be_had_again() {
    let mut machine = leased(30);
    let release = || Event::Lease(LeaseChange::Release);
    machine.apply(at(1), release()).unwrap();
    assert!(matches!(
        machine.apply(at(2), release()),
        Err(Refused::LeaseNotFound)
    ));
    let next = LeaseChange::Acquire(asked(5), nonce("b"));
    machine.apply(at(3), Event::Lease(next)).unwrap();
    assert_eq!(machine.lease(at(4)).unwrap().nonce, nonce("b"));
}

#[test]
fn an_end_is_due_and_then_nothing_is_kept() {
    let mut machine = leased(30);
    assert_eq!(machine.due(), Some(at(30)));
    machine.apply(at(29), Event::Tick).unwrap();
    assert!(machine.lease.is_some());
    machine.apply(at(30), Event::Tick).unwrap();
    assert_eq!((machine.lease.as_ref(), machine.due()), (None, None));
}

#[test]
fn what_the_machine_has_to_do_itself_needs_no_lease() {
    let mut machine = leased(30);
    machine.apply(at(1), Event::Start).unwrap();
    let unprepared = Event::Unprepared {
        boot: types::BootId(1),
        container: "app".into(),
        reason: "gone".into(),
    };
    machine.apply(at(2), unprepared).unwrap();
    assert_eq!(machine.shown_state(), types::machine::MachineState::Failed);
    assert!(machine.lease(at(2)).is_some());
}

#[test]
fn a_clock_that_was_wrong_makes_no_lease_that_lasts_for_years() {
    let mut machine = leased(30);
    let years_before = at(-100_000_000);
    assert!(machine.admit(years_before, &Permit::None).is_ok());
    machine.apply(years_before, Event::Tick).unwrap();
    assert_eq!(machine.lease, None);
    let long = Lease::begin(asked(1_000_000), nonce("c"), at(0));
    assert_eq!(long.expires_at, later(at(0), LEASE_TTL_MAX));
}

#[test]
fn a_nonce_is_twelve_digits() {
    let text = Nonce::random().to_string();
    assert_eq!(text.len(), 12);
    assert!(u64::from_str_radix(&text, 16).is_ok());
    assert_ne!(Nonce::random(), Nonce::random());
}

#[test]
fn a_row_of_before_there_were_leases_can_be_read() {
    let machine = machine(json!({"image": "x"}));
    let row = serde_json::to_string(&machine).unwrap();
    assert!(!row.contains("lease"));
    assert_eq!(serde_json::from_str::<Machine>(&row).unwrap(), machine);
    let leased = leased(30);
    let row = serde_json::to_string(&leased).unwrap();
    assert_eq!(serde_json::from_str::<Machine>(&row).unwrap(), leased);
}
