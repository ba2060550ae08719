//! A writer that is killed at any moment has lost nothing that it was told is written.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::{Config, Store};

const DATABASE: &str = "STORE_KILL_TEST_DATABASE";

/// The child's part; by itself it has nothing to do.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(DATABASE) else {
        return;
    };
    let store = Store::open(&Config::new(path)).expect("opens");
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let key = format!("/{writer}/{number}");
                let rev = store
                    .create(&key, Bytes::from(key.clone()), None)
                    .await
                    .expect("writes");
                // Standard error, because the test harness owns standard output.
                eprintln!("acknowledged {rev} {key}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writes until it is killed");
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--exact",
                "child_that_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(DATABASE, dir.path().join(format!("store{round}.db")))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts the child");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let is_acknowledgement = |line: &String| line.starts_with("acknowledged");
        let mut told: Vec<String> = lines
            .by_ref()
            .map_while(Result::ok)
            .filter(is_acknowledgement)
            .take(200 + 150 * round)
            .collect();
        child.kill().expect("kill -9");
        child.wait().expect("reaped");
        // What it managed to say between our last read and its death counts as well. A line that
        // the kill cut short does not.
        let rest = lines.map_while(Result::ok).filter(is_acknowledgement);
        told.extend(rest.filter(|line| line.split(' ').count() == 3));
        told.pop();
        acknowledged.push((round, told));
    }
    for (round, told) in acknowledged {
        let store = Store::open(&Config::new(dir.path().join(format!("store{round}.db"))))
            .expect("opens after the kill");
        assert!(told.len() >= 150, "the child wrote something");
        for line in told {
            let mut words = line.split(' ').skip(1);
            let rev: u64 = words
                .next()
                .and_then(|rev| rev.parse().ok())
                .expect("a revision");
            let key = words.next().expect("a key");
            let entry = store.get(key).unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!((entry.rev, &entry.value[..]), (rev, key.as_bytes()));
        }
    }
}
