//! Stories as people read them.

use serde_json::{Value, json};

use super::super::find::tests::found;
use super::page::wrap;
use super::*;

const T0: i64 = 1_795_255_200_000;

fn event(at: i64, kind: &str, status: &str, source: &str, request: Value) -> Value {
    json!({"id": at.to_string(), "type": kind, "status": status, "source": source,
           "timestamp": T0 + at, "request": request})
}

/// The story of events given oldest first.
fn story(state: &str, restart: &Value, events: &[Value], at: i64) -> String {
    let mut found = found("shop", "abc0000000000a", "web");
    found.machine.state = serde_json::from_value(json!(state)).unwrap();
    found.machine.config.restart = serde_json::from_value(restart.clone()).unwrap();
    let events: Vec<Event> = events
        .iter()
        .rev()
        .map(|event| serde_json::from_value(event.clone()).unwrap())
        .collect();
    found.machine.events = events.clone();
    let now = Timestamp::from_millisecond(T0 + at).unwrap();
    text(&tell(&found, &events, now), Paint::NONE, usize::MAX)
}

#[test]
fn a_machine_that_runs_tells_who_bid_for_it() {
    let placement = json!({"placement": {"took_ms": 2, "bids": [
        {"host": "0002", "region": "local", "won": true, "offer": "3 GiB free, image here"},
        {"host": "0003", "region": "fra", "won": false, "refusal": "no room for 4096 MiB"},
    ]}});
    let events = [
        event(0, "launch", "created", "user", placement),
        event(12, "start", "starting", "user", Value::Null),
        event(46, "start", "started", "flyd", Value::Null),
    ];
    let text = story("started", &Value::Null, &events, 60_046);
    assert_eq!(
        text,
        "\
web (abc0000000000a) of app shop, from 2026-11-21 10:00:00 on

        0 ms  created from image docker.io/library/nginx:1.27, 1 shared cpu, 256 MiB, \
class container  (user)
              2 hosts were asked, and 0002 won in 2 ms:
                0002 (local)  won      3 GiB free, image here
                0003 (fra)  refused  no room for 4096 MiB
      +12 ms  was asked to start  (user)
      +34 ms  runs

now:  started, because it started and has run for 1 min 0 s
next: nothing is due
"
    );
}

#[test]
fn a_machine_that_falls_over_again_and_again_is_told_once() {
    let mut events = vec![event(0, "launch", "created", "user", Value::Null)];
    for round in 0..6i64 {
        let at = round * 1000;
        let exit = json!({"restart_count": round, "exit_event": {"exit_code": 1}});
        let again = json!({"restart_count": round + 1});
        events.push(event(at + 10, "start", "started", "flyd", Value::Null));
        events.push(event(at + 20, "exit", "stopped", "flyd", exit));
        if round < 5 {
            events.push(event(at + 900, "restart", "starting", "flyd", again));
        }
    }
    let policy = json!({"policy": "on-failure", "max_retries": 5});
    let text = story("stopped", &policy, &events, 10_000);
    assert!(text.contains("ended with exit code 1, unasked"), "{text}");
    assert!(
        text.contains("… the same 4 times more, until 2026-11-21 10:00:04"),
        "{text}"
    );
    assert!(
        text.contains(
            "now:  stopped, because it ended with exit code 1, and it had been started again 5 \
             times, which is all that its policy allows"
        ),
        "{text}"
    );
    assert!(
        text.contains("try:  aerostat machine logs shop/web"),
        "{text}"
    );
}

#[test]
fn lack_of_memory_is_named_and_more_of_it_proposed() {
    let exit = json!({"exit_event": {"exit_code": 137, "guest_signal": 9, "oom_killed": true}});
    let events = [
        event(0, "start", "started", "flyd", Value::Null),
        event(500, "exit", "stopped", "flyd", exit),
    ];
    let text = story("stopped", &json!({"policy": "no"}), &events, 1000);
    assert!(
        text.contains("was killed because it was out of memory"),
        "{text}"
    );
    assert!(text.contains("its policy is to leave it so"), "{text}");
    assert!(
        text.contains("try:  aerostat machine update shop/web --memory 512"),
        "{text}"
    );
}

#[test]
fn a_start_that_came_to_nothing_tells_the_reason() {
    let failed = json!({"message": "image docker.io/library/nginx:1.27 is in no registry"});
    let events = [
        event(0, "launch", "created", "user", Value::Null),
        event(900, "start", "failed", "flyd", failed),
    ];
    let text = story("failed", &Value::Null, &events, 1000);
    assert!(
        text.contains("     +900 ms  could not start: image docker.io/library/nginx:1.27"),
        "{text}"
    );
    assert!(
        text.contains("now:  failed, because image docker.io"),
        "{text}"
    );
}

#[test]
fn a_stop_that_was_asked_for_says_so() {
    let exit = json!({"exit_event": {"exit_code": 130, "guest_signal": 2, "requested_stop": true}});
    let events = [
        event(0, "stop", "stopping", "user", Value::Null),
        event(30, "exit", "stopped", "flyd", exit),
    ];
    let text = story("stopped", &Value::Null, &events, 1000);
    assert!(text.contains("was asked to stop  (user)"), "{text}");
    assert!(
        text.contains("because somebody stopped it; it was ended by SIGINT"),
        "{text}"
    );
}

#[test]
fn long_words_of_a_story_stay_in_their_column() {
    assert_eq!(wrap("aaa bbb ccc", usize::MAX, 2), "aaa bbb ccc");
    let wrapped = wrap("aaaaaaaaaa bbbbbbbbb ccc", 24, 4);
    assert_eq!(wrapped, "aaaaaaaaaa bbbbbbbbb\n    ccc");
}
